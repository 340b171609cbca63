r"""Paired comparisons on arrays: hierarchical bootstrap, tests, Holm's correction, sample size.

Two methods play the same dialogues. A method may be trained several times; then the question is about the
method and not about one of its models, and the training seeds are a level of their own above scenario groups
and dialogues.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steer_env.arrays import Floats
from steer_env.evaluation.intervals import (
    REPLICATES,
    Estimate,
    cluster_sums,
    design_effect,
    mcnemar,
    resample,
    t_test,
    t_value,
    wilson,
    z_value,
)
from steer_env.render import counted


@dataclass(frozen=True, eq=False)
class Difference:
    """A difference of means with its test.

    Attributes:
        estimate: Mean of `a - b`.
        p: Two-sided p-value of no difference, None when not available.
        method: Where interval and p-value come from.
        training_seeds: Runs of each side.
    """

    estimate: Estimate
    p: float | None
    method: str
    training_seeds: tuple[int, int]


def paired(
    a: ArrayLike,
    b: ArrayLike,
    group: ArrayLike | None = None,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Difference:
    """Estimate mean(a - b) over training seeds, scenario groups and dialogues.

    With one training seed a side nothing is resampled. Passes and failures get Tango's score interval, of
    independent dialogues with exact McNemar, in groups at counts divided by the design effect (Rao and Scott
    1992; `intervals.design_effect`) and with t of one less than the groups; other results a t interval of the
    clustered mean. With more, training seeds are resampled above scenario groups, and the interval is t times
    the bootstrap's standard error with Satterthwaite's degrees of freedom: three seeds say little about the
    spread of seeds, and a percentile interval would hide it. The deviations between seeds are scaled, since a
    bootstrap of m seeds has only (m - 1)/m of their variance and counts chance on these dialogues twice.

    Dialogues of a drawn group are kept as they are, which estimates the variance of a clustered mean better
    than to resample them too (Davison and Hinkley 1997, Sec. 3.8).

    Args:
        a: (RA, N) or (N,) results of the first method, one row per training seed; NaN where unknown.
        b: (RB, N) or (N,) of the second, dialogues in the same order.
        group: (N,) labels of scenario groups, each dialogue its own by default.
        replicates: Bootstrap samples, of several training seeds.
        seed: Of the generator.
        confidence: Coverage.

    Raises:
        ValueError: If the shapes do not fit.
    """
    first, second = (np.atleast_2d(np.asarray(x, float)) for x in (a, b))
    n = first.shape[1]
    labels = np.arange(n) if group is None else np.asarray(group)
    if first.ndim != 2 or second.shape[1] != n or labels.shape != (n,):
        raise ValueError(
            f"shapes {first.shape}, {second.shape}, group {labels.shape}; expected (RA, N), (RB, N) and (N,)"
        )
    seeds = (len(first), len(second))
    known = np.isfinite(first).all(axis=0) & np.isfinite(second).all(axis=0)
    missing = int((~known).sum())
    first, second, labels = first[:, known], second[:, known], labels[known]
    groups = len(np.unique(labels))
    if groups < 2:
        none = Estimate(None, n=n, undecided=missing, note="fewer than two scored groups of pairs")
        return Difference(none, None, "none", seeds)
    value = float(first.mean() - second.mean())
    notes = [f"{counted(missing, 'pair')} left out: unscored"] if missing else []
    p: float | None
    if seeds == (1, 1):
        (low, high), p, method = _one_seed(first[0], second[0], labels, confidence)
        notes.append("one training seed a side: holds for these two models, not for the methods")
    else:
        columns = np.concatenate([first, second, np.ones((1, first.shape[1]))]).T
        totals = resample(cluster_sums(columns, labels), replicates, seed)
        samples, fixed, added = _samples(totals[:, :-1] / totals[:, -1:], seeds, seed)
        own = float(fixed.var(ddof=1))
        parts = [(own, own, groups - 1)]
        parts += [(*v, runs - 1) for v, runs in zip(added, seeds, strict=True) if runs > 1]
        half, p, df = _student(value, float(samples.std(ddof=1)), parts, confidence)
        low, high = _not_certain(first, second, groups, value - half, value + half, confidence)
        method = f"hierarchical bootstrap, t with {df:.1f} degrees of freedom"
        if 1 in seeds:
            notes.append("one side has one training seed: its spread over seeds is unknown and left out")
    return Difference(
        Estimate(value, low, high, int(known.sum()), missing, note="; ".join(notes)), p, method, seeds
    )


def _one_seed(
    a: Floats, b: Floats, labels: NDArray[np.generic], confidence: float
) -> tuple[tuple[float, float], float | None, str]:
    """Interval, p-value and method for one model a side."""
    n, df = len(a), len(np.unique(labels)) - 1
    if not np.isin([a, b], (0, 1)).all():
        value = float((a - b).mean())
        sums = cluster_sums(a - b - value, labels)
        error = math.sqrt(float((sums**2).sum()) * (df + 1) / df) / n
        half = t_value(confidence, df) * error
        return (value - half, value + half), t_test(value / error, df) if error else None, "t over groups"
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    if df + 1 == n:
        return tango(only_a, only_b, n, confidence), mcnemar(only_a, only_b), "exact McNemar"
    effect = design_effect(a - b, labels, agreeing=0)
    interval = tango(only_a / effect, only_b / effect, n / effect, confidence, df)
    score = (only_a - only_b) / math.sqrt(effect * (only_a + only_b)) if only_a + only_b else 0.0
    return interval, t_test(score, df), "score test with the groups' design effect"


def _samples(
    means: Floats, seeds: tuple[int, int], seed: int
) -> tuple[Floats, Floats, list[tuple[float, float]]]:
    """Resample training seeds above samples of dialogues.

    Args:
        means: (B, RA + RB), each model's mean in each sample of dialogues.
        seeds: (RA, RB).
        seed: Of the generator.

    Returns:
        Differences (B,) with training seeds resampled too, the same with them kept, and `_seed_variance` of
        each side.
    """
    rng = np.random.default_rng([seed, 1])
    moved, kept, added = [], [], []
    for side, runs in zip(np.split(means, seeds[:1], axis=1), seeds, strict=True):
        centre = side.mean(axis=1)
        variance, between = _seed_variance(side) if runs > 1 else (0.0, 0.0)
        # What resampling would add by itself; stretched to what it should add.
        plain = float(side.var(axis=1).mean()) / runs
        stretch = math.sqrt(variance / plain) if plain > 0 else 0.0
        weights = rng.multinomial(runs, np.full(runs, 1 / runs), size=len(means)) / runs
        kept.append(centre)
        moved.append(centre + stretch * ((weights * side).sum(axis=1) - centre))
        added.append((variance, between))
    return moved[0] - moved[1], kept[0] - kept[1], added


def _seed_variance(side: Floats) -> tuple[float, float]:
    """Return the variance that R training seeds add to their mean, from (B, R) means in samples of dialogues.

    The second number is the same with chance still in it, which is what m - 1 degrees of freedom belong to.

    Models differ by their seeds and by chance on these dialogues. The samples show how much chance alone
    makes them differ, and it is in the samples already: only the rest is added.
    """
    runs = side.shape[1]
    between = float(side.mean(axis=0).var(ddof=1))
    chance = float((side - side.mean(axis=1, keepdims=True)).var(axis=0).mean()) * runs / (runs - 1)
    return max(0.0, between - chance) / runs, between / runs


def _not_certain(
    a: Floats, b: Floats, groups: int, low: float, high: float, confidence: float
) -> tuple[float, float]:
    """Widen the interval of two rates where a rate is 0 or 1, which no sample can change."""
    binary = np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()
    p, q = float(a.mean()), float(b.mean())
    if not binary or (0 < p < 1 and 0 < q < 1 and low < high):
        return low, high
    pooled = np.concatenate(
        [np.tile(a, (len(b), 1)).ravel()[None], np.repeat(b, len(a), axis=0).ravel()[None]]
    )
    correlation = 0.0 if np.ptp(pooled, axis=1).min() == 0 else float(np.corrcoef(pooled)[0, 1])
    other = newcombe(p, q, correlation, groups, confidence)
    return min(low, other[0]), max(high, other[1])


def newcombe(p: float, q: float, correlation: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    r"""Return Newcombe's interval for the difference p - q of two paired rates (1998, method 10).

    It combines Wilson's limits: $L = \hat d - \sqrt{(p - l_p)^2 - 2 r (p - l_p)(u_q - q) + (u_q - q)^2}$.

    >>> [round(x, 3) for x in newcombe(1.0, 1.0, 0.0, 50)]
    [-0.071, 0.071]
    """
    (low_p, high_p), (low_q, high_q) = (
        tuple(float(x) for x in wilson(rate * n, n, confidence)) for rate in (p, q)
    )
    down, up = (p - low_p, high_q - q), (high_p - p, q - low_q)

    def length(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * correlation * x * y + y * y))

    return max(-1.0, p - q - length(*down)), min(1.0, p - q + length(*up))


def tango(
    only_a: float, only_b: float, n: float, confidence: float = 0.95, df: float | None = None
) -> tuple[float, float]:
    r"""Return Tango's score interval (1998) for the difference of two rates on n independent pairs.

    It holds the differences $\Delta$ at which $|b - c - n\Delta| \le z \sqrt{n (2 \hat q + \Delta (1 -
    \Delta))}$, with b and c the pairs in which one alone passes and $\hat q$ the share of c under $\Delta$:
    the root of $2n q^2 + (-b - c + (2n - b + c) \Delta) q - c \Delta (1 - \Delta) = 0$. Its coverage stays
    near nominal where both rates are rare, unlike that of a bootstrap.

    Args:
        only_a: b, pairs in which the first alone passes.
        only_b: c, pairs in which the second alone passes.
        n: All pairs.
        confidence: Coverage.
        df: Takes Student's t with so many degrees of freedom for z.

    >>> [round(x, 4) for x in tango(0, 0, 50)]
    [-0.0713, 0.0713]
    """
    z = z_value(confidence) if df is None else t_value(confidence, df)
    centre = (only_a - only_b) / n

    def score(delta: float) -> float:
        middle = -only_a - only_b + (2 * n - only_a + only_b) * delta
        root = math.sqrt(max(0.0, middle**2 + 8 * n * only_b * delta * (1 - delta)))
        variance = n * (2 * (root - middle) / (4 * n) + delta * (1 - delta))
        gap = only_a - only_b - n * delta
        return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap) if gap else 0.0

    def solve(low: float, high: float, wanted: float) -> float:
        for _ in range(60):  # the score falls with delta
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > wanted else (low, middle)
        return (low + high) / 2

    return solve(-1.0, centre, z), solve(centre, 1.0, -z)


def _student(
    value: float, error: float, parts: Sequence[tuple[float, float, int]], confidence: float
) -> tuple[float, float | None, float]:
    """Return half width, p-value and Satterthwaite's degrees of freedom.

    Parts are (variance, variance as it was measured with its chance, degrees of freedom).
    """
    below = sum(measured**2 / df for _, measured, df in parts)
    if error == 0 or below == 0:
        return 0.0, None, float(parts[0][2])
    df = max(1.0, sum(v for v, _, _ in parts) ** 2 / below)
    return t_value(confidence, df) * error, t_test(value / error, df), df


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values (Holm 1979), in order; None stays None and counts as no test.

    >>> holm([0.01, 0.04, 0.03, None])
    [0.03, 0.06, 0.06, None]
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    result: list[float | None] = [None] * len(p_values)
    most = 0.0
    for rank, (p, i) in enumerate(order):
        most = max(most, min(1.0, (len(order) - rank) * p))
        result[i] = most
    return result


def pairs_needed(difference: float, discordant: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    r"""Return how many paired dialogues McNemar's test needs to find a difference of two rates (Connor 1987).

    $n = (z_{1-\alpha/2} \sqrt{\pi} + z_{power} \sqrt{\pi - \delta^2})^2 / \delta^2$ with $\pi$ the share of
    dialogues on which the two disagree. The formula is of the asymptotic test; the exact one has up to 5
    points less power there. Pairs are taken as independent: with groups, multiply by their design effect.

    >>> pairs_needed(0.1, 0.25)
    194

    Raises:
        ValueError: If the difference is 0 or larger than the disagreement allows, or a share is no share.
    """
    z_value(1 - alpha)
    if not 0 < power < 1:
        raise ValueError(f"power={power!r}, expected a float strictly between 0 and 1")
    size = abs(difference)
    if not 0 < size <= discordant <= 1:
        raise ValueError(
            f"difference={difference!r}, discordant={discordant!r}; expected "
            "0 < |difference| <= discordant <= 1"
        )
    quantile = NormalDist().inv_cdf
    root = quantile(1 - alpha / 2) * math.sqrt(discordant)
    root += quantile(power) * math.sqrt(max(0.0, discordant - size * size))
    return math.ceil((root / size) ** 2)
