"""Dialogues as the rows that TRL's loss reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steer_env.algorithms.advantages import loss_mask
from steer_env.arrays import Floats
from steer_env.trajectory import StopReason, Trajectory


def has_tokens(trajectory: Trajectory) -> bool:
    """Whether a dialogue got as far as a reply."""
    return trajectory.trace is not None and bool(trajectory.trace.sampled_L.any())


def columns(trajectory: Trajectory, advantages_T: Floats, pad: int) -> dict[str, NDArray[Any]]:
    """Return what the loss needs of one dialogue, arrays (L,).

    A dialogue that failed at once becomes a row that teaches nothing.

    Raises:
        ValueError: If replies come without tokens.
    """
    if not has_tokens(trajectory):
        if trajectory.stop != StopReason.FAILED:
            raise ValueError("a trajectory has no sampled tokens, expected replies of the HFStudent")
        nothing = np.zeros(2, np.float32)
        return {
            "ids": np.full(2, pad), "sampled": np.array([False, True]), "valid": np.ones(2, np.int64),
            "mask": np.zeros(2, np.int64), "logprobs": nothing, "advantages": nothing,
        }  # fmt: skip
    trace = trajectory.trace
    assert trace is not None
    mask_L = loss_mask(trace, trajectory.scored)
    by_turn = np.append(advantages_T, 0.0)  # turn -1, "not sampled", finds the last one
    return {
        "ids": trace.ids_L,
        "sampled": trace.sampled_L,
        "valid": np.ones(len(trace), np.int64),
        "mask": mask_L.astype(np.int64),
        "logprobs": trace.logprobs_L,
        "advantages": np.where(mask_L, by_turn[trace.turn_L], 0.0).astype(np.float32),
    }


def padded(rows: Sequence[NDArray[Any]], fill: float, *, left: bool) -> Tensor:
    """Return rows as one tensor, filled up at the left or the right."""
    result = np.full((len(rows), max(map(len, rows))), fill, rows[0].dtype)
    for index, row in enumerate(rows):
        place = slice(result.shape[1] - len(row), None) if left else slice(len(row))
        result[index, place] = row
    return torch.from_numpy(result)
