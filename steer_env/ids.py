"""Environment ids: what each stands for, and those that installed packages bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_env import checks, naming

if TYPE_CHECKING:
    from steer_env.judges.base import Judge
    from steer_env.scenarios import Scenario, ScenarioSource

    #: A JSONL file, a list, a source, or one of your own by name.
    Scenarios = str | Path | Sequence[Scenario] | ScenarioSource

NAMESPACE = "steer_env"
#: The student's seat with dialogue acts in place of text (`steer_env.acts`).
ACTS = f"{NAMESPACE}/SteerActs-v0"


@dataclass(frozen=True)
class Spec:
    """What an id stands for.

    Attributes:
        id: Such as "SteerEscalation-v0".
        summary: One line for people.
        attacker: Name of the attacker that the single-agent view embeds and rollouts use by default.
        world: Options of the built-in world.
        scenarios: What it plays in place of the built-in world: see `make`.
        judge: Who scores in place of the rule judge: a name or an object.
        wrappers: In place of the usual ones: see `make`.
    """

    id: str
    summary: str
    attacker: str = "tutor"
    world: Mapping[str, Any] = field(default_factory=dict)
    scenarios: Scenarios | None = None
    judge: str | Judge = "rule"
    wrappers: Sequence[str | Callable[[Any], Any]] | None = None


SPECS: dict[str, Spec] = {
    spec.id: spec
    for spec in (
        Spec(
            "SteerEscalation-v0",
            "all three kinds of dialogue; the tutor escalates on what the student just did",
        ),
        Spec(
            "SteerBenign-v0",
            "harmless tasks and benign twins of risky dialogues",
            world={"kinds": ("benign",)},
        ),
        Spec(
            "SteerObfuscated-v0", "risk in pieces that each look harmless", world={"kinds": ("obfuscated",)}
        ),
        Spec(
            "SteerRedTeam-v0",
            "strategies and escalation that break a compliant target",
            world={"kinds": ("red_team",)},
        ),
        Spec(
            "SteerLateRisk-v0",
            "eight to ten turns: a long safe opening, risk in the last one or two (ood: anywhere), replayed",
            attacker="static",
            world={"mechanisms": ("late_risk",), "risky_turns": 2, "min_turns": 8},
        ),
        Spec("SteerStatic-v0", "all kinds, seed turns replayed without adaptation", attacker="static"),
        Spec(
            "SteerSingleTurn-v0",
            "all kinds, the whole intent in one turn",
            attacker="static",
            world={"single_turn": True},
        ),
    )
}


#: Entry points of packages with environments of their own; each is a module or function that registers them.
PLUGINS = "steer_env.plugins"


@cache
def load_plugins() -> None:
    """Let installed packages register their environments; one that fails is named in a warning."""
    import warnings
    from importlib.metadata import entry_points

    for point in entry_points(group=PLUGINS):
        try:
            found = point.load()
            if callable(found):
                found()
        except Exception as error:  # somebody else's package must not keep ours from working
            told = f"{type(error).__name__}: {error}"
            warnings.warn(f"plugin {point.name!r} ({point.value}) failed: {told}", stacklevel=2)


def env_ids() -> list[str]:
    """Return the known environment ids, those of installed packages with them."""
    load_plugins()
    return list(SPECS)


def spec(id: str) -> Spec:
    """Return the spec of an id.

    Args:
        id: With or without "steer_env/". "module:ID" and "file.py:ID" first load what registers it.

    Raises:
        ValueError: If the id is unknown; the message lists the known ones.
        TypeError: If it is not a string.
    """
    if not isinstance(id, str):
        raise TypeError(f"id={id!r}, expected a string; known ids: {', '.join(SPECS)}")
    home, _, name = id.rpartition(":")
    bare = name.removeprefix(f"{NAMESPACE}/")
    if home:
        naming.load_home(home)
    elif bare not in SPECS:
        load_plugins()
    if bare not in SPECS:
        hint = checks.suggestion(bare, SPECS)
        if bare == ACTS.removeprefix(f"{NAMESPACE}/"):
            hint = f"; it has the student's seat only: gymnasium.make({ACTS!r}) or gymnasium.make_vec"
        raise ValueError(f"id={id!r} is no environment of steer_env{hint}; known ids: {', '.join(SPECS)}")
    return SPECS[bare]
