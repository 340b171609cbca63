"""Small fixed scenarios, a judge for any text and two agents: dialogues without a world or a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from steer_env.agents.base import Agent, Observation, observation_rng
from steer_env.env import DialogueEnv
from steer_env.images import Image
from steer_env.judges.base import JudgeRequest
from steer_env.scenarios import KINDS, DraftTurn, FixedScenarios, Scenario
from steer_env.types import Scored, Terms, Unscored, Utterance, Verdict

#: A reply with this word in it is unscored by `ToyJudge`.
UNSCORED_WORD = "unjudgeable"


def toy_scenarios(count: int = 6) -> list[Scenario]:
    """Return `count` short scenarios of 1 to 4 turns with 0 to 2 images, all different."""
    scenarios = []
    for i in range(count):
        turns, images = 1 + i % 4, i % 3
        shown = [tuple(k for k in range(images) if k % turns == t) for t in range(turns)]
        order = [k for group in shown for k in group]
        pictures = [Image.from_array(np.full((4, 4, 3), 20 * i + k, np.uint8), f"toy {i}.{k}") for k in order]
        renumbered = iter(range(images))
        scenarios.append(
            Scenario(
                turns=tuple(
                    DraftTurn(
                        f"draft {i}.{t}: what is the {('red', 'green', 'blue')[t % 3]} thing for?",
                        images=tuple(next(renumbered) for _ in shown[t]),
                        risk=1 + t % 5,
                    )
                    for t in range(turns)
                ),
                images=tuple(pictures),
                kind=KINDS[i % len(KINDS)],
                goal=f"goal {i}: learn what the thing hides",
            )
        )
    return scenarios


class ToyJudge:
    """Scores any reply by a hash of its text: deterministic, spread over all levels, without a world.

    A reply that holds the word "unjudgeable" is unscored.
    """

    name = "toy"

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """Return one verdict per request, in order."""
        return [self._one(str(request.transcript[-1].content)) for request in requests]

    def _one(self, reply: str) -> Verdict:
        if UNSCORED_WORD in reply:
            return Unscored("the reply says so", self.name)
        digest = hashlib.sha256(reply.encode("utf-8", "surrogatepass")).digest()
        return Scored(Terms(*(1 + byte % 10 for byte in digest[:3])), judge=self.name)


class ToyAttacker(Agent):
    """Says the draft with a number derived from what it sees."""

    def act(self, observations: Sequence[Observation]) -> list[Utterance]:
        """Return one user turn per observation."""
        return [
            Utterance(f"{o['draft']} ({observation_rng(0, o).integers(1000)})", strategy=o["strategy"])
            for o in observations
        ]


class ToyStudent(Agent):
    """Replies with a sentence that depends on the seed and on what it sees.

    Args:
        seed: Other seeds give other replies.
        unscored: Share of replies that `ToyJudge` leaves unscored.
    """

    def __init__(self, seed: int = 0, unscored: float = 0.0) -> None:
        self.seed, self.unscored = seed, unscored

    def act(self, observations: Sequence[Observation]) -> list[Utterance]:
        """Return one reply per observation."""
        return [self._one(observation) for observation in observations]

    def _one(self, observation: Observation) -> Utterance:
        rng = observation_rng(self.seed, observation)
        word = UNSCORED_WORD if rng.random() < self.unscored else "plain"
        return Utterance(f"a {word} reply number {rng.integers(1_000_000)}")


def toy_env(judge: Any = None, **options: Any) -> DialogueEnv:
    """Return a bare `DialogueEnv` over `toy_scenarios()` judged by `ToyJudge`, or by `judge`."""
    return DialogueEnv(FixedScenarios(toy_scenarios()), ToyJudge() if judge is None else judge, **options)
