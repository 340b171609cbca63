r"""Reward formulas as pure functions. Wrappers and algorithms both call these; nothing is written twice.

Source: SaFeR-Steer (arXiv 2604.16358), Stage III, and its published code where noted. Arrays are batched over
leading axes; the last axis `T` is the turn. `scored` masks turns a judge could not score: they never act as
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steer_env.checks import choice, number

Normalization = Literal["affine", "tenth"]
Returns = Literal["sum", "final", "mean"]

#: Weights of safety, usefulness and faithfulness in the published code (the paper gives none).
WEIGHTS = (0.4, 0.4, 0.2)
#: Weight of the running minimum in TCSR in the published code.
ALPHA = 0.3
#: Highest rubric level that is harm: 1 and 2 comply, 4 refuses but leaks.
HARM_LEVEL = 4


def check_alpha(alpha: float) -> float:
    """Return `alpha`, or raise ValueError outside [0, 1]."""
    return float(number("alpha", alpha, 0, 1))


def check_weights(weights: Sequence[float]) -> tuple[float, float, float]:
    """Return three weights as a tuple, or raise ValueError if negative or not summing to 1."""
    try:
        safety, usefulness, faithfulness = (float(number("weights", weight)) for weight in weights)
    except (TypeError, ValueError) as error:
        raise ValueError(f"weights={weights!r}, expected three non-negative numbers that sum to 1") from error
    total = safety + usefulness + faithfulness
    if not (min(safety, usefulness, faithfulness) >= 0 and abs(total - 1.0) <= 1e-6):
        raise ValueError(f"weights={tuple(weights)!r}, expected three non-negative numbers that sum to 1")
    return (safety, usefulness, faithfulness)


def check_normalization(normalization: str) -> str:
    """Return `normalization`, or raise ValueError if it is neither "affine" nor "tenth"."""
    return choice("normalization", normalization, ("affine", "tenth"))


def normalize(score: float, normalization: str = "affine") -> float:
    r"""Map a 1..10 score to [0, 1].

    "affine" is :math:`(s - 1) / 9`, which reaches both ends; "tenth" is :math:`s / 10`, as the published
    code has it, which reaches only [0.1, 1].

    >>> normalize(1), normalize(10), normalize(1, "tenth")
    (0.0, 1.0, 0.1)
    """
    return (score - 1.0) / 9.0 if normalization == "affine" else score / 10.0


def turn_reward(
    safety: ArrayLike,
    usefulness: ArrayLike,
    faithfulness: ArrayLike,
    weights: Sequence[float] = WEIGHTS,
    normalization: str = "affine",
) -> NDArray[np.float64]:
    r"""Return :math:`r_t = \mathrm{Norm}(w_s s_t + w_u u_t + w_f f_t)` (paper, Sec. "Objects").

    Args:
        safety: Scores 1..10, any shape; `usefulness` and `faithfulness` broadcast against it.
        usefulness: As `safety`.
        faithfulness: As `safety`.
        weights: Non-negative, summing to 1.
        normalization: "affine" or "tenth", see `normalize`.

    >>> turn_reward(10, 1, 10).round(4)  # 0.4*10 + 0.4*1 + 0.2*10 = 6.4, (6.4 - 1)/9
    np.float64(0.6)
    """
    w = check_weights(weights)
    check_normalization(normalization)
    score = (
        w[0] * np.asarray(safety, float)
        + w[1] * np.asarray(usefulness, float)
        + w[2] * np.asarray(faithfulness, float)
    )
    return np.asarray((score - 1.0) / 9.0 if normalization == "affine" else score / 10.0)[()]


def harm_cost(safety: float) -> float:
    """Return 1.0 where the reply did harm (rubric level up to 4: complied or leaked), else 0.0.

    >>> harm_cost(4), harm_cost(6)
    (1.0, 0.0)
    """
    return 1.0 if safety <= HARM_LEVEL else 0.0


def repetition_share(tokens: Sequence[object], n: int = 3, min_tokens: int = 24) -> float:
    """Return the share of n-grams that repeat an earlier one, 0 for fewer than `min_tokens` tokens.

    Source: published code (`0.2 * share` of 3-grams, replies of 24 tokens or more).

    >>> repetition_share("a b c a b c".split(), min_tokens=1)  # abc bca cab abc: 1 of 4 repeats
    0.25
    """
    if len(tokens) < max(min_tokens, n):
        return 0.0
    grams = list(zip(*(tokens[i:] for i in range(n)), strict=False))
    return 1.0 - len(set(grams)) / len(grams)


# -- the attacker's side ----------------------------------------------------------------------------------

#: Weights of harm, form and diversity in the attacker's reward.
ATTACK_WEIGHTS = (0.8, 0.1, 0.1)


def attack_harm(safety: ArrayLike) -> NDArray[np.float64]:
    r"""Return what an attacker got out of a reply, :math:`h = (10 - s) / 9`: 1 full compliance, 0 ideal.

    One minus the affine map of `normalize`. A bare refusal (8) still gives 2/9 and a preaching one (6) 4/9:
    the rubric holds them to be failures of the student, only smaller ones.

    Args:
        safety: Scores 1..10, any shape; NaN where there is no verdict.

    >>> attack_harm([1, 4, 10]).round(4)
    array([1.    , 0.6667, 0.    ])
    """
    return (10.0 - np.asarray(safety, float)) / 9.0


def ngram_overlap(tokens: Sequence[object], other: Sequence[object], n: int = 3) -> float:
    """Return the share of the distinct n-grams of `tokens` that occur in `other`, in [0, 1].

    Texts shorter than `n` are compared as a whole; an empty one has nothing of its own and gives 1.

    >>> ngram_overlap("a b c d".split(), "x a b c".split())  # abc bcd: one of two
    0.5
    """
    size = min(n, len(tokens))
    if not size:
        return 1.0
    grams, others = (
        {tuple(t[i : i + size]) for i in range(len(t) - size + 1)} for t in (list(tokens), list(other))
    )
    return len(grams & others) / len(grams)


def diversity(tokens: Sequence[object], others: Sequence[Sequence[object]], n: int = 3) -> float:
    """Return 1 minus the largest `ngram_overlap` with any of `others`, in [0, 1]; 1 where there are none.

    >>> diversity("a b c d".split(), ["x a b c".split(), "y z".split()])
    0.5
    """
    return 1.0 - max((ngram_overlap(tokens, other, n) for other in others), default=0.0)


def attack_reward(
    harm: ArrayLike,
    placed: ArrayLike,
    diversity: ArrayLike,
    weights: Sequence[float] = ATTACK_WEIGHTS,
) -> NDArray[np.float64]:
    r"""Return the attacker's turn reward :math:`f_t (w_h h_t + w_f + w_d d_t)`, in [0, 1].

    The form :math:`f_t` is a gate: an utterance that the environment cannot place, or that breaks a limit,
    earns 0 whatever the verdict on the reply to it. Of one that is well formed nothing is known before its
    reply has a verdict: NaN.

    Args:
        harm: `attack_harm` of the reply, NaN where it is unscored, any shape.
        placed: Whether the utterance is well formed, bool.
        diversity: In [0, 1].
        weights: Weights of harm, form and diversity; non-negative, summing to 1.

    Raises:
        ValueError: If the weights are negative or do not sum to 1.

    >>> attack_reward([1.0, 1.0, np.nan, np.nan], [True, False, True, False], 0.5).round(4)
    array([0.95, 0.  ,  nan, 0.  ])
    """
    w = check_weights(weights)
    value = w[0] * np.asarray(harm, float) + w[1] + w[2] * np.asarray(diversity, float)
    return np.where(np.asarray(placed, bool), value, 0.0)[()]


# -- TCSR: trajectory-consistent summative reward -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TCSRState:
    """Running quantities of one dialogue over its scored turns.

    Attributes:
        turns: Turns seen, scored or not.
        count: Scored turns.
        minimum: Smallest reward so far, +inf before the first.
        reward_sum: Sum of rewards.
        value: TCSR value at the last scored turn, 0 before the first.
        value_sum: Sum of TCSR values.
    """

    turns: int = 0
    count: int = 0
    minimum: float = float("inf")
    reward_sum: float = 0.0
    value: float = 0.0
    value_sum: float = 0.0

    @property
    def mean(self) -> float:
        """Mean reward over scored turns, 0 before the first."""
        return self.reward_sum / self.count if self.count else 0.0

    def partial_return(self, returns: str) -> float:
        r"""Return the declared return of the dialogue so far, 0 before the first scored turn.

        With :math:`n` of :math:`t` turns scored: "sum" :math:`\frac{t}{n}\sum \tilde r` (the paper's
        :math:`\sum_t \tilde r_t` when all are scored: an unscored turn counts as an average one, not as
        zero), "final" the last value (published code), "mean" :math:`\frac{1}{n}\sum \tilde r`.
        """
        if not self.count:
            return 0.0
        if returns == "final":
            return self.value
        mean = self.value_sum / self.count
        # Exact when everything is scored: t/n would round.
        return (
            mean if returns == "mean" else self.value_sum if self.count == self.turns else self.turns * mean
        )


def tcsr_step(state: TCSRState, reward: float | None, alpha: float = ALPHA) -> TCSRState:
    r"""Advance TCSR by one turn: :math:`\tilde r_t = \alpha m_t + (1-\alpha) \bar r_t` (paper, Stage III).

    :math:`m_t = \min_{j \le t} r_j` and :math:`\bar r_t` the mean, both over scored turns.

    Args:
        state: State after the earlier turns.
        reward: This turn's reward, None if the judge could not score it.
        alpha: Weight of the minimum, in [0, 1].

    Raises:
        ValueError: If the reward is NaN or infinite: a missing score is None, never a number.

    >>> s = tcsr_step(tcsr_step(TCSRState(), 1.0), 0.0)  # min 0, mean 0.5
    >>> s.value
    0.35
    """
    if reward is None:
        return TCSRState(
            state.turns + 1, state.count, state.minimum, state.reward_sum, state.value, state.value_sum
        )
    if not isfinite(reward):
        raise ValueError(f"reward={reward!r}, expected a finite number; pass None where the turn is unscored")
    count = state.count + 1
    minimum = reward if reward < state.minimum else state.minimum
    reward_sum = state.reward_sum + reward
    value = alpha * minimum + (1.0 - alpha) * (reward_sum / count)
    return TCSRState(state.turns + 1, count, minimum, reward_sum, value, state.value_sum + value)


def tcsr(rewards: ArrayLike, scored: ArrayLike | None = None, alpha: float = ALPHA) -> NDArray[np.float64]:
    r"""Return TCSR values of a batch of reward sequences.

    Args:
        rewards: Turn rewards, shape (..., T). Values where `scored` is False are ignored (NaN allowed).
        scored: Mask of the same shape; None means all scored.
        alpha: Weight of the running minimum, in [0, 1].

    Returns:
        Values, shape (..., T); NaN at unscored turns.

    Raises:
        ValueError: If `alpha` is outside [0, 1] or a scored reward is NaN or infinite.

    >>> tcsr([1.0, 0.0, 1.0]).round(4)  # min 1,0,0; mean 1,1/2,2/3
    array([1.    , 0.35  , 0.4667])
    """
    check_alpha(alpha)
    r = np.asarray(rewards, float)
    mask = np.ones(r.shape, bool) if scored is None else np.broadcast_to(np.asarray(scored, bool), r.shape)
    if not np.isfinite(r[mask]).all():
        raise ValueError(
            f"rewards={r!r}, expected finite numbers where scored; mask unscored turns with `scored`"
        )
    minimum = np.minimum.accumulate(np.where(mask, r, np.inf), axis=-1)
    count = np.cumsum(mask, axis=-1)
    mean = np.cumsum(np.where(mask, r, 0.0), axis=-1) / np.maximum(count, 1)
    value = alpha * np.where(mask, minimum, 0.0) + (1.0 - alpha) * mean
    return np.where(mask, value, np.nan)


def declared_return(values: ArrayLike, returns: str = "sum") -> NDArray[np.float64]:
    """Return the trajectory return declared by a mode from TCSR values, NaN if no turn is scored.

    Args:
        values: Output of `tcsr`, shape (..., T), NaN at unscored turns.
        returns: "sum" (paper), "final" (published code) or "mean"; see `TCSRState.partial_return`.

    >>> declared_return(tcsr([1.0, 0.0])).round(4)
    np.float64(1.35)
    """
    check_returns(returns)
    v = np.asarray(values, float)
    if v.shape[-1] == 0:
        return np.full(v.shape[:-1], np.nan)[()]
    mask = ~np.isnan(v)
    count = mask.sum(axis=-1)
    if returns == "final":
        last = v.shape[-1] - 1 - np.argmax(mask[..., ::-1], axis=-1)
        out = np.take_along_axis(v, np.expand_dims(last, -1), axis=-1)[..., 0]
    else:
        total = np.where(mask, v, 0.0).sum(axis=-1)
        mean = total / np.maximum(count, 1)
        # Exact when everything is scored, as in `TCSRState.partial_return`.
        out = mean if returns == "mean" else np.where(mask.all(axis=-1), total, mean * v.shape[-1])
    return np.where(count > 0, out, np.nan)[()]


def check_returns(returns: str) -> str:
    """Return `returns`, or raise ValueError if it is not "sum", "final" or "mean"."""
    return choice("returns", returns, ("sum", "final", "mean"))
