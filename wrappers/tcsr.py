"""Trajectory-Consistent Summative Reward."""

from __future__ import annotations

from typing import Any

from steer_env.rewards import ALPHA, TCSRState, check_alpha, check_returns, tcsr_step
from steer_env.types import Turn
from steer_env.wrappers.base import RewardWrapper, check_once


class TCSR(RewardWrapper):
    r"""Makes the stream of rewards trajectory-consistent.

    With :math:`m_t` the running minimum and :math:`\bar r_t` the running mean of the wrapped rewards over
    scored turns, :math:`\tilde r_t = \alpha m_t + (1-\alpha)\bar r_t`: one bad turn keeps lowering every
    later value. The wrapper emits the *increments* of the declared return, so that emitted rewards sum to it
    in each mode and no emitted value depends on a later turn:

    - "sum" (paper): :math:`R = \sum_t \tilde r_t`; each turn emits :math:`\tilde r_t`.
    - "final" (published code): :math:`R = \tilde r_T`; a turn emits :math:`\tilde r_t - \tilde r_{t-1}`.
    - "mean": :math:`R = \frac1T \sum_t \tilde r_t`, which does not reward long dialogues.

    Unscored turns (``info["scored"]`` False) are masked: they leave minimum and mean alone and count as an
    average turn in "sum". Place it outside the wrappers that make the turn's reward.

    `info["tcsr"]` holds "value", "min" and "mean" at scored turns, and `info["turn_reward"]` the reward that
    was wrapped; `info["return"]` is the declared return so far, `info["return_defined"]` whether any turn has
    been scored, and `info["return_rule"]` the pair (returns, alpha): what credit per turn needs to know.

    Args:
        env: Environment or vector environment.
        alpha: Weight of the minimum in [0, 1]; 0 is the running mean, 1 the running minimum.
        returns: "sum", "final" or "mean".

    Raises:
        ValueError: If an option is out of range, or `env` has a `TCSR` on already, as `make` gives it one.
    """

    def __init__(self, env: Any, alpha: float = ALPHA, returns: str = "sum") -> None:
        check_once(env, TCSR)
        super().__init__(env)
        self.alpha = check_alpha(alpha)
        self.returns = check_returns(returns)
        self._state = TCSRState()

    def begin(self) -> None:
        """Start from an empty history."""
        self._state = TCSRState()

    def turn_reward(self, turn: Turn, reward: float, info: dict[str, Any]) -> float:
        """Return the increment of the declared return."""
        before = self._state.partial_return(self.returns)
        state = self._state = tcsr_step(self._state, reward if info["scored"] else None, self.alpha)
        after = state.partial_return(self.returns)
        if info["scored"]:
            info["turn_reward"] = reward
            info["tcsr"] = {"value": state.value, "min": state.minimum, "mean": state.mean}
        info["return"] = after
        info["return_defined"] = state.count > 0
        info["return_rule"] = (self.returns, self.alpha)
        # The increment of a sum is its last term: subtracting would round it.
        if self.returns == "sum" and state.count == state.turns:
            return state.value
        return after - before
