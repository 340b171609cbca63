"""What an agent is: a batch of observations in, one utterance each out.

Attackers and students share one base class, so either seat can be played by a script, a model or a
person. Agents hold no per-dialogue state of their own unless they say so: everything they need is in
the observation, and randomness is derived from a seed and the observation, never from global state.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from steer_env.checks import integer, number
from steer_env.images import Image
from steer_env.spaces import MAX_NEW_TOKENS
from steer_env.types import USER, Message, Utterance, Verdict, meta_of

#: Student: {"images": tuple[Image], "transcript": tuple[Message]}. The attacker sees in addition "goal",
#: "draft" (the seed's next user turn), "kind", "strategy", "technique", "verdict" (Terms, zeros if none) and
#: "scored" (0 or 1).
Observation = Mapping[str, Any]


class KeyedObservation(dict[str, Any]):
    """An observation that knows which dialogue it is of, for agents that draw random numbers.

    Siblings of a group see the same, and so may other dialogues. Where replies arrive in any order, their
    streams must not depend on who asks first: an agent that samples seeds each by `stream`.

    Attributes:
        stream: Names the dialogue by its reset seed and its number among those with that seed.
        tried: What the attacker has tried at this turn and taken back, see `attempt`.
        turns: How many user turns the dialogue has at most, None where nobody says.
        replies: Most replies that the attacker may take at this turn, those it tried included; None for any
            number.
    """

    def __init__(
        self,
        observation: Mapping[str, Any],
        stream: str,
        tried: tuple[Attempt, ...] = (),
        turns: int | None = None,
        replies: int | None = None,
    ) -> None:
        super().__init__(observation)
        self.stream, self.tried = stream, tried
        self.turns, self.replies = turns, replies


@dataclass(frozen=True, slots=True)
class Attempt:
    """A user turn that was tried in a fork of the dialogue: the student's history does not have it.

    Attributes:
        user: What the attacker said, with its meta.
        reply: What the student answered.
        verdict: The judge's verdict, None without a judge.
        round: How many calls of the attacker's `act` at this turn came before the one that tried it.
    """

    user: str
    reply: str
    verdict: Verdict | None
    round: int = 0


def attempt(candidates: Sequence[Utterance]) -> Utterance:
    """Return what an attacker answers in order to try user turns before it says one.

    A rollout plays each in a fork of the dialogue and asks the attacker again, which finds all attempts of
    this turn in `tried_of(observation)`. Whoever plays without forks hears the first candidate.

    Raises:
        ValueError: If there is none.
    """
    if not candidates:
        raise ValueError("candidates=[], expected at least one user turn to try")
    return Utterance(str(candidates[0]), **{**candidates[0].meta, "tries": tuple(candidates)})


def keep(tried: Sequence[Attempt], index: int, **meta: Any) -> Utterance:
    """Return what an attacker answers in order to go on from an attempt: it was said, and answered so.

    Raises:
        ValueError: If there is no such attempt.
    """
    if not 0 <= index < len(tried):
        raise ValueError(f"keep={index!r} of {len(tried)} attempts, expected one of them")
    user = tried[index].user
    return Utterance(str(user), **{**meta_of(user), **meta, "keep": index})


def tried_of(observation: Observation) -> tuple[Attempt, ...]:
    """Return what was tried at this turn, in order; () where nothing was, or nobody plays forks."""
    return getattr(observation, "tried", ())


def turns_of(observation: Observation) -> int | None:
    """Return how many user turns the dialogue has at most, None where nobody says."""
    return getattr(observation, "turns", None)


def stream_of(observation: Observation) -> str:
    """Return the name of the dialogue an observation is of, "" outside of rollouts."""
    return getattr(observation, "stream", "")


@runtime_checkable
class Acts(Protocol):
    """All that a seat needs: whoever brings no more than this is wrapped by `as_agent` where he enters."""

    def act(self, observations: Sequence[Observation]) -> Sequence[Utterance | Failed]:
        """Return one utterance per observation, in order; `Failed` where there is none."""
        ...


@runtime_checkable
class AsyncAgent(Acts, Protocol):
    """An agent whose replies come back one by one, such as a model behind a server."""

    def submit(self, observation: Observation) -> Future[Utterance | Failed]:
        """Start one reply and return at once; the future never raises, failures are values."""
        ...


class Agent(ABC):
    """Speaks for one seat in many dialogues at once; only `act` has to be written.

    The other methods are an agent's life around its dialogues, and do nothing here: write those that matter.
    """

    @abstractmethod
    def act(self, observations: Sequence[Observation]) -> Sequence[Utterance | Failed]:
        """Return one utterance per observation, in order; `Failed` where there is none."""

    @property
    def varies(self) -> bool:
        """Whether it may say something else after `reseed`."""
        return False

    def learn(self, trajectories: Sequence[Any]) -> Any:  # noqa: B027
        """Learn from the finished dialogues of a step, in the order of their seeds."""

    def reseed(self, seed: int) -> None:  # noqa: B027
        """Start all random streams anew from `seed`."""

    def weights_changed(self) -> None:  # noqa: B027
        """Drop what was computed with earlier weights."""

    def state_dict(self) -> dict[str, Any]:
        """Return the memory that a resumed run needs, as plain values and tensors; {} for none."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Put that back."""

    def close(self) -> None:  # noqa: B027
        """Let go of servers, engines and files."""


class AgentWrapper(Agent):
    """Another agent that sees something else (`seen`), or is changed in another way; the rest is its own.

    Attributes:
        agent: The other one.

    Args:
        agent: The other one.
    """

    def __init__(self, agent: Acts) -> None:
        self.agent: Any = as_agent(agent)
        if isinstance(agent, AsyncAgent):
            self.submit = self._submit

    def seen(self, observation: Observation) -> Observation:
        """Return what the agent is shown of an observation."""
        return observation

    def act(self, observations: Sequence[Observation]) -> Sequence[Utterance | Failed]:
        """Return the agent's utterances."""
        said: Sequence[Utterance | Failed] = self.agent.act([self.seen(o) for o in observations])
        return said

    def _submit(self, observation: Observation) -> Future[Utterance | Failed]:
        future: Future[Utterance | Failed] = self.agent.submit(self.seen(observation))
        return future

    @property
    def varies(self) -> bool:
        """As the agent."""
        return bool(self.agent.varies)

    def learn(self, trajectories: Sequence[Any]) -> Any:
        """Let the agent learn."""
        return self.agent.learn(trajectories)

    def reseed(self, seed: int) -> None:
        """Reseed the agent."""
        self.agent.reseed(seed)

    def weights_changed(self) -> None:
        """Tell the agent."""
        self.agent.weights_changed()

    def state_dict(self) -> dict[str, Any]:
        """Return the agent's memory."""
        state: dict[str, Any] = self.agent.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the agent's memory back."""
        self.agent.load_state_dict(state)

    def close(self) -> None:
        """Close the agent."""
        self.agent.close()

    def __getattr__(self, name: str) -> Any:
        if name in ("agent", "submit"):  # a copy that is being built has none; not every agent's
            raise AttributeError(name)
        return getattr(self.agent, name)


#: What `as_agent` takes over from an object that is no `Agent`, where it has it.
_LIFE = ("learn", "reseed", "weights_changed", "state_dict", "load_state_dict", "close", "submit")


class _Brought(Agent):
    """Somebody's own object with `act`, and whatever else of an agent it has."""

    def __init__(self, own: Acts) -> None:
        self.own = own
        for name in _LIFE:
            if (method := getattr(own, name, None)) is not None:
                setattr(self, name, method)

    def act(self, observations: Sequence[Observation]) -> Sequence[Utterance | Failed]:
        return self.own.act(observations)

    @property
    def varies(self) -> bool:
        return hasattr(self.own, "reseed")

    def __getattr__(self, name: str) -> Any:
        if name == "own":
            raise AttributeError(name)
        return getattr(self.own, name)


def as_agent(player: Acts) -> Agent:
    """Return an `Agent`: the object itself if it is one, else a wrapper with the methods that it lacks.

    Called where somebody's object enters the library; behind it every agent has the whole life.

    Raises:
        TypeError: If the object has no `act`.
    """
    if isinstance(player, Agent):
        return player
    if not callable(getattr(player, "act", None)):
        made = f"; steer_env.make_agent({player!r}) makes it" if isinstance(player, str) else "; see Agent"
        raise TypeError(f"agent={player!r:.100}, expected an object with act(observations){made}")
    return _Brought(player)


class Seeded(Agent):
    """An agent whose seed decides its wording."""

    seed: int

    @property
    def varies(self) -> bool:
        """The seed decides the wording."""
        return True

    def reseed(self, seed: int) -> None:
        """Choose other words from now on."""
        self.seed = seed


class Sampler(Agent):
    """What agents on models share: how they sample.

    Attributes:
        temperature: See below, as for the others.

    Args:
        temperature: Of the sampled distribution; 0 is greedy.
        top_p: Only the likeliest tokens that hold this share are sampled; 1 for all.
        top_k: Only so many of the likeliest tokens are sampled; 0 for all.
        max_new_tokens: Longest reply in tokens, a thought included.
        seed: Seeds the sampling. The same seed, prompts and weights give the same replies.
        system: System prompt, "" for none.

    Raises:
        ValueError: If a value is out of its range.
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        max_new_tokens: int = MAX_NEW_TOKENS,
        seed: int = 0,
        system: str = "",
    ) -> None:
        self.temperature, self.seed, self.system = number("temperature", temperature), seed, system
        self.top_p, self.top_k = number("top_p", top_p, 0, 1, above=True), integer("top_k", top_k)
        self.max_new_tokens = integer("max_new_tokens", max_new_tokens, 1)

    @property
    def varies(self) -> bool:
        """A greedy model does not."""
        return self.temperature > 0

    def reseed(self, seed: int) -> None:
        """Start the random streams anew from `seed`."""
        self.seed = seed


@dataclass(frozen=True, slots=True)
class Failed:
    """No utterance, and why. The dialogue ends there, recorded as failed; the run goes on."""

    reason: str


def to_answer(observation: Observation) -> tuple[tuple[Message, ...], tuple[Image, ...]]:
    """Return transcript and images of what the student is to answer.

    Raises:
        ValueError: If the transcript does not end with a user turn, or its images do not add up.
    """
    transcript, images = observation["transcript"], tuple(observation["images"])
    if not transcript or transcript[-1].role != USER:
        raise ValueError(f"transcript of {len(transcript)} messages, expected one that ends with a user turn")
    expected = sum(message.images for message in transcript)
    if expected != len(images):
        raise ValueError(
            f"{len(images)} images for a transcript that shows {expected}; the observation's images must "
            "be those of its messages, in order"
        )
    return transcript, images


def reset_seed_of(observation: Observation) -> str:
    """Return the reset seed of the dialogue, which siblings share, as text; "" outside of rollouts."""
    return stream_of(observation).rpartition(".")[0]


def opponent_rng(seed: int, observation: Observation, salt: str = "") -> np.random.Generator:
    """Return common random numbers for the attackers of sibling dialogues.

    The generator depends on `seed`, on what the scenario decides (goal, plan, strategy, pictures), on the
    turn and on `salt`, not on what was said: siblings draw the same numbers in the same turn, whatever they
    replied. What an attacker *does* may still depend on the reply; where it is in the same situation it
    does the same. So siblings differ by their own replies, and not by luck with the attack.

    Args:
        seed: The attacker's.
        observation: What the attacker sees.
        salt: Further words, such as the training step.
    """
    digest = hashlib.blake2b(digest_size=16, key=seed.to_bytes(8, "little", signed=True))
    names = ("goal", "draft", "strategy", "technique")
    for part in (salt, *(str(observation.get(name, "")) for name in names)):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    for image in observation["images"]:
        digest.update(image.digest.encode() + b"\0")
    digest.update(b"%d" % len(observation["transcript"]))
    return np.random.default_rng(int.from_bytes(digest.digest(), "little"))


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
