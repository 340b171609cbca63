r"""Role-conditioned advantage estimation: one running baseline per seat and kind of dialogue.

Source: Liu et al. 2025, "SPIRAL", arXiv 2506.24119, sec. 3.3: for game $G$ and role $p$,
$b_{G,p} \leftarrow \alpha b_{G,p} + (1-\alpha) R_p(\tau)$ and $A_{G,p}(\tau) = R_p(\tau) - b_{G,p}$. The two
seats are paid differently and harm pays one what it costs the other, so a baseline they share would be right
for neither; a group's mean is of no use where both sides of the group are being trained on one dialogue each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_env.algorithms.attack import seat_of
from steer_env.algorithms.base import register_algorithm
from steer_env.algorithms.credit import reward_ledger, split, turn_values
from steer_env.algorithms.policy import PolicyGradient
from steer_env.arrays import Floats
from steer_env.checks import check_choice, check_numbers
from steer_env.records import Row
from steer_env.trajectory import Trajectory, TrajectoryGroup


@register_algorithm("rae")
@dataclass(kw_only=True)
class RAE(PolicyGradient):
    """Return per turn minus the running mean of the same seat and kind; works without groups (K = 1).

    Departures from the source: the "game" is the kind of dialogue, returns are per turn, because here the
    seed decides how long a dialogue is, and the baseline moves after a step rather than before each dialogue,
    so that no reply is in its own baseline. The first time a seat plays a kind its step's mean is taken.

    Attributes:
        credit: "trajectory" (the source's), "reward_to_go": a turn answers for the mean of its own and later
            rewards, or "own_turn".
        scale: Divide by the step's root mean square advantage of the same seat and kind.
        decay: Decay of the running means per dialogue, in [0, 1].
    """

    credit: str = "trajectory"
    decay: float = 0.95
    _means: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "credit", ("trajectory", "reward_to_go", "own_turn"))
        check_numbers(self, ("decay",), 0, 1)

    def turn_advantages(self, groups: Sequence[TrajectoryGroup]) -> list[NDArray[np.floating[Any]] | None]:
        """Compare each dialogue with the baseline of its seat and kind; None without a return."""
        members = [t for group in groups for t in group.trajectories]
        flat = {id(t) for g in groups if self.drop_flat and self.flat(g) for t in g.trajectories}
        means = {**_first_means(members), **self._means}
        result: list[NDArray[np.floating[Any]] | None] = []
        squares: dict[str, list[float]] = {}
        for trajectory in members:
            value = mean_return(trajectory)
            if np.isnan(value) or id(trajectory) in flat:
                result.append(None)
                continue
            key = role(trajectory)
            result.append(self._answers_for(trajectory) - means[key])
            squares.setdefault(key, []).append((value - means[key]) ** 2)
        if not self.scale:
            return result
        deviation = {key: float(np.sqrt(np.mean(values))) for key, values in squares.items()}
        return [
            None if a is None else a / (deviation[role(t)] + 1e-4)
            for a, t in zip(result, members, strict=True)
        ]

    def _answers_for(self, trajectory: Trajectory) -> Floats:
        """What each turn answers for, per turn, (T,)."""
        values = turn_values([reward_ledger(trajectory)], self.credit, per_turn=True)
        return split(values, [trajectory])[0]

    def finish(self, groups: Sequence[TrajectoryGroup]) -> Row:
        """Move the baselines by the step's returns, dialogue by dialogue."""
        members = [t for group in groups for t in group.trajectories]
        first = _first_means(members)
        for key, value in ((role(t), mean_return(t)) for t in members):
            if np.isnan(value):
                continue
            before = self._means.get(key, first[key])
            self._means[key] = self.decay * before + (1 - self.decay) * value
        return {f"baseline {key}": value for key, value in sorted(self._means.items())}

    def state_dict(self) -> dict[str, Any]:
        """Return the baselines."""
        return {"means": dict(self._means)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the baselines back."""
        self._means = {str(key): float(value) for key, value in state["means"].items()}


def role(trajectory: Trajectory) -> str:
    """Return what shares a baseline: "student_0/benign", "attacker_0/red_team", ..."""
    return f"{seat_of(trajectory)}/{trajectory.scenario.kind}"


def mean_return(trajectory: Trajectory) -> float:
    """Return the dialogue's return per turn, NaN where it has none."""
    return reward_ledger(trajectory).mean


def _first_means(members: Sequence[Trajectory]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for trajectory in members:
        if not np.isnan(value := mean_return(trajectory)):
            values.setdefault(role(trajectory), []).append(value)
    return {key: float(np.mean(of_key)) for key, of_key in values.items()}
