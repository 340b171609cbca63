"""Confidence sequences: right at all times at once."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_env.evaluation.intervals import wilson
from steer_env.evaluation.sequential import GRID, confidence_sequence

UNIT = st.floats(0, 1)


def lower_by_hand(x, error):
    """The smallest mean no gambler has got rich against, one bet at a time."""
    excluded, bounds = [False] * GRID, []
    capital = [1.0] * GRID
    for i in range(1, len(x) + 1):
        seen, spread = [0.5], 0.25
        for k in range(1, i):
            seen.append(x[k - 1])
            spread += (x[k - 1] - sum(seen) / len(seen)) ** 2
        bet = math.sqrt(2 * math.log(1 / error) / ((spread / i) * i * math.log(i + 1)))
        for j in range(GRID):
            m = j / (GRID - 1)
            stake = min(bet, 0.75 / m) if m else bet
            capital[j] *= 1 + stake * (x[i - 1] - m)
            excluded[j] = excluded[j] or capital[j] >= 1 / error
        kept = excluded.index(False)
        bounds.append(max(kept - 1, 0) / (GRID - 1))
    return bounds


def test_it_is_the_game_played_by_hand():
    x = [1.0, 0.5, 1.0, 1.0, 0.75, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    lower, upper = confidence_sequence(x)
    assert lower == pytest.approx(lower_by_hand(x, 0.025))
    assert 1 - upper == pytest.approx(lower_by_hand([1 - v for v in x], 0.025))
    assert lower[-1] > 0.4


@given(st.lists(st.tuples(UNIT, UNIT).map(sorted), min_size=1, max_size=60), st.sampled_from([0.8, 0.95]))
def test_bounds_only_narrow_and_turn_with_the_scale(pairs, confidence):
    low, high = np.array(pairs).T
    lower, upper = confidence_sequence(low, high, confidence=confidence)
    assert np.all(np.diff(lower) >= 0) and np.all(np.diff(upper) <= 0)
    assert np.all((lower >= 0) & (upper <= 1))
    turned = confidence_sequence(1 - high, 1 - low, confidence=confidence)
    assert turned[0] == pytest.approx(1 - upper, abs=2 / GRID) and turned[1] == pytest.approx(
        1 - lower, abs=2 / GRID
    )
    assert np.array_equal(confidence_sequence(low, confidence=confidence)[0], lower)


@pytest.mark.parametrize("mean", [0.02, 0.05, 0.2, 0.5])
def test_a_false_alarm_at_any_time_is_rare_and_ordinary_intervals_are_not(mean):
    """Looking after each of 300 draws; 1,000 runs have a standard error of .7 points at .05."""
    rng, runs, wrong, plain = np.random.default_rng(5), 1000, 0, 0
    for _ in range(runs):
        x = (rng.random(300) < mean).astype(float)
        lower, upper = confidence_sequence(x)
        wrong += bool(np.any((lower > mean) | (upper < mean)))
        hits = np.cumsum(x)
        plain += any(
            not low <= mean <= high for low, high in (wilson(int(hits[n - 1]), n) for n in range(10, 301, 10))
        )
    assert wrong / runs <= 0.05 + 0.02
    assert plain / runs > 0.12, plain / runs


@pytest.mark.parametrize(
    "low,high",
    [([0.1, 1.2], None), ([float("nan")], None), ([0.5], [0.4]), ([0.5, 0.5], [0.6]), ([[0.5]], None)],
)
def test_what_is_no_observation_is_refused(low, high):
    with pytest.raises(ValueError, match="expected"):
        confidence_sequence(low, high)


def test_confidence_is_a_share():
    with pytest.raises(ValueError, match=r"confidence=1"):
        confidence_sequence([0.5], confidence=1)
    assert [len(side) for side in confidence_sequence([])] == [0, 0]
