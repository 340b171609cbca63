r"""Confidence intervals of rates, with and without groups: Wilson's, at the effective number of units.

Dialogues of a group are not independent, and rare events say little about how far they are not. A rate
$\hat p$ over N units in C groups whose clustered variance is $\hat V$ is taken to rest on

$$n = \frac{\hat p (1 - \hat p) + 2 m u}{\hat V + 2 m^2 u^2}, \qquad u = 1/N,$$

units, m being the mean size of a unit's group: the design effect (Kish 1965), estimated as if two more
groups had been seen whose members all agree. Without an event that leaves the number of groups; an event that
is found moves the upper limit up, and the first one never narrows the interval. Wilson's interval at that n
takes Student's t with C - 1 degrees of freedom. Coverage by simulation: `benchmarks/coverage.py`.

The cluster bootstrap, for comparisons over several training seeds, draws how often each cluster occurs in
each replicate, so a statistic of sums costs one matrix product, and clusters with equal sums are drawn
together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from steer_env.arrays import Floats

#: Default number of bootstrap replicates.
REPLICATES = 2000
_BLOCK = 1 << 22  # elements of the count matrix that exist at a time


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its uncertainty, or the reason why there is none.

    Attributes:
        value: Point estimate; None when undecided units leave only bounds, or when nothing is known.
        low: Lower end of the interval; with bounds, that of the lower bound.
        high: Upper end of the interval; with bounds, that of the upper bound.
        n: Units (dialogues or turns) it rests on.
        undecided: Units whose result hangs on an unscored turn.
        bounds: Smallest and largest value the undecided units allow; None when all are decided.
        note: Why `value` and `bounds` are missing, or what to know about them.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    undecided: int = 0
    bounds: tuple[float, float] | None = None
    note: str = ""

    @property
    def available(self) -> bool:
        """Whether there is a value or at least bounds."""
        return self.value is not None or self.bounds is not None

    def text(self, *, percent: bool = False, digits: int | None = None) -> str:
        """Return it for a table: `12.5 % [8.1, 18.9]`, `10.0..15.0 % [...]`, "not available (reason)"."""
        if not self.available:
            return f"not available ({self.note or 'no data'})"
        scale, unit = (100.0, " %") if percent else (1.0, "")
        places = (1 if percent else 2) if digits is None else digits

        def show(number: float | None) -> str:
            return "?" if number is None else f"{number * scale:z.{places}f}"

        numbers = self.bounds if self.value is None and self.bounds else (self.value,)
        shown = "..".join(dict.fromkeys(map(show, numbers)))
        return f"{shown}{unit} [{show(self.low)}, {show(self.high)}]"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        body = asdict(self)
        body["bounds"] = None if self.bounds is None else list(self.bounds)
        return body


def unavailable(reason: str, n: int = 0) -> Estimate:
    """Return an estimate that only says why it is missing."""
    return Estimate(None, n=n, note=reason)


def z_value(confidence: float) -> float:
    """Return the two-sided normal quantile, 1.96 for 0.95.

    Raises:
        ValueError: If `confidence` is not strictly between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence={confidence!r}, expected a float strictly between 0 and 1, such as 0.95"
        )
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def t_value(confidence: float, df: float) -> float:
    """Return Student's two-sided quantile.

    >>> round(t_value(0.95, 2), 3), round(t_value(0.95, 1e6), 2)
    (4.303, 1.96)
    """
    from scipy.special import stdtrit  # here: importing it takes longer than everything else

    z_value(confidence)
    return float(stdtrit(df, 0.5 + confidence / 2))


def t_test(statistic: float, df: float) -> float:
    """Return the two-sided p-value of Student's t."""
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(statistic)))


def wilson(
    successes: ArrayLike, n: ArrayLike, confidence: float = 0.95, df: float | None = None
) -> tuple[Floats, Floats]:
    r"""Return Wilson's score interval for a proportion (Wilson 1927), elementwise.

    $\frac{\hat p + z^2/2n \pm z \sqrt{\hat p (1 - \hat p) / n + z^2 / 4n^2}}{1 + z^2/n}$; NaN where n is 0.

    Args:
        successes: 0..n, whole or, with an effective n, not.
        n: Units.
        confidence: Coverage.
        df: Takes Student's t with so many degrees of freedom for z.

    >>> low, high = wilson(8, 10)
    >>> round(float(low), 4), round(float(high), 4)
    (0.4902, 0.9433)

    Raises:
        ValueError: If there are more successes than units, or fewer than none.
    """
    k, size = np.asarray(successes, float), np.asarray(n, float)
    if (k < 0).any() or (k > size * (1 + 1e-9)).any():
        raise ValueError(f"successes={successes!r} of n={n!r}, expected 0 <= successes <= n")
    z = z_value(confidence) if df is None else t_value(confidence, df)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.minimum(k / size, 1.0)
        centre = p + z * z / (2 * size)
        half = z * np.sqrt(p * (1 - p) / size + z * z / (4 * size * size))
        low, high = (centre - half) / (1 + z * z / size), (centre + half) / (1 + z * z / size)
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


def cluster_sums(values: ArrayLike, cluster: ArrayLike) -> Floats:
    """Sum `values`, (N,) or (N, F), within clusters (N,); returns (C, F), clusters in order of their labels.

    Raises:
        ValueError: If the first dimensions differ.
    """
    given = np.asarray(values, float)
    given = given.reshape(len(given), -1) if given.ndim != 2 else given
    labels = np.asarray(cluster)
    if labels.shape != given.shape[:1]:
        raise ValueError(
            f"cluster has shape={labels.shape}, expected {given.shape[:1]} as the values have rows"
        )
    _, index = np.unique(labels, return_inverse=True)
    columns = [np.bincount(index, weights=given[:, f]) for f in range(given.shape[1])]
    return np.stack(columns, axis=1) if columns else np.zeros((int(index.max(initial=-1)) + 1, 0))


def resample(sums: Floats, replicates: int = REPLICATES, seed: int = 0) -> Floats:
    """Draw clusters with replacement and add up their sums.

    Args:
        sums: (C, F) sums within each cluster, see `cluster_sums`.
        replicates: Number of bootstrap samples B.
        seed: Seed of the generator; the same seed gives the same samples.

    Returns:
        (B, F) totals, one row per bootstrap sample of C clusters.
    """
    if replicates < 1:
        raise ValueError(f"replicates={replicates!r}, expected a positive integer")
    rng = np.random.default_rng(seed)
    # Clusters with equal sums are exchangeable: drawing how many of each kind has the same distribution.
    kinds, counts = np.unique(sums, axis=0, return_counts=True)
    clusters = int(counts.sum())
    step = max(1, _BLOCK // max(len(kinds), 1))
    blocks = [
        rng.multinomial(clusters, counts / clusters, size=min(step, replicates - start)).astype(float) @ kinds
        for start in range(0, replicates, step)
    ]
    return np.concatenate(blocks)


def percentile_interval(samples: Floats, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Return the percentile interval of samples, (B,) or (B, K), along the first axis, without NaN."""
    z_value(confidence)
    tail = (1 - confidence) / 2 * 100
    with np.errstate(invalid="ignore"):
        low, high = np.nanpercentile(samples, [tail, 100 - tail], axis=0)
    return low, high


def jackknife(sums: Floats, statistic: Callable[[Floats], Floats]) -> Floats:
    """Return the variance of a statistic of totals, leaving out one cluster after the other (Tukey 1958).

    Args:
        sums: (C, F) sums within each cluster, C at least 2.
        statistic: Maps totals (B, F) to (B, ...), vectorised.
    """
    without = statistic(sums.sum(axis=0) - sums)
    share = (len(sums) - 1) / len(sums)
    return np.asarray(share * ((without - without.mean(axis=0)) ** 2).sum(axis=0))


def effective(value: ArrayLike, variance: ArrayLike, units: ArrayLike, size: float) -> Floats:
    """Return the effective number of units behind values in [0, 1], see the module.

    Args:
        value: The estimates.
        variance: Their variance with clusters.
        units: Units that they rest on, positive.
        size: Mean size of a unit's cluster, at least 1.
    """
    p: Floats = np.clip(np.asarray(value, np.float64), 0, 1)
    unit: Floats = 1 / np.asarray(units, np.float64)
    return np.asarray(
        (p * (1 - p) + 2 * size * unit) / (np.asarray(variance, float) + 2 * (size * unit) ** 2)
    )


def cluster_size(counts: Floats) -> float:
    """Return the mean size of a unit's cluster from the clusters' sizes, (C,)."""
    return float((counts**2).sum() / counts.sum())


def design_effect(values: ArrayLike, cluster: ArrayLike, agreeing: int = 2) -> float:
    """Return by how much clusters inflate the variance of a mean of values in [-1, 1], at least 1.

    Args:
        values: (N,) values.
        cluster: (N,) labels.
        agreeing: Clusters counted beside them whose members all agree, see the module.
    """
    given = np.asarray(values, float)
    sums = cluster_sums(np.stack([given - given.mean(), np.ones(len(given))], 1), cluster)
    groups, size = len(sums), cluster_size(sums[:, 1])
    if groups in (1, len(given)):
        return float(len(given) / groups)
    between = float((sums[:, 0] ** 2).sum()) * groups / (groups - 1)
    within = float(((given - given.mean()) ** 2).sum())
    if within + agreeing == 0:  # nothing varies
        return size
    return max(1.0, (between + agreeing * size**2) / (within + agreeing * size))


def mean_interval(values: ArrayLike, cluster: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a mean of values in [0, 1], see the module.

    Wilson's own where every unit is a cluster of its own and all are 0 or 1.
    """
    given = np.asarray(values, float)
    n, binary = len(given), bool(np.isin(given, (0, 1)).all())
    sums = cluster_sums(np.stack([given, np.ones(n)], 1), cluster)
    groups = len(sums)
    if binary and groups == n:
        low, high = wilson(given.sum(), n, confidence)
        return float(low), float(high)
    mean = float(given.mean())
    spread = float(((sums[:, 0] - mean * sums[:, 1]) ** 2).sum()) * groups / max(groups - 1, 1)
    size = float(effective(mean, spread / n**2, n, cluster_size(sums[:, 1])))
    if binary:  # members that differ more than chance would have it add nothing
        size = min(size, n)
    low, high = wilson(mean * size, size, confidence, df=max(groups - 1, 1))
    return float(low), float(high)


def rate(
    yes: ArrayLike,
    no: ArrayLike,
    cluster: ArrayLike,
    *,
    what: str = "dialogues",
    confidence: float = 0.95,
    **options: Any,
) -> Estimate:
    """Estimate a rate over units that are yes, no, or undecided (neither).

    Args:
        yes: (N,) bool.
        no: (N,) bool, never True where `yes` is.
        cluster: (N,) labels.
        what: Name of the units, for notes.
        confidence: Coverage of the interval.
        **options: Those of the bootstrap, which a rate does not need.

    Returns:
        k/N with its interval; with m undecided units the bounds [k/N, (k+m)/N] and the outer ends of their
        intervals.
    """
    certain, against = np.asarray(yes, bool), np.asarray(no, bool)
    if certain.shape != against.shape or (certain & against).any():
        raise ValueError("yes and no, expected bool arrays of one shape that are never both True")
    n, m = certain.size, int((~certain & ~against).sum())
    if n == 0:
        return unavailable(f"no {what}")
    if m == n:
        return Estimate(None, n=n, undecided=m, note=f"all {n} {what} unscored")
    low, high = mean_interval(certain, cluster, confidence)
    if m == 0:
        return Estimate(float(certain.mean()), low, high, n)
    _, high = mean_interval(~against, cluster, confidence)
    bounds = (float(certain.mean()), float((~against).mean()))
    return Estimate(None, low, high, n, m, bounds, f"{m} of {n} {what} hang on unscored turns")


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided exact McNemar p-value from the discordant pairs (McNemar 1947; binomial, p = 1/2).

    >>> mcnemar(1, 9)
    0.021484375

    Raises:
        ValueError: If a count is negative.
    """
    from scipy.special import bdtr

    if min(only_a, only_b) < 0:
        raise ValueError(f"only_a={only_a!r}, only_b={only_b!r}, expected counts of pairs, 0 or more")
    return min(1.0, float(2 * bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
