r"""Which turn did it? What a dialogue was worth before and after each reply, by playing it on many times.

$V_t$ is the mean value of continuations from the moment the student has to give reply $t$: the replies before
stay, reply $t$ and all that follows are drawn again, the opponent draws the same numbers in each. The effect
of reply $t$ is $V_{t+1} - V_t$, and the effects of a dialogue add up to its value minus $V_0$. As estimates
of the advantage this is what VinePPO does for steps of a proof (Kazemnejad et al. 2024, arXiv 2410.01679,
sec. 4): unbiased whatever the return is, at the price of `k` continuations for every turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from steer_env.agents.base import Acts
from steer_env.arrays import Floats
from steer_env.rollout import Progress, rollout_from
from steer_env.trajectory import StopReason, Trajectory
from steer_env.vector import VectorDialogueEnv

#: What a finished dialogue is worth, NaN if that is not known.
Value = Callable[[Trajectory], float]


def emitted_return(trajectory: Trajectory) -> float:
    """Return the sum of the emitted rewards, NaN if the dialogue failed or nothing was scored."""
    known = trajectory.stop != StopReason.FAILED and any(trajectory.scored)
    return trajectory.total if known else float("nan")


def forked_values(
    env: VectorDialogueEnv,
    attacker: Acts,
    student: Acts,
    points: Sequence[tuple[Trajectory, int]],
    k: int,
    *,
    value: Value = emitted_return,
    progress: Progress | None = None,
) -> Floats:
    """Return the values of `k` continuations from each point, (P, k); NaN where one has none.

    Takes and raises what `rollout.rollout_from` does. A point at the end of a dialogue, `turn` equal to its
    number of turns, has nothing left to play: all its values are the dialogue's own.

    Args:
        env: A vector environment.
        attacker: Speaks for `attacker_0`.
        student: Speaks for `student_0`.
        points: Dialogues, each with the index of the first reply to be given again.
        k: Continuations of each.
        value: What a dialogue is worth.
        progress: Called with (finished, all).
    """
    result = np.array([[value(trajectory)] * k for trajectory, _ in points], np.float64).reshape(-1, k)
    left = [i for i, (trajectory, turn) in enumerate(points) if turn < len(trajectory.turns)]
    played = rollout_from(env, attacker, student, [points[i] for i in left], k, progress=progress)
    for i, continuations in zip(left, played, strict=True):
        result[i] = [value(trajectory) for trajectory in continuations]
    return result


@dataclass(frozen=True, slots=True)
class TurnEffect:
    """What one reply did to its dialogue.

    Attributes:
        turn: 0-based index.
        before: Mean value of continuations before the reply.
        after: The same after it; of the last reply the dialogue's own value.
        error: Standard error of the effect.
    """

    turn: int
    before: float
    after: float
    error: float

    @property
    def effect(self) -> float:
        """How much the reply changed what is to be expected."""
        return self.after - self.before


def turn_effects(
    env: VectorDialogueEnv,
    attacker: Acts,
    student: Acts,
    trajectory: Trajectory,
    k: int = 16,
    *,
    value: Value = emitted_return,
    progress: Progress | None = None,
) -> list[TurnEffect]:
    """Return what each reply of a recorded dialogue did, in order; see the top of this module.

    Args:
        env: A vector environment with the wrappers the value is read from.
        attacker: Speaks for `attacker_0`.
        student: Whose replies the recorded ones are compared with; it has to sample.
        trajectory: The dialogue.
        k: Continuations of each turn.
        value: What a dialogue is worth, such as its return or whether it did harm.
        progress: Called with (finished, all).

    Raises:
        ValueError: If the dialogue has no turns, or `k` is below 2.
    """
    count = len(trajectory.turns)
    if not count or k < 2:
        raise ValueError(
            f"{count} turns, k={k!r}; expected a dialogue with turns and at least 2 continuations"
        )
    points = [(trajectory, turn) for turn in range(count + 1)]
    values = forked_values(env, attacker, student, points, k, value=value, progress=progress)
    known = (~np.isnan(values)).sum(1)
    means = np.where(known > 0, np.nansum(values, 1) / np.maximum(known, 1), np.nan)
    squares = np.nansum(np.square(values - means[:, None]), 1) / np.maximum(known - 1, 1)
    errors = squares / np.maximum(known, 1)
    return [
        TurnEffect(t, float(means[t]), float(means[t + 1]), float(np.sqrt(errors[t] + errors[t + 1])))
        for t in range(count)
    ]


def effects_table(trajectory: Trajectory, effects: Sequence[TurnEffect], width: int = 48) -> str:
    """Return the effects as text, one line per reply, the reply that did most harm to the value marked."""
    known = [e for e in effects if not np.isnan(e.effect)]
    worst = min(known, key=lambda e: e.effect).turn if known else -1
    lines = [f"{'turn':>4} {'before':>7} {'after':>7} {'effect':>15}  reply"]
    for effect, result in zip(effects, trajectory.turns, strict=True):
        reply = " ".join(str(result.turn.reply).split())
        short = reply if len(reply) <= width else reply[: width - 1] + "\u2026"
        mark = "  <- this one" if effect.turn == worst and effect.effect < 0 else ""
        lines.append(
            f"{effect.turn:>4} {effect.before:>7.3f} {effect.after:>7.3f} "
            f"{effect.effect:>+7.3f} +-{effect.error:.3f}  {short}{mark}"
        )
    return "\n".join(lines)
