"""What a rollout leaves behind: finished dialogues, in groups that share a seed.

Token arrays use shape suffixes: `_L` is the length of the packed sequence of one dialogue.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steer_env.scenarios import Scenario
from steer_env.types import TurnResult, Unscored


class StopReason(enum.StrEnum):
    """Why a dialogue ended."""

    SEED_END = "seed_end"  # all turns of the seed were spoken: terminated
    MAX_CYCLES = "max_cycles"  # cut by the environment's limit: truncated
    FAILED = "failed"  # an agent had no utterance, such as a lost server; kept as data, never scored


@dataclass(frozen=True, slots=True, eq=False)
class TokenTrace:
    """The tokens of one dialogue as the engine saw them: one packed sequence.

    Attributes:
        ids_L: Token ids, prompt and replies of all turns, int64.
        sampled_L: True where the policy sampled the token (the loss mask), bool.
        logprobs_L: Behaviour log-probability where sampled, 0 elsewhere, float32.
        turn_L: Index of the student turn that sampled the token, -1 elsewhere, int32.
        images: How many images' placeholders the sequence holds.
    """

    ids_L: NDArray[np.int64]
    sampled_L: NDArray[np.bool_]
    logprobs_L: NDArray[np.float32]
    turn_L: NDArray[np.int32]
    images: int = 0

    def __post_init__(self) -> None:
        shapes = {a.shape for a in (self.ids_L, self.sampled_L, self.logprobs_L, self.turn_L)}
        if len(shapes) != 1 or self.ids_L.ndim != 1:
            raise ValueError(f"shapes={sorted(shapes)}, expected four arrays of one common shape (L,)")

    def __len__(self) -> int:
        return int(self.ids_L.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One finished dialogue.

    Attributes:
        scenario: What it was about.
        seed: The reset seed; the members of a group share it.
        turns: One `TurnResult` per cycle: texts, verdict, emitted reward, info.
        stop: Why it ended.
        trace: Tokens of the student up to its last reply, None for agents without tokens.
        error: Which seat failed and why, "" unless `stop` is FAILED.
    """

    scenario: Scenario
    seed: int
    turns: tuple[TurnResult, ...]
    stop: StopReason
    trace: TokenTrace | None = None
    error: str = ""

    @property
    def rewards(self) -> tuple[float, ...]:
        """Emitted reward of each turn."""
        return tuple(t.reward for t in self.turns)

    @property
    def total(self) -> float:
        """The return: sum of the emitted rewards, including the final turn's."""
        return float(sum(self.rewards))

    @property
    def scored(self) -> tuple[bool, ...]:
        """Which turns the judge scored."""
        return tuple(
            t.turn.verdict is not None and not isinstance(t.turn.verdict, Unscored) for t in self.turns
        )


@dataclass(frozen=True, slots=True, eq=False)
class TrajectoryGroup:
    """K rollouts of one seed: same scenario, same opening, different replies."""

    trajectories: tuple[Trajectory, ...]

    def __post_init__(self) -> None:
        if not self.trajectories:
            raise ValueError("trajectories=(), expected at least one")
        seeds = {t.seed for t in self.trajectories}
        ids = {t.scenario.id for t in self.trajectories}
        if len(seeds) != 1 or len(ids) != 1:
            raise ValueError(
                f"seeds={sorted(seeds)}, scenarios={sorted(ids)}; a group shares one seed and one scenario"
            )

    def __len__(self) -> int:
        return len(self.trajectories)

    @property
    def returns(self) -> NDArray[np.float64]:
        """Returns of the members, shape (K,)."""
        return np.array([t.total for t in self.trajectories])


def group_by_seed(trajectories: Sequence[Trajectory], size: int) -> list[TrajectoryGroup]:
    """Cut consecutive blocks of `size` trajectories into groups.

    Raises:
        ValueError: If the number is not a multiple of `size` or a block mixes seeds; a dropped seed would
            silently shift every later group.
    """
    if size < 1 or len(trajectories) % size:
        raise ValueError(f"{len(trajectories)} trajectories do not divide into groups of size={size!r}")
    return [TrajectoryGroup(tuple(trajectories[i : i + size])) for i in range(0, len(trajectories), size)]
