"""The whole kit on one student: alone, in the environment, in the vector environment and in rollouts."""

from __future__ import annotations

from typing import Any

from steer_env.rollout import rollout
from steer_env.testing.agents import check_agent
from steer_env.testing.envs import check_env
from steer_env.testing.randomness import global_random_untouched
from steer_env.testing.toys import ToyAttacker, toy_env
from steer_env.testing.trajectories import Decode, check_trajectories
from steer_env.testing.vectors import check_vector
from steer_env.trajectory import StopReason, Trajectory
from steer_env.types import STUDENT
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import TCSR, TurnReward


def check_student(
    student: Any, *, decode: Decode | None = None, image_token: int | None = None
) -> list[Trajectory]:
    """Check a student against every invariant of this kit that a student can break.

    Plays toy dialogues with pictures in several turns: `check_agent`, then `check_env` and `check_vector`
    with this student in its seat, then `check_trajectories` on a rollout of groups.

    Args:
        student: A student that answers the same to the same; give a model temperature 0.
        decode: See `check_trace`; for students whose replies carry a trace.
        image_token: See `check_trace`.

    Returns:
        The dialogues of the rollout, for checks of your own.

    Raises:
        AssertionError: At the first broken rule.
    """

    def make() -> Any:
        return TCSR(TurnReward(toy_env()))

    check_agent(student, STUDENT)
    check_env(make, (0, 1), attacker=ToyAttacker(), student=student)
    check_vector(make, attacker=ToyAttacker(), student=student, num_envs=2)
    with global_random_untouched(f"a rollout of {type(student).__name__}"):
        played = rollout(VectorDialogueEnv([make] * 4), ToyAttacker(), student, [0, 0, 3, 3, 5, 8])
    failed = [trajectory.error for trajectory in played if trajectory.stop == StopReason.FAILED]
    assert not failed, f"{len(failed)} of {len(played)} dialogues failed ({failed[0]}), expected none"
    check_trajectories(played, decode=decode, image_token=image_token)
    return played
