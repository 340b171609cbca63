r"""Means over training seeds and dialogues, which are crossed: every model plays the same dialogues.

A result of training seed s on dialogue n of group g is taken as

$$y_{sn} = \mu + S_s + G_g + (SG)_{sg} + \varepsilon_{sn},$$

and the question is about $\mu$, the method on such dialogues, and not about these models on these dialogues.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from steer_env.arrays import Floats
from steer_env.evaluation.intervals import (
    Estimate,
    cluster_sums,
    percentile_interval,
    resample,
    t_test,
    t_value,
    wilson,
)
from steer_env.evaluation.paired import newcombe

REPLICATES = 2000


@dataclass(frozen=True, eq=False)
class Effect:
    """A mean over training seeds and dialogues, of a rate or of a difference.

    Attributes:
        estimate: With the 95 % interval; `n` counts dialogues, not results.
        p: Two-sided p-value of a mean of 0; None where there is no telling.
        df: Satterthwaite's degrees of freedom.
        seeds: Training seeds.
        groups: Scenario groups.
        percentile: The plain percentile interval of the crossed bootstrap, for contrast.
        by_seed: Mean of each training seed, or of each cluster of them.
    """

    estimate: Estimate
    p: float | None
    df: float
    seeds: int
    groups: int
    percentile: tuple[float, float]
    by_seed: tuple[float, ...]


def hierarchical(
    values: ArrayLike,
    group: ArrayLike,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    confidence: float = 0.95,
    clusters: ArrayLike | None = None,
) -> Effect:
    r"""Estimate a mean over training seeds and dialogues by the crossed two-level bootstrap.

    Each sample draws scenario groups with replacement, with all their dialogues and for all training seeds
    alike, and training seeds with replacement. A bootstrap over m = 5 seeds taken at its word is wrong in
    two ways: it has (m - 1)/m of their variance and no heavy tails for the little that five numbers say of
    it (too narrow), and chance on these dialogues enters through both levels (too wide). Therefore, as in
    `steer_env.evaluation.paired`:

    - the variance of the groups is that of the samples with seeds kept: $\hat V_G$;
    - training seeds add $\hat V_S = \max(0, \hat s^2 - \hat c^2) / m$, with $\hat s^2$ the variance between
      the seeds' means (divisor m - 1) and $\hat c^2$ how much of it the samples show to be chance on these
      dialogues;
    - the interval is $\pm t_{0.975, \nu} \sqrt{\hat V_G + \hat V_S}$ with Satterthwaite's $\nu$, which is
      near m - 1 where the seeds make up most of the variance, and the number of groups less one where they
      differ by no more than chance. (`paired` counts the seeds' m - 1 in that case, too, which costs power
      and gains no coverage that was missing.)

    Simulated coverage of the nominal 95 % at 5 seeds (`benchmarks/ablation/coverage.py`): 96.4 % without an
    effect of the seed, 96.0 % with a small one, 95.7 % with a large one, 95.5 % with nothing else; of plain
    percentiles 99.8, 98.7, 92.5 and 92.3 %. With 3 seeds it is 93.5 to 97.1 %, that of percentiles sinks to
    87 %.

    Args:
        values: (S, N) results, or differences of two arms at the same seeds and dialogues; all of them known.
        group: (N,) scenario groups.
        replicates: Bootstrap samples.
        seed: Of the generator. Equal ones draw the same groups for every call with these dialogues.
        confidence: Coverage.
        clusters: (S,) what training seeds have in common, such as the base they start from. Clusters are then
            what is counted, each with the mean of its seeds: what seeds share is no evidence of its own.

    Raises:
        ValueError: If the shapes do not fit, or a result is unknown (NaN).
    """
    given, labels = np.atleast_2d(np.asarray(values, float)), np.asarray(group)
    if clusters is not None:
        of = np.asarray(clusters)
        given = np.stack([given[of == cluster].mean(axis=0) for cluster in np.unique(of)])
    if labels.shape != given.shape[1:] or not np.isfinite(given).all():
        raise ValueError(
            f"values have shape {given.shape}, group {labels.shape}; expected (S, N) known results and (N,); "
            "`level` and `difference` give bounds for unknown ones"
        )
    runs, groups = len(given), len(np.unique(labels))
    if groups < 2:
        none = Estimate(None, n=given.shape[1], note="fewer than two scenario groups")
        return Effect(none, None, 0.0, runs, groups, (math.nan, math.nan), ())
    value, by_seed = float(given.mean()), given.mean(axis=1)
    sums = cluster_sums(np.concatenate([given, np.ones((1, given.shape[1]))]).T, labels)
    totals = resample(sums, replicates, seed)
    means = totals[:, :-1] / totals[:, -1:]  # (B, S): every seed on the same groups
    weights = np.random.default_rng([seed, 1]).multinomial(runs, np.full(runs, 1 / runs), size=replicates)
    low, high = percentile_interval((weights * means).sum(axis=1) / runs, confidence)
    own = float(means.mean(axis=1).var(ddof=1))
    added, between = _seed_variance(means, by_seed)
    below = own**2 / (groups - 1) + (between**2 / (runs - 1) if runs > 1 else 0.0)
    estimate = Estimate(value, n=given.shape[1])
    percentile, each = (float(low), float(high)), tuple(map(float, by_seed))
    if own + added == 0 or below == 0:
        return Effect(estimate, None, 0.0, runs, groups, percentile, each)
    error, df = math.sqrt(own + added), max(1.0, (own + added) ** 2 / below)
    half = t_value(confidence, df) * error
    estimate = replace(estimate, low=value - half, high=value + half)
    return Effect(estimate, t_test(value / error, df), df, runs, groups, percentile, each)


def _seed_variance(means: Floats, by_seed: Floats) -> tuple[float, float]:
    """Return what seeds add to the variance of their mean, and the same with chance still in it.

    Both are 0 where the seeds differ by no more than chance on these dialogues makes them.
    """
    runs = len(by_seed)
    if runs == 1:
        return 0.0, 0.0
    between = float(by_seed.var(ddof=1))
    chance = float((means - means.mean(axis=1, keepdims=True)).var(axis=0).mean()) * runs / (runs - 1)
    if between <= chance:
        return 0.0, 0.0
    return (between - chance) / runs, between / runs


def level(values: ArrayLike, group: ArrayLike, **options: Any) -> Effect:
    """Estimate a mean of results in [0, 1], (S, N), by `hierarchical`.

    Where nothing varies the interval is Wilson's for the number of groups. Unknown results (NaN) give bounds:
    all of them 0, all of them 1.
    """
    given = np.atleast_2d(np.asarray(values, float))
    least, most = (_level(np.where(np.isnan(given), x, given), group, options) for x in (0.0, 1.0))
    return _bounds(least, most, int(np.isnan(given).sum()), given, options)


def _level(values: Floats, group: ArrayLike, options: Mapping[str, Any]) -> Effect:
    effect = hierarchical(values, group, **options)
    estimate = effect.estimate
    if estimate.value is None:
        return effect
    low, high = estimate.low, estimate.high
    if low is None or high is None:
        low, high = (float(x) for x in wilson(estimate.value * effect.groups, effect.groups))
    return replace(effect, estimate=replace(estimate, low=max(0.0, low), high=min(1.0, high)))


def difference(a: ArrayLike, b: ArrayLike, group: ArrayLike, **options: Any) -> Effect:
    """Estimate the mean of a - b by `hierarchical`, both (S, N) at the same training seeds and dialogues.

    Where the two agree everywhere, or differ by a constant, a bootstrap has no spread: Newcombe's limits for
    the number of groups are given then, as zero width would claim certainty, and p is 1 for no difference.
    Unknown results (NaN) give bounds; p is then the larger one of the two ends, and 1 if they differ in sign.
    """
    first, second = np.atleast_2d(np.asarray(a, float)), np.atleast_2d(np.asarray(b, float))
    if first.shape != second.shape:
        raise ValueError(f"shapes {first.shape} and {second.shape}, expected the same seeds and dialogues")
    least, most = (
        _difference(
            np.where(np.isnan(first), x, first), np.where(np.isnan(second), 1 - x, second), group, options
        )
        for x in (0.0, 1.0)
    )
    unknown = int((np.isnan(first) | np.isnan(second)).sum())
    return _bounds(least, most, unknown, first - second, options)


def _difference(first: Floats, second: Floats, group: ArrayLike, options: Mapping[str, Any]) -> Effect:
    effect = hierarchical(first - second, group, **options)
    estimate = effect.estimate
    if estimate.value is None or estimate.low is not None:
        return effect
    p, q = float(first.mean()), float(second.mean())
    low, high = newcombe(p, q, 0.0, effect.groups)
    return replace(effect, estimate=replace(estimate, low=low, high=high), p=1.0 if p == q else None)


def _bounds(least: Effect, most: Effect, undecided: int, given: Floats, options: Mapping[str, Any]) -> Effect:
    """Join the effects of the two extremes; with everything known they are one."""
    low, high = least.estimate, most.estimate
    if not undecided or low.value is None or high.value is None:
        return least
    note = f"{undecided} of {given.size} results hang on unscored turns: bounds"
    bounds = (low.value, high.value)
    estimate = Estimate(None, low.low, high.high, low.n, undecided, bounds, note)
    ps = [p for p in (least.p, most.p) if p is not None]
    p = (max(ps) if low.value * high.value > 0 else 1.0) if len(ps) == 2 else None
    clusters = options.get("clusters")
    of = np.arange(len(given)) if clusters is None else np.asarray(clusters)
    known = [part[np.isfinite(part)] for part in (given[of == cluster] for cluster in np.unique(of))]
    by_seed = tuple(float(part.mean()) if part.size else math.nan for part in known)
    percentile = (least.percentile[0], most.percentile[1])
    return replace(
        least, estimate=estimate, p=p, df=min(least.df, most.df), percentile=percentile, by_seed=by_seed
    )


def middle(estimate: Estimate) -> float:
    """Return the value, the middle of the bounds, or NaN."""
    if estimate.value is not None:
        return estimate.value
    return sum(estimate.bounds) / 2 if estimate.bounds else math.nan
