"""Dialogues as the rows that TRL's loss reads, and weights for a sampler that is not quite the policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def passes(batch: dict[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """Yield the model's inputs of `size` rows at a time; a pass whose rows have no pictures gets none.

    TRL's own split leaves such a pass empty pictures, which models do not take.
    """
    rows = len(batch["completion_ids"])
    shown = batch.get("num_images", [0] * rows)
    image_at = np.cumsum([0, *shown])
    patch_at = np.cumsum([0, *(batch["image_grid_thw"].prod(1).tolist() if any(shown) else ())])
    names = {"prompt_ids", "prompt_mask", "completion_ids", "completion_mask"}
    names |= {"mm_token_type_ids", "token_type_ids"}
    for start in range(0, rows, size):
        part = {name: batch[name][start : start + size] for name in names & batch.keys()}
        first, last = image_at[start], image_at[min(start + size, rows)]
        if first < last:
            part["num_images"] = shown[start : start + size]
            part["image_grid_thw"] = batch["image_grid_thw"][first:last]
            part["pixel_values"] = batch["pixel_values"][patch_at[first] : patch_at[last]]
        yield part


def importance_weights(
    own_BL: Tensor, sampled_BL: Tensor, mask_BL: Tensor, mode: str, low: float | None, high: float | None
) -> Tensor:
    """Return the weights that correct for a sampler that is not quite the policy.

    The ratio of the policy's probability to the sampler's, per token or per dialogue, is cut to [low, high]
    ("truncate"; Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training")
    or put to 0 outside of it ("mask").

    Args:
        own_BL: Log-probabilities of the policy.
        sampled_BL: Those the tokens were sampled with.
        mask_BL: 1 at tokens that are learned.
        mode: "token_truncate", "token_mask", "sequence_truncate" or "sequence_mask", as in TRL.
        low: None for no bound.
        high: None for no bound.

    Returns:
        (B, L), or (B, 1) for a mode of sequences.
    """
    logs = torch.where(mask_BL.bool(), own_BL - sampled_BL, 0.0)
    if mode.startswith("sequence"):
        logs = logs.sum(1, keepdim=True)
    ratio = logs.exp()
    floor, ceiling = (0.0 if low is None else low), (float("inf") if high is None else high)
    if mode.endswith("truncate"):
        return ratio.clamp(floor, ceiling)
    return torch.where((ratio < floor) | (ratio > ceiling), 0.0, ratio)
