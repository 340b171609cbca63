"""What is run: arms, settings, comparisons. All of it is data; to change the experiment, change this file.

An arm is a recipe of three stages with some of them replaced or left out. Arms with equal stages are one
model and are trained once ("mean only" is alpha = 0, alpha = 0.3 is the full method), and arms share their
ancestors. Training seed s of every arm starts from the same base, shares the Stage II model of seed s where
it has one, and is evaluated on the same dialogues, so that arms differ by seed and dialogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from steer_env.algorithms.recipes import REPLY_TOKENS, DemoConfig, stage_settings
from steer_env.cli.stages import stage_key
from steer_env.play.suites import PARTS, Part

#: Part of the evaluation that nobody plays by a script: bench dialogues against an attacker trained from
#: scratch against the very model it attacks.
TRAINED = "bench-trained"
#: Part with long safe openings and risk in the last one or two turns.
LATE = "bench-late"

_OWN_PARTS = {
    LATE: Part(LATE, "SteerLateRisk-v0", "bench"),
    TRAINED: replace(PARTS["bench"], name=TRAINED),
}


@dataclass(frozen=True, slots=True)
class StageThree:
    """How Stage III of an arm differs from the paper's.

    Attributes:
        alpha: TCSR's weight of the running minimum.
        returns: "final" (published code: the last TCSR value), "sum" (paper's text: sum of TCSR values),
            "mean", or "last": the reward of the last turn and nothing else, without TCSR.
        attacker: "learning" (feedback within dialogues and across them: what broke the student is said more
            often), "tutor" (by script: feedback within dialogues) or "static" (replays the seeds).
        turns: "multi", "single", or "late": `SteerLateRisk-v0`, a long safe opening and risk at the end.
    """

    alpha: float = 0.3
    returns: str = "final"
    attacker: str = "learning"
    turns: str = "multi"


@dataclass(frozen=True, slots=True)
class Arm:
    """One method under test.

    Attributes:
        name: For options, files and tables.
        title: For people.
        paper: What it stands for in the paper (SaFeR-Steer, arXiv 2604.16358).
        stage_two: "none", "multi" (bootstrapped dialogues) or "single" (one-turn dialogues).
        stage_three: None for no Stage III.
        parts: Names of the parts it is evaluated on, None for all.
    """

    name: str
    title: str
    paper: str
    stage_two: str = "multi"
    stage_three: StageThree | None = None
    parts: tuple[str, ...] | None = None

    @property
    def stages(self) -> tuple[str, StageThree | None]:
        """Return what makes it the model it is; arms with equal stages are one model."""
        return (self.stage_two, self.stage_three)


#: Long safe openings and replayed seeds: nothing but the return differs between these arms.
_LATE = StageThree(attacker="static", turns="late")

ARMS: tuple[Arm, ...] = (
    Arm("base", "base", "Table 3, base model", "none"),
    Arm("sft", "SFT", "Table 3, + SFT (Stage II); Table 5, multi-turn SFT"),
    Arm(
        "full",
        "full (SFT + GRPO)",
        "Table 3, + GRPO (Stage III); Tables 4 and 5, full",
        "multi",
        StageThree(),
    ),
    Arm("no-bootstrap", "without bootstrapping", "Table 4, w/o bootstrapping", "none", StageThree()),
    Arm("mean-only", "without TCSR: mean only", "Table 4, w/o TCSR", "multi", StageThree(alpha=0.0)),
    Arm(
        "last-turn", "without TCSR: last turn only", "Table 4, w/o TCSR", "multi", StageThree(returns="last")
    ),
    Arm("sum", "TCSR values summed (paper's text)", "", "multi", StageThree(returns="sum")),
    Arm("tutor", "feedback within dialogues only", "", "multi", StageThree(attacker="tutor")),
    Arm(
        "static",
        "without feedback dynamics",
        "Table 4, w/o feedback dynamics",
        "multi",
        StageThree(attacker="static"),
    ),
    Arm("single-sft", "single-turn SFT", "Table 5, single-turn SFT", "single"),
    Arm(
        "single-grpo",
        "single-turn SFT + GRPO",
        "Table 5, single-turn SFT + GRPO",
        "single",
        StageThree(attacker="static", turns="single"),
    ),
    Arm("late-tcsr", "late risk: TCSR", "", "multi", _LATE, ("bench", LATE)),
    Arm("late-mean", "late risk: mean only", "", "multi", replace(_LATE, alpha=0.0), ("bench", LATE)),
    Arm("alpha-0", "alpha = 0", "", "multi", StageThree(alpha=0.0)),
    Arm("alpha-0.3", "alpha = 0.3", "", "multi", StageThree(alpha=0.3)),
    Arm("alpha-0.6", "alpha = 0.6", "", "multi", StageThree(alpha=0.6)),
    Arm("alpha-1", "alpha = 1", "", "multi", StageThree(alpha=1.0)),
)

#: (arm, reference): the differences that are tested, arm minus reference.
COMPARISONS: tuple[tuple[str, str], ...] = (
    ("sft", "base"),
    ("full", "sft"),
    ("no-bootstrap", "full"),
    ("mean-only", "full"),
    ("last-turn", "full"),
    ("static", "full"),
    ("single-sft", "sft"),
    ("single-grpo", "full"),
)
#: Compared too, in the secondary family ("mean-only" is alpha = 0).
SECONDARY: tuple[tuple[str, str], ...] = (
    ("tutor", "full"),
    ("tutor", "static"),
    ("sum", "full"),
    ("alpha-0.6", "full"),
    ("alpha-1", "full"),
    ("late-tcsr", "sft"),
    ("late-mean", "late-tcsr"),
)
_MEASURES = (("bench", "safety"), ("bench", "helpfulness"), (TRAINED, "harm"), ("ood", "harm"))
#: (arm, reference, part, measure) of the primary family, corrected together: every one of `COMPARISONS` on
#: four measures, and the mean alone where risk comes late.
PRIMARY: tuple[tuple[str, str, str, str], ...] = (
    *((*pair, *measure) for pair in COMPARISONS for measure in _MEASURES),
    ("late-mean", "late-tcsr", LATE, "harm"),
)
#: (alpha, arm) of the alpha sweep.
ALPHAS: tuple[tuple[float, str], ...] = (
    (0.0, "alpha-0"),
    (0.3, "alpha-0.3"),
    (0.6, "alpha-0.6"),
    (1.0, "alpha-1"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the whole sweep.

    Attributes:
        recipe: The three stages; its seed is replaced by each training seed.
        seeds: Training seeds, the same for every arm.
        shared_base: One base for all training seeds, as in the paper, where the base is a given model;
            results then hold for this base. False trains one for each seed.
        single_sft_times: One-turn dialogues of Stage II for each of the multi-turn one's (2 or 3 turns), so
            that both learn from about as many replies.
        single_grpo_times: The same for Stage III (2 to 10 turns).
        credit: What a turn answers for. The arms differ in the return, which only credit that knows the
            return shows; the recipe's own compares turns by their own rewards.
        sum_beta: Weight of the KL penalty where a return is a sum over a dialogue's turns.
        short_beta: The same where it is as large as one turn's reward, so that the penalty weighs about as
            much against it.
        parts: Of the evaluation, see `part_of`.
        dialogues: Of each part, rounded up to whole scenario groups.
        evaluation_seed: Decides which dialogues; the same for every arm and training seed.
        reply_tokens: Longest reply in evaluation, which is greedy.
        response_steps, response_groups, response_siblings: Budget of the attacker that is trained against
            each model: steps, dialogues of each step, siblings of each.
    """

    recipe: DemoConfig = field(default_factory=DemoConfig)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    shared_base: bool = True
    single_sft_times: int = 3
    single_grpo_times: int = 6
    credit: str = "trajectory"
    sum_beta: float = 0.05
    short_beta: float = 0.01
    parts: tuple[str, ...] = ("bench", "bench-single", "ood", "ood-single", LATE, TRAINED)
    dialogues: int = 150
    evaluation_seed: int = 1
    reply_tokens: int = REPLY_TOKENS
    response_steps: int = 12
    response_groups: int = 8
    response_siblings: int = 6

    @classmethod
    def quick(cls) -> Settings:
        """Return settings with which everything runs through in seconds and learns nothing."""
        recipe = DemoConfig.quick()
        short = replace(recipe.grpo, max_new_tokens=6, checkpoint_every=1, unscored_limit=1.0)
        return cls(
            recipe=replace(recipe, grpo=short), seeds=(0, 1), dialogues=6,
            parts=("bench", "ood-single", LATE, TRAINED),
            response_steps=1, response_groups=2, response_siblings=2,
            single_sft_times=1, single_grpo_times=1, reply_tokens=6,
        )  # fmt: skip


#: Seconds on one core, for the estimate before anything has been timed: nothing else rests on them.
SECONDS = {"base": 360.0, "sft": 15.0, "grpo_step": 3.3, "dialogue": 0.025}


@dataclass(frozen=True, slots=True)
class Cell:
    """One model to train and evaluate: a model of the sweep at a training seed.

    Attributes:
        model: Name of the first arm that has these stages.
        seed: Training seed.
        stage: "base", "sft" or "grpo": the last of its stages.
        arm: That first arm.
        parent: Name of the cell it starts from, None for a base.
        settings: All it depends on beside its parent, as JSON values.
        key: Hash of those settings and of the parent's key.
    """

    model: str
    seed: int
    stage: str
    arm: Arm
    parent: str | None
    settings: dict[str, Any]
    key: str

    @property
    def name(self) -> str:
        """Return its name, also that of its folder: with other settings it is another folder."""
        return f"{self.model}-s{self.seed}-{self.key[:8]}"


def arm_named(name: str) -> Arm:
    """Return an arm.

    Raises:
        ValueError: If there is none of this name.
    """
    for arm in ARMS:
        if arm.name == name:
            return arm
    raise ValueError(f"arm={name!r}, expected one of {', '.join(arm.name for arm in ARMS)}")


def model_of(arm: Arm) -> str:
    """Return the name of the model an arm is: that of the first arm with the same stages."""
    return next(other.name for other in ARMS if other.stages == arm.stages)


def parent_of(arm: Arm) -> Arm | None:
    """Return the arm that is one stage shorter, None for the base."""
    if arm.stage_three is not None:
        return next(other for other in ARMS if other.stages == (arm.stage_two, None))
    return (
        None if arm.stage_two == "none" else next(other for other in ARMS if other.stages == ("none", None))
    )


def cells(settings: Settings, only: Sequence[str] = (), seeds: Iterable[int] | None = None) -> list[Cell]:
    """Return the cells of a sweep with their ancestors, each once, in the order they are to be run.

    A cell stands behind its parent, and all of a training seed before the next one, so that an interrupted
    sweep has complete seeds.

    Args:
        settings: Of the sweep.
        only: Names of arms; all by default.
        seeds: Training seeds; those of the settings by default.
    """
    arms = [arm_named(name) for name in only] or list(ARMS)
    found: dict[str, Cell] = {}
    for seed in settings.seeds if seeds is None else seeds:
        line = [cell for arm in arms for cell in _line(arm, seed, settings)]
        for cell in sorted(line, key=lambda cell: ("base", "sft", "grpo").index(cell.stage)):
            found.setdefault(cell.name, cell)
    return list(found.values())


def _line(arm: Arm, seed: int, settings: Settings) -> Iterator[Cell]:
    """Yield an arm's ancestors at a training seed, the base first, then itself."""
    before = parent_of(arm)
    parent: Cell | None = None
    for parent in _line(before, seed, settings) if before else ():
        yield parent
    stage = "grpo" if arm.stage_three else "base" if arm.stage_two == "none" else "sft"
    seed = settings.seeds[0] if stage == "base" and settings.shared_base else seed
    what = _depends(arm, stage, seed, settings)
    key = stage_key(what, parent.key if parent else "")
    yield Cell(model_of(arm), seed, stage, arm_named(model_of(arm)), parent and parent.name, what, key)


def _depends(arm: Arm, stage: str, seed: int, settings: Settings) -> dict[str, Any]:
    what = stage_settings(replace(settings.recipe, seed=seed), stage)
    if stage == "sft":
        what |= {"stage_two": arm.stage_two}
        what |= {"times": settings.single_sft_times} if arm.stage_two == "single" else {}
    if arm.stage_three is not None:
        what |= {"stage_three": asdict(arm.stage_three)}
        what["grpo"] |= {"beta": beta_of(arm.stage_three, settings), "credit": settings.credit}
        what |= {"times": settings.single_grpo_times} if arm.stage_three.turns == "single" else {}
    return what


def part_of(name: str) -> Part:
    """Return a part of the evaluation: of the suites, or one of the sweep's own.

    Raises:
        ValueError: If there is no such part.
    """
    parts = {**PARTS, **_OWN_PARTS}
    if name not in parts:
        raise ValueError(f"part={name!r}, expected one of {', '.join(parts)}")
    return parts[name]


def part_names() -> tuple[str, ...]:
    """Return the names of all parts, in the order of tables."""
    return (*PARTS, *_OWN_PARTS)


def beta_of(stage: StageThree, settings: Settings) -> float:
    """Return the weight of the KL penalty, by the size of the return."""
    summed = stage.returns == "sum" and stage.turns != "single"
    return settings.sum_beta if summed else settings.short_beta


def parts_of(arm: Arm, settings: Settings) -> tuple[str, ...]:
    """Return the parts an arm is evaluated on, in the order of the settings."""
    return tuple(part for part in settings.parts if arm.parts is None or part in arm.parts)


def evaluation_settings(settings: Settings, arm: Arm) -> dict[str, Any]:
    """Return what an evaluation of an arm depends on beside the model, as JSON values."""
    parts = parts_of(arm, settings)
    names = ("dialogues", "evaluation_seed", "reply_tokens")
    if TRAINED in parts:
        names += ("response_steps", "response_groups", "response_siblings")
    return {"parts": list(parts), **{name: getattr(settings, name) for name in names}}


def estimate(cell: Cell, settings: Settings) -> float:
    """Return roughly how many seconds a cell takes on one core."""
    training = SECONDS.get(cell.stage, SECONDS["grpo_step"] * settings.recipe.grpo.steps)
    parts = parts_of(cell.arm, settings)
    played = settings.dialogues * len(parts)
    if TRAINED in parts:
        played += settings.response_steps * settings.response_groups * settings.response_siblings
    return training + SECONDS["dialogue"] * played
