"""The places of a vector environment: a dialogue under way, and one that has ended."""

from __future__ import annotations

import copy
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from pettingzoo import AECEnv

from steer_env.env import DialogueEnv
from steer_env.forking import fork
from steer_env.scenarios import Scenario
from steer_env.types import TurnResult, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A dialogue that has just ended, whole: nothing of its final turn is lost.

    Attributes:
        id: The slot it ran in.
        scenario: What it was about.
        seed: Its reset seed, None if unseeded.
        turns: All turns with emitted rewards and infos.
        stop: "seed_end" (terminated), "max_cycles" or "failed" (truncated).
        observation: The student's final observation.
        error: Why it failed, "" otherwise.
    """

    id: int
    scenario: Scenario
    seed: int | None
    turns: tuple[TurnResult, ...]
    stop: str
    observation: dict[str, Any]
    error: str = ""


@dataclass(slots=True)
class Slot:
    """A place of a vector environment and the dialogue in it."""

    env: AECEnv[str, Any, Any]
    core: DialogueEnv
    seed: int | None = None
    waiting: str = ""  # the seat it waits for, or the judge, "" when idle or finished
    carried: float = 0.0  # student reward emitted between replies, added to the next turn
    results: list[TurnResult] | None = None
    reply: str = ""  # what the judge is at
    verdict: Future[Verdict] | None = None


def forked(slot: Slot) -> Slot:
    """Return an exact copy of a slot with its running dialogue."""
    env = fork(slot.env)
    results = [
        TurnResult(r.turn, r.reward, copy.deepcopy(r.info, {id(r.turn.verdict): r.turn.verdict}))
        for r in slot.results or ()
    ]
    return replace(slot, env=env, core=env.unwrapped, results=results, verdict=None)
