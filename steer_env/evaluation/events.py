r"""Events, not one scale: harm, bare refusal, middling, style and ideal, as competing risks.

The paper's failure (safety < 2) lumps harm, bare refusals and half-hearted "no"s together. Here the first
turn with one of several events ends the watching, and its kind is the cause. The end of the dialogue itself
can compete too: after it nothing can happen any more, whereas censoring pretends that the dialogue might have
gone on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steer_env.arrays import Bools, Floats, Ints
from steer_env.evaluation import scales
from steer_env.evaluation.intervals import (
    Estimate,
    cluster_size,
    cluster_sums,
    effective,
    jackknife,
    mean_interval,
    unavailable,
    wilson,
)
from steer_env.evaluation.survival import counts, restricted_mean_estimate

#: Cause k + 1 is event k of `scales.EVENTS`; then the end of the dialogue without any of those asked for.
OVER = len(scales.EVENTS) + 1
CAUSES = {**{name: i + 1 for i, name in enumerate(scales.EVENTS)}, "over": OVER}


@dataclass(frozen=True, eq=False)
class Incidence:
    """Cumulative incidence of competing causes at turns 0..H; the causes and `none` add up to 1.

    Attributes:
        turn: (H+1,) 0, 1, ..., H.
        incidence: Cause -> (H+1,) probability that it came first, by that turn (Aalen-Johansen).
        low: Cause -> (H+1,) lower end of the pointwise band.
        high: Cause -> (H+1,) upper end.
        none: (H+1,) probability that none has come yet.
        at_risk: (H+1,) dialogues still watched at that turn; all of them at turn 0.
        note: What to know about the curve.
    """

    turn: NDArray[np.int64]
    incidence: Mapping[str, Floats]
    low: Mapping[str, Floats]
    high: Mapping[str, Floats]
    none: Floats
    at_risk: NDArray[np.int64]
    note: str = ""


def first_event(
    safety: Ints,
    scored: Bools,
    played: Bools,
    *,
    stops: Sequence[str] = ("harm",),
    over: Literal["compete", "censor"] = "compete",
    complete: Bools | None = None,
    refused: Bools | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return when each dialogue first met one of several events, and which.

    Args:
        safety: (N, T) evaluation safety, -3..3.
        scored: (N, T) bool; watching stops before a turn without a score.
        played: (N, T) bool.
        stops: Events that end the watching, of `scales.EVENTS`.
        over: Whether the planned end of a dialogue competes with them, or censors.
        complete: (N,) bool; a dialogue that broke off is censored at its last turn.
        refused: (N, T) bool, the reply refused; tells bare refusals from middling turns, see `scales.event`.

    Returns:
        duration: (N,) turn of the event, or turns watched.
        cause: (N,) `CAUSES`, 0 where censored.

    Raises:
        ValueError: If an event is unknown.
    """
    unknown = [name for name in stops if name not in scales.EVENTS]
    if unknown or not stops:
        raise ValueError(f"stops={tuple(stops)!r}, expected some of {', '.join(scales.EVENTS)}")
    kind = scales.event(safety, refused)
    hit = played & scored & np.isin(kind, [scales.EVENTS.index(name) for name in stops])
    stop = hit | (played & ~scored)
    length = played.sum(axis=1).astype(np.int64)
    if not stop.shape[1]:
        return length, np.zeros(len(length), np.int64)
    at = stop.argmax(axis=1)
    stopped = stop.any(axis=1)
    event = stopped & np.take_along_axis(hit, at[:, None], 1)[:, 0]
    which = np.take_along_axis(kind, at[:, None], 1)[:, 0].astype(np.int64) + 1
    whole = np.ones(len(length), bool) if complete is None else np.asarray(complete, bool)
    ended = ~stopped & whole & (length > 0) & (over == "compete")
    duration = np.where(stopped, at + event, length)
    return duration.astype(np.int64), np.where(event, which, np.where(ended, OVER, 0))


def incidence(
    duration: ArrayLike,
    cause: ArrayLike,
    cluster: ArrayLike,
    *,
    horizon: int | None = None,
    causes: Mapping[str, int] | None = None,
    confidence: float = 0.95,
    **options: Any,
) -> Incidence:
    r"""Return Aalen-Johansen curves of all causes with pointwise bands that respect clusters.

    $\hat F_k(t) = \sum_{s \le t} \hat S(s-1) d_{ks} / n_s$ (Aalen and Johansen 1978), where $\hat S$ counts
    every cause. From the turn on at which nobody is watched the curves are carried on, and `note` says so.

    Args:
        duration: (N,) turns.
        cause: (N,) integers, 0 for censored.
        cluster: (N,) labels.
        horizon: Last turn; the longest duration by default.
        causes: Name -> integer; those that occur by default.
        confidence: Coverage of the bands: Wilson's at the effective number of dialogues (`intervals`), by the
            jackknife's variance over clusters.
        **options: Those of a bootstrap, which is not needed here.
    """
    why, time = np.asarray(cause), np.asarray(duration)
    present = set(np.unique(why[why != 0]).tolist())
    named = {k: v for k, v in CAUSES.items() if v in present} if causes is None else dict(causes)
    if not present <= set(named.values()):
        raise ValueError(f"cause={sorted(present - set(named.values()))}, expected one of {named}")
    _, risk = counts(time, why != 0, horizon)
    turns = np.arange(1, len(risk) + 1)
    columns = [(time[:, None] == turns) & (why == k)[:, None] for k in named.values()]
    columns.append(time[:, None] >= turns)
    sums = cluster_sums(np.concatenate(columns, axis=1).astype(float), cluster)
    value = _aalen_johansen(sums.sum(axis=0)[None], len(named), len(turns))[0]
    low = high = np.full_like(value, np.nan)
    note = "" if len(sums) > 1 else "fewer than two clusters: no band"
    if len(sums) > 1 and named:
        variance = jackknife(sums, lambda totals: _aalen_johansen(totals, len(named), len(turns)))
        size = cluster_size(np.unique(np.asarray(cluster), return_counts=True)[1].astype(float))
        watched = np.minimum.accumulate(np.concatenate([[len(time)], np.where(risk > 0, risk, len(time))]))
        n = effective(value, variance, watched, size)
        low, high = wilson(np.clip(value, 0, 1) * n, n, confidence, df=len(sums) - 1)
        low[:, 0] = high[:, 0] = 0.0  # before the first turn nothing has happened
    if len(risk) and not risk[-1] and value[:, -1].sum() < 1 - 1e-9:
        note = "; ".join(filter(None, [note, f"nobody is watched after turn {int(time.max(initial=0))}"]))
    names = list(named)
    return Incidence(
        np.arange(len(turns) + 1),
        dict(zip(names, value, strict=True)),
        dict(zip(names, low, strict=True)),
        dict(zip(names, high, strict=True)),
        1 - value.sum(axis=0),
        np.concatenate([[len(time)], risk]),
        note,
    )


def _aalen_johansen(totals: Floats, kinds: int, turns: int) -> Floats:
    """Turn totals (B, (kinds + 1) * turns) into curves (B, kinds, turns + 1)."""
    parts = totals.reshape(len(totals), kinds + 1, turns)
    d, n = parts[:, :-1], np.maximum(parts[:, -1:], 1)
    step = np.cumprod(1 - d.sum(axis=1) / n[:, 0], axis=1)
    before = np.concatenate([np.ones((len(totals), 1)), step], axis=1)[:, :turns]
    curves = np.cumsum(before[:, None] * d / n, axis=2)
    return np.concatenate([np.zeros((len(totals), kinds, 1)), curves], axis=2)


def hazards(
    duration: ArrayLike, failed: ArrayLike, cluster: ArrayLike, *, horizon: int | None = None, **options: Any
) -> list[Estimate]:
    """Return, for turns 1..H, the share of the dialogues still watched that fail at that turn."""
    time, event, labels = np.asarray(duration), np.asarray(failed).astype(bool), np.asarray(cluster)
    d, n = counts(time, event, horizon)
    result = []
    for turn, (failures, at_risk) in enumerate(zip(d, n, strict=True), 1):
        if at_risk == 0:
            result.append(unavailable(f"nobody is watched at turn {turn}"))
            continue
        here = time >= turn
        fails = (time == turn) & event
        low, high = mean_interval(fails[here], labels[here], options.get("confidence", 0.95))
        result.append(Estimate(float(failures / at_risk), low, high, int(at_risk)))
    return result


def safe_turns(
    duration: ArrayLike, failed: ArrayLike, cluster: ArrayLike, horizon: int, **options: Any
) -> Estimate:
    r"""Estimate the restricted mean number of safe turns, $\sum_{t=1}^{\tau} S(t)$ with tau = `horizon`.

    Of the first tau turns, those before the first failure: between 0 and tau.
    """
    longer = restricted_mean_estimate(duration, failed, cluster, horizon + 1, **options)

    def less(value: float | None) -> float | None:
        return None if value is None else value - 1.0

    return replace(longer, value=less(longer.value), low=less(longer.low), high=less(longer.high))
