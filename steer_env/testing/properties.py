"""Ready property tests: inherit in your test module and pytest runs them on your implementation.

    from steer_env.testing.properties import TCSRProperties

    class TestMine(TCSRProperties):
        aggregate = staticmethod(my_tcsr)      # default: steer_env.rewards.tcsr

Needs hypothesis (`dev` extra).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steer_env.rewards import tcsr
from steer_env.testing.tcsr import TCSR_INVARIANTS, Check, check_affine

#: TCSR's alpha, with both ends likely.
alphas = st.one_of(st.sampled_from([0.0, 0.3, 1.0]), st.floats(0.0, 1.0))


def reward_sequences(
    low: float = 0.0, high: float = 1.0, *, min_turns: int = 1, max_turns: int = 12, unscored: bool = True
) -> st.SearchStrategy[list[float | None]]:
    """Lists of turn rewards with None at unscored turns; ends and repeats are likely.

    Args:
        low: Smallest reward.
        high: Largest reward.
        min_turns: Shortest dialogue.
        max_turns: Longest dialogue.
        unscored: Whether unscored turns occur.
    """
    turn: st.SearchStrategy[float | None] = st.one_of(
        st.sampled_from([low, high, (low + high) / 2]), st.floats(low, high)
    )
    if unscored:
        turn = st.one_of(turn, turn, st.none())
    return st.lists(turn, min_size=min_turns, max_size=max_turns)


#: In [0, 1], as turn rewards are, and wider, as a user's own may be.
sequences = st.one_of(reward_sequences(), reward_sequences(-50.0, 50.0))
# The tests are inherited, which hypothesis points out; they keep nothing between calls.
_inherited = settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None)


class TCSRProperties:
    """The promises of TCSR over arbitrary reward sequences with unscored turns.

    One test for each of `TCSR_INVARIANTS`, such as `test_minimum_never_rises`, and scales and shifts at will.
    """

    aggregate = staticmethod(tcsr)

    @_inherited
    @given(sequences, alphas, st.floats(0.0, 100.0), st.floats(-100.0, 100.0))
    def test_any_affine(self, rewards: list[float | None], alpha: float, scale: float, shift: float) -> None:
        """Any scale and shift pass through."""
        check_affine(self.aggregate, rewards, alpha, scale, shift)


def _property(check: Check) -> Callable[..., None]:
    @_inherited
    @given(sequences, alphas)
    def test(self: Any, rewards: list[float | None], alpha: float) -> None:
        check(self.aggregate, rewards, alpha)

    test.__doc__ = check.__doc__
    return test


for _name, _check in TCSR_INVARIANTS.items():
    setattr(TCSRProperties, f"test_{_name.replace(' ', '_')}", _property(_check))
