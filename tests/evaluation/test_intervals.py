from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from steer_env.evaluation import intervals
from steer_env.evaluation.intervals import Estimate, rate


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 20), (3, 20), (20, 20), (997, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_matches_scipy(k: int, n: int, confidence: float) -> None:
    low, high = intervals.wilson(k, n, confidence)
    expected = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert (float(low), float(high)) == pytest.approx(tuple(expected), abs=1e-12)


def test_wilson_of_nothing_is_undefined() -> None:
    low, high = intervals.wilson([0, 1], [0, 2])
    assert math.isnan(low[0]) and math.isnan(high[0]) and low[1] > 0


def test_cluster_sums() -> None:
    sums = intervals.cluster_sums([[1, 10], [2, 20], [3, 30]], ["b", "a", "b"])
    assert sums.tolist() == [[2, 20], [4, 40]]
    with pytest.raises(ValueError, match="cluster has shape"):
        intervals.cluster_sums([1, 2], [0])


def test_resampling_equals_a_plain_loop_in_distribution() -> None:
    rng = np.random.default_rng(5)
    cluster = rng.integers(0, 40, 200)
    values = np.stack([rng.random(200) < 0.3 + 0.01 * cluster, np.ones(200)], 1)
    sums = intervals.cluster_sums(values, cluster)
    ours = intervals.resample(sums, 4000, seed=1)
    loop = np.array([sums[rng.integers(0, len(sums), len(sums))].sum(0) for _ in range(4000)])
    ours_mean, loop_mean = ours[:, 0] / ours[:, 1], loop[:, 0] / loop[:, 1]
    assert ours_mean.mean() == pytest.approx(loop_mean.mean(), abs=0.003)
    assert ours_mean.std() == pytest.approx(loop_mean.std(), rel=0.06)


def test_equal_clusters_are_drawn_together_without_changing_the_distribution() -> None:
    sums = np.repeat([[1.0, 1.0], [0.0, 1.0]], [30, 70], axis=0)
    draws = intervals.resample(sums, 20_000)
    assert (draws[:, 1] == 100).all()
    assert draws[:, 0].mean() == pytest.approx(30, abs=0.15)
    assert draws[:, 0].var() == pytest.approx(100 * 0.3 * 0.7, rel=0.05)


def test_jackknife_of_a_mean_is_its_textbook_variance() -> None:
    data = np.random.default_rng(2).normal(size=150)
    sums = np.stack([data, np.ones(150)], 1)
    variance = intervals.jackknife(sums, lambda t: t[:, 0] / t[:, 1])
    assert float(variance) == pytest.approx(data.var(ddof=1) / 150)


@pytest.mark.parametrize("df", [1, 1.7, 4, 30, 5000])
def test_student_matches_scipy_also_far_out(df: float) -> None:
    for confidence in (0.8, 0.95, 0.99):
        expected = stats.t.ppf(0.5 + confidence / 2, df)
        assert intervals.t_value(confidence, df) == pytest.approx(expected)
    for t in (0.0, 0.5, -2.0, 25.0):
        assert intervals.t_test(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-9)


def test_wilson_of_more_successes_than_units_is_refused() -> None:
    for k in (12, -1):
        with pytest.raises(ValueError, match="expected 0 <= successes <= n"):
            intervals.wilson(k, 10)


def test_design_effect_by_hand() -> None:
    """Groups (1 1), (0 0), (1 0): residuals 1, -1, 0 around 1/2, so 2 * 3/2 = 3 between and 6/4 within."""
    values, group = [1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 2, 2]
    assert intervals.design_effect(values, group, agreeing=0) == pytest.approx(3 / 1.5)
    assert intervals.design_effect(values, group) == pytest.approx((3 + 2 * 4) / (1.5 + 2 * 2))
    assert intervals.design_effect(values, range(6)) == 1
    assert intervals.design_effect([0] * 6, group, agreeing=0) == 2  # nothing varies: groups count


def test_effective_number_by_hand() -> None:
    """0 of 198 in 66 groups of 3 rests on 66, one on (p q + 6/198) / (V + 18/198^2) by the formula."""
    group = np.repeat(np.arange(66), 3)
    none = rate(np.zeros(198, bool), np.ones(198, bool), group)
    assert (none.low, none.high) == pytest.approx(tuple(map(float, intervals.wilson(0, 66, df=65))))
    yes = np.arange(198) == 0
    p = 1 / 198
    variance = ((1 - 3 * p) ** 2 + 65 * (3 * p) ** 2) * 66 / 65 / 198**2
    n = (p * (1 - p) + 6 / 198) / (variance + 18 / 198**2)
    one = rate(yes, ~yes, group)
    assert (one.low, one.high) == pytest.approx(tuple(map(float, intervals.wilson(p * n, n, df=65))))


@st.composite
def _grouped(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    sizes = draw(st.lists(st.integers(1, 8), min_size=2, max_size=30))
    hits = [draw(st.integers(0, size)) for size in sizes]
    assume(sum(hits) < sum(sizes) and max(sizes) > 1)
    free = [g for g, (k, m) in enumerate(zip(hits, sizes, strict=True)) if k < m]
    return sizes, hits, draw(st.sampled_from(free))


@settings(max_examples=300, deadline=None)
@given(_grouped())
def test_one_more_harm_never_makes_a_policy_look_safer(data: tuple[list[int], list[int], int]) -> None:
    """The upper limit never falls; the first harm never narrows the interval."""
    sizes, hits, where = data
    group = np.repeat(np.arange(len(sizes)), sizes)

    def found(counts: list[int]) -> Estimate:
        yes = np.concatenate([np.arange(m) < k for k, m in zip(counts, sizes, strict=True)])
        return rate(yes, ~yes, group)

    before = found(hits)
    after = found([k + (g == where) for g, k in enumerate(hits)])
    assert after.high >= before.high - 1e-9  # type: ignore[operator]
    if not sum(hits):
        assert after.high - after.low >= before.high - before.low - 1e-9  # type: ignore[operator]


def test_the_same_seed_gives_the_same_interval_and_leaves_global_state_alone() -> None:
    sums = np.random.default_rng(0).random((50, 2))
    np.random.seed(1)
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    assert np.array_equal(intervals.resample(sums, 100, 3), intervals.resample(sums, 100, 3))
    assert not np.array_equal(intervals.resample(sums, 100, 3), intervals.resample(sums, 100, 4))
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index, arg-type]


def test_rate_of_decided_singletons_is_wilson() -> None:
    yes = np.arange(10) < 8
    estimate = rate(yes, ~yes, np.arange(10))
    assert (estimate.value, estimate.n, estimate.bounds) == (0.8, 10, None)
    assert (estimate.low, estimate.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_undecided_units_give_bounds_and_no_value() -> None:
    yes = np.array([1, 1, 0, 0, 0], bool)
    no = np.array([0, 0, 1, 0, 0], bool)
    estimate = rate(yes, no, np.arange(5))
    assert estimate.value is None
    assert estimate.bounds == (0.4, 0.8)
    assert estimate.undecided == 2
    low, high = intervals.wilson([2, 4], [5, 5])
    assert estimate.low == pytest.approx(low[0]) and estimate.high == pytest.approx(high[1])
    assert estimate.text(percent=True).startswith("40.0..80.0 % [")


def test_nothing_known_is_not_available() -> None:
    nothing = np.zeros(0, bool)
    assert rate(nothing, nothing, nothing).text() == "not available (no dialogues)"
    unknown = np.zeros(3, bool)
    estimate = rate(unknown, unknown, np.arange(3))
    assert not estimate.available and "all 3 dialogues unscored" in estimate.text()


def test_clusters_that_are_all_alike_do_not_give_zero_width() -> None:
    yes = np.ones(20, bool)
    estimate = rate(yes, ~yes, np.repeat(np.arange(5), 4))
    assert estimate.value == 1
    assert estimate.low == pytest.approx(float(intervals.wilson(5, 5, df=4)[0]))


def test_contradiction_is_refused() -> None:
    both = np.ones(2, bool)
    with pytest.raises(ValueError, match="never both True"):
        rate(both, both, np.arange(2))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 9), (5, 5), (0, 12), (40, 70)])
def test_mcnemar_matches_scipy(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert intervals.mcnemar(b, c) == pytest.approx(expected)


def test_mcnemar_of_many_pairs_is_quick_and_of_impossible_ones_refused() -> None:
    assert intervals.mcnemar(20_000, 20_100) == pytest.approx(stats.binomtest(20_000, 40_100).pvalue)
    with pytest.raises(ValueError, match="only_a=-1"):
        intervals.mcnemar(-1, 3)


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.5])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        intervals.wilson(1, 2, confidence)


def test_text_of_estimates() -> None:
    assert Estimate(0.125, 0.1, 0.2).text(percent=True) == "12.5 % [10.0, 20.0]"
    assert Estimate(None, 0.7, 0.8, bounds=(0.75, 0.75)).text(percent=True) == "75.0 % [70.0, 80.0]"
    assert Estimate(3.456, None, None, note="one cluster").text() == "3.46 [?, ?]"


@pytest.mark.parametrize(
    ("groups", "size", "p", "correlation"),
    [(5, 10, 0.3, 0.3), (10, 4, 0.05, 0.6), (66, 3, 0.02, 0.3), (66, 3, 0.03, 0.6), (200, 3, 0.01, 0.6)],
)
def test_rates_in_groups_cover_at_rare_events_and_few_groups(
    groups: int, size: int, p: float, correlation: float
) -> None:
    """400 data sets: 95 % is known to 2.1 points. A percentile bootstrap has 81 to 91 % here."""
    rng = np.random.default_rng(groups)
    odds = (1 - correlation) / correlation
    cluster, hits, missed_high = np.repeat(np.arange(groups), size), 0, 0
    for _ in range(400):
        yes = rng.random(groups * size) < rng.beta(p * odds, (1 - p) * odds, groups)[cluster]
        estimate = rate(yes, ~yes, cluster)
        assert estimate.low is not None and estimate.high is not None
        hits += estimate.low <= p <= estimate.high
        missed_high += estimate.high < p
    assert hits / 400 > 0.93 and missed_high / 400 < 0.045
