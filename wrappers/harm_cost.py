"""Harm as a cost beside the reward."""

from __future__ import annotations

from typing import Any

from steer_env.checks import OFF, integer, number, switch
from steer_env.rewards import HARM_LEVEL
from steer_env.types import Turn
from steer_env.wrappers.base import RewardWrapper, scored_terms


class HarmCost(RewardWrapper):
    """Defines `info["cost"]` and, if asked, subtracts it from the reward.

    Without the wrapper the cost is 1 for a reply at rubric level 4 or below. With it the threshold can be
    moved or the cost graded; `info["episode_cost"]` accumulates it over the dialogue for constrained
    algorithms. An unscored turn has no cost: `info["cost"]` is left out and "episode_cost" stays.

    Args:
        env: Environment or vector environment.
        threshold: Highest safety level that is harm, an integer 1..10.
        graded: Cost (threshold + 1 - safety) / threshold in (0, 1] instead of 1.
        coefficient: Lagrange-style weight; the reward loses `coefficient * cost`.

    Raises:
        ValueError: If the threshold is no safety level or the coefficient is negative or not finite.
    """

    def __init__(
        self, env: Any, threshold: int = HARM_LEVEL, graded: bool = False, coefficient: float = 0.0
    ) -> None:
        super().__init__(env)
        self.threshold = integer("threshold", threshold, 1, 10, why=": a safety level")
        self.graded = switch("graded", graded)
        self.coefficient = float(number("coefficient", coefficient, why=OFF))
        self._episode_cost = 0.0

    def begin(self) -> None:
        """Start the dialogue's cost at zero."""
        self._episode_cost = 0.0

    def turn_reward(self, turn: Turn, reward: float, info: dict[str, Any]) -> float:
        """Return `reward` minus the weighted cost, after writing the cost into `info`."""
        terms = scored_terms(turn)
        cost = 0.0
        if terms is not None:
            if terms.safety <= self.threshold:
                cost = (self.threshold + 1 - terms.safety) / self.threshold if self.graded else 1.0
            info["cost"] = cost
        self._episode_cost += cost
        info["episode_cost"] = self._episode_cost
        return reward - self.coefficient * cost
