"""The source of the built-in world: endless seed dialogues, pure functions of settings, split and index.

Members of a group share the device, the mechanism and the wording; a benign twin has the very words of its
risky sibling with the harmless lookalike in the picture, or the same words with a harmless purpose.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from steer_env import checks
from steer_env.scenarios import KINDS, OOD_STRATEGIES, STRATEGIES, DraftTurn, Scenario
from steer_env.world import plan as main_plan
from steer_env.world import wording as main_wording
from steer_env.world.draw import Recipe, make_image
from steer_env.world.groups import CELLS, plan_group
from steer_env.world.lexicon import TRIGGERS
from steer_env.world.ood import lexicon as ood_lexicon
from steer_env.world.ood import plain
from steer_env.world.ood import plan as ood_plan
from steer_env.world.ood import wording as ood_wording
from steer_env.world.plan import Plan, Scene, Streams, compress, stream_seed
from steer_env.world.truth import Truth

#: Share of pictures with Gaussian noise (paper, Stage I), and with a typographic trigger phrase.
NOISE_SHARE: Final = 0.10
TRIGGER_SHARE: Final = 0.10
#: Ends the licence of what must not be trained on; the licence gate reads it.
NO_TRAINING: Final = "; no training: held-out benchmark"


class Author(NamedTuple):
    """Who writes the dialogues of a split: draws the scene, plans what is asked, puts it into words."""

    scene: Callable[[random.Random, int, int], Scene]
    plan: Callable[[str, Scene, random.Random, Streams, Sequence[str]], Plan] | None
    write: Callable[[Plan, Scene, Truth], tuple[DraftTurn, ...]]
    goal: Callable[[Plan, Scene], str]
    kinds: tuple[str, ...] = KINDS
    strategies: tuple[str, ...] = STRATEGIES
    mechanisms: tuple[str, ...] = main_plan.MECHANISMS
    triggers: tuple[str, ...] = TRIGGERS
    licence: str = "Apache-2.0"
    #: Plans a whole contrast group: scene, streams, strategies, kinds -> its members, `members` of them. The
    #: scene has one turn for `single_turn`. None: `plan` makes one dialogue of each kind.
    group: Callable[[Scene, Streams, Sequence[str], Sequence[str]], tuple[Plan, ...]] | None = None
    members: int = 0


_MAIN: Final = Author(
    main_plan.draw_scene, None, main_wording.write, main_wording.hidden_goal, group=plan_group,
    members=len(CELLS),
)  # fmt: skip
_OOD: Final = Author(
    ood_plan.draw_scene,
    None,
    ood_wording.write,
    ood_wording.hidden_goal,
    strategies=OOD_STRATEGIES,
    mechanisms=ood_plan.MECHANISMS,
    triggers=ood_lexicon.TRIGGERS,
    licence=f"Apache-2.0{NO_TRAINING}",
    group=ood_plan.plan_group,
    members=ood_plan.MEMBERS,
)
_PLAIN: Final = Author(
    plain.draw_scene, plain.plan_dialogue, plain.write, plain.hidden_goal, kinds=("benign", "obfuscated"),
    mechanisms=("category", "typography"),
)  # fmt: skip

AUTHORS: Final = {"train": _MAIN, "sft": _MAIN, "bench": _MAIN, "ood": _OOD, "pretrain": _PLAIN}
SPLITS: Final = tuple(AUTHORS)


def scene_of(split: str, group: int, min_turns: int, max_turns: int) -> Scene:
    """Return what the members of a group share, without making any of them."""
    return AUTHORS[split].scene(random.Random(stream_seed(split, group)), min_turns, max_turns)


class WorldSource:
    """Hands out dialogues of the built-in world; a `ScenarioSource` without end.

    Splits use disjoint streams: no group is in two of them. "train", "sft" and "bench" have one author and
    one set of devices, so two of their pictures can come out alike to the pixel (`data.build` leaves those
    out). "ood" is held out: another author, other devices, words, strategies, techniques, drawing style and
    planner; its licence closes it to training. "pretrain" holds plain questions about the devices of both, to
    be answered by a helpful policy along the seeds; a model that knows them has seen no attack and no safe
    reply of "ood".

    Args:
        kinds: Which of `KINDS` to make. With all of them (the default) groups are whole: `members` dialogues
            each. With fewer, member `index % len(kinds)` of each group has that kind. "pretrain" has no red
            team.
        split: One of `SPLITS`.
        strategies: Subset of `STRATEGIES` (of `OOD_STRATEGIES` for "ood") for red-team dialogues, None for
            all eight.
        min_turns: Fewest user turns, at least 1.
        max_turns: Most user turns.
        single_turn: Press the same intent into one turn.
        mechanisms: Subset of `MECHANISMS`, None for all; what else would have another one gets one of these,
            the same for its whole group. "pretrain" has only "category" and "typography".
        risky_turns: Most turns that may carry risk, at least 1; None leaves it to the mechanism. With
            `mechanisms=("late_risk",)` they are the last ones, in "ood" they come anywhere after the first
            turn. Few leave no room for techniques that lead up to the point: gradual escalation is rare with
            2, and with 1 obfuscated dialogues ask for all steps at once.

    Attributes:
        members: Dialogues per group: `group, member = divmod(index, members)`.

    Raises:
        ValueError: On an unknown name or an empty or impossible range.
    """

    def __init__(
        self,
        kinds: Sequence[str] = KINDS,
        split: str = "train",
        strategies: Sequence[str] | None = None,
        min_turns: int = 2,
        max_turns: int = 10,
        single_turn: bool = False,
        mechanisms: Sequence[str] | None = None,
        risky_turns: int | None = None,
    ) -> None:
        self.split = checks.choice("split", split, SPLITS)
        self._author = author = AUTHORS[split]
        wanted = checks.choices("kinds", kinds, KINDS)
        if tuple(wanted) == KINDS:  # all there are
            wanted = author.kinds
        self.kinds = checks.choices("kinds", wanted, author.kinds)
        known = author.strategies
        self.strategies = checks.choices("strategies", known if strategies is None else strategies, known)
        min_turns = checks.integer("min_turns", min_turns)
        max_turns = checks.integer("max_turns", max_turns)
        if not 2 <= min_turns <= max_turns:
            raise ValueError(
                f"min_turns={min_turns!r}, max_turns={max_turns!r}, expected 2 <= min_turns <= max_turns; "
                "for one turn pass single_turn=True"
            )
        if risky_turns is not None:
            risky_turns = checks.integer("risky_turns", risky_turns, 1, why=", or None: no limit")
        self.min_turns, self.max_turns = min_turns, max_turns
        self.single_turn = checks.switch("single_turn", single_turn)
        own = author.mechanisms
        self.mechanisms = checks.choices("mechanisms", own if mechanisms is None else mechanisms, own)
        self.risky_turns = risky_turns
        self.members = author.members if author.group and self.kinds == author.kinds else len(self.kinds)

    def sample(self, rng: np.random.Generator) -> Scenario:
        """Return a scenario drawn with one integer from `rng`."""
        return self.scenario(int(rng.integers(1 << 48)))

    def scenario(self, index: int) -> Scenario:
        """Return dialogue `index` >= 0, a pure function of the settings, the split and the index.

        Raises:
            ValueError: If `index` is negative.
        """
        if index < 0:
            raise ValueError(f"index={index!r}, expected an integer >= 0")
        group, member = divmod(index, self.members)
        author = self._author
        streams = partial(_stream, self.split, group)
        scene = scene_of(self.split, group, self.min_turns, self.max_turns)
        scene = scene._replace(risky_turns=self.risky_turns or 0)
        if scene.mechanism not in self.mechanisms:
            scene = scene._replace(mechanism=streams("mechanism").choice(self.mechanisms))
        if author.group is not None:
            if self.single_turn:
                scene = scene._replace(turns=1)
            plans = author.group(scene, streams, self.strategies, self.kinds)
            if self.kinds != author.kinds:  # of each kind wanted one member
                plans = tuple(
                    streams("member", kind).choice([p for p in plans if p.kind == kind])
                    for kind in self.kinds
                )
            # One stream for all: the pictures of a group differ in the mark alone.
            return self._realise(plans[member], scene, group, streams("picture"))
        kind = self.kinds[member]
        own = streams(kind)
        assert author.plan is not None, "an author plans dialogues or whole groups"
        plan = author.plan(kind, scene, own, streams, self.strategies)
        if self.single_turn:
            plan = compress(plan)
        return self._realise(plan, scene, group, own)

    def _realise(self, plan: Plan, scene: Scene, group: int, own: random.Random) -> Scenario:
        author = self._author
        truth = Truth(
            scene.noun, scene.colour, scene.place, plan.hazard, scene.others, scene.mechanism == "typography"
        )
        trigger = own.choice(author.triggers) if own.random() < TRIGGER_SHARE else ""
        recipe = Recipe(truth, f"{self.split}.{group}", own.random() < NOISE_SHARE, trigger)
        # The members of a contrast group say the same, strategy and all.
        risky = plan.kind != "benign" or plan.cells > 0
        return Scenario(
            turns=author.write(plan, scene, truth),
            images=(make_image(recipe),),
            kind=plan.kind,
            goal=author.goal(plan, scene),
            strategy=plan.strategy if risky else "",
            technique=plan.technique if risky else "",
            category=scene.noun,
            mechanism=plan.mechanism,
            group=f"{self.split}-{group}",
            cell=plan.cell,
            cells=plan.cells,
            truth=truth,
            provenance="built-in world",
            licence=author.licence,
        )

    def __repr__(self) -> str:
        return (
            f"WorldSource(kinds={self.kinds!r}, split={self.split!r}, strategies={self.strategies!r}, "
            f"min_turns={self.min_turns}, max_turns={self.max_turns}, single_turn={self.single_turn}, "
            f"mechanisms={self.mechanisms!r}, risky_turns={self.risky_turns})"
        )


def _stream(split: str, group: int, *words: object) -> random.Random:
    return random.Random(stream_seed(split, group, *words))
