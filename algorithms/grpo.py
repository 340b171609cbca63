"""Settings of a GRPO run in one object, as recipes keep them."""

from __future__ import annotations

from dataclasses import fields

from steer_env.algorithms.base import Algorithm, make_algorithm
from steer_env.checks import check_integers
from steer_env.configs.base import Switch, config
from steer_env.configs.train import TrainConfig


@config(frozen=True)
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
    scale: Switch = False
    aggregation: str = "token"
    credit: str = "own_turn"
    discount: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integers(self, ("group_size",), 2, ": advantages compare siblings")
        self.algorithm()

    def algorithm(self) -> Algorithm:
        """Return the algorithm with these settings."""
        shared = {f.name for f in fields(TrainConfig)}
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in shared}
        return make_algorithm("grpo", **own)
