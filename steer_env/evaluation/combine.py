r"""Weighted sums of rates with one interval: averages over subsets, differences, J = 1 - ASR - ORR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_env.evaluation.intervals import (
    Estimate,
    Floats,
    cluster_sums,
    percentile_interval,
    rate,
    resample,
    unavailable,
)

Bools = NDArray[np.bool_]


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

    If no cluster feeds two parts they are independent, and the interval combines those of the rates (MOVER:
    Zou and Donner 2008): $L = \hat\theta - \sqrt{\sum_i (w_i (\hat p_i - l_i))^2}$, with $u_i$ in place of
    $l_i$ where $w_i < 0$. It stays honest where a rate is 0 or 1. Otherwise clusters are resampled jointly.

    Args:
        parts: The rates. Undecided dialogues turn the sum into bounds.
        cluster: (N,) labels.
        constant: Added.
        **options: `replicates`, `seed` and `confidence`.
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
    low, high = _mover(weights, ends, np.array([(r.low, r.high) for r in rates], float), constant)
    if _shared(parts, cluster):
        joint = _bootstrap(parts, weights, cluster, constant, options)
        spread = all(e[0] > 0 and e[1] < 1 for e in ends)
        # What does not vary between samples, as a rate of 0 or 1, would make the bootstrap claim certainty.
        low, high = joint if spread and joint[0] < joint[1] else (min(low, joint[0]), max(high, joint[1]))
    note = f"{undecided} of {n} units hang on unscored turns" if undecided else ""
    if undecided:
        return Estimate(None, low, high, n, undecided, (low_value, high_value), note)
    return Estimate(low_value, low, high, n)


def _sides(weights: Floats, ends: Floats) -> tuple[Floats, Floats]:
    """Return the ends (K, 2) that make the sum smallest, and those that make it largest."""
    positive = weights >= 0
    return np.where(positive, ends[:, 0], ends[:, 1]), np.where(positive, ends[:, 1], ends[:, 0])


def _mover(weights: Floats, ends: Floats, limits: Floats, constant: float) -> tuple[float, float]:
    (least, most), (low, high) = _sides(weights, ends), _sides(weights, limits)
    return (
        float(constant + weights @ least - np.sqrt(((weights * (least - low)) ** 2).sum())),
        float(constant + weights @ most + np.sqrt(((weights * (high - most)) ** 2).sum())),
    )


def _shared(parts: Sequence[Part], cluster: NDArray[Any]) -> bool:
    seen = [np.unique(cluster[p.units]) for p in parts]
    return sum(len(s) for s in seen) > len(np.unique(np.concatenate(seen)))


def _bootstrap(
    parts: Sequence[Part], weights: Floats, cluster: NDArray[Any], constant: float, options: dict[str, Any]
) -> tuple[float, float]:
    columns = [column for p in parts for column in (p.yes & p.units, ~p.no & p.units, p.units)]
    draw = {name: value for name, value in options.items() if name != "confidence"}
    totals = resample(cluster_sums(np.stack(columns, 1), cluster), **draw)
    totals = totals.reshape(len(totals), len(parts), 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        least, most = totals[..., 0] / totals[..., 2], totals[..., 1] / totals[..., 2]
    positive = weights >= 0
    confidence = options.get("confidence", 0.95)
    low, _ = percentile_interval(constant + np.where(positive, least, most) @ weights, confidence)
    _, high = percentile_interval(constant + np.where(positive, most, least) @ weights, confidence)
    return float(low), float(high)
