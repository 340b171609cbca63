"""Advantages: how much better a dialogue went than its siblings, and which tokens that concerns.

Pure functions on arrays. Shape suffixes: `_GK` groups and members, `_L` tokens of one packed dialogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steer_env.trajectory import StopReason, TokenTrace, Trajectory


def trajectory_return(trajectory: Trajectory) -> float:
    """Return what a dialogue is worth to its group: the sum of its emitted rewards, missing verdicts masked.

    An unscored turn's reward is missing, not 0. `TCSR` has masked it already: what it emits sums to the
    return it declares (`info["return"]`), and what wrappers around it add is meant. Without it, the mean over
    scored turns times the number of turns is taken: an unscored turn counts as an average one. NaN if nothing
    was scored, since there is no return then, and for a dialogue that failed: a sum over fewer turns does not
    compare with its siblings'.

    Example:
        A judge that failed on the second turn makes the dialogue neither better nor worse than its sibling.

        >>> from steer_env.scenarios import Scenario, DraftTurn
        >>> from steer_env.trajectory import StopReason
        >>> from steer_env.types import Scored, Terms, Turn, TurnResult, Unscored
        >>> good = TurnResult(Turn(0, "u", "r", Scored(Terms(10, 10, 10))), 1.0)
        >>> lost = TurnResult(Turn(1, "u", "r", Unscored("timeout")), 0.0)
        >>> trajectory_return(Trajectory(Scenario((DraftTurn("u"),)), 0, (good, lost), StopReason.SEED_END))
        2.0
    """
    if trajectory.stop == StopReason.FAILED:
        return float("nan")
    scored = trajectory.scored
    info = trajectory.turns[-1].info if trajectory.turns else {}
    if not info.get("return_defined", any(scored)):
        return float("nan")
    if "return_defined" in info or all(scored):
        return trajectory.total
    rewards = [reward for reward, known in zip(trajectory.rewards, scored, strict=True) if known]
    return len(scored) * sum(rewards) / len(rewards)


def group_advantages(
    returns_GK: ArrayLike, *, scale: bool = False, epsilon: float = 1e-4
) -> NDArray[np.float64]:
    r"""Return each member's return minus the mean of its group.

    $A^{(k)} = R^{(k)} - \frac{1}{K} \sum_j R^{(j)}$ (SaFeR-Steer, arXiv 2604.16358, Stage III, which does not
    divide by the standard deviation); with `scale`, divided by the group's standard deviation plus `epsilon`
    (GRPO, Shao et al. 2024, arXiv 2402.03300, eq. 2 ff.). Dividing gives easy and hard seeds equal weight,
    but blows up noise in groups whose returns hardly differ (Liu et al. 2025, "Dr. GRPO", arXiv 2503.20783).

    Args:
        returns_GK: Returns, NaN where undefined. Undefined members take no part in mean and deviation.
        scale: Divide by the standard deviation.
        epsilon: Added to the standard deviation.

    Returns:
        Advantages of shape (G, K), 0 for undefined members and in groups with fewer than two defined ones.

    Example:
        The mean of 1, 2 and 6 is 3; the undefined member changes nothing.

        >>> group_advantages([[1.0, 2.0, float("nan"), 6.0]])
        array([[-2., -1.,  0.,  3.]])
    """
    returns = np.atleast_2d(np.asarray(returns_GK, dtype=np.float64))
    defined = ~np.isnan(returns)
    count = defined.sum(1, keepdims=True)
    mean = np.where(defined, returns, 0.0).sum(1, keepdims=True) / np.maximum(count, 1)
    centred = np.where(defined & (count > 1), returns - mean, 0.0)
    if scale:
        variance = np.square(centred).sum(1, keepdims=True) / np.maximum(count - 1, 1)
        centred = centred / (np.sqrt(variance) + epsilon)
    return centred


def loss_mask(trace: TokenTrace, scored: Sequence[bool]) -> NDArray[np.bool_]:
    """Return which tokens take part in the loss: sampled ones of turns that were scored, (L,) bool.

    Example:
        >>> trace = TokenTrace(
        ...     np.array([7, 8, 9, 8]), np.array([False, True, False, True]),
        ...     np.zeros(4, np.float32), np.array([-1, 0, -1, 1], np.int32))
        >>> loss_mask(trace, [True, False])
        array([False,  True, False, False])
    """
    if trace.turn_L.max(initial=-1) >= len(scored):
        raise ValueError(
            f"the trace has tokens of turn {trace.turn_L.max()} but the dialogue has {len(scored)} turns; "
            "trace and trajectory do not belong together"
        )
    flags = np.append(np.asarray(scored, np.bool_), False)  # turn -1, "not sampled", finds the last one
    return trace.sampled_L & flags[trace.turn_L]


def leave_one_out(returns_GK: ArrayLike) -> NDArray[np.float64]:
    r"""Return each member's return minus the mean of the *other* members of its group.

    $A^{(k)} = R^{(k)} - \frac{1}{K-1} \sum_{j \ne k} R^{(j)}$ (RLOO: Kool et al. 2019; Ahmadian et al.
    2024, arXiv 2402.14740, sec. 2.4), which is K/(K-1) times `group_advantages`: unbiased, as the baseline
    does not depend on the member's own reply.

    Args:
        returns_GK: Returns, NaN where undefined. Undefined members take no part.

    Returns:
        Advantages of shape (G, K), 0 for undefined members and where there are no others.

    Example:
        >>> leave_one_out([[1.0, 2.0, 6.0]])
        array([[-3. , -1.5,  4.5]])
    """
    count = (~np.isnan(np.atleast_2d(np.asarray(returns_GK, dtype=np.float64)))).sum(1, keepdims=True)
    return group_advantages(returns_GK) * count / np.maximum(count - 1, 1)


def gae(
    rewards_S: ArrayLike, values_S: ArrayLike, *, discount: float = 1.0, trace_decay: float = 0.95
) -> NDArray[np.float64]:
    r"""Return generalised advantage estimates of one dialogue that ends after its last step, (S,).

    $A_s = \sum_{l \ge 0} (\gamma\lambda)^l \delta_{s+l}$ with $\delta_s = r_s + \gamma V_{s+1} - V_s$
    (Schulman et al. 2016, arXiv 1506.02438, eq. 16). A step is a turn or a token.

    Args:
        rewards_S: Rewards after each step.
        values_S: Values before each step.
        discount: $\gamma$ in [0, 1].
        trace_decay: $\lambda$ in [0, 1]; 1 is reward to go minus value, 0 one step ahead.

    Example:
        >>> gae([0.0, 1.0], [0.5, 0.5], trace_decay=1.0)
        array([0.5, 0.5])
        >>> gae([0.0, 1.0], [0.5, 0.5], trace_decay=0.0)
        array([0. , 0.5])
    """
    rewards, values = np.asarray(rewards_S, np.float64), np.asarray(values_S, np.float64)
    errors = rewards + discount * np.append(values[1:], 0.0) - values
    advantages = np.zeros_like(errors)
    ahead = 0.0
    for step in range(len(errors) - 1, -1, -1):
        ahead = errors[step] + discount * trace_decay * ahead
        advantages[step] = ahead
    return advantages


def spread(
    advantages_T: NDArray[np.floating[Any]], trace: TokenTrace, mask_L: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Give every token in the mask the advantage of its turn, 0 elsewhere; (L,) float32.

    What the user said in between changes nothing: observation tokens belong to no turn.

    Args:
        advantages_T: Advantage of each turn.
        trace: The dialogue's tokens.
        mask_L: Which of them take part in the loss.

    Example:
        >>> trace = TokenTrace(
        ...     np.array([7, 8, 9, 8]), np.array([False, True, False, True]),
        ...     np.zeros(4, np.float32), np.array([-1, 0, -1, 1], np.int32))
        >>> spread(np.array([2.0, 3.0]), trace, loss_mask(trace, [True, True]))
        array([0., 2., 0., 3.], dtype=float32)
    """
    by_turn = np.append(np.asarray(advantages_T, np.float32), np.float32(0.0))  # turn -1 finds the last one
    return np.where(mask_L, by_turn[trace.turn_L], np.float32(0.0))


def cut_turns(trace: TokenTrace, close_id: int) -> NDArray[np.int32]:
    """Return the turns whose reply was cut at `max_new_tokens`.

    A reply that ended by itself ends with a sampled `close_id`. One that was cut has another last token, and
    the closing one is put behind it unsampled, so the trace tells them apart for every sampler.

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
