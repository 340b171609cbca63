"""Reward for being useful and true to the picture."""

from __future__ import annotations

from typing import Any

from steer_env.checks import OFF, number
from steer_env.rewards import WEIGHTS, check_normalization, normalize
from steer_env.types import Turn
from steer_env.wrappers.base import RewardWrapper, scored_terms


class HelpfulnessReward(RewardWrapper):
    r"""Adds :math:`w_{use} N(usefulness_t) + w_{faith} N(faithfulness_t)`; nothing at unscored turns.

    Args:
        env: Environment or vector environment.
        usefulness: Weight of usefulness, 0.4 in the published code.
        faithfulness: Weight of faithfulness, 0.2 in the published code.
        normalization: "affine" (1..10 to 0..1) or "tenth" (divide by 10, published code).
    """

    def __init__(
        self,
        env: Any,
        usefulness: float = WEIGHTS[1],
        faithfulness: float = WEIGHTS[2],
        normalization: str = "affine",
    ) -> None:
        super().__init__(env)
        self.usefulness = float(number("usefulness", usefulness, why=OFF))
        self.faithfulness = float(number("faithfulness", faithfulness, why=OFF))
        self.normalization = check_normalization(normalization)

    def turn_reward(self, turn: Turn, reward: float, info: dict[str, Any]) -> float:
        """Return `reward` plus the weighted helpfulness terms."""
        terms = scored_terms(turn)
        if terms is None:
            return reward
        useful = self.usefulness * normalize(terms.usefulness, self.normalization)
        faithful = self.faithfulness * normalize(terms.faithfulness, self.normalization)
        return reward + useful + faithful
