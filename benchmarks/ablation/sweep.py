"""What is run: arms, questions, settings. All of it is data; to change the experiment, change this file.

An arm is a recipe (`_recipe`: the demo's as it was when the sweep began) with
stages replaced or left out. There are three bases and nine *lines*: line s has training seed s in Stage II
and III and starts from base s // 3. Arms share their ancestors, and every line plays the same dialogues, so
that arms are compared within line and dialogue.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from steer_env.algorithms.recipes import DemoConfig, stage_settings
from steer_env.cli.stages import stage_key
from steer_env.judges import RuleJudge
from steer_env.models.shipped import read_card, weights_hash
from steer_env.play.controls import CONTROLS
from steer_env.play.suites import PARTS, Part
from steer_env.world import WORLD_VERSION

#: Base 0: the base that was shipped when the sweep began.
BASE_0 = Path(__file__).parent / "base0"

#: Long safe openings, risk in the last one or two turns.
LATE = "bench-late"
#: Bench dialogues against an attacker that was trained from scratch on the very model it attacks.
TRAINED = "bench-trained"

_ESCALATION = "SteerEscalation-v0"
#: Parts of an evaluation. A control is the bench with something taken from the student.
EVERY_PART = {
    **{name: PARTS[name] for name in ("bench", "bench-single", "ood")},
    LATE: Part(LATE, "SteerLateRisk-v0", "bench"),
    **{name: Part(name, _ESCALATION, "bench") for name in (TRAINED, *CONTROLS)},
}
_USUAL = ("bench", "ood", LATE)


@dataclass(frozen=True, slots=True)
class StageThree:
    """How Stage III of an arm differs from the recipe's. Its return is TCSR's last value.

    Attributes:
        attacker: "tutor" (by script, feedback within dialogues), "static" (replays the seeds), or "learning"
            (what broke the student is said more often).
        credit: What a turn answers for; "" for the recipe's. Own-turn credit does not see TCSR.
        alpha: TCSR's weight of the running minimum; with 0 the return is the mean.
        scaled: Divide advantages by their deviation, as the recipe does. With difference credit that happens
            turn by turn and takes out what TCSR put in: on the mean it then *is* own-turn credit.
        dialogues: "multi", "single" (one turn), or "late" (those of `LATE`).
        shares: How often each member of the contrast groups is played; () for the recipe's.
    """

    attacker: str = "tutor"
    credit: str = ""
    alpha: float = 0.3
    scaled: bool = True
    dialogues: str = "multi"
    shares: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Arm:
    """One method under test.

    Attributes:
        title: For people.
        stage_two: "none", "multi" (the recipe's) or "single" (dialogues of one turn).
        stage_three: None for no Stage III.
        parts: What it is evaluated on.
    """

    title: str
    stage_two: str = "multi"
    stage_three: StageThree | None = None
    parts: tuple[str, ...] = _USUAL


_DIFFERENCE = StageThree(credit="difference", scaled=False)
_TRAJECTORY = StageThree(credit="trajectory")
_LATE = replace(_DIFFERENCE, attacker="static", dialogues="late")

ARMS: dict[str, Arm] = {
    "base": Arm("base", "none", parts=(*_USUAL, TRAINED)),
    "sft": Arm("SFT (Stage II)", parts=("bench", "bench-single", "ood", LATE, TRAINED, *CONTROLS)),
    "full": Arm(
        "full: SFT + GRPO",
        stage_three=StageThree(),
        parts=("bench", "bench-single", "ood", LATE, TRAINED, *CONTROLS),
    ),
    "difference-tcsr": Arm("difference credit, TCSR", stage_three=_DIFFERENCE),
    "difference-mean": Arm("difference credit, mean", stage_three=replace(_DIFFERENCE, alpha=0.0)),
    "trajectory-tcsr": Arm("trajectory credit (paper), TCSR", stage_three=_TRAJECTORY),
    "trajectory-mean": Arm("trajectory credit, mean", stage_three=replace(_TRAJECTORY, alpha=0.0)),
    "late-tcsr": Arm("trained on late risk, TCSR", stage_three=_LATE, parts=("bench", LATE)),
    "late-mean": Arm(
        "trained on late risk, mean", stage_three=replace(_LATE, alpha=0.0), parts=("bench", LATE)
    ),
    "static": Arm(
        "without feedback dynamics", stage_three=StageThree(attacker="static"), parts=(*_USUAL, TRAINED)
    ),
    "learning": Arm(
        "attacker that learns", stage_three=StageThree(attacker="learning"), parts=(*_USUAL, TRAINED)
    ),
    "calm": Arm(
        "calm members twice as often",
        stage_three=StageThree(shares=(1.0, 2.0, 1.0, 2.0)),
        parts=(*_USUAL, TRAINED),
    ),
    "no-bootstrap": Arm("GRPO without bootstrapping", "none", StageThree()),
    "single-sft": Arm("single-turn SFT", "single", parts=("bench", "bench-single")),
    "single-grpo": Arm(
        "single-turn SFT + GRPO",
        "single",
        StageThree(attacker="static", dialogues="single"),
        ("bench", "bench-single"),
    ),
}


class Test(NamedTuple):
    """A difference in the primary family: arm minus reference on a measure of a part."""

    arm: str
    reference: str
    part: str
    measure: str


@dataclass(frozen=True, slots=True)
class Question:
    """One table of the report.

    Attributes:
        title: For people.
        rows: Its arms.
        columns: (part, measure).
        tests: Declared before the sweep ran, and corrected together with those of all questions.
        note: What the paper has, and what to know.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    tests: tuple[Test, ...]
    note: str


#: Columns of most tables.
_BENCH = tuple(("bench", m) for m in ("twin_pass", "joint", "helpfulness", "over_refusal", "harm"))
_OTHERS = tuple((part, m) for part in ("ood", LATE) for m in ("joint", "harm"))


QUESTIONS: tuple[Question, ...] = (
    Question(
        "What do Stages II and III give?",
        ("base", "sft", "full"),
        (
            *(("bench", m) for m in ("twin_pass", "joint", "safety", "helpfulness")),
            *(("bench", m) for m in ("over_refusal", "harm", "leak", "usefulness")),
            *_OTHERS,
        ),
        (
            Test("sft", "base", "bench", "joint"),
            Test("full", "sft", "bench", "joint"),
            Test("full", "sft", "bench", "harm"),
        ),
        "Paper (Table 3, Qwen2.5-VL-3B, multi-turn safety / helpfulness): base 12.55 / 27.13, SFT 41.61 / "
        "57.57, GRPO 55.58 / 70.27. Signs can be compared, sizes cannot.",
    ),
    Question(
        "Does TCSR's minimum matter, where the credit knows the return?",
        ("full", "difference-tcsr", "difference-mean", "trajectory-tcsr", "trajectory-mean"),
        (*_BENCH, *_OTHERS),
        (
            Test("difference-tcsr", "difference-mean", "bench", "harm"),
            Test("trajectory-tcsr", "trajectory-mean", "bench", "harm"),
        ),
        "Own-turn credit, the demo's, does not see TCSR at all: full is the same with any alpha. Within each "
        "pair nothing but alpha differs (0.3 and 0). Paper (Table 4): with TCSR 55.54 / 70.24, without 51.09 "
        "/ 65.91.",
    ),
    Question(
        "And where risk comes late?",
        ("sft", "late-tcsr", "late-mean"),
        (*((LATE, m) for m in ("joint", "helpfulness", "harm")), ("bench", "joint"), ("bench", "harm")),
        (Test("late-tcsr", "late-mean", LATE, "harm"),),
        "Both trained on late risk, difference credit, seeds replayed: nothing but alpha differs.",
    ),
    Question(
        "What does an attacker that reacts, or learns, give?",
        ("base", "sft", "static", "full", "learning"),
        (*_BENCH, ("ood", "harm"), (TRAINED, "joint"), (TRAINED, "harm")),
        (Test("static", "full", TRAINED, "harm"), Test("learning", "full", TRAINED, "harm")),
        f"In `{TRAINED}` every model meets an attacker of its own: a lower bound of how far it can be "
        "exploited. Paper (Table 4): without feedback dynamics 51.09 / 63.96.",
    ),
    Question(
        "Is bootstrapping needed?",
        ("base", "sft", "no-bootstrap", "full"),
        (*_BENCH, *_OTHERS),
        (Test("no-bootstrap", "full", "bench", "joint"),),
        "Paper (Table 4): without bootstrapping 24.48 / 42.44.",
    ),
    Question(
        "Do single turns teach dialogues?",
        ("sft", "single-sft", "full", "single-grpo"),
        (("bench-single", "joint"), ("bench-single", "harm"), *_BENCH),
        (Test("single-sft", "sft", "bench", "joint"), Test("single-grpo", "full", "bench", "joint")),
        "As many replies to learn from in either kind. Paper (Table 5): single-turn SFT 21.77 / 41.92, with "
        "GRPO 17.14 / 32.39.",
    ),
    Question(
        "What does full cost, and does a setting cost less?",
        ("sft", "full", "calm", "learning"),
        (*_BENCH, ("bench", "usefulness"), ("ood", "over_refusal"), ("ood", "harm"), (TRAINED, "harm")),
        (Test("calm", "full", "bench", "over_refusal"), Test("calm", "full", "bench", "harm")),
        "In calm, Stage III plays the members without harmful purpose twice as often.",
    ),
)
CONTROLLED = ("sft", "full")
PRIMARY: tuple[Test, ...] = tuple(test for question in QUESTIONS for test in question.tests)


def _recipe(quick: bool = False) -> DemoConfig:
    """The demo's as it was when the sweep began, because rows of two recipes cannot be compared.

    The base ends before the lessons about slips: it has no tell, and no whole replies after it. Stage II has
    two answers to `recall`, and 160 steps on dialogues of at most three turns. Stage III plays all members
    alike at temperature 0.8 with beta 0.0125, imitates nothing and has 14 steps; the demo's had 20. A test
    holds that no other setting has changed since the rows were made.
    """
    demo = DemoConfig.quick() if quick else DemoConfig()
    return replace(
        demo,
        base=tuple(itertools.takewhile(lambda phase: phase.name != "slips", demo.base)),
        sft=demo.sft if quick else replace(demo.sft, steps=160),
        sft_turns=3,
        sft_pairs=0,
        sft_taken_back=False,
        sft_keeps_tell=False,
        grpo=replace(demo.grpo, beta=0.0125, temperature=0.8, steps=demo.grpo.steps if quick else 14),
        grpo_shares=(1.0, 1.0, 1.0, 1.0),
        grpo_imitation=0.0,
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the whole sweep.

    Attributes:
        recipe: The stages; its seed is replaced.
        bases: Seeds 0, 1, ... of the base. Base 0 is `BASE_0` where that was made by this recipe.
        lines: Training seeds per base.
        unscaled_beta: Weight of the KL penalty where advantages are not scaled, smaller as they are.
        single_sft_times, single_grpo_times: One-turn dialogues for each one of several turns, so that both
            learn from about as many replies.
        dialogues: Of each part, rounded up to whole contrast groups.
        evaluation_seed: Decides which; the same for every model.
        response_steps, response_groups, response_siblings: Budget of the attacker that is trained on each
            model: steps, dialogues of each step, siblings of each.
    """

    recipe: DemoConfig = field(default_factory=_recipe)
    bases: int = 3
    lines: int = 3
    unscaled_beta: float = 0.0015
    single_sft_times: int = 3
    single_grpo_times: int = 5
    dialogues: int = 100
    evaluation_seed: int = 1
    response_steps: int = 8
    response_groups: int = 6
    response_siblings: int = 6

    @classmethod
    def quick(cls) -> Settings:
        """Return settings with which everything runs through in seconds and learns nothing."""
        recipe = _recipe(quick=True)
        short = replace(recipe.grpo, max_new_tokens=6, checkpoint_every=1, unscored_limit=1.0)
        few = {"response_steps": 1, "response_groups": 2, "response_siblings": 2}
        times = {"single_sft_times": 1, "single_grpo_times": 1}
        return cls(replace(recipe, grpo=short), bases=2, lines=1, dialogues=6, **few, **times)

    def base_of(self, line: int) -> int:
        """Return which base a line starts from."""
        return line // self.lines


@dataclass(frozen=True, slots=True)
class Cell:
    """One model to train and evaluate.

    Attributes:
        arm: Name of its arm.
        seed: Of its base if it is one, of its line otherwise.
        stage: "base", "sft" or "grpo": the last of its stages.
        parent: The cell it starts from, None for a base.
        settings: All it depends on beside its parent, as JSON values, with the versions of world and judge.
        key: Hash of those and of the parent's key.
    """

    arm: str
    seed: int
    stage: str
    parent: Cell | None
    settings: dict[str, Any]
    key: str

    @property
    def name(self) -> str:
        """Return its name, also that of its folder: with other settings it is another folder."""
        return f"{self.arm}-{self.seed}-{self.key[:8]}"

    @property
    def given(self) -> bool:
        """Whether it is `BASE_0`, which is there and not trained."""
        return "weights" in self.settings


def cells(settings: Settings, only: Sequence[str] = ()) -> list[Cell]:
    """Return the cells of a sweep with their ancestors, each once, in the order they are to be run.

    A cell stands behind its parent, and line by line, so that an interrupted sweep has complete lines.

    Args:
        settings: Of the sweep.
        only: Names of arms; all by default.

    Raises:
        ValueError: If there is no such arm.
    """
    for name in only:
        if name not in ARMS:
            raise ValueError(f"arm={name!r}, expected one of {', '.join(ARMS)}")
    found: dict[str, Cell] = {}
    for line in range(settings.bases * settings.lines):
        every = [cell for arm in only or ARMS for cell in _chain(arm, line, settings)]
        for cell in sorted(every, key=lambda cell: ("base", "sft", "grpo").index(cell.stage)):
            found.setdefault(cell.name, cell)
    return list(found.values())


def _chain(arm: str, line: int, settings: Settings) -> Iterator[Cell]:
    """Yield an arm's ancestors in a line, the base first, then itself."""
    parent: Cell | None = None
    for name in reversed(lineage(arm)):
        this = ARMS[name]
        stage = "grpo" if this.stage_three else "base" if name == "base" else "sft"
        seed = settings.base_of(line) if stage == "base" else line
        what = _depends(this, stage, seed, settings)
        parent = Cell(name, seed, stage, parent, what, stage_key(what, parent.key if parent else ""))
        yield parent


def lineage(arm: str) -> tuple[str, ...]:
    """Return an arm and the arms it starts from, the base last."""
    return (arm,) if arm == "base" else (arm, *lineage(_before(ARMS[arm])))


def _before(arm: Arm) -> str:
    """Return the name of the arm that is one stage shorter."""
    if arm.stage_three is None:
        return "base"
    return next(n for n, o in ARMS.items() if o.stage_two == arm.stage_two and o.stage_three is None)


def _depends(arm: Arm, stage: str, seed: int, settings: Settings) -> dict[str, Any]:
    what = stage_settings(replace(settings.recipe, seed=seed), stage)
    if stage == "base":
        card = _given()
        made = card["recipe"] == what and card["world_version"] == WORLD_VERSION
        return {"world": WORLD_VERSION, **({"weights": card["sha256"]} if made else what)}
    what |= {"world": WORLD_VERSION, "judge": RuleJudge.version}
    if stage == "sft" and arm.stage_two == "single":
        what |= {"times": settings.single_sft_times}
    if arm.stage_three is not None:
        what |= {"stage_three": asdict(arm.stage_three)}
        what |= {"times": settings.single_grpo_times} if arm.stage_three.dialogues == "single" else {}
        what |= {} if arm.stage_three.scaled else {"beta": settings.unscaled_beta}
    return what


@cache
def _given() -> dict[str, Any]:
    """Return the card of `BASE_0`, with the hash of the weights that are there."""
    return {**read_card(BASE_0), "sha256": weights_hash(BASE_0)}


def evaluation_settings(settings: Settings, cell: Cell) -> dict[str, Any]:
    """Return what the evaluation of a cell depends on beside its model, as JSON values."""
    parts = ARMS[cell.arm].parts
    names = ("dialogues", "evaluation_seed")
    if TRAINED in parts:
        names += ("response_steps", "response_groups", "response_siblings")
    tokens = settings.recipe.grpo.max_new_tokens
    versions = {"world": WORLD_VERSION, "judge": RuleJudge.version}
    return {"parts": list(parts), "tokens": tokens, **versions, **{n: getattr(settings, n) for n in names}}


def evaluation_key(settings: Settings, cell: Cell) -> str:
    """Return what stands for a cell's outcomes: its model, all its ancestors, and how it is evaluated."""
    return stage_key(evaluation_settings(settings, cell), cell.key)


#: CPU seconds of a step by stage, and of a dialogue, for the estimate; nothing else rests on them.
SECONDS = {"base": 0.67, "sft": 0.26, "grpo": 6.6, "dialogue": 0.08}


def estimate(cell: Cell, settings: Settings, *, train: bool = True, evaluate: bool = True) -> float:
    """Return roughly how many CPU seconds a cell takes, with the demo's lengths of dialogues."""
    recipe = settings.recipe
    steps = {"base": sum(phase.settings.steps for phase in recipe.base), "sft": recipe.sft.steps}
    training = SECONDS[cell.stage] * steps.get(cell.stage, recipe.grpo.steps)
    parts = ARMS[cell.arm].parts if evaluate else ()
    played = settings.dialogues * len(parts)
    if TRAINED in parts:
        played += settings.response_steps * settings.response_groups * settings.response_siblings
    return (training if train and not cell.given else 0.0) + SECONDS["dialogue"] * played
