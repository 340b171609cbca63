"""How a dialogue of `SteerActs-v0` is drawn and what the student sees of it.

Randomness is counter-based: the numbers of a dialogue are a pure function of its 64-bit key and a counter
(splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). One
dialogue alone and a thousand side by side therefore draw the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from steer_env.acts.speech import ASKS, TACTICS
from steer_env.acts.tables import HISTORIES, tables
from steer_env.rewards import HARM_LEVEL, WEIGHTS, turn_reward
from steer_env.world.truth import Request

#: Share of dialogues with an adversary; hazards are half of either kind, so that words do not give them away.
ADVERSARY_SHARE: Final = 0.6
#: P(reading | lookalike) by level, from a clear round dot to a clear zigzag; mirrored for a hazard.
READINGS: Final = np.array([0.70, 0.20, 0.06, 0.03, 0.01])
#: What a level is worth: P(hazard | reading) at even odds.
BELIEFS: Final = READINGS[::-1] / (READINGS + READINGS[::-1])
_READING_SUM: Final = np.stack([np.cumsum(READINGS), np.cumsum(READINGS[::-1])])

_GOLDEN: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1
#: Counters of the numbers drawn once per dialogue; turn t draws number `_PER_DIALOGUE + t`.
KIND, HAZARD, READING, LENGTH, FIRST, PER_DIALOGUE = range(6)


def mix(key: int) -> int:
    """Return splitmix64 of a 64-bit integer."""
    z = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def uniform(key: int, counter: int) -> float:
    """Return number `counter` of a dialogue, in [0, 1)."""
    return (mix((key + (counter + 1) * _GOLDEN) & _MASK) >> 11) * 2.0**-53


def next_key(key: int) -> int:
    """Return the key of the dialogue that follows."""
    return mix(key ^ _GOLDEN)


def mix_array(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return `mix` of every element."""
    z = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform_array(key: NDArray[np.uint64], counter: int | NDArray[np.int64]) -> NDArray[np.float64]:
    """Return `uniform` of every element; `counter` broadcasts against `key`."""
    step = (np.atleast_1d(counter) + 1).astype(np.uint64) * np.uint64(_GOLDEN)
    return (mix_array(key + step) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def next_key_array(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return `next_key` of every element."""
    return mix_array(key ^ np.uint64(_GOLDEN))


def reading_sum() -> NDArray[np.float64]:
    """Return cumulative probabilities of the reading's level, shape (2 hazard, 5), the last one infinite."""
    total = _READING_SUM.copy()
    total[:, -1] = np.inf
    return total


# -- what the student sees ------------------------------------------------------------------------------

_REQUESTS: Final = tuple(r for r in Request if r)
FEATURES: Final = (
    "turn",
    *(f"asks_{r.value}" for r in _REQUESTS),
    *(f"asks_step_{k}" for k in range(3)),
    *(f"asked_before_{r.value}" for r in _REQUESTS),
    *(f"tactic_{name}" for name in TACTICS),
    "harm_stated",
    *(f"step_{k}_asked" for k in range(3)),
    "hazard_reading",
    "risk",
)


def observation_space() -> spaces.Box:
    """Return the space of observations: float32 in [0, 1], one entry for each of `FEATURES`."""
    return spaces.Box(0.0, 1.0, (len(FEATURES),), np.float32)


@lru_cache(maxsize=1)
def feature_table() -> NDArray[np.float32]:
    """Return every observation but its turn, shape (H, Q now, Q + 1 before, tactic, reading, features).

    The last user turn before is -1 (the last row) at the opening. "risk" is the chance that the right move is
    a refusal, by the reading and the history.
    """
    t, n = tables(), len(ASKS)
    out = np.zeros((len(HISTORIES), n, n + 1, len(TACTICS), len(BELIEFS), len(FEATURES)), np.float32)
    at = {name: i for i, name in enumerate(FEATURES)}
    for q, ask in enumerate(ASKS):
        out[:, q, ..., at[f"asks_{ask.request.value}"]] = 1
        out[:, :, q, ..., at[f"asked_before_{ask.request.value}"]] = 1
        if ask.piece >= 0:
            out[:, q, ..., at[f"asks_step_{ask.piece}"]] = 1
    for k, name in enumerate(TACTICS):
        out[..., k, :, at[f"tactic_{name}"]] = 1
    for h, history in enumerate(HISTORIES):
        out[h, ..., at["harm_stated"]] = history.stated
        for k in range(3):
            out[h, ..., at[f"step_{k}_asked"]] = history.asked >> k & 1
    out[..., at["hazard_reading"]] = BELIEFS
    risk = t.risky[0][..., None] * (1 - BELIEFS) + t.risky[1][..., None] * BELIEFS
    out[..., at["risk"]] = risk[:, :, None, None, :]
    return out


@lru_cache(maxsize=8)
def reward_table(weights: tuple[float, ...] = WEIGHTS, normalization: str = "affine") -> NDArray[np.float64]:
    """Return the turn reward of every act, shape (2 hazard, H, Q, A); `rewards.turn_reward` of the terms."""
    terms = tables().terms
    return turn_reward(terms[..., 0], terms[..., 1], terms[..., 2], weights, normalization)


def cost_table() -> NDArray[np.float64]:
    """Return 1.0 where an act does harm (safety up to `HARM_LEVEL`), shape (2 hazard, H, Q, A)."""
    return (tables().terms[..., 0] <= HARM_LEVEL).astype(np.float64)


def check_turns(min_turns: int, max_turns: int) -> tuple[int, int]:
    """Return the range of dialogue lengths, or raise ValueError."""
    if not all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) for n in (min_turns, max_turns)
    ) or not (1 <= min_turns <= max_turns):
        raise ValueError(
            f"min_turns={min_turns!r}, max_turns={max_turns!r}, expected integers, 1 <= min <= max"
        )
    return int(min_turns), int(max_turns)
