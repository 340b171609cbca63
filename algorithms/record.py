"""What a training step played, on disk for the report: dialogues with their tokens, masks and advantages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_env.records import ROLLOUTS, JsonlWriter, token_pieces, trajectory_row
from steer_env.trajectory import Trajectory

#: (mask, advantages) of a dialogue's tokens, both (L,).
Credit = tuple[NDArray[np.bool_], NDArray[np.floating[Any]]]


def record_rollouts(
    run_dir: Path,
    step: int,
    trajectories: Sequence[Trajectory],
    credits: Mapping[int, Credit],
    text_of: Callable[[Sequence[int]], str],
) -> None:
    """Append the dialogues of a step to `rollouts.jsonl`, which `steer-env report` reads.

    Args:
        run_dir: Folder of the training run.
        step: The step; resuming drops rows of steps that are played again.
        trajectories: What was played.
        credits: Index of a trajectory -> mask and advantages of its tokens; the loss leaves others out.
        text_of: Turns token ids into text.
    """
    with JsonlWriter(run_dir / ROLLOUTS) as writer:
        for index, trajectory in enumerate(trajectories):
            extra: dict[str, Any] = {"step": step, "advantage": None}
            mask_L, advantages_L = credits.get(index, (None, None))
            if mask_L is not None and advantages_L is not None:
                extra["advantage"] = round(float(advantages_L[mask_L].mean()), 6)
            if trajectory.trace is not None:
                extra["tokens"] = token_pieces(trajectory.trace, text_of, mask_L, advantages_L)
            writer.write(trajectory_row(trajectory, **extra))
