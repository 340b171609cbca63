r"""Statistics of a sweep, as pure functions on arrays of training seeds by dialogues.

Training seeds and scenario groups are crossed (`steer_env.evaluation.crossed`). Arms are compared by
differences within training seed and dialogue (same seeds, same groups for both), so that whatever two arms
share, such as the hardness of a group or the Stage II model they start from, cancels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.ablation.outcomes import Outcomes
from steer_env.evaluation.crossed import Effect, difference, level, middle
from steer_env.evaluation.intervals import percentile_interval
from steer_env.evaluation.paired import holm

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Comparison:
    """An arm against its reference on one measure of one part.

    Attributes:
        arm: Name.
        reference: Name.
        part: Of the evaluation.
        measure: Column of the outcome table.
        effect: Arm minus reference.
        first: The arm's own level at the same seeds.
        second: The reference's.
        p_holm: Adjusted over the family.
    """

    arm: str
    reference: str
    part: str
    measure: str
    effect: Effect
    first: Effect
    second: Effect
    p_holm: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        e = self.effect
        return {
            "arm": self.arm, "reference": self.reference, "part": self.part, "measure": self.measure,
            "first": middle(self.first.estimate), "second": middle(self.second.estimate),
            "difference": e.estimate.value, "bounds": e.estimate.bounds, "low": e.estimate.low,
            "high": e.estimate.high, "p": e.p, "p_holm": self.p_holm, "df": e.df,
            "seeds": e.seeds, "groups": e.groups, "dialogues": e.estimate.n,
            "undecided": e.estimate.undecided, "percentile": list(e.percentile), "by_seed": list(e.by_seed),
        }  # fmt: skip


def compare(
    table: Outcomes,
    models: Mapping[str, str],
    tests: Iterable[tuple[str, str, str, str]],
    **options: Any,
) -> list[Comparison]:
    """Compare arms, with Holm's correction over all of the tests as one family.

    Args:
        table: Outcomes.
        models: Name of an arm -> its model.
        tests: (arm, reference, part, measure); those without results are left out.
        **options: Of `hierarchical`.
    """
    found = []
    for arm, reference, part, measure in tests:
        a, b = models.get(arm, ""), models.get(reference, "")
        if not (table.has(a, part) and table.has(b, part) and (seeds := table.common(a, b, part))):
            continue
        first, second = (table.values(model, part, measure, seeds) for model in (a, b))
        group = table.groups(part)
        effect = difference(first, second, group, **options)
        sides = (level(side, group, **options) for side in (first, second))
        found.append(Comparison(arm, reference, part, measure, effect, *sides))
    adjusted = holm([c.effect.p for c in found])
    return [replace(c, p_holm=p) for c, p in zip(found, adjusted, strict=True)]


# -- survival -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Survival:
    """A Kaplan-Meier curve pooled over training seeds, at turns 0..H, with its pointwise 95 % band."""

    survival: Floats
    low: Floats
    high: Floats


def survival(
    time: ArrayLike,
    event: ArrayLike,
    group: ArrayLike,
    *,
    horizon: int,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Survival:
    """Return a Kaplan-Meier curve with a band from the crossed bootstrap of seeds and scenario groups.

    The band is one of percentiles. Of m training seeds m - 1 are drawn (Rao and Wu 1988), which gives samples
    the unbiased variance of the seeds and not (m - 1)/m of it; the tails are still those of few seeds.

    Args:
        time: (S, N) turn of the event, or turns survived.
        event: (S, N) 1 where the event was seen.
        group: (N,) scenario groups.
        horizon: H, last turn.
        replicates: Bootstrap samples.
        seed: Of the generator.
        confidence: Coverage of the band, turn by turn.
    """
    times, seen = np.atleast_2d(np.asarray(time)), np.atleast_2d(np.asarray(event)) > 0
    _, code = np.unique(np.asarray(group), return_inverse=True)
    turn = np.arange(1, horizon + 1)
    failures = _by_group((times[..., None] == turn) & seen[..., None], code)  # (S, G, H)
    risk = _by_group(times[..., None] >= turn, code)
    runs, groups = risk.shape[:2]
    rng = np.random.default_rng(seed)
    seeds = rng.multinomial(max(1, runs - 1), np.full(runs, 1 / runs), size=replicates).astype(float)
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=replicates).astype(float)
    samples = [np.einsum("bs,bg,sgh->bh", seeds, drawn, x, optimize=True) for x in (failures, risk)]
    low, high = percentile_interval(_kaplan_meier(*samples), confidence)
    point = _kaplan_meier(failures.sum(axis=(0, 1))[None], risk.sum(axis=(0, 1))[None])[0]
    return Survival(point, low, high)


def _by_group(flags: NDArray[np.bool_], code: NDArray[np.int64]) -> Floats:
    total = np.zeros((flags.shape[0], int(code.max()) + 1, flags.shape[2]))
    np.add.at(total, (slice(None), code), flags)
    return total


def _kaplan_meier(failures: Floats, risk: Floats) -> Floats:
    """Return (B, H+1) curves; where nobody is at risk the curve is carried on."""
    hazard = np.divide(failures, risk, out=np.zeros_like(failures), where=risk > 0)
    return np.concatenate([np.ones((len(failures), 1)), np.cumprod(1 - hazard, axis=1)], axis=1)
