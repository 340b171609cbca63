"""Multi-turn GRPO against a live environment (SaFeR-Steer, arXiv 2604.16358), the default algorithm.

A step plays K dialogues for each of several seeds, compares what each turn answers for (`credit`: its own
reward by default) with the siblings' at the same turn, gives every student token of the turn that advantage,
and takes a clipped policy-gradient step with a KL penalty to the frozen first policy. `grpo_paper` is the
paper's: every token of a dialogue gets the dialogue's whole return (the sum of TCSR values) minus the mean of
its group.

The loop is `trainer`, advantages and loss are `policy`. Where this departs from the paper, and why:

- The defaults of `lr`, `seeds_per_step` and `steps` suit small models; the paper's are 1e-5, and 64 dialogues
  a step in mini-batches of 2.
- Tokens are averaged over the batch (`aggregation="token"`), the paper does not say how; "sequence" is GRPO's
  own.
- The KL penalty is k2, whose gradient is that of KL(policy to reference); the paper does not say which one it
  has, GRPO's own is k3 (`kl="k3"`). `beta` is 0.025, the paper's 0.1 (its published script
  has 0.001) scaled to advantages that are smaller by as much.
- Turns without a verdict are masked and count as an average turn in the return, and dialogues without any
  verdict are left out of their group's mean; the published code gives them reward 0. Dialogues that failed
  (a lost server) are left out altogether; the limit on unscored turns counts each as one.
- Returns are not divided by the group's standard deviation, as in the paper; `scale=True` does.
- Tokens are those that were sampled, never decoded and encoded again; the mask covers exactly them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from steer_env.agents.base import Agent
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms import trainer
from steer_env.algorithms.base import register_algorithm
from steer_env.algorithms.checks import check_integers
from steer_env.algorithms.policy import PolicyGradient
from steer_env.algorithms.trainer import Progress, TrainConfig, step_seeds
from steer_env.records import Row
from steer_env.rollout import VectorEnv

__all__ = ["GRPO", "GRPOConfig", "Progress", "Row", "step_seeds", "train"]


@register_algorithm("grpo")
@dataclass(kw_only=True)
class GRPO(PolicyGradient):
    """GRPO with credit per turn: the mean of the group at the same turn as baseline, a KL penalty."""

    least_group: ClassVar[int] = 2


@register_algorithm("grpo_paper")
@dataclass(kw_only=True)
class PaperGRPO(GRPO):
    """SaFeR-Steer's GRPO: one advantage for all turns of a dialogue, its return minus the group's mean."""

    beta: float = 0.1
    credit: str = "trajectory"


@dataclass(frozen=True, slots=True)
class GRPOConfig(TrainConfig):
    """Settings of a GRPO run: those of the loop (`TrainConfig`) and the most used ones of the algorithm.

    Attributes:
        beta: Weight of the KL penalty; 0 does without the reference model. The paper has 0.1 and its credit.
        kl: The KL penalty, "k2", "k3" or "reward", see `PolicyGradient`.
        clip_low: How far the probability ratio may fall below 1, in (0, 1].
        clip_high: How far it may rise above 1 (DAPO's clip-higher if larger than `clip_low`).
        scale: Divide advantages by the group's standard deviation.
        aggregation: "token", "sequence" or "constant", see `loss_weights`.
        credit: What the tokens of a turn answer for, see `credit`; "trajectory" is the paper's.
        discount: Of "discounted", in [0, 1].

    Raises:
        ValueError: If a setting is out of its range.
    """

    beta: float = 0.025
    kl: str = "k2"
    clip_low: float = 0.2
    clip_high: float = 0.2
    scale: bool = False
    aggregation: str = "token"
    credit: str = "own_turn"
    discount: float = 0.5

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)  # super() does not know a class that slots made anew
        check_integers(self, ("group_size",), 2, ": advantages compare siblings")
        self.algorithm()

    def algorithm(self) -> GRPO:
        """Return the algorithm with these settings."""
        shared = {f.name for f in fields(TrainConfig)}
        return GRPO(**{f.name: getattr(self, f.name) for f in fields(self) if f.name not in shared})


def train(
    env: VectorEnv,
    attacker: Agent,
    student: HFStudent,
    config: GRPOConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    record_every: int = 0,
) -> list[Row]:
    """Train `student` in place with GRPO; see `trainer.train`, which takes any algorithm."""
    return trainer.train(
        env,
        attacker,
        student,
        config.algorithm(),
        config,
        run_dir,
        resume=resume,
        progress=progress,
        record_every=record_every,
    )
