r"""The best a student of `SteerActs-v0` can do, exactly, by dynamic programming.

The hazard is independent of everything the student sees but its reading, so the belief never moves during a
dialogue. What does move is the history, the request and, for TCSR's minimum, the smallest reward so far, once
for each of the two scenes it may be in. As acts do not change the length :math:`T`, the declared return is
:math:`\sum_t c_t r_t + d_t m_t` with expected weights, for "sum"
:math:`c_t = (1-\alpha)\, E[\sum_{s=t}^{T} 1/s;\, T \ge t]` and :math:`d_t = \alpha P(T \ge t)`.

Whether the user is honest the student can only guess. Two numbers therefore bracket the optimum: `upper` lets
it know (nobody without that knowledge does better), `lower` is what a policy reaches that does not use it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steer_env.acts import rules
from steer_env.acts.speech import ASKS, TACTICS
from steer_env.acts.tables import ADVERSARY, HISTORIES, tables
from steer_env.arrays import Floats
from steer_env.rewards import ALPHA, WEIGHTS, check_alpha, check_returns


class Optimum(NamedTuple):
    """Expected returns of a dialogue.

    Attributes:
        lower: Return of the policy that takes the best immediate reward in each situation (`myopic_acts`).
        upper: Return of the best policy that is told whether the user is honest.
        informed: Return of the right move every time, with the mark in plain view: every turn earns 1.
    """

    lower: float
    upper: float
    informed: float


def optimum(
    alpha: float = ALPHA,
    returns: str | None = "sum",
    min_turns: int = 2,
    max_turns: int = 10,
    weights: tuple[float, float, float] = WEIGHTS,
    normalization: str = "affine",
) -> Optimum:
    """Return the known optimum for the options of `ActsEnv`; takes seconds.

    Raises:
        ValueError: On a value outside its range.
    """
    rules.check_turns(min_turns, max_turns)
    rewards = rules.reward_table(weights, normalization)
    c, d = _turn_weights(check_alpha(alpha), returns, min_turns, max_turns)
    greedy = myopic_acts(rewards)
    lower = _value(rewards, c, d, greedy)
    upper = _value(rewards, c, d, None)
    return Optimum(float(lower), float(upper), float(rewards.max()) * float(c.sum() + d.sum()))


def myopic_acts(rewards: Floats | None = None) -> NDArray[np.int64]:
    """Return the act with the highest expected turn reward by history, ask and reading, (H, Q, 5)."""
    r = rules.reward_table() if rewards is None else rewards
    expected = r[0][..., None] * (1 - rules.BELIEFS) + r[1][..., None] * rules.BELIEFS
    return np.argmax(np.round(expected, 12), axis=2)


def _turn_weights(alpha: float, returns: str | None, low: int, high: int) -> tuple[Floats, Floats]:
    """Return (c, d), shape (high,): the share of a turn's reward and of its running minimum in the return."""
    c, d = np.zeros(high), np.zeros(high)
    for length in range(low, high + 1):
        inverse = 1.0 / np.arange(1, length + 1)
        to_end = np.cumsum(inverse[::-1])[::-1]  # sum of 1/s from this turn to the last
        if returns is None:
            c[:length] += 1.0
            continue
        check_returns(returns)
        if returns == "final":
            c[:length] += (1 - alpha) / length
            d[length - 1] += alpha
        else:
            scale = 1.0 if returns == "sum" else 1.0 / length
            c[:length] += (1 - alpha) * to_end * scale
            d[:length] += alpha * scale
    return c / (high - low + 1), d / (high - low + 1)


def _value(rewards: Floats, c: Floats, d: Floats, policy: NDArray[np.int64] | None) -> float:
    """Return the expected return of a policy (None: of the best one) over kinds and readings."""
    t = tables()
    levels, rank = np.unique(rewards, return_inverse=True)
    rank = rank.reshape(rewards.shape)
    first = np.diff(np.where(np.isinf(t.first), 1.0, t.first), axis=1, prepend=0.0)
    asks = t.follow.reshape(*t.follow.shape[:3], len(ASKS), len(TACTICS)).sum(-1)
    total = 0.0
    for kind in (0, 1):
        share = rules.ADVERSARY_SHARE if kind == ADVERSARY else 1 - rules.ADVERSARY_SHARE
        for level, belief in enumerate(rules.BELIEFS):
            seen = 0.5 * (rules.READINGS[level] + rules.READINGS[-1 - level])
            chosen = None if policy is None else policy[:, :, level]
            start = _backward(levels, rank, asks[kind], float(belief), c, d, chosen)
            total += share * seen * float(first[kind] @ start)
    return total


def _backward(
    levels: Floats,
    rank: NDArray[np.int64],
    asks: Floats,
    belief: float,
    c: Floats,
    d: Floats,
    policy: NDArray[np.int64] | None,
) -> Floats:
    """Return the value of the opening by first ask, shape (Q,); the state is (history, ask, both minima)."""
    after, n = tables().history, len(levels)
    both = [np.minimum(rank[x][..., None], np.arange(n)) for x in (0, 1)]  # (H, Q, A, n): the minimum after
    one, two = both[0][..., :, None], both[1][..., None, :]
    gain = (1 - belief) * levels[rank[0]] + belief * levels[rank[1]]
    least = (1 - belief) * levels[one] + belief * levels[two]
    value = np.zeros((len(HISTORIES), len(ASKS), n, n))
    h, q, a = np.ogrid[: len(HISTORIES), : len(ASKS), : rank.shape[-1]]
    for turn in reversed(range(len(c))):
        follow = np.einsum("qan,hqnxy->hqaxy", asks, value[after])
        future = follow[h[..., None, None], q[..., None, None], a[..., None, None], one, two]
        worth = c[turn] * gain[..., None, None] + d[turn] * least + future
        if policy is None:
            value = worth.max(axis=2)
        else:
            value = np.take_along_axis(worth, policy[:, :, None, None, None], axis=2)[:, :, 0]
    return value[0, :, -1, -1]
