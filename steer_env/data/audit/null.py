"""What is usual when nothing leaks: the training set against itself, at the lengths of the held-out set."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Fewest dialogues of A that say what is usual at one length; where it has fewer, its next lengths count too.
LEAST: Final = 20


def matched_null(
    scores: NDArray[np.float64],
    groups: NDArray[np.int64],
    lengths: NDArray[np.int64],
    wanted: NDArray[np.int64],
    least: int = LEAST,
) -> tuple[float, float]:
    """Return the mean score of A's dialogues, were they as long as B's, and the error of B's excess.

    Long dialogues have more chances to resemble something. Each dialogue of B is therefore held against the
    dialogues of A of its number of turns: direct standardisation. Lengths that A lacks are matched with the
    nearest it has.

    Args:
        scores: Of A's n dialogues, shape (n,): 1 for one that counts, 0 for one that does not, or a grade.
        groups: Their groups, from 0, shape (n,); dialogues of a group are not independent.
        lengths: Their turns, shape (n,).
        wanted: Turns of B's m dialogues, shape (m,).
        least: Fewest dialogues of A that B's of one length are held against, if it has so many.

    Returns:
        The mean, and the standard error of B's mean less this one if B were like the groups of A, given all
        lengths. The error comes from A alone, so that a copy counts in full where A holds none.
    """
    pools = {int(turns): _pool(lengths, turns, least) for turns in np.unique([*lengths, *wanted])}
    weights = np.zeros(len(scores))
    for turns, count in zip(*np.unique(wanted, return_counts=True), strict=True):
        pool = pools[int(turns)]
        weights[pool] += count / len(wanted) / pool.sum()
    usual = {turns: scores[pool].mean() for turns, pool in pools.items()}
    rest = scores - np.array([usual[int(turns)] for turns in lengths])
    variance = float((np.bincount(groups, weights=weights * rest) ** 2).sum())
    squares = float((weights**2 * rest**2).sum())
    # Of B only its size is known: its dialogues are taken to vary, and to hang together in groups, as A's do.
    effective = float((weights * rest**2).sum()) / squares if squares else 0.0
    return float(weights @ scores), float(np.sqrt(variance * (1 + effective / len(wanted))))


def _pool(lengths: NDArray[np.int64], turns: int, least: int) -> NDArray[np.bool_]:
    """Return which dialogues are nearest to a length: all of that length, and of the next until enough."""
    away = np.abs(lengths - turns)
    reach = np.sort(away)[min(least, len(away)) - 1]
    return np.asarray(away <= reach)
