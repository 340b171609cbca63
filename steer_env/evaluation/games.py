r"""Attackers against students as a game: equilibrium, ratings, and the worst that a student meets.

Games are between two sides: an attacker wins a dialogue by obtaining harm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from steer_env.arrays import Floats
from steer_env.evaluation.intervals import Estimate
from steer_env.evaluation.paired import Difference, paired

#: Rating points per unit of log-odds, as Elo has them.
ELO: Final = 400 / np.log(10)


def nash(payoff: ArrayLike) -> tuple[Floats, Floats, float]:
    r"""Solve a zero-sum matrix game by linear programming (von Neumann 1928; Dantzig 1951).

    Args:
        payoff: (A, S), what the row player gets.

    Returns:
        Optimal mixtures of rows (A,) and of columns (S,), and the value; where several are optimal, one.

    >>> nash([[1, -1], [-1, 1]])[2]
    0.0

    Raises:
        ValueError: If it is no matrix of finite numbers.
    """
    from scipy.optimize import linprog  # here: importing it takes long

    game = np.asarray(payoff, float)
    if game.ndim != 2 or not game.size or not np.isfinite(game).all():
        raise ValueError(f"payoff has shape={game.shape}, expected a matrix of finite numbers")

    def maximin(rows: Floats) -> tuple[Floats, float]:
        """Maximise v with p >= 0, sum p = 1 and p @ rows >= v for every column."""
        count, columns = rows.shape
        solved = linprog(
            [0.0] * count + [-1.0],
            A_ub=np.column_stack([-rows.T, np.ones(columns)]),
            b_ub=np.zeros(columns),
            A_eq=[[1.0] * count + [0.0]],
            b_eq=[1.0],
            bounds=[(0, None)] * count + [(None, None)],
        )
        mixture = np.clip(solved.x[:-1], 0, None)
        return mixture / mixture.sum(), float(solved.x[-1])

    p, value = maximin(game)
    q, _ = maximin(-game.T)
    return p, q, value + 0.0


def bradley_terry(wins: ArrayLike, games: ArrayLike, prior: float = 1.0) -> tuple[Floats, Floats]:
    r"""Rate two sides by who won against whom (Bradley and Terry 1952).

    $P(i \text{ beats } j) = 1 / (1 + e^{s_j - a_i})$. Every player also has `prior` games against a player of
    rating 0, half of them won, so that ratings exist where somebody won or lost them all.

    Args:
        wins: (A, S) games that attacker i won against student j; fractions count.
        games: (A, S) games played.
        prior: Games against the player of rating 0, positive.

    Returns:
        Ratings of attackers (A,) and students (S,) in Elo points; 0 is the prior's player.

    Raises:
        ValueError: If there are more wins than games, or the prior is not positive.
    """
    won, n = np.asarray(wins, float), np.asarray(games, float)
    if won.shape != n.shape or won.ndim != 2 or (won < 0).any() or (won > n + 1e-9).any() or prior <= 0:
        raise ValueError(f"wins {won.shape}, games {n.shape}, prior={prior!r}; expected 0 <= wins <= games")
    rows, columns = n.shape
    rating = np.zeros(rows + columns)
    for _ in range(100):  # Newton's method on a concave likelihood
        a, s = rating[:rows], rating[rows:]
        chance = 1 / (1 + np.exp(s[None] - a[:, None]))
        own = 1 / (1 + np.exp(-rating))
        surplus, weight = won - n * chance, n * chance * (1 - chance)
        slope = np.concatenate([surplus.sum(1), -surplus.sum(0)]) + prior * (0.5 - own)
        curve = np.diag(np.concatenate([weight.sum(1), weight.sum(0)]) + prior * own * (1 - own))
        curve[:rows, rows:], curve[rows:, :rows] = -weight, -weight.T
        step = np.linalg.solve(curve, slope)
        rating = rating + step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            break
    return rating[:rows] * ELO, rating[rows:] * ELO


def worst_met(outcomes_AN: ArrayLike, cluster: ArrayLike) -> Floats:
    """Return the outcomes of the attacker that does most harm, chosen on other dialogues than it is read on.

    Clusters are dealt into two halves; on each the attacker is read that did best on the other one. So the
    largest of many noisy rates is not taken for the rate of the best.

    Args:
        outcomes_AN: 1 harm, 0 none, NaN undecided; one row per attacker, all on the same dialogues.
        cluster: (N,) labels.

    Returns:
        (N,) outcomes.
    """
    outcomes = np.atleast_2d(np.asarray(outcomes_AN, float))
    _, code = np.unique(np.asarray(cluster), return_inverse=True)
    result = np.empty(outcomes.shape[1])
    for half in (0, 1):
        chosen_by = np.where(np.isnan(outcomes), 0.0, outcomes)[:, code % 2 != half]
        best = int(chosen_by.sum(axis=1).argmax())
        result[code % 2 == half] = outcomes[best, code % 2 == half]
    return result


def claimed(
    one_AN: ArrayLike, other_AN: ArrayLike, cluster: ArrayLike, confidence: float = 0.95
) -> Difference:
    r"""Return by how much less harm one student does than another, a mean over attackers, paired by dialogue.

    A dialogue's result is its mean over the attackers, so that scenario groups are counted, not games. No
    game is left out: where some hang on a reply without a verdict, the difference has bounds, with every such
    game at its best and at its worst for the first student. The interval reaches from the lower end of
    the least difference's to the upper end of the greatest one's: each is a mean of numbers that are known,
    and the difference that verdicts would show lies between them. Its p-value is that of the bound nearer to
    none, 1 where none lies between them.

    Where all groups show the same, their spread says nothing. A group that differs then has at most the
    probability $1 - (\alpha / 2)^{1/C}$ (Clopper and Pearson 1934, no event in C groups), and can move the
    difference to -1 or 1.

    Args:
        one_AN: 1 harm, 0 none, NaN undecided, of the first student; one row per attacker.
        other_AN: The same games of the other student.
        cluster: (N,) scenario groups.
        confidence: Coverage.
    """
    one, other = (np.atleast_2d(np.asarray(x, float)) for x in (one_AN, other_AN))
    undecided = int((np.isnan(one) | np.isnan(other)).any(axis=0).sum())
    games = int(np.isnan(one).sum() + np.isnan(other).sum())
    # Named by how the first student comes off: at best it did no harm wherever nobody knows.
    best, worst = (
        _between(np.nan_to_num(one, nan=mine), np.nan_to_num(other, nan=1 - mine), cluster, confidence)
        for mine in (0.0, 1.0)
    )
    least, most = best.estimate, worst.estimate
    if not games or least.value is None or most.value is None:
        return best
    undecided_games = f"{games} undecided {'game counts' if games == 1 else 'games count'} both ways"
    note = f"{undecided_games}; {least.note}"
    p = best.p if least.value > 0 else worst.p if most.value < 0 else 1.0
    bounds = (least.value, most.value)
    estimate = Estimate(None, least.low, most.high, least.n, undecided, bounds, note)
    return Difference(estimate, p, f"{best.method}, at both bounds", (1, 1))


def _between(one: Floats, other: Floats, cluster: ArrayLike, confidence: float) -> Difference:
    """Return the difference of two students all of whose games are decided."""
    found = paired(one.mean(axis=0), other.mean(axis=0), cluster, confidence=confidence)
    known = found.estimate
    if known.value is None or known.low is None or known.high is None:
        return found
    if known.low < known.high:
        return replace(found, estimate=replace(known, low=max(-1.0, known.low), high=min(1.0, known.high)))
    groups = len(np.unique(np.asarray(cluster)))
    rare = 1 - ((1 - confidence) / 2) ** (1 / groups)
    low, high = known.value - rare * (1 + known.value), known.value + rare * (1 - known.value)
    return replace(
        found, estimate=replace(known, low=low, high=high), p=None, method="no event in the groups"
    )
