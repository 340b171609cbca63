"""Settings of a training run: how they are checked, and how `config.json` keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from steer_env.algorithms.averaging import AVERAGES
from steer_env.algorithms.base import Algorithm
from steer_env.algorithms.checks import check_choice, check_integers, check_numbers
from steer_env.algorithms.curriculum import Curriculum
from steer_env.algorithms.overlong import OVERLONG
from steer_env.algorithms.scaling import Scaling
from steer_env.algorithms.schedule import SCHEDULES
from steer_env.play.evaluate import judge_of
from steer_env.records import Row
from steer_env.rollout import VectorEnv
from steer_env.runs import RunFolder
from steer_env.versions import versions_in, versions_of


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of a training run that do not depend on the algorithm.

    Attributes:
        steps: Number of steps.
        seeds_per_step: Seeds (groups) per step.
        group_size: K, dialogues per seed; the paper has 5.
        lr: Learning rate of AdamW.
        warmup: Steps over which the learning rate rises to `lr`.
        lr_schedule: After that "constant", or a "linear" or "cosine" fall over the steps left.
        final_lr: Share of `lr` at the end of that fall, in [0, 1].
        weight_decay: AdamW's.
        epochs: Passes over a step's dialogues.
        minibatch_size: Dialogues per optimiser step, 0 for all.
        microbatch_size: Most dialogues per forward pass; changes memory and speed, not results.
        microbatch_tokens: Most tokens per forward pass, padding included.
        target_kl: Leave out the updates of a step that are still to come once the policy is this far from
            where the step began: mean estimate of KL(before to now) per token, in nats; 0 takes them all.
        max_grad_norm: Gradients are clipped to this norm.
        temperature: Of the sampled replies.
        max_new_tokens: Longest reply; one that is cut there trains as any other ("keep"), not at all
            ("mask"), or with `overlong_penalty` taken from its advantage ("penalise"); see `overlong`.
        overlong: Which of the three.
        overlong_penalty: For "penalise".
        seed: Decides the dialogues' seeds, the sampling and the order of mini-batches.
        unscored_limit: Stop when more than this share of turns has no verdict.
        unscored_window: Steps over which that share is taken.
        checkpoint_every: Steps between checkpoints; the last step always gets one.
        average: Keep a mean of the weights after each step beside them: over the last half of the steps
            ("tail"), or exponential ("ema"); see `averaging`.
        average_decay: Of "ema": share of the mean that a step keeps, in [0, 1).
        eval_every: Steps between evaluations on dialogues that stay the same, after the last step as well; 0
            does without. See `validation`.
        eval_dialogues: How many dialogues that is.
        final_weights: What the student has at the end: its "last" weights, the "average", or those of the
            step that was evaluated "best" (the last where no evaluation had a verdict).

    Raises:
        ValueError: If a setting is out of its range.
    """

    steps: int = 100
    seeds_per_step: int = 8
    group_size: int = 5
    lr: float = 1e-4
    warmup: int = 0
    lr_schedule: str = "constant"
    final_lr: float = 0.0
    weight_decay: float = 0.0
    epochs: int = 1
    minibatch_size: int = 0
    microbatch_size: int = 32
    microbatch_tokens: int = 2048
    target_kl: float = 0.0
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    max_new_tokens: int = 48
    overlong: str = "keep"
    overlong_penalty: float = 0.5
    seed: int = 0
    unscored_limit: float = 0.05
    unscored_window: int = 20
    checkpoint_every: int = 20
    average: str = "none"
    average_decay: float = 0.9
    eval_every: int = 0
    eval_dialogues: int = 64
    final_weights: str = "last"

    def __post_init__(self) -> None:
        counts: tuple[str, ...] = (
            "steps",
            "seeds_per_step",
            "group_size",
            "epochs",
            "max_new_tokens",
            "checkpoint_every",
        )
        counts += ("microbatch_size", "microbatch_tokens", "unscored_window", "eval_dialogues")
        check_integers(self, counts, 1)
        check_integers(self, ("warmup", "minibatch_size", "seed", "eval_every"), 0)
        check_numbers(self, ("lr", "weight_decay", "target_kl", "overlong_penalty"))
        check_numbers(self, ("max_grad_norm",), above=True, why="; a huge one switches clipping off")
        check_numbers(self, ("temperature",), above=True, why=": greedy siblings are all equal")
        check_numbers(self, ("unscored_limit", "final_lr", "average_decay"), 0, 1)
        check_choice(self, "lr_schedule", SCHEDULES)
        check_choice(self, "average", AVERAGES)
        check_choice(self, "overlong", OVERLONG)
        check_choice(self, "final_weights", ("last", "average", "best"))
        for final, needed, why in (
            ("average", self.average != "none", "average"),
            ("best", self.eval_every, "eval_every"),
        ):
            if self.final_weights == final and not needed:
                raise ValueError(
                    f"final_weights={final!r} with {why}={getattr(self, why)!r}, expected {why} to be set: "
                    "there would be no such weights"
                )


#: File of a run folder with the settings of the loop.
CONFIG: Final = "config.json"

#: These may change without changing what was computed.
_FREE = {"steps", "checkpoint_every", "microbatch_size", "microbatch_tokens"}


def settings_of(
    algorithm: Algorithm, config: TrainConfig, scaling: Scaling, env: VectorEnv | Curriculum
) -> Row:
    """Return the settings of a run by name, as its config.json holds them."""
    settings = {"algorithm": algorithm.name, **asdict(config), **algorithm.options(), **asdict(scaling)}
    if isinstance(env, Curriculum):
        settings["curriculum"] = env.describe()
    # Rewards of another world or judge are other rewards.
    return settings | versions_of(judge_of(env.env if isinstance(env, Curriculum) else env))


def check_run(run_dir: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Refuse to overwrite a run, or to go on with one that was started with other settings.

    Raises:
        RunExists: In either case.
    """
    run = RunFolder(run_dir, CONFIG)
    old = run.stored()
    old |= versions_in(old)
    # Runs from before a setting existed had its default.
    then = {key: old.get(key, _default(settings, key)) for key in settings}
    free = _FREE - {"steps"} if _decided_by_steps(settings) else _FREE
    run.check(settings, resume=resume, free=free, stored=then)


def _decided_by_steps(settings: Mapping[str, Any]) -> bool:
    """Whether earlier steps would have gone otherwise with another number of steps."""
    return settings.get("lr_schedule", "constant") != "constant" or settings.get("average") == "tail"


def _default(settings: Mapping[str, Any], key: str) -> Any:
    from steer_env.algorithms.base import algorithm_class

    for owner in (algorithm_class(settings["algorithm"]), Scaling, TrainConfig):
        for field in fields(owner):
            if field.name == key and field.default is not MISSING:
                return field.default
    return None
