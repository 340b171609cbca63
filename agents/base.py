"""What an agent is: a batch of observations in, one utterance each out.

Attackers and students share one protocol, so either seat can be played by a script, a model or a
person. Agents hold no per-dialogue state of their own unless they say so: everything they need is in
the observation, and randomness is derived from a seed and the observation, never from global state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from steer_env.types import Utterance

#: Student: {"images": tuple[Image], "transcript": tuple[Message]}. The attacker sees in addition "goal",
#: "draft" (the seed's next user turn), "kind", "strategy", "technique", "verdict" (Terms, zeros if none) and
#: "scored" (0 or 1).
Observation = Mapping[str, Any]


@runtime_checkable
class Agent(Protocol):
    """Speaks for one seat in many dialogues at once."""

    def act(self, observations: Sequence[Observation]) -> Sequence[Utterance | Failed]:
        """Return one utterance per observation, in order; `Failed` where there is none."""
        ...


@runtime_checkable
class AsyncAgent(Agent, Protocol):
    """An agent whose replies come back one by one, such as a model behind a server."""

    def submit(self, observation: Observation) -> Future[Utterance | Failed]:
        """Start one reply and return at once; the future never raises, failures are values."""
        ...


@dataclass(frozen=True, slots=True)
class Failed:
    """No utterance, and why. The dialogue ends there, recorded as failed; the run goes on."""

    reason: str


def observation_rng(seed: int, observation: Observation) -> np.random.Generator:
    """Return a generator that depends only on `seed` and on what the agent can see.

    The same agent in the same situation draws the same numbers, whatever else runs in the batch and in
    whatever order; siblings of a GRPO group therefore get the same opening.
    """
    digest = hashlib.blake2b(digest_size=16, key=seed.to_bytes(8, "little", signed=True))
    for part in (observation.get("goal", ""), observation.get("draft", "")):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    for image in observation["images"]:
        digest.update(image.digest.encode() + b"\0")
    transcript = observation["transcript"]
    digest.update(b"%d" % len(transcript))
    for message in transcript[-2:]:  # constant cost: the last exchange tells siblings apart
        digest.update(b"%d" % message.role + message.content.encode("utf-8", "surrogatepass") + b"\0")
    return np.random.default_rng(int.from_bytes(digest.digest(), "little"))
