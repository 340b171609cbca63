r"""Discrete-time survival: when does a dialogue first fail?

Time is the turn, 1, 2, ...; an event at turn t means that turn t failed, a censoring at t that t turns were
survived and nothing is known later. Functions take `duration` (N,) and `failed` (N,) as
`metrics.first_failure` returns them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steer_env.arrays import Floats
from steer_env.evaluation.intervals import (
    Estimate,
    cluster_size,
    cluster_sums,
    effective,
    jackknife,
    unavailable,
    wilson,
    z_value,
)
from steer_env.render import counted


@dataclass(frozen=True, eq=False)
class Curve:
    """A Kaplan-Meier curve at turns 0..H.

    Attributes:
        turn: (H+1,) 0, 1, ..., H.
        survival: (H+1,) probability of no failure up to and including that turn; NaN where nobody is at risk
            any more and somebody may still survive.
        low: (H+1,) lower end of the pointwise band.
        high: (H+1,) upper end.
        at_risk: (H+1,) dialogues observed at that turn; all of them at turn 0.
        failures: (H+1,) failures at that turn.
        hazard: (H+1,) failures / at risk, NaN where nobody is at risk.
    """

    turn: NDArray[np.int64]
    survival: Floats
    low: Floats
    high: Floats
    at_risk: NDArray[np.int64]
    failures: NDArray[np.int64]
    hazard: Floats

    @property
    def followed(self) -> int:
        """Last turn at which the curve is defined."""
        return int(np.flatnonzero(np.isfinite(self.survival)).max(initial=0))


def counts(
    duration: ArrayLike, failed: ArrayLike, horizon: int | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return failures and dialogues at risk at turns 1..H, each (H,) int64.

    Raises:
        ValueError: If the shapes differ, a duration is negative, or a failure is at turn 0.
    """
    time, event = _check(duration, failed)
    last = int(time.max(initial=0)) if horizon is None else horizon
    d = np.bincount(time[event], minlength=last + 1)[1 : last + 1]
    leave = np.bincount(time, minlength=last + 1)
    risk = len(time) - np.cumsum(leave)[:last]
    return d.astype(np.int64), risk.astype(np.int64)


def kaplan_meier(
    duration: ArrayLike,
    failed: ArrayLike,
    cluster: ArrayLike | None = None,
    *,
    horizon: int | None = None,
    confidence: float = 0.95,
) -> Curve:
    r"""Return the Kaplan-Meier curve with a pointwise band.

    $\hat S(t) = \prod_{s \le t} (1 - d_s / n_s)$ (Kaplan and Meier 1958); with
    $\hat V = \sum_{s \le t} d_s / (n_s (n_s - d_s))$ (Greenwood 1926) the band is
    $\hat S^{\exp(\pm z \sqrt{\hat V} / \log \hat S)}$ (Kalbfleisch and Prentice). The band is undefined where
    $\hat S$ is 1 or 0; there the exact binomial limit of the dialogues at risk is given on the open side, as
    zero width would claim certainty.

    Greenwood takes dialogues as independent. With clusters of more than one the variance is the jackknife's
    over clusters, and the band Wilson's at the effective number of dialogues (`intervals`).

    Example:
        Ten dialogues, two fail at turn 1, one is watched for 1 turn only, one of the other seven fails at
        turn 2: S(1) = 0.8, S(2) = 0.8 * 6/7.

        >>> curve = kaplan_meier([1, 1, 1, 2, 3, 3, 3, 3, 3, 3], [1, 1, 0, 1, 0, 0, 0, 0, 0, 0])
        >>> curve.survival.round(4).tolist()
        [1.0, 0.8, 0.6857, 0.6857]

    Raises:
        ValueError: On durations and events that do not fit each other.
    """
    d, n = counts(duration, failed, horizon)
    total = len(np.asarray(duration))
    z = z_value(confidence)
    with np.errstate(divide="ignore", invalid="ignore"):
        hazard = d / n
        survival = _product(d, n)
        variance = np.cumsum(np.where(n > 0, d / (n * (n - d)), 0.0))
        exponent = z * np.sqrt(variance) / np.log(survival)
        low, high = survival ** np.exp(-exponent), survival ** np.exp(exponent)
        tail = (1 - confidence) / 2
        exact = np.where(n > 0, tail ** (1 / np.maximum(n, 1)), np.nan)
    low = np.where(survival == 1, exact, np.where(survival == 0, 0.0, low))
    high = np.where(survival == 1, 1.0, high)
    end = np.flatnonzero(survival == 0)
    if cluster is not None and len(np.unique(np.asarray(cluster))) < total:
        low, high = _clustered(*_check(duration, failed), cluster, survival, n, confidence)
    elif len(end):  # the limit stays where it was when there still was somebody to watch
        before = high[end[0] - 1] if end[0] else 1.0
        high[end] = min(before, 1 - tail ** (1 / int(n[end[0]])))
    return Curve(
        np.arange(len(d) + 1),
        np.concatenate([[1.0 if total else np.nan], survival]),
        np.concatenate([[1.0 if total else np.nan], low]),
        np.concatenate([[1.0 if total else np.nan], high]),
        np.concatenate([[total], n]),
        np.concatenate([[0], d]),
        np.concatenate([[np.nan], hazard]),
    )


def _clustered(
    time: NDArray[np.int64],
    event: NDArray[np.bool_],
    cluster: ArrayLike,
    survival: Floats,
    at_risk: NDArray[Any],
    confidence: float,
) -> tuple[Floats, Floats]:
    sums = _sums(time, event, cluster, len(survival))
    if len(sums) < 2:  # one group says nothing of others
        return np.where(np.isnan(survival), np.nan, 0.0), np.where(np.isnan(survival), np.nan, 1.0)
    variance = jackknife(sums, lambda totals: np.asarray(np.cumprod(1 - _hazard(totals), axis=1), np.float64))
    size = cluster_size(np.unique(np.asarray(cluster), return_counts=True)[1].astype(float))
    # Where nobody is watched any more the curve rests on those who were last.
    watched = np.minimum.accumulate(np.where(at_risk > 0, at_risk, len(time)))
    n = effective(np.nan_to_num(survival), variance, watched, size)
    low, high = wilson(np.nan_to_num(survival) * n, n, confidence, df=len(sums) - 1)
    return np.where(np.isnan(survival), np.nan, low), np.where(np.isnan(survival), np.nan, high)


def _sums(time: NDArray[np.int64], event: NDArray[np.bool_], cluster: ArrayLike, turns: int) -> Floats:
    """Return the failures at turns 1..H, then the dialogues at risk, of every cluster: (C, 2 H)."""
    turn = np.arange(1, turns + 1)
    fails = (time[:, None] == turn) & event[:, None]
    return cluster_sums(np.concatenate([fails, time[:, None] >= turn], axis=1), cluster)


def _hazard(totals: Floats) -> Floats:
    d, n = np.split(totals, 2, axis=1)
    return np.asarray(d / np.maximum(n, 1))


def median(curve: Curve) -> tuple[int | None, int | None, int | None]:
    """Return the median turn of first failure with its interval; None means "not reached".

    The first turn at which at most half survive; the ends are where the band does (Brookmeyer and Crowley
    1982).
    """

    def first(values: Floats) -> int | None:
        hit = np.flatnonzero(values <= 0.5 + 1e-9)  # a product of shares may be off by a few bits
        return int(curve.turn[hit[0]]) if len(hit) else None

    return first(curve.survival), first(curve.low), first(curve.high)


def restricted_mean(curve: Curve, horizon: int) -> float:
    r"""Return the mean turn of first failure restricted to tau = `horizon` turns.

    $E[\min(T, \tau)] = \sum_{t=0}^{\tau - 1} S(t)$. A dialogue that never fails within the horizon counts
    as tau. Where nobody is at risk any more the curve is carried on, which makes the mean an upper limit.
    """
    survival = _carry(curve.survival)[:horizon]
    if not len(survival):
        return float("nan")
    return float(survival.sum() + (horizon - len(survival)) * survival[-1])


def _carry(values: Floats) -> Floats:
    """Replace NaN by the last value before it."""
    known = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), 0))
    return values[known]


def restricted_mean_estimate(
    duration: ArrayLike,
    failed: ArrayLike,
    cluster: ArrayLike,
    horizon: int,
    *,
    confidence: float = 0.95,
    **options: Any,
) -> Estimate:
    """Estimate the restricted mean turn of first failure; its variance is the jackknife's over clusters.

    Where nobody is at risk any more the curve is carried on, and `note` says so; choose a `horizon` that some
    dialogues could reach.
    """
    time, event = _check(duration, failed)
    labels = np.asarray(cluster)
    if not len(time):
        return unavailable("no dialogues")
    if not time.any():
        return unavailable(f"all {counted(len(time), 'dialogue')} unscored from the first turn", len(time))
    curve = kaplan_meier(time, event, horizon=horizon)
    value = restricted_mean(curve, horizon)
    note = ""
    if curve.followed < horizon - 1:
        note = f"nobody is at risk after turn {curve.followed}, the curve is carried on"
    if len(np.unique(labels)) < 2:
        return Estimate(value, n=len(time), note="; ".join(filter(None, [note, "one cluster: no interval"])))
    if horizon < 2:
        return Estimate(value, value, value, len(time), note=note)
    sums = _sums(time, event, labels, horizon - 1)
    # Of the turns after the first, the share that is survived lies in [0, 1] as a rate does.
    share, turns = (value - 1) / (horizon - 1), horizon - 1
    variance = jackknife(sums, lambda totals: np.cumprod(1 - _hazard(totals), axis=1).sum(axis=1) / turns)
    size = cluster_size(np.unique(labels, return_counts=True)[1].astype(float))
    n = effective(share, variance, len(time), size)
    low, high = (1 + turns * float(x) for x in wilson(share * n, n, confidence, df=len(sums) - 1))
    return Estimate(value, low, high, len(time), note=note)


def sensitivity_range(fails: Estimate, safe: Estimate, undecided: int) -> Estimate:
    """Return the range between two ways to read unscored turns: all failed, or none did.

    A Kaplan-Meier curve is not monotone in them under censoring: a later failure can find fewer dialogues
    at risk and weigh more. So this is how far the two extremes lie apart and no strict bounds.
    """
    assert fails.value is not None and safe.value is not None
    lows = [e.low for e in (fails, safe) if e.low is not None]
    highs = [e.high for e in (fails, safe) if e.high is not None]
    note = f"{undecided} of {fails.n} dialogues hang on unscored turns: range if all of them fail, or none"
    ends = (min(fails.value, safe.value), max(fails.value, safe.value))
    return Estimate(None, min(lows, default=None), max(highs, default=None), fails.n, undecided, ends, note)


def _product(d: NDArray[Any], n: NDArray[Any]) -> Floats:
    """Product of 1 - d/n; NaN once nobody is at risk, unless the curve has reached 0."""
    survival = np.cumprod(np.where(n > 0, 1 - d / np.maximum(n, 1), 1.0))
    return np.where((n > 0) | (survival == 0), survival, np.nan)


def _check(duration: ArrayLike, failed: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    given, event = np.asarray(duration), np.asarray(failed).astype(bool)
    time = given.astype(np.int64)
    if given.ndim != 1 or event.shape != given.shape:
        raise ValueError(f"duration has shape={given.shape}, failed {event.shape}; expected (N,) twice")
    if (time != given).any() or (time < 0).any():
        raise ValueError(
            f"duration={given[(time != given) | (time < 0)][0]!r}, expected whole turns, 0 or more"
        )
    if (event & (time == 0)).any():
        raise ValueError("a failure at turn 0, expected turns counted from 1")
    return time, event
