r"""Counterfactual credit: what a reply did to its dialogue, by playing the dialogue on before and after it.

The advantage of reply $t$ is $\hat V_{t+1} - \hat V_t$, means of the declared return over continuations (see
`steer_env.counterfactual`): unbiased for the return, like "reward_to_go", without the noise of what all later
replies of this one dialogue happened to be. The price is `k` dialogues per point, so only the turns of a
group are looked at whose own rewards differ most among siblings, and none where they agree. Elsewhere the
advantage is 0: biased where a reply has the same reward as its siblings' and other consequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from steer_env.algorithms.advantages import trajectory_return
from steer_env.algorithms.credit import FORKED, reward_ledger, turn_values
from steer_env.drawing import acts_of
from steer_env.trajectory import Trajectory, TrajectoryGroup

#: Plays dialogues on from points, k times each; `rollout.rollout_from` with its agents.
PlayOn = Callable[[Sequence[tuple[Trajectory, int]], int], list[list[Trajectory]]]


def turns_in_dispute(group: TrajectoryGroup, most: int) -> list[int]:
    """Return at most `most` turns whose own rewards differ among siblings, those that differ most first."""
    own_TK = turn_values([reward_ledger(t) for t in group.trajectories], "own_turn")
    spreads = {}
    for turn, row in enumerate(own_TK):
        known = row[~np.isnan(row)]
        if len(known) > 1 and np.ptp(known) > 1e-9:
            spreads[turn] = float(known.std())
    return sorted(spreads, key=lambda turn: (-spreads[turn], turn))[:most]


def look_ahead(groups: Sequence[TrajectoryGroup], play_on: PlayOn, k: int, most: int) -> None:
    """Write each turn's effect on the return into its info, where `credit` finds it; 0 where nobody looked.

    Siblings that have said the same so far share their continuations.

    Args:
        groups: Dialogues of a step.
        play_on: Plays dialogues on.
        k: Continuations of each point.
        most: Turns of a group that are looked at.
    """
    wanted: list[tuple[Trajectory, int]] = []
    places: dict[Any, int] = {}
    for group in groups:
        for turn in turns_in_dispute(group, most):
            for trajectory in group.trajectories:
                for point in (turn, turn + 1):
                    if turn < len(trajectory.turns) and point < len(trajectory.turns):
                        key = _situation(trajectory, point)
                        if key not in places:
                            places[key] = len(wanted)
                            wanted.append((trajectory, point))
    values = (
        [_mean([trajectory_return(t) for t in played]) for played in play_on(wanted, k)] if wanted else []
    )

    def value(trajectory: Trajectory, point: int) -> float:
        if point == len(trajectory.turns):
            return trajectory_return(trajectory)
        return values[places[_situation(trajectory, point)]]

    for group in groups:
        disputed = turns_in_dispute(group, most)
        for trajectory in group.trajectories:
            for turn, result in enumerate(trajectory.turns):
                effect = 0.0
                if turn in disputed:
                    effect = value(trajectory, turn + 1) - value(trajectory, turn)
                result.info[FORKED] = effect  # type: ignore[index]


def _situation(trajectory: Trajectory, point: int) -> Any:
    """What decides how a dialogue goes on from a point: its seed and what was said."""
    said = tuple((str(r.turn.user), str(r.turn.reply)) for r in trajectory.turns[:point])
    acts = tuple(acts_of(r.turn.user) for r in trajectory.turns[: point + 1])
    return trajectory.seed, trajectory.scenario.id, said, acts, str(trajectory.turns[point].turn.user)


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")
