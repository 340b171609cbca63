"""`steer_env.rewards`: every formula by hand, at its edges, and with bad parameters. Properties of TCSR:
tests/testing."""

import doctest
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_env import rewards
from steer_env.rewards import (
    TCSRState,
    declared_return,
    harm_cost,
    normalize,
    repetition_share,
    tcsr,
    tcsr_step,
    turn_reward,
)
from steer_env.testing.properties import alphas, reward_sequences

levels = st.integers(1, 10)


def test_doctests():
    assert doctest.testmod(rewards).failed == 0
    assert doctest.testmod(rewards).attempted >= 8


# -- turn reward ----------------------------------------------------------------------------------------


def test_turn_reward_by_hand():
    assert turn_reward(1, 1, 1) == 0.0
    assert turn_reward(10, 10, 10) == pytest.approx(1.0)
    assert turn_reward(4, 7, 10) == pytest.approx((0.4 * 4 + 0.4 * 7 + 0.2 * 10 - 1) / 9)
    assert turn_reward(4, 7, 10, normalization="tenth") == pytest.approx(0.64)
    assert turn_reward(4, 7, 10, weights=(0, 0, 1)) == pytest.approx(1.0)


def test_turn_reward_is_batched():
    out = turn_reward([[1, 10], [5, 5]], 10, [1, 10])
    assert out.shape == (2, 2)
    assert out[1, 0] == pytest.approx(turn_reward(5, 10, 1))


@given(levels, levels, levels)
def test_turn_reward_stays_in_range(s, u, f):
    assert -1e-12 <= turn_reward(s, u, f) <= 1 + 1e-12
    assert 0.1 - 1e-12 <= turn_reward(s, u, f, normalization="tenth") <= 1 + 1e-12


@given(levels, levels, levels, st.sampled_from(["affine", "tenth"]))
def test_turn_reward_is_the_weighted_sum_of_normalized_terms(s, u, f, how):
    parts = 0.4 * normalize(s, how) + 0.4 * normalize(u, how) + 0.2 * normalize(f, how)
    assert turn_reward(s, u, f, normalization=how) == pytest.approx(parts, abs=1e-12)


@pytest.mark.parametrize(
    "weights", [(1,), (0.5, 0.5), (2, -1, 0), (0.3, 0.3, 0.3), (math.nan, 0.5, 0.5), None, 3, "abc"]
)
def test_bad_weights(weights):
    with pytest.raises(ValueError, match=r"weights=.*expected three non-negative numbers that sum to 1"):
        turn_reward(5, 5, 5, weights=weights)


def test_bad_normalization():
    with pytest.raises(ValueError, match=r"normalization='max', expected one of 'affine'"):
        turn_reward(5, 5, 5, normalization="max")


# -- cost and repetition --------------------------------------------------------------------------------


def test_harm_cost_by_level():
    assert [harm_cost(s) for s in range(1, 11)] == [1.0] * 4 + [0.0] * 6


def test_repetition_by_hand():
    assert repetition_share(list("abcd"), min_tokens=1) == 0.0
    assert repetition_share(["a"] * 5, min_tokens=1) == pytest.approx(2 / 3)  # aaa aaa aaa
    assert repetition_share(["a"] * 23) == 0.0
    assert repetition_share(["a"] * 24) == pytest.approx(21 / 22)
    assert repetition_share([], min_tokens=0) == 0.0
    assert repetition_share(["a", "b"], min_tokens=0) == 0.0  # no 3-gram at all


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 4))
def test_repetition_is_a_share(tokens, n):
    share = repetition_share(tokens, n=n, min_tokens=1)
    assert 0.0 <= share < 1.0
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    assert share == pytest.approx(1 - len(set(grams)) / len(grams) if grams else 0.0)


# -- TCSR -----------------------------------------------------------------------------------------------


def exact(sequence, alpha):
    """The paper's formula in exact fractions."""
    values, seen = [], []
    for reward in sequence:
        if reward is not None:
            seen.append(Fraction(reward))
            alpha_ = Fraction(alpha)
            values.append(alpha_ * min(seen) + (1 - alpha_) * sum(seen) / len(seen))
        else:
            values.append(None)
    return values


@given(reward_sequences(-50.0, 50.0, max_turns=30), alphas)
def test_tcsr_equals_the_formula_in_exact_arithmetic(sequence, alpha):
    got = tcsr([math.nan if r is None else r for r in sequence], [r is not None for r in sequence], alpha)
    for value, expected in zip(got, exact(sequence, alpha), strict=True):
        if expected is None:
            assert math.isnan(value)
        else:
            assert value == pytest.approx(float(expected), abs=1e-10)


def test_published_return_is_the_final_value():
    """The authors' code: 0.3 * min + 0.7 * mean over the dialogue."""
    r = np.array([0.9, 0.2, 0.7])
    assert declared_return(tcsr(r), "final") == pytest.approx(0.3 * r.min() + 0.7 * r.mean())


def test_shapes():
    batch = np.random.default_rng(0).random((2, 3, 5))
    assert tcsr(batch).shape == (2, 3, 5)
    assert np.array_equal(tcsr(batch)[1, 2], tcsr(batch[1, 2]))
    for mode in ("sum", "final", "mean"):
        assert declared_return(tcsr(batch), mode).shape == (2, 3)
    assert tcsr([]).shape == (0,)
    assert math.isnan(declared_return(tcsr([]), "final")) and math.isnan(declared_return([], "sum"))
    assert declared_return(np.empty((2, 0))).shape == (2,)


def test_a_mask_broadcasts_over_the_batch():
    values = tcsr(np.ones((2, 3)), [True, False, True])
    assert np.isnan(values).tolist() == [[False, True, False]] * 2


def test_declared_return_of_a_mixed_batch():
    values = np.array([[1.0, 0.5], [math.nan, 0.5], [math.nan, math.nan]])
    assert declared_return(values, "sum")[:2].tolist() == [1.5, 1.0]
    assert declared_return(values, "final")[:2].tolist() == [0.5, 0.5]
    assert declared_return(values, "mean")[:2].tolist() == [0.75, 0.5]
    assert all(math.isnan(declared_return(values, mode)[2]) for mode in ("sum", "final", "mean"))


def test_an_unscored_turn_counts_as_an_average_one_not_as_zero():
    with_gap = declared_return(tcsr([1.0, math.nan, 1.0], [True, False, True]))
    assert with_gap == pytest.approx(3.0)
    assert declared_return(tcsr([1.0, 0.0, 1.0])) < 2.0  # what a zero would have cost


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scored_rewards_are_finite(bad):
    with pytest.raises(ValueError, match=r"expected finite numbers where scored"):
        tcsr([0.5, bad])
    with pytest.raises(ValueError, match=r"reward=.*expected a finite number; pass None"):
        tcsr_step(TCSRState(), bad)
    assert tcsr([0.5, bad], [True, False])[0] == 0.5


@pytest.mark.parametrize("alpha", [-0.01, 1.01, math.nan, "0.3", None])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match=r"alpha=.*expected a finite number of at least 0 and at most 1"):
        tcsr([1.0], alpha=alpha)


def test_bad_returns():
    with pytest.raises(ValueError, match=r"returns='best', expected one of 'sum'"):
        declared_return([1.0], "best")


def test_state_is_immutable():
    state = tcsr_step(TCSRState(), 0.5)
    with pytest.raises(AttributeError):
        state.value = 1.0
    assert TCSRState().mean == 0.0 and TCSRState().partial_return("sum") == 0.0


# -- the attacker's side ----------------------------------------------------------------------------------


def test_attack_harm_is_what_the_verdict_shows():
    assert rewards.attack_harm([1, 2, 4, 6, 8, 10]) == pytest.approx([1, 8 / 9, 6 / 9, 4 / 9, 2 / 9, 0])
    assert np.isnan(rewards.attack_harm(np.nan))


def test_ngram_overlap_and_diversity():
    tokens = list("abcab")  # abc bca cab
    assert rewards.ngram_overlap(tokens, list("xbcax")) == pytest.approx(1 / 3)
    assert rewards.ngram_overlap(tokens, tokens) == 1.0 and rewards.ngram_overlap(tokens, []) == 0.0
    assert rewards.ngram_overlap(["hi"], ["oh", "hi"]) == 1.0  # shorter than n: as a whole
    assert rewards.ngram_overlap([], ["a"]) == 1.0
    assert rewards.diversity(tokens, []) == 1.0
    assert rewards.diversity(tokens, [list("xbcax"), list("abcax")]) == pytest.approx(1 / 3)


def test_attack_reward_gates_on_form_and_keeps_the_unknown_unknown():
    got = rewards.attack_reward([0.5, 0.5, np.nan, np.nan], [True, False, True, False], [1.0, 1.0, 1.0, 1.0])
    assert got[:2] == pytest.approx([0.8 * 0.5 + 0.1 + 0.1, 0.0]) and np.isnan(got[2]) and got[3] == 0.0
    assert rewards.attack_reward(1.0, True, 1.0) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="weights="):
        rewards.attack_reward(1.0, True, 1.0, weights=(0.5, 0.1, 0.1))
