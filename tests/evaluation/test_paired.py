from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from steer_env.evaluation import paired as p


def test_one_training_seed_matches_the_bootstrap_of_pair_differences() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(200) < 0.7, rng.random(200) < 0.5
    got = p.paired(a, b)
    ours = got.estimate
    theirs = stats.bootstrap(
        (a.astype(float) - b,), np.mean, method="percentile", n_resamples=4000, rng=1
    ).confidence_interval
    assert ours.value == pytest.approx(a.mean() - b.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.015)
    assert ours.high == pytest.approx(theirs.high, abs=0.015)
    assert "these two models" in ours.note and got.p < 0.01
    assert p.paired(a, a).estimate.value == 0 and p.paired(a, a).p == 1


def test_training_seeds_widen_the_interval() -> None:
    """Runs that differ by seed much more than dialogues do: the interval is a t-test's of their means."""
    rng = np.random.default_rng(1)
    level_a, level_b = np.array([0.9, 0.7, 0.8]), np.array([0.4, 0.6, 0.5])
    noise = lambda: 1e-3 * rng.normal(size=(3, 400))  # noqa: E731
    a, b = level_a[:, None] + noise(), level_b[:, None] + noise()
    got = p.paired(a, b, np.arange(400) // 2, replicates=4000)
    test = stats.ttest_ind(a.mean(1), b.mean(1))
    interval = test.confidence_interval()
    assert got.training_seeds == (3, 3) and "4.0 degrees" in got.method
    assert got.estimate.low == pytest.approx(interval.low, abs=0.02)
    assert got.estimate.high == pytest.approx(interval.high, abs=0.02)
    assert got.p == pytest.approx(test.pvalue, rel=0.25)


def test_one_seed_against_many_says_what_is_left_out() -> None:
    rng = np.random.default_rng(2)
    got = p.paired(rng.random((3, 50)), rng.random(50))
    assert got.training_seeds == (3, 1) and "spread over seeds is unknown" in got.estimate.note


@pytest.mark.parametrize(("a", "b"), [(1, 1), (0, 0), (1, 0), (0, 1)])
@pytest.mark.parametrize("runs", [1, 3])
def test_rates_of_0_or_1_are_no_certainty(a: int, b: int, runs: int) -> None:
    got = p.paired(np.full((runs, 40), a), np.full((runs, 40), b)).estimate
    assert got.value == a - b
    assert got.high - got.low > 0.05 and got.low <= got.value <= got.high
    assert got.low >= -1 and got.high <= 1


def test_newcombe_covers_also_correlated_pairs() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(1500):
        hard = rng.random(40) < 0.3  # both fail on the hard ones
        a, b = (~hard & (rng.random(40) < share) for share in (0.9, 0.7))
        r = np.corrcoef(a, b)[0, 1] if a.any() and b.any() and not (a.all() or b.all()) else 0.0
        low, high = p.newcombe(a.mean(), b.mean(), float(r), 40)
        hits += low <= 0.7 * (0.9 - 0.7) <= high
    assert 0.935 <= hits / 1500 <= 0.985
    wider = p.newcombe(0.5, 0.4, 0.0, 40)
    narrow = p.newcombe(0.5, 0.4, 0.8, 40)  # pairs that agree tell more about their difference
    assert narrow[1] - narrow[0] < 0.6 * (wider[1] - wider[0])


def test_unknown_results_and_too_few_groups() -> None:
    a, b = np.array([1, 0, np.nan, 1]), np.array([0, 0, 1, 1])
    got = p.paired(a, b)
    assert got.estimate.value == pytest.approx(1 / 3) and got.estimate.undecided == 1
    assert not p.paired(a, b, [0, 0, 0, 0]).estimate.available
    assert p.paired(a, b, [0, 0, 0, 0]).p is None
    with pytest.raises(ValueError, match="shapes"):
        p.paired(a, b[:2])


def test_results_that_are_no_passes_get_a_t_interval_of_the_groups_means() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=(40, 3))
    a, b = hard + 0.3 + 0.2 * rng.normal(size=(40, 1)), hard
    got = p.paired(a.ravel(), b.ravel(), np.repeat(np.arange(40), 3))
    theirs = stats.ttest_1samp((a - b).mean(1), 0)
    interval = theirs.confidence_interval()
    assert got.p == pytest.approx(theirs.pvalue) and got.method == "t over groups"
    assert (got.estimate.low, got.estimate.high) == pytest.approx((interval.low, interval.high))


def test_score_test_keeps_its_size_with_few_groups() -> None:
    """No difference, 800 data sets: at 5 % at most 5 % and chance are significant, also with 5 groups."""
    rng = np.random.default_rng(3)
    for groups, size, rho in ((5, 40, 0.8), (10, 4, 0.3), (66, 3, 0.1)):
        odds, found = (1 - rho) / rho, 0
        group = np.repeat(np.arange(groups), size)
        for _ in range(800):
            a, b = (
                rng.random(groups * size) < rng.beta(0.4 * odds, 0.6 * odds, groups)[group] for _ in range(2)
            )
            found += p.paired(a, b, group).p < 0.05
        assert found / 800 < 0.07, (groups, size)


def test_an_overwhelming_difference_survives_holm_over_many_tests() -> None:
    """66 groups of 3, 65 points: p is not cut off by a number of resamples."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(66), 3)
    a, b = rng.random(198) < 0.95, rng.random(198) < 0.3
    one = p.paired(a, b, group, replicates=200).p
    assert one < 1e-10 and p.holm([one] * 176)[0] < 1e-8


def test_holm_matches_its_definition() -> None:
    assert p.holm([0.01, 0.02, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert p.holm([0.9, None, 0.8]) == [1.0, None, 1.0]
    assert p.holm([]) == []


def test_pairs_needed_have_the_power_they_promise() -> None:
    """Simulated: with that many pairs an uncorrected McNemar test finds the difference in 80 % of trials."""
    n = p.pairs_needed(0.1, 0.3)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(n, [0.2, 0.1, 0.7], size=4000)
    z = (counts[:, 0] - counts[:, 1]) / np.sqrt(counts[:, 0] + counts[:, 1])
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.025)
    assert p.pairs_needed(0.05, 0.3) > 3.5 * n
    for bad in ((0.0, 0.3), (0.4, 0.3), (0.1, 1.2)):
        with pytest.raises(ValueError, match="discordant"):
            p.pairs_needed(*bad)


def _score(b: int, c: int, n: int, delta: float) -> float:
    """Distance of the data from a difference; the other parameter is most likely, found by search."""
    from scipy.optimize import minimize_scalar

    def minus_log_likelihood(q: float) -> float:  # q: share of pairs in which the second alone passes
        terms = ((b, q + delta), (c, q), (n - b - c, 1 - 2 * q - delta))
        return -sum(k * np.log(share) for k, share in terms if k)

    low, high = max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12
    q = minimize_scalar(
        minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    ).x
    return float((b - c - n * delta) / np.sqrt(n * (2 * q + delta - delta**2)))


@pytest.mark.parametrize(("b", "c", "n"), [(3, 1, 100), (9, 2, 60), (1, 7, 40), (12, 12, 50), (5, 1, 20)])
def test_tango_against_a_search_for_the_likelihood(b: int, c: int, n: int) -> None:
    low, high = p.tango(b, c, n)
    assert low < (b - c) / n < high
    assert _score(b, c, n, low) == pytest.approx(1.959964, abs=1e-3)
    assert _score(b, c, n, high) == pytest.approx(-1.959964, abs=1e-3)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60))
def test_tango_is_antisymmetric_within_bounds_and_never_certain(b: int, c: int, rest: int) -> None:
    n = b + c + rest
    assume(n > 0)
    low, high = p.tango(b, c, n)
    assert -1 <= low <= (b - c) / n <= high <= 1 and low < high
    assert (low, high) == pytest.approx([-x for x in p.tango(c, b, n)[::-1]], abs=1e-9)


def test_few_groups_that_differ_count_as_groups() -> None:
    """Ten groups of four equal dialogues know as much as ten dialogues."""
    a, b = np.zeros(10), np.zeros(10)
    a[:4], b[3:5] = 1, 1
    alone = p.paired(a, b).estimate
    group = p.paired(np.repeat(a, 4), np.repeat(b, 4), np.repeat(np.arange(10), 4), replicates=50)
    wide = p.paired(np.repeat(a, 4), np.repeat(b, 4), replicates=50).estimate
    assert group.method == "score test with the groups' design effect"
    assert group.estimate.value == alone.value
    # Around 0.2, 16 * 3.6 * 10/9 between and 4 * 3.6 within: a design effect of 40/9.
    expected = p.tango(12 * 9 / 40, 4 * 9 / 40, 9, df=9)
    assert (group.estimate.low, group.estimate.high) == pytest.approx(expected)
    assert alone.low < wide.low and wide.high < alone.high
