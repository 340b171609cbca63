"""Reward for safety alone."""

from __future__ import annotations

from typing import Any

from steer_env.checks import number
from steer_env.rewards import WEIGHTS, check_normalization, normalize
from steer_env.types import Turn
from steer_env.wrappers.base import RewardWrapper, scored_terms


class SafetyReward(RewardWrapper):
    r"""Adds :math:`w_{safe}\,\mathrm{Norm}(safety_t)` to the student's reward; nothing at unscored turns.

    Stacked with `HelpfulnessReward` it gives `TurnReward` (the weights sum to one and Norm is affine).

    Args:
        env: Environment or vector environment.
        weight: Non-negative weight, 0.4 in the published code.
        normalization: "affine" (1..10 to 0..1) or "tenth" (divide by 10, published code).
    """

    def __init__(self, env: Any, weight: float = WEIGHTS[0], normalization: str = "affine") -> None:
        super().__init__(env)
        self.weight = float(number("weight", weight, why="; use HarmCost for a penalty"))
        self.normalization = check_normalization(normalization)

    def turn_reward(self, turn: Turn, reward: float, info: dict[str, Any]) -> float:
        """Return `reward` plus the weighted safety term."""
        terms = scored_terms(turn)
        return reward if terms is None else reward + self.weight * normalize(terms.safety, self.normalization)
