r"""Weighted sums of rates with one interval: averages over subsets, differences, J = 1 - ASR - ORR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_env.arrays import Bools, Floats
from steer_env.evaluation.intervals import Estimate, cluster_sums, rate, unavailable


@dataclass(frozen=True, eq=False)
class Part:
    """One rate of a sum: its weight and, for each of N dialogues, whether it counts and how it went.

    Attributes:
        weight: Factor of the rate in the sum.
        yes: (N,) bool.
        no: (N,) bool, never True where `yes` is; neither means undecided.
        units: (N,) bool, the dialogues this rate is over.
        name: For notes.
    """

    weight: float
    yes: Bools
    no: Bools
    units: Bools
    name: str = "dialogues"


def weighted_sum(
    parts: Sequence[Part], cluster: NDArray[Any], *, constant: float = 0.0, **options: Any
) -> Estimate:
    r"""Estimate `constant + sum of weight * rate`.

    The interval combines those of the rates (MOVER: Zou and Donner 2008, Zou 2008):
    $L = \hat\theta - \sqrt{\sum_{ij} r_{ij} d_i d_j}$, with $d_i = w_i (\hat p_i - l_i)$, or
    $w_i (\hat p_i - u_i)$ where $w_i < 0$, and $r_{ij}$ the correlation of two terms over clusters that feed
    both, 0 where none does. It stays honest where a rate is 0 or 1.

    Args:
        parts: The rates. Undecided dialogues turn the sum into bounds.
        cluster: (N,) labels.
        constant: Added.
        **options: `confidence`.
    """
    if not parts:
        return unavailable("no rates to add")
    rates = [rate(p.yes[p.units], p.no[p.units], cluster[p.units], what=p.name, **options) for p in parts]
    for part, one in zip(parts, rates, strict=True):
        if not one.available:
            return unavailable(f"{part.name}: {one.note}", one.n)
    n, undecided = sum(r.n for r in rates), sum(r.undecided for r in rates)
    weights = np.array([p.weight for p in parts])
    ends = np.array([r.bounds or (r.value, r.value) for r in rates], float)
    low_value, high_value = (constant + float(weights @ side) for side in _sides(weights, ends))
    limits = np.array([(r.low, r.high) for r in rates], float)
    low, high = _mover(weights, ends, limits, _correlation(parts, weights, cluster))
    low, high = constant + low, constant + high
    note = f"{undecided} of {n} units hang on unscored turns" if undecided else ""
    if undecided:
        return Estimate(None, low, high, n, undecided, (low_value, high_value), note)
    return Estimate(low_value, low, high, n)


def _sides(weights: Floats, ends: Floats) -> tuple[Floats, Floats]:
    """Return the ends (K, 2) that make the sum smallest, and those that make it largest."""
    positive = weights >= 0
    return np.where(positive, ends[:, 0], ends[:, 1]), np.where(positive, ends[:, 1], ends[:, 0])


def _mover(weights: Floats, ends: Floats, limits: Floats, correlation: Floats) -> tuple[float, float]:
    (least, most), (low, high) = _sides(weights, ends), _sides(weights, limits)
    down, up = weights * (least - low), weights * (high - most)
    return (
        float(weights @ least) - math.sqrt(max(0.0, float(down @ correlation @ down))),
        float(weights @ most) + math.sqrt(max(0.0, float(up @ correlation @ up))),
    )


def _correlation(parts: Sequence[Part], weights: Floats, cluster: NDArray[Any]) -> Floats:
    """Return the correlation (K, K) of the weighted rates, from what each cluster adds to them."""
    middle = np.stack([(p.yes.astype(float) + ~p.no) / 2 for p in parts], 1)
    units = np.stack([p.units for p in parts], 1)
    mean = (middle * units).sum(axis=0) / units.sum(axis=0)
    added = weights * cluster_sums((middle - mean) * units, cluster)
    covariance = added.T @ added
    scale = np.sqrt(np.diag(covariance))
    scale = np.where(scale > 0, scale, 1.0)
    correlation = covariance / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1.0)
    return correlation
