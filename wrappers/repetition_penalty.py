"""Penalty for saying the same thing over and over."""

from __future__ import annotations

from typing import Any

from steer_env.checks import OFF, integer, number
from steer_env.rewards import repetition_share
from steer_env.types import Turn
from steer_env.wrappers.base import RewardWrapper


class RepetitionPenalty(RewardWrapper):
    """Subtracts `coefficient` times the share of repeated word 3-grams of the reply.

    Source: published code (0.2, replies of 24 tokens or more). Tokens are words split at white space, so that
    the penalty is the same for every student. Scored turns only.

    Args:
        env: Environment or vector environment.
        coefficient: Non-negative.
        n: Length of the n-grams, at least 1.
        min_tokens: Shorter replies are never penalised.
    """

    def __init__(self, env: Any, coefficient: float = 0.2, n: int = 3, min_tokens: int = 24) -> None:
        super().__init__(env)
        self.coefficient = float(number("coefficient", coefficient, why=OFF))
        self.n, self.min_tokens = integer("n", n, 1), integer("min_tokens", min_tokens)

    def turn_reward(self, turn: Turn, reward: float, info: dict[str, Any]) -> float:
        """Return `reward` minus the penalty."""
        if not info["scored"]:
            return reward
        share = repetition_share(turn.reply.split(), self.n, self.min_tokens)
        info["reward_terms"]["repetition"] = share
        return reward - self.coefficient * share
