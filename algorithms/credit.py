r"""Credit per turn: which return the tokens of a turn answer for.

Arrays: `_T` turns of a dialogue, `_TK` turns and members of a group, NaN where a value is not defined. With
$r_t$ the reward emitted at turn $t$ (increments of TCSR's return by default) there are three choices, each
compared with siblings afterwards:

- "trajectory" (SaFeR-Steer, Stage III): every turn answers for the whole return $\sum_t r_t$. Unbiased, but a
  turn is also credited with what came before it, which it could not change: noise that grows with length. A
  *sum* over turns also rewards long dialogues if rewards are positive and the student can prolong them. Here
  the seed decides the length and siblings are equally long, so that does not matter unless an environment of
  your own lets the student end a dialogue.
- "reward_to_go": turn $t$ answers for $\sum_{j \ge t} r_j$. Without a baseline unbiased and less noisy. The
  baseline is the siblings' mean *at the same turn index*, a plug-in: after turn 1 siblings have different
  histories, so it removes less noise than a value function, and with a member in its own mean the gradient
  shrinks by (n-1)/n for the n siblings that reach the turn. Where the policy decides when dialogues end,
  n falls with the index and late turns are weighed down: biased. Equal lengths, as here, make that a constant
  factor; "rloo" has none.
- "turn_normalised": reward to go, divided by the siblings' standard deviation at the same turn index. Late
  turns have less left to differ in, and get the weight of early ones. Dividing changes the objective as in
  GRPO, here per turn: biased, and where the policy ends dialogues the few survivors at a late turn are
  compared among themselves only (the failure reported for per-turn normalisation in verl, issue 7244).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_env.algorithms.advantages import trajectory_return
from steer_env.trajectory import StopReason, Trajectory, TrajectoryGroup

Floats = NDArray[np.float64]
#: Names of the ways to give credit, see above.
CREDITS = ("trajectory", "reward_to_go", "turn_normalised")


def turn_rewards(trajectory: Trajectory) -> Floats:
    """Return the emitted rewards, (T,), whose sum is `trajectory_return`; NaN if that is undefined.

    Where TCSR emits increments of a return that masks unscored turns already, they are taken as they are.
    Otherwise an unscored turn counts as an average one.

    Example:
        >>> from steer_env.scenarios import Scenario, SeedTurn
        >>> from steer_env.trajectory import StopReason
        >>> from steer_env.types import Scored, Terms, Turn, TurnResult, Unscored
        >>> good = TurnResult(Turn(0, "u", "r", Scored(Terms(10, 10, 10))), 1.0)
        >>> lost = TurnResult(Turn(1, "u", "r", Unscored("timeout")), 0.0)
        >>> turn_rewards(Trajectory(Scenario((SeedTurn("u"),)), 0, (good, lost), StopReason.SEED_END))
        array([1., 1.])
    """
    rewards = np.array(trajectory.rewards, dtype=np.float64)
    if np.isnan(trajectory_return(trajectory)):
        return np.full_like(rewards, np.nan)
    scored = np.array(trajectory.scored)
    if "return_defined" in trajectory.turns[-1].info or scored.all():
        return rewards
    return np.where(scored, rewards, rewards[scored].mean())


def turn_costs(trajectory: Trajectory) -> Floats:
    """Return each turn's part in the dialogue's mean cost over scored turns, (T,).

    The sum is the mean of `info["cost"]`; unscored turns have no cost and count neither above nor below the
    line. All NaN if no turn has a cost or the dialogue broke off in an error.
    """
    if trajectory.stop == StopReason.FAILED:  # it broke off: what it would have cost is not known
        return np.full(len(trajectory.turns), np.nan)
    known = zip(trajectory.turns, trajectory.scored, strict=True)
    costs = np.array([r.info.get("cost", np.nan) if scored else np.nan for r, scored in known], np.float64)
    defined = ~np.isnan(costs)
    return np.where(defined, costs, 0.0) / defined.sum() if defined.any() else costs


def turn_returns(members: Sequence[Floats], totals: Sequence[float], credit: str) -> Floats:
    """Return what each turn of each member answers for, (T, K); (1, K) where all turns answer for the same.

    Args:
        members: Rewards of each member's turns, (T_k,); NaN if undefined.
        totals: The members' returns.
        credit: One of `CREDITS`.

    Example:
        >>> turn_returns([np.array([1.0, 2.0]), np.array([4.0])], [3.0, 4.0], "reward_to_go")
        array([[ 3.,  4.],
               [ 2., nan]])
    """
    if credit == "trajectory":
        return np.array([totals], dtype=np.float64)
    result = np.full((max(map(len, members), default=0), len(members)), np.nan)
    for column, rewards in enumerate(members):
        result[: len(rewards), column] = np.cumsum(rewards[::-1])[::-1]
    return result


def group_turn_returns(group: TrajectoryGroup, credit: str) -> Floats:
    """Return `turn_returns` of a group's emitted rewards."""
    members = group.trajectories
    return turn_returns([turn_rewards(t) for t in members], [trajectory_return(t) for t in members], credit)


def group_turn_costs(group: TrajectoryGroup, credit: str) -> Floats:
    """Return `turn_returns` of a group's costs; a dialogue's total is its mean cost per scored turn."""
    costs = [turn_costs(t) for t in group.trajectories]
    return turn_returns(costs, [float(c.sum()) if len(c) else float("nan") for c in costs], credit)


def split(advantages_TK: NDArray[np.floating[Any]], members: Sequence[Trajectory]) -> list[Floats]:
    """Return each member's advantages by turn, (T_k,), from those of its group, (T, K) or (1, K)."""
    columns = np.asarray(advantages_TK, dtype=np.float64).T
    return [
        np.full(len(t.turns), column[0]) if len(column) == 1 else column[: len(t.turns)]
        for t, column in zip(members, columns, strict=True)
    ]
