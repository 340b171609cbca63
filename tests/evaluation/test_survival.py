from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.utils import median_survival_times, restricted_mean_survival_time
from scipy import special

from steer_env.evaluation import survival


def sample(seed: int, n: int = 200, horizon: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    failure = rng.geometric(0.15, n)
    length = rng.integers(2, horizon + 1, n)
    return np.minimum(failure, length), failure <= length


@pytest.mark.parametrize("seed", range(5))
def test_curve_and_bands_match_lifelines(seed: int) -> None:
    duration, failed = sample(seed)
    curve = survival.kaplan_meier(duration, failed, horizon=10)
    fit = KaplanMeierFitter().fit(duration, failed, timeline=np.arange(11))
    assert np.allclose(curve.survival, fit.survival_function_.iloc[:, 0])
    inside = (curve.survival < 1) & (curve.survival > 0)
    assert inside.sum() >= 8
    bands = fit.confidence_interval_.to_numpy()
    assert np.allclose(curve.low[inside], bands[inside, 0])
    assert np.allclose(curve.high[inside], bands[inside, 1])


@pytest.mark.parametrize("horizon", [1, 3, 10])
def test_restricted_mean_matches_lifelines(horizon: int) -> None:
    duration, failed = sample(7)
    fit = KaplanMeierFitter().fit(duration, failed)
    expected = restricted_mean_survival_time(fit, t=horizon)  # lifelines carries on as well
    assert survival.restricted_mean(survival.kaplan_meier(duration, failed), horizon) == pytest.approx(
        expected
    )


def test_a_case_by_hand() -> None:
    """Five dialogues: fail at 1, fail at 3, censored at 1, at 2 and at 4."""
    curve = survival.kaplan_meier([1, 3, 1, 2, 4], [1, 1, 0, 0, 0])
    assert curve.at_risk.tolist() == [5, 5, 3, 2, 1]
    assert curve.failures.tolist() == [0, 1, 0, 1, 0]
    assert np.allclose(curve.survival, [1, 0.8, 0.8, 0.4, 0.4])
    assert np.allclose(curve.hazard[1:], [0.2, 0, 0.5, 0])
    assert survival.restricted_mean(curve, 4) == pytest.approx(1 + 0.8 + 0.8 + 0.4)
    assert survival.median(curve)[0] == 3


def test_without_censoring_the_restricted_mean_is_the_plain_mean() -> None:
    duration = np.array([1, 2, 2, 5, 9, 12])
    estimate = survival.restricted_mean_estimate(duration, np.ones(6, bool), np.arange(6), 10)
    assert estimate.value == pytest.approx(np.minimum(duration, 10).mean())
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low < estimate.value < estimate.high


def test_nobody_fails_and_everybody_fails_keep_honest_bands() -> None:
    safe = survival.kaplan_meier(np.full(20, 5), np.zeros(20, bool))
    assert (safe.survival == 1).all() and (safe.high == 1).all()
    assert safe.low[5] == pytest.approx(0.025 ** (1 / 20))
    assert survival.median(safe) == (None, None, None)
    gone = survival.kaplan_meier(np.ones(20, int), np.ones(20, bool), horizon=4)
    assert gone.survival.tolist() == [1, 0, 0, 0, 0]
    assert gone.high[4] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert survival.restricted_mean(gone, 4) == 1
    for duration, failed in ((np.full(20, 5), np.zeros(20)), (np.ones(20), np.ones(20))):
        estimate = survival.restricted_mean_estimate(duration, failed, np.arange(20), 5)
        assert estimate.low is not None and estimate.high is not None and estimate.low < estimate.high


def test_the_median_is_right_at_exactly_one_half() -> None:
    """1 - 1/10 - ... - 1/5 comes out as 0.5 and a bit; five of ten have failed by turn 7 all the same."""
    curve = survival.kaplan_meier([4, 6, 10, 10, 8, 10, 7, 4, 10, 5], np.ones(10))
    assert curve.survival[7] != 0.5 and survival.median(curve)[0] == 7
    rng = np.random.default_rng(0)
    for _ in range(200):
        duration, failed = np.full(100, 10), np.arange(100) < 50
        duration[:50] = rng.integers(1, 11, 50)
        middle = survival.median(survival.kaplan_meier(duration, failed, horizon=10))[0]
        assert (
            middle
            == duration[:50].max()
            == median_survival_times(KaplanMeierFitter().fit(duration, failed).survival_function_.round(12))
        )


def test_bands_and_median_respect_groups() -> None:
    """20 groups of 10 equal dialogues know what 20 dialogues know."""
    when = np.random.default_rng(0).geometric(0.12, 20)
    time, failed = np.minimum(when, 10), when <= 10
    copies = [np.repeat(x, 10) for x in (time, failed, np.arange(20))]
    grouped = survival.kaplan_meier(*copies)
    alone = survival.kaplan_meier(time, failed)
    naive = survival.kaplan_meier(*copies[:2])
    width = [(c.high - c.low)[5] for c in (grouped, alone, naive)]
    assert width[0] == pytest.approx(width[1], rel=0.1) and width[2] < 0.4 * width[0]
    assert survival.median(grouped)[1] <= survival.median(naive)[1]
    one = survival.kaplan_meier([1, 2, 3], [1, 1, 0], [0, 0, 0])
    assert (one.low.tolist(), one.high.tolist()) == ([1, 0, 0, 0], [1, 1, 1, 1])


def test_bands_in_groups_cover() -> None:
    """200 data sets each, rare failures and few groups, where Greenwood has 39 to 88 %."""
    rng = np.random.default_rng(5)
    for groups, size, hazard, rho in ((66, 3, 0.004, 0.3), (5, 12, 0.08, 0.3), (20, 10, 0.08, 0.6)):
        alpha, beta = hazard * (1 - rho) / rho, (1 - hazard) * (1 - rho) / rho
        truth = np.exp(special.betaln(alpha, beta + 6) - special.betaln(alpha, beta))
        group, hits = np.repeat(np.arange(groups), size), 0
        for _ in range(200):
            level = rng.beta(alpha, beta, groups)[group]
            when = np.minimum(rng.geometric(np.maximum(level, 1e-9)), 99)
            curve = survival.kaplan_meier(np.minimum(when, 10), when <= 10, group)
            hits += curve.low[6] <= truth <= curve.high[6]
        assert hits / 200 > 0.92, (groups, size)


def test_where_nobody_is_at_risk_the_curve_is_carried_on_and_said() -> None:
    estimate = survival.restricted_mean_estimate([2, 4, 4], [1, 0, 0], [0, 1, 2], 10)
    assert estimate.value == pytest.approx(2 + 8 * 2 / 3)
    assert "nobody is at risk after turn 4" in estimate.note
    reached = survival.restricted_mean_estimate([2, 9, 9], [1, 0, 0], [0, 1, 2], 10)
    assert reached.note == ""  # S(t) is needed up to turn 9 only


def test_nothing_to_estimate_is_said() -> None:
    none = survival.restricted_mean_estimate([], [], [], 10)
    assert none.value is None and none.text() == "not available (no dialogues)"
    unscored = survival.restricted_mean_estimate([0, 0], [0, 0], [0, 1], 10)
    assert "unscored" in unscored.text()
    single = survival.restricted_mean_estimate([3, 4], [1, 1], [0, 0], 10)
    assert single.value == 3.5 and single.low is None and "one cluster" in single.note


@pytest.mark.parametrize(
    ("duration", "failed", "says"),
    [
        ([1, 2], [1], "shape"),
        ([1.5], [1], "whole turns"),
        ([-1], [0], "0 or more"),
        ([0], [1], "counted from 1"),
    ],
)
def test_bad_input(duration: list[float], failed: list[int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        survival.kaplan_meier(duration, failed)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10), st.booleans()), min_size=1, max_size=60))
def test_curves_fall_and_bands_contain_them(data: list[tuple[int, bool]]) -> None:
    duration, failed = map(np.array, zip(*data, strict=True))
    curve = survival.kaplan_meier(duration, failed, horizon=10)
    known = np.isfinite(curve.survival)
    assert (np.diff(curve.survival[known]) <= 1e-12).all()
    assert ((curve.low <= curve.survival + 1e-9) & (curve.survival <= curve.high + 1e-9))[known].all()
    assert curve.at_risk[0] == len(data)


def test_clustered_bootstrap_is_wider_than_independent() -> None:
    """Five identical copies of each dialogue carry no more information than one."""
    duration, failed = sample(1, 80)
    one = survival.restricted_mean_estimate(duration, failed, np.arange(80), 10)
    copies = [np.repeat(a, 5) for a in (duration, failed, np.arange(80))]
    naive = survival.restricted_mean_estimate(copies[0], copies[1], np.arange(400), 10)
    clustered = survival.restricted_mean_estimate(*copies, 10)
    width = [e.high - e.low for e in (one, naive, clustered)]  # type: ignore[operator]
    assert width[2] == pytest.approx(width[0], rel=0.02)
    assert width[1] < 0.6 * width[2]
