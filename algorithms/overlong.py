"""Replies that were cut at `max_new_tokens`, and what to do about them.

A reply that ended by itself ends with a sampled closing token. One that was cut has another last token, and
the closing one is put behind it unsampled, so the trace tells them apart for every sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from steer_env.algorithms.base import Example
from steer_env.configs.train import Overlong
from steer_env.trajectory import TokenTrace, Trajectory

#: Names of the ways to treat replies that were cut, see `treat`.
OVERLONG: Final = get_args(Overlong)


def cut_turns(trace: TokenTrace, close_id: int) -> NDArray[np.int32]:
    """Return the turns whose reply was cut.

    Args:
        trace: The dialogue's tokens.
        close_id: The token that ends a reply.

    Example:
        Turn 0 ends by itself with token 9; turn 1 was cut, its 9 was not sampled.

        >>> trace = TokenTrace(
        ...     np.array([5, 9, 6, 7, 9]), np.array([True, True, False, True, False]),
        ...     np.zeros(5, np.float32), np.array([0, 0, -1, 1, -1], np.int32))
        >>> cut_turns(trace, 9)
        array([1], dtype=int32)
    """
    at = np.flatnonzero(trace.sampled_L)
    turns = trace.turn_L[at]
    last = at[np.append(turns[1:] != turns[:-1], True)] if len(at) else at
    return trace.turn_L[last[trace.ids_L[last] != close_id]]


def share_cut(trajectories: Sequence[Trajectory], close_id: int) -> float | None:
    """Return the share of replies that were cut, None where there are no traces."""
    traces = [t.trace for t in trajectories if t.trace is not None and t.trace.sampled_L.any()]
    replies = sum(len(np.unique(trace.turn_L[trace.sampled_L])) for trace in traces)
    return sum(len(cut_turns(trace, close_id)) for trace in traces) / replies if replies else None


def treat(examples: Sequence[Example], how: str, penalty: float, close_id: int) -> list[Example]:
    """Return what the loss sees of dialogues with cut replies.

    Args:
        examples: The step's dialogues.
        how: "keep" changes nothing. "mask" leaves the tokens of cut replies out, for what they were worth is
            not known (DAPO, arXiv 2503.14476, sec. 3.4, overlong filtering); a dialogue of which nothing is
            left goes. "penalise" takes `penalty` from the advantage of their tokens, as if the turn had
            earned so much less (the same, soft punishment without its slope).
        penalty: In units of the advantage, that is of the reward unless advantages are scaled.
        close_id: The token that ends a reply.
    """
    if how == "keep":
        return list(examples)
    treated = []
    for example in examples:
        trace = example.dialogue.trace
        cut_L = np.isin(trace.turn_L, cut_turns(trace, close_id)) & example.mask_L
        mask_L, advantages_L = example.mask_L, example.advantages_L
        if how == "mask":
            mask_L, advantages_L = mask_L & ~cut_L, np.where(cut_L, np.float32(0.0), advantages_L)
        else:
            advantages_L = np.where(cut_L, advantages_L - np.float32(penalty), advantages_L)
        if mask_L.any():
            treated.append(Example(example.dialogue, advantages_L, mask_L, example.extras))
    return treated
