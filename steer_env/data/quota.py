"""Which groups of the built-in world make a split: lengths with a given mean, whole groups, no randomness.

The world draws lengths with means of its own. A split needs another mean, so groups are taken in their order
until the quota of their length is full; quotas follow the distribution on 2..10 that has the wanted mean and
is otherwise as even as possible (weights exp(k * n), the maximum-entropy one).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from steer_env.world.source import WorldSource, scene_of

MIN_TURNS: Final = 2
MAX_TURNS: Final = 10
_LENGTHS: Final = tuple(range(MIN_TURNS, MAX_TURNS + 1))


def length_shares(mean: float) -> dict[int, float]:
    """Return the maximum-entropy shares of the lengths 2..10 with the given mean.

    Raises:
        ValueError: If no such distribution exists.
    """
    if not MIN_TURNS < mean < MAX_TURNS:
        raise ValueError(f"mean={mean!r}, expected a number between {MIN_TURNS} and {MAX_TURNS}")
    low, high = -10.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        if _mean(_tilted(middle)) < mean:
            low = middle
        else:
            high = middle
    return _tilted((low + high) / 2)


def _tilted(k: float) -> dict[int, float]:
    weights = {n: math.exp(k * (n - MAX_TURNS)) for n in _LENGTHS}
    total = sum(weights.values())
    return {n: w / total for n, w in weights.items()}


def _mean(shares: Mapping[int, float]) -> float:
    return sum(n * share for n, share in shares.items())


def length_counts(groups: int, mean: float) -> dict[int, int]:
    """Return how many of `groups` groups have which length, by largest remainders."""
    exact = {n: groups * share for n, share in length_shares(mean).items()}
    counts = {n: int(value) for n, value in exact.items()}
    order = sorted(exact, key=lambda n: (counts[n] - exact[n], -n))
    for n in order[: groups - sum(counts.values())]:
        counts[n] += 1
    return counts


def even_parts(total: int, parts: int) -> list[int]:
    """Return `total` in parts that differ by at most one."""
    return [total // parts + (i < total % parts) for i in range(parts)]


def select(
    split: str,
    dialogues: Mapping[str, int],
    mean: float,
    start: int = 0,
    mechanisms: Mapping[str, str] | None = None,
    admit: Callable[[range], bool] | None = None,
) -> dict[str, list[int]]:
    """Choose the dialogues of a split.

    Args:
        split: Stream of the built-in world.
        dialogues: Number of dialogues of every subset.
        mean: Wanted mean number of turns.
        start: First group that is looked at.
        mechanisms: Mechanism of every subset; None when the one subset takes all as they come.
        admit: Says of the indices of a group whether it may be taken; asked only when there is room for it.

    Returns:
        For every subset the indices for `WorldSource.scenario`, ascending; whole groups, except that the last
        one may be cut.
    """
    size = WorldSource(split=split).members
    left = {name: length_counts(-(-count // size), mean) for name, count in dialogues.items()}
    subset_of = {mechanism: name for name, mechanism in (mechanisms or {}).items()}
    (only,) = dialogues if mechanisms is None else ("",)
    chosen: dict[str, list[int]] = {name: [] for name in dialogues}
    wanted = sum(sum(counts.values()) for counts in left.values())
    group = start
    while wanted:
        scene = scene_of(split, group, MIN_TURNS, MAX_TURNS)
        name = subset_of.get(scene.mechanism, only)
        indices = range(group * size, (group + 1) * size)
        if left[name][scene.turns] and (admit is None or admit(indices)):
            left[name][scene.turns] -= 1
            wanted -= 1
            chosen[name] += indices
        group += 1
    return {name: taken[: dialogues[name]] for name, taken in chosen.items()}
