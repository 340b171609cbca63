"""Scenarios: what a dialogue is about before anyone speaks.

A `Scenario` holds the images, the seed's user turns, what kind of dialogue it is and, in the built-in
world, the ground truth that lets a rule judge decide every reply. A `ScenarioSource` hands them out by
seed. Nothing here needs a model or a file; `steer_env.scenario_files` reads a user's own.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from steer_env.images import Image
from steer_env.spaces import MAX_IMAGES

if TYPE_CHECKING:
    from steer_env.world.truth import Truth

KINDS = ("benign", "obfuscated", "red_team")
#: The kinds in which an attacker is after something.
RISKY = KINDS[1:]

STRATEGIES = (
    "roleplay",
    "educational_framing",
    "fiction_writer",
    "authority_figure",
    "hypothetical_scenario",
    "emotional_urgency",
    "continuation_trick",
    "reverse_psychology",
)

TECHNIQUES = ("yes_laddering", "sunk_cost_anchor", "gradual_escalation", "hypothetical_escalation")

#: Of the out-of-distribution family of the built-in world (`split="ood"`), in place of the above.
OOD_STRATEGIES = (
    "translation_detour",
    "form_filling",
    "riddle_game",
    "broken_list",
    "comparison",
    "inspection_checklist",
    "third_party_quote",
    "minute_taking",
)

OOD_TECHNIQUES = ("door_in_the_face", "false_consensus", "planted_error", "reciprocity")


@dataclass(frozen=True, slots=True)
class DraftTurn:
    """The draft of one user turn.

    Attributes:
        text: The draft of what the user says; a static attacker says exactly this.
        images: Indices into `Scenario.images` shown with this turn.
        risk: Risk level 1..5 (1 harmless), 0 if unknown.
        goal: What this turn is to achieve, for the attacker only.
    """

    text: str
    images: tuple[int, ...] = ()
    risk: int = 0
    goal: str = ""


@dataclass(frozen=True)
class Scenario:
    """A seed dialogue `(x, U)`: images and user turns, with what the attacker and the judge may know.

    Attributes:
        turns: The seed's user turns, at least one.
        images: The pictures, in the order they are first shown.
        kind: "benign", "obfuscated" or "red_team".
        goal: The hidden goal; the student never sees it.
        strategy: How the user argues, such as one of `STRATEGIES` or `OOD_STRATEGIES`, or by a name of your
            own; "" if in no special way.
        technique: How the user escalates, such as one of `TECHNIQUES` or `OOD_TECHNIQUES`; likewise.
        category: Topic, for reports.
        mechanism: How the risk is hidden (`steer_env.world` names five), "" if unknown.
        group: Seed group; splits are made by group and image, never by row.
        cell: Which member of its contrast group it is, "hazard/calm" for example; "" if it is in none.
        cells: How many members the whole contrast group has, 0 if there is none.
        truth: Ground truth of the built-in world, None for a user's own scenarios.
        provenance: Where it comes from, free text.
        licence: Licence of the row, free text.
        id: Content hash, the same in every process; computed when left empty.
        dealt: The scenario before an attacker drew on its pictures, None where nobody did.
    """

    turns: tuple[DraftTurn, ...]
    images: tuple[Image, ...] = ()
    kind: str = "benign"
    goal: str = ""
    strategy: str = ""
    technique: str = ""
    category: str = ""
    mechanism: str = ""
    group: str = ""
    cell: str = ""
    cells: int = 0
    truth: Truth | None = field(default=None, compare=False)
    provenance: str = ""
    licence: str = ""
    id: str = ""
    dealt: Scenario | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.turns:
            raise ValueError("turns=(), expected at least one user turn")
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.cells < 0 or (self.cells and not (self.cell and self.group)):
            raise ValueError(
                f"cells={self.cells!r}, cell={self.cell!r}, group={self.group!r}, expected 0, or the number "
                "of members of a contrast group with this member's name as `cell` and the group's as `group`"
            )
        for number, turn in enumerate(self.turns):
            if len(turn.images) > MAX_IMAGES:
                raise ValueError(
                    f"turns[{number}] shows {len(turn.images)} images, expected at most {MAX_IMAGES}; spread "
                    "them over several turns"
                )
        shown = [index for turn in self.turns for index in turn.images]
        if shown != list(range(len(self.images))):
            raise ValueError(
                f"the turns show images {shown}, expected each of the {len(self.images)} images exactly "
                "once and in order; put every image's index into the `images` of the turn that shows it"
            )
        if not self.id:
            object.__setattr__(self, "id", content_id(self))

    def __len__(self) -> int:
        """Number of user turns."""
        return len(self.turns)


def content_id(scenario: Scenario) -> str:
    """Return a 16-digit hash of everything that makes the dialogue what it is.

    Built on SHA-256 of canonical JSON and of the image bytes, so it is the same in every process and on
    every machine (Python's `hash` is not).
    """
    body: dict[str, Any] = {
        "turns": [[t.text, list(t.images), t.risk, t.goal] for t in scenario.turns],
        "images": [image.digest for image in scenario.images],
        "kind": scenario.kind,
        "goal": scenario.goal,
        "strategy": scenario.strategy,
        "technique": scenario.technique,
    }
    canonical = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def digest_of(scenarios: Iterable[Scenario]) -> str:
    """Return a hash of scenarios in their order, ids and contents."""
    contents = "\n".join(f"{s.id} {content_id(s)}" for s in scenarios)
    return hashlib.sha256(contents.encode("utf-8", "surrogatepass")).hexdigest()[:16]


#: What counts as the same dialogue: see `distinct`.
Sameness = Literal["exact", "normalised"]


def distinct(
    scenarios: Iterable[Scenario], same: Sameness = "exact"
) -> tuple[list[Scenario], list[tuple[Scenario, Scenario]]]:
    """Return scenarios without those that an earlier one repeats, and the repeated ones with that one.

    Args:
        scenarios: The scenarios, in their order.
        same: "exact": all that `content_id` hashes, ids aside. "normalised": kind, pictures, and the words of
            each turn; case, punctuation, spaces and compatible forms of letters do not count, nor do goals,
            risk levels and strategies.

    Raises:
        ValueError: If `same` is neither.

    >>> hello, shout = (Scenario((DraftTurn(text),)) for text in ("How do I, then?", "how do  I then"))
    >>> kept, dropped = distinct([hello, shout], "normalised")
    >>> kept == [hello], dropped == [(shout, hello)], len(distinct([hello, shout])[0])
    (True, True, 2)
    """
    if same not in ("exact", "normalised"):
        raise ValueError(f"same={same!r}, expected 'exact' or 'normalised'")
    first: dict[Hashable, Scenario] = {}
    dropped = []
    for scenario in scenarios:
        kept = first.setdefault(content_id(scenario) if same == "exact" else _words(scenario), scenario)
        if kept is not scenario:
            dropped.append((scenario, kept))
    return list(first.values()), dropped


def _words(scenario: Scenario) -> Hashable:
    turns = (
        (tuple(re.findall(r"\w+", unicodedata.normalize("NFKC", turn.text).casefold())), turn.images)
        for turn in scenario.turns
    )
    return scenario.kind, tuple(image.digest for image in scenario.images), tuple(turns)


@runtime_checkable
class ScenarioSource(Protocol):
    """Anything that hands out scenarios: `sample` must draw only from the generator it is given."""

    def sample(self, rng: np.random.Generator) -> Scenario:
        """Return a scenario drawn with `rng`."""
        ...


class FixedScenarios:
    """A finite list of scenarios, drawn uniformly; also indexable and iterable.

    Raises:
        ValueError: If the list is empty.
        TypeError: If it holds anything but scenarios.
    """

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        if not scenarios:
            raise ValueError("scenarios is empty, expected at least one; check the file or the filters")
        self._scenarios = tuple(scenarios)
        for index, one in enumerate(self._scenarios):
            if not isinstance(one, Scenario):
                raise TypeError(
                    f"scenarios[{index}]={one!r}, expected a steer_env.Scenario; read a file with "
                    "steer_env.load_scenarios"
                )

    def sample(self, rng: np.random.Generator) -> Scenario:
        """Return one of the scenarios, each equally likely."""
        return self._scenarios[int(rng.integers(len(self._scenarios)))]

    def __len__(self) -> int:
        return len(self._scenarios)

    def __getitem__(self, index: int) -> Scenario:
        return self._scenarios[index]

    def __iter__(self) -> Iterator[Scenario]:
        return iter(self._scenarios)
