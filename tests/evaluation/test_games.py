"""The game between attackers and students: equilibria and ratings by hand, properties, a second way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from steer_env.evaluation.games import ELO, bradley_terry, claimed, nash, worst_met
from steer_env.evaluation.paired import paired

GAMES = arrays(float, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(-8, 8).map(float))


def test_rock_paper_scissors_is_played_evenly():
    p, q, value = nash([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    assert p == pytest.approx([1 / 3] * 3) and q == pytest.approx([1 / 3] * 3) and value == pytest.approx(0)


def test_a_dominated_strategy_is_not_played():
    p, q, value = nash([[3, 2], [1, 0]])
    assert p == pytest.approx([1, 0]) and q == pytest.approx([0, 1]) and value == pytest.approx(2)


def test_two_by_two_without_a_saddle_is_the_textbooks():
    a, b, c, d = 3.0, -1.0, -2.0, 4.0
    p, q, value = nash([[a, b], [c, d]])
    all_ = a + d - b - c
    assert p[0] == pytest.approx((d - c) / all_) and q[0] == pytest.approx((d - b) / all_)
    assert value == pytest.approx((a * d - b * c) / all_)


@settings(max_examples=60, deadline=None)
@given(GAMES, st.integers(-3, 3))
def test_nobody_gains_by_leaving_an_equilibrium(game, shift):
    p, q, value = nash(game)
    assert p.sum() == pytest.approx(1) and q.sum() == pytest.approx(1) and (p >= 0).all() and (q >= 0).all()
    assert (game @ q).max() == pytest.approx(value, abs=1e-6) == pytest.approx((p @ game).min(), abs=1e-6)
    assert nash(game + shift)[2] == pytest.approx(value + shift, abs=1e-6)
    assert nash(-game.T)[2] == pytest.approx(-value, abs=1e-6)


def fictitious_play(game, rounds=20000):
    """Brown 1951: the value lies between what the two mixtures guarantee."""
    rows, columns = np.zeros(game.shape[0]), np.zeros(game.shape[1])
    i = j = 0
    for _ in range(rounds):
        rows[i] += 1
        columns[j] += 1
        i, j = int((game @ columns).argmax()), int((rows @ game).argmin())
    return (rows @ game).min() / rounds, (game @ columns).max() / rounds


def test_fictitious_play_finds_the_same_value():
    rng = np.random.default_rng(0)
    for _ in range(3):
        game = rng.integers(-5, 6, (4, 3)).astype(float)
        low, high = fictitious_play(game)
        assert low - 1e-9 <= nash(game)[2] <= high + 1e-9 and high - low < 0.5


@pytest.mark.parametrize("bad", [[], [[np.nan]], [1.0, 2.0]])
def test_what_is_no_game_is_refused(bad):
    with pytest.raises(ValueError, match="expected a matrix"):
        nash(bad)


# -- ratings ------------------------------------------------------------------------------------------------


def test_one_pairing_worked_by_hand():
    # By symmetry s = -a; the slope 30 - 40 P(2a) + (0.5 - P(a)) vanishes there.
    (a,), (s,) = bradley_terry([[30]], [[40]])
    assert a == pytest.approx(-s)
    x = a / ELO
    assert 30 - 40 / (1 + np.exp(-2 * x)) + 0.5 - 1 / (1 + np.exp(-x)) == pytest.approx(0, abs=1e-9)
    assert 2 * x == pytest.approx(np.log(3), abs=0.05)  # with many games the log-odds


def test_equal_results_are_equal_ratings():
    a, s = bradley_terry(np.full((3, 3), 5), np.full((3, 3), 10))
    assert a == pytest.approx([0, 0, 0]) and s == pytest.approx([0, 0, 0])


def test_who_lost_all_has_a_rating_too():
    a, s = bradley_terry([[10, 0]], [[10, 10]])
    assert np.isfinite([*a, *s]).all() and s[0] < a[0] < s[1]


def hunter(wins, games, rounds=20000):
    """The same ratings by minorisation (Hunter 2004), the prior's games as games against a fixed player."""
    rows, columns = wins.shape
    a, s = np.ones(rows), np.ones(columns)
    for _ in range(rounds):
        a = (wins.sum(1) + 0.5) / ((games / (a[:, None] + s[None])).sum(1) + 1 / (a + 1))
        s = ((games - wins).sum(0) + 0.5) / ((games / (a[:, None] + s[None])).sum(0) + 1 / (s + 1))
    return np.log(a) * ELO, np.log(s) * ELO


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_minorisation_finds_the_same_ratings(seed):
    rng = np.random.default_rng(seed)
    games = rng.integers(0, 9, (3, 4)).astype(float)
    wins = rng.binomial(games.astype(int), 0.4).astype(float)
    for one, other in zip(bradley_terry(wins, games), hunter(wins, games, 3000), strict=True):
        assert one == pytest.approx(other, abs=0.5)


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="wins <= games"):
        bradley_terry([[3]], [[2]])


# -- the worst met ------------------------------------------------------------------------------------------


def test_the_worst_attacker_is_chosen_on_the_other_half():
    # Clusters 0 and 2 are one half, 1 and 3 the other. Each attacker wins on one half alone.
    outcomes = [[1, 0, 1, 0], [0, 1, 0, 1]]
    assert worst_met(outcomes, [0, 1, 2, 3]).tolist() == [0, 0, 0, 0]  # a plain maximum says 50 %
    assert worst_met([[1, 1, 1, 1], [0, 0, 1, 0]], [0, 1, 2, 3]).tolist() == [1, 1, 1, 1]


def test_chance_is_not_taken_for_the_best_attacker():
    rng = np.random.default_rng(1)
    outcomes = (rng.random((200, 12, 40)) < 0.3).astype(float)  # twelve attackers that are alike
    honest = np.mean([worst_met(one, np.arange(40)).mean() for one in outcomes])
    assert honest == pytest.approx(0.3, abs=0.02)
    assert np.mean([one.mean(axis=1).max() for one in outcomes]) > 0.4


# -- a claim ------------------------------------------------------------------------------------------------

NAN = np.nan


def test_a_decided_claim_is_the_paired_difference():
    rng = np.random.default_rng(0)
    one, other = (rng.random((3, 24)) < 0.2).astype(float), (rng.random((3, 24)) < 0.6).astype(float)
    cluster = np.repeat(np.arange(12), 2)
    found, plain = claimed(one, other, cluster), paired(one.mean(0), other.mean(0), cluster)
    assert found.estimate == plain.estimate and found.p == plain.p


def test_undecided_games_are_worked_by_hand_at_both_ends():
    """Two attackers, four dialogues, each its own group; one game of each student has no verdict."""
    one = [[0, 0, NAN, 1], [0, 0, 0, 0]]
    other = [[1, 1, 1, 1], [1, 0, NAN, 1]]
    found = claimed(one, other, range(4))
    # Dialogue means of the first less those of the other: -1, -1/2, x, -1/2, where x is 0 - 1 at its least
    # and 1/2 - 1/2 at its most. Nothing is left out.
    least, most = np.array([-1, -0.5, -1, -0.5]), np.array([-1, -0.5, 0, -0.5])
    assert found.estimate.bounds == (least.mean(), most.mean()) == (-0.75, -0.5)
    assert found.estimate.value is None and (found.estimate.n, found.estimate.undecided) == (4, 1)
    t = 3.182446  # of 3 degrees of freedom
    low = least.mean() - t * least.std(ddof=1) / 2
    high = most.mean() + t * most.std(ddof=1) / 2
    assert found.estimate.low == pytest.approx(max(low, -1)) == -1
    assert found.estimate.high == pytest.approx(high, abs=1e-6)
    assert "2 undecided games count both ways" in found.estimate.note
    assert found.p == pytest.approx(0.0917, abs=1e-3)  # of the bound nearer to none: t = -2.449


def test_where_bounds_lie_on_both_sides_nothing_is_decided():
    found = claimed([[NAN, 0, 1, 0]], [[0, 1, 0, NAN]], range(4))
    assert found.estimate.bounds == (-0.25, 0.25) and found.p == 1.0
    assert found.estimate.low < -0.25 and found.estimate.high > 0.25


def test_students_that_never_differ_leave_room_for_what_was_not_seen():
    games = np.repeat([[1.0], [0.0]], 12, axis=1)  # one attacker always wins, the other never
    found = claimed(games, games, range(12)).estimate
    assert found.value == 0 and found.high == pytest.approx(1 - 0.025 ** (1 / 12)) == -found.low


GAMES_NAN = arrays(float, (2, 8), elements=st.sampled_from([0.0, 1.0, NAN]))


@settings(max_examples=60, deadline=None)
@given(GAMES_NAN, GAMES_NAN, st.integers(0, 2**32 - 1))
def test_whatever_the_verdicts_would_be_lies_in_the_bounds(one, other, seed):
    cluster = np.arange(8) // 2
    found = claimed(one, other, cluster).estimate
    least, most = found.bounds or (found.value, found.value)
    rng = np.random.default_rng(seed)
    filled = [np.where(np.isnan(x), rng.integers(0, 2, x.shape), x) for x in (one, other)]
    value = (filled[0].mean(0) - filled[1].mean(0)).mean()
    assert least - 1e-9 <= value <= most + 1e-9
    assert found.low <= least + 1e-9 and most - 1e-9 <= found.high


def test_leaving_the_undecided_out_would_be_wrong_and_bounds_are_not():
    """Verdicts are missing where the first student did harm: those left say that it does less."""
    rng = np.random.default_rng(3)
    wrong = covered = 0
    for _ in range(200):
        one, other = ((rng.random((1, 40)) < 0.4).astype(float) for _ in range(2))
        seen = np.where((one == 1) & (rng.random(one.shape) < 0.6), NAN, one)
        found = claimed(seen, other, range(40)).estimate
        covered += found.low <= 0 <= found.high
        plain = paired(seen[0], other[0], np.arange(40)).estimate
        wrong += not plain.low <= 0 <= plain.high
    assert covered / 200 >= 0.95 and wrong / 200 > 0.2
