"""Settings of a GRPO run as one object, as recipes keep them."""

from __future__ import annotations

from dataclasses import fields

from steer_env.algorithms.base import Algorithm, make_algorithm
from steer_env.algorithms.policy import PolicyGradient
from steer_env.checks import check_integers
from steer_env.configs.base import Switch, config
from steer_env.configs.train import TrainConfig


@config(frozen=True)
class GRPOConfig(TrainConfig):
    """Settings of a GRPO run: those of the loop (`TrainConfig`) and the most used ones of the algorithm.

    The latter have the meaning, ranges and defaults of `PolicyGradient`.

    Raises:
        ValueError: If a setting is out of its range.
    """

    beta: float = PolicyGradient.beta
    kl: str = PolicyGradient.kl
    clip_low: float = PolicyGradient.clip_low
    clip_high: float = PolicyGradient.clip_high
    scale: Switch = PolicyGradient.scale
    aggregation: str = PolicyGradient.aggregation
    credit: str = PolicyGradient.credit
    discount: float = PolicyGradient.discount

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integers(self, ("group_size",), 2, ": advantages compare siblings")
        self.algorithm()

    def algorithm(self) -> Algorithm:
        """Return the algorithm with these settings."""
        shared = {f.name for f in fields(TrainConfig)}
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in shared}
        return make_algorithm("grpo", **own)
