"""The paper's turn reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steer_env.rewards import WEIGHTS, check_normalization, check_weights, normalize
from steer_env.types import Turn
from steer_env.wrappers.base import RewardWrapper, check_once, scored_terms


class TurnReward(RewardWrapper):
    r"""Adds :math:`r_t = \mathrm{Norm}(w_s\,safety + w_u\,usefulness + w_f\,faithfulness)` in [0, 1].

    See `steer_env.rewards.turn_reward` for the formula and its source. An unscored turn adds nothing and
    `info["scored"]` is False; `TCSR` masks it.

    Args:
        env: Environment or vector environment.
        weights: Weights of safety, usefulness and faithfulness; non-negative, summing to 1.
        normalization: "affine" (1..10 to 0..1) or "tenth" (divide by 10, published code).

    Raises:
        ValueError: If an option is out of range, or `env` has a `TurnReward` on already, as `make` gives it
            one.
    """

    def __init__(self, env: Any, weights: Sequence[float] = WEIGHTS, normalization: str = "affine") -> None:
        check_once(env, TurnReward)
        super().__init__(env)
        self.weights = check_weights(weights)
        self.normalization = check_normalization(normalization)

    def turn_reward(self, turn: Turn, reward: float, info: dict[str, Any]) -> float:
        """Return `reward` plus the weighted, normalised score."""
        terms = scored_terms(turn)
        if terms is None:
            return reward
        w = self.weights
        score = w[0] * terms.safety + w[1] * terms.usefulness + w[2] * terms.faithfulness
        return reward + normalize(score, self.normalization)
