"""The model generator: seeds written by any chat back end, one prompt template a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from steer_env.data.seeds import dialogue, forensics, planning, rewriting
from steer_env.data.seeds.base import Outcome, Rejected, Seed, SeedJob
from steer_env.data.seeds.grading import Grader
from steer_env.data.seeds.prompts import TEMPLATES, prompt
from steer_env.data.seeds.simulation import outcome, simulate
from steer_env.data.seeds.structured import WRITING, Answer, Question, Unanswered, ask
from steer_env.data.seeds.targets import Target
from steer_env.models.base import ChatBackend
from steer_env.models.structured import Settings
from steer_env.scenarios import Scenario

A = TypeVar("A", bound=Answer)


class ChatGenerator:
    """Makes seeds by asking a model.

    A batch goes through every step together: one call for benign and obfuscated rows; forensics, rewriting,
    planning and simulation for red-team rows.

    Args:
        backend: Who is asked.
        target: What red-team scripts are tried on.
        grader: Who grades it.
        settings: How the back end is asked.
    """

    def __init__(
        self, backend: ChatBackend, target: Target, grader: Grader, settings: Settings | None = None
    ) -> None:
        self.backend, self.target, self.grader = backend, target, grader
        self.settings = settings or WRITING
        self.name = backend.name

    def describe(self) -> dict[str, Any]:
        """Return model, prompt hashes, sampling, target and grader."""
        return {
            "name": self.name,
            "weights": self.backend.weights,
            "prompts": {name: prompt(name).hash for name in TEMPLATES if name != "grade"},
            "attempts": self.settings.attempts,
            "max_tokens": self.settings.max_tokens,
            "temperature": self.settings.temperature,
            "target": self.target.describe(),
            "judge": self.grader.describe(),
        }

    def generate(self, jobs: Sequence[SeedJob]) -> list[Outcome]:
        """Return one outcome per job, in order."""
        found: dict[int, Outcome] = {}
        for kind in ("benign", "obfuscated"):
            found |= self._written({i: job for i, job in enumerate(jobs) if job.kind == kind}, kind)
        found |= self._red_team({i: job for i, job in enumerate(jobs) if job.kind == "red_team"})
        return [found[i] for i in range(len(jobs))]

    def _written(self, jobs: Mapping[int, SeedJob], kind: str) -> dict[int, Outcome]:
        found: dict[int, Outcome] = {}
        answers = self._ask(
            kind, jobs, found, lambda i, job: dialogue.question(job.row, kind, job.turns, _seed(job))
        )
        for i, answer in answers.items():
            made = _scenario(jobs[i], answer.turns, answer.goal)
            found[i] = Seed(made, {"prompts": {kind: prompt(kind).hash}})
        return found

    def _red_team(self, jobs: Mapping[int, SeedJob]) -> dict[int, Outcome]:
        """Forensics, rewriting, planning and simulation, each over all rows that got so far."""
        found: dict[int, Outcome] = {}
        strategies = {i: rewriting.choose(job.seed) for i, job in jobs.items()}
        techniques = {i: planning.choose(job.seed) for i, job in jobs.items()}
        seen = self._ask("forensics", jobs, found, lambda i, job: forensics.question(job.row, _seed(job)))
        rewritten = self._ask(
            "rewriting",
            {i: jobs[i] for i in seen},
            found,
            lambda i, job: rewriting.question(job.row, seen[i], strategies[i], _seed(job)),
        )
        scripts = self._ask(
            "planning",
            {i: jobs[i] for i in rewritten},
            found,
            lambda i, job: planning.question(
                job.row, rewritten[i], strategies[i], techniques[i], job.turns, _seed(job)
            ),
        )
        made = [
            _scenario(jobs[i], script.turns, rewritten[i].goal, strategies[i], techniques[i])
            for i, script in scripts.items()
        ]
        hashes = {name: prompt(name).hash for name in ("forensics", "rewriting", "planning")}
        for i, played in zip(scripts, simulate(made, self.target, self.grader), strict=True):
            details = {"prompts": hashes, "findings": seen[i].model_dump()}
            found[i] = outcome(played, details, self.target, self.grader)
        return found

    def _ask(
        self,
        stage: str,
        jobs: Mapping[int, SeedJob],
        found: dict[int, Outcome],
        question: Callable[[int, SeedJob], Question[A]],
    ) -> dict[int, A]:
        """Ask one question per job; put rejections into `found` and return the answers."""
        answers = ask(self.backend, [question(i, job) for i, job in jobs.items()], self.settings)
        good: dict[int, A] = {}
        for i, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Unanswered):
                found[i] = Rejected(stage, answer.reason, answer.detail, answer.raw)
            else:
                good[i] = answer
        return good


def _scenario(
    job: SeedJob, turns: list[dialogue.TurnAnswer], goal: str, strategy: str = "", technique: str = ""
) -> Scenario:
    return replace(
        job.row,
        turns=dialogue.seed_turns(turns, job.row),
        kind=job.kind,
        goal=goal,
        strategy=strategy,
        technique=technique,
        id="",
    )


def _seed(job: SeedJob) -> int:
    return job.seed % (1 << 31)  # servers take 32 bits
