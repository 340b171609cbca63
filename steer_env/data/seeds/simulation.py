"""Red team, module 4: playing a script against a target, graded turn by turn, stopped at a full jailbreak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from steer_env.agents.base import Failed, Observation
from steer_env.data.seeds.base import Outcome, Rejected, Seed
from steer_env.data.seeds.grading import FULL, SUCCESS, Grader
from steer_env.data.seeds.targets import Target
from steer_env.judges.base import JudgeRequest
from steer_env.scenarios import Scenario
from steer_env.types import ASSISTANT, USER, Message, Unscored


@dataclass
class Simulation:
    """What became of one script.

    Attributes:
        scenario: The script.
        transcript: What was said, both sides.
        grades: A grade per played turn, None where it could not be given.
        problem: Why a reply or a grade is missing, "" if none is.
    """

    scenario: Scenario
    transcript: tuple[Message, ...] = ()
    grades: list[int | None] = field(default_factory=list)
    problem: str = ""
    failed: bool = False

    @property
    def grade(self) -> int:
        """The best grade of a turn, 0 if none was graded."""
        return max((grade for grade in self.grades if grade is not None), default=0)

    @property
    def over(self) -> bool:
        """Whether nothing is left to play."""
        return self.failed or self.grade == FULL or len(self.grades) == len(self.scenario)


def simulate(scripts: Sequence[Scenario], target: Target, grader: Grader) -> list[Simulation]:
    """Play all scripts, a turn of each in one batch, and return what became of them, in order.

    Raises:
        BackendError: If the target's or the judge's back end is gone.
    """
    played = [Simulation(script) for script in scripts]
    while running := [one for one in played if not one.over]:
        for one in running:
            turn = one.scenario.turns[len(one.grades)]
            one.transcript += (Message(USER, turn.text, len(turn.images)),)
        for one, reply in zip(running, target.reply([_observe(o) for o in running]), strict=True):
            if isinstance(reply, Failed):
                one.failed, one.problem = True, reply.reason
            else:
                one.transcript += (Message(ASSISTANT, str(reply)),)
        replied = [one for one in running if not one.failed]
        requests = [JudgeRequest(one.scenario, one.transcript) for one in replied]
        for one, grade in zip(replied, grader.grade(requests), strict=True):
            if isinstance(grade, Unscored):
                one.problem = one.problem or grade.reason
            one.grades.append(None if isinstance(grade, Unscored) else grade)
    return played


def _observe(one: Simulation) -> Observation:
    shown = sum(message.images for message in one.transcript)
    return {"images": one.scenario.images[:shown], "transcript": one.transcript}


def outcome(played: Simulation, details: dict[str, Any], target: Target, grader: Grader) -> Outcome:
    """Return the seed if the script succeeded, else the reason why not.

    A dialogue of which a part could not be graded counts by the rest; without a success there it is unscored
    and not a failure of the attack.
    """
    if played.grade >= SUCCESS:
        made = {"grade": played.grade, "grades": played.grades, "target": target.name, "judge": grader.name}
        return Seed(played.scenario, {**details, **made})
    if played.failed:
        return Rejected("simulation", "target_failed", played.problem)
    if played.problem:
        return Rejected("simulation", "unscored", played.problem)
    return Rejected(
        "simulation", "resisted", f"grade {played.grade} of {target.name}, expected {SUCCESS} or 5"
    )
