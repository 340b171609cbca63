"""What a red-team script is tried on: scripted students, local students, chat back ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, runtime_checkable

from steer_env.agents import AlwaysComply
from steer_env.agents.base import Agent, Failed, Observation
from steer_env.data.seeds.structured import refuse_if_gone
from steer_env.models.base import ChatBackend, ChatFailure, ChatMessage, ChatRequest
from steer_env.seats import checked_act
from steer_env.types import STUDENT, USER, Utterance
from steer_env.world.truth import Request
from steer_env.world.user_language import frames
from steer_env.world.user_language.reading import parse_user

_REFUSAL: Final = Utterance("I cannot help with that. My answer is no.")
_COVERS: Final = tuple(
    lead for table in (frames.STRATEGY, frames.TECHNIQUE) for group in table.values() for lead in group
)


@runtime_checkable
class Target(Protocol):
    """Replies as a student does, and may fail."""

    name: str

    def describe(self) -> dict[str, Any]:
        """Return everything its replies depend on, JSON-ready."""
        ...

    def reply(self, observations: Sequence[Observation]) -> Sequence[str | Failed]:
        """Return one reply per observation (the student's), in order."""
        ...


class FixedTarget(AlwaysComply):
    """The fixed target of the built-in world: helpful only, with one reflex.

    It refuses a turn that states harm with no strategy or technique in front; `world.plan.fixed_target_grade`
    says the same of plans.
    """

    def act(self, observations: Sequence[Observation]) -> list[Utterance]:
        """Return one reply per observation."""
        replies = super().act(observations)
        return [_REFUSAL if _blunt(o) else reply for o, reply in zip(observations, replies, strict=True)]


def _blunt(observation: Observation) -> bool:
    text = str(observation["transcript"][-1].content)
    return parse_user(text).request == Request.MISUSE and not text.startswith(_COVERS)


class AgentTarget:
    """A student as a target.

    Args:
        agent: Any student.
        name: How it was asked for.
        weights: Identity of its weights, "" for a script.
    """

    def __init__(self, agent: Agent, name: str, weights: str = "") -> None:
        self.agent, self.name, self.weights = agent, name, weights

    def describe(self) -> dict[str, Any]:
        """Return name and weights."""
        return {"name": self.name, "weights": self.weights}

    def reply(self, observations: Sequence[Observation]) -> Sequence[str | Failed]:
        """Return one reply per observation."""
        return checked_act(self.agent, STUDENT, observations)


class ChatTarget:
    """A chat back end as a target.

    Args:
        backend: Who replies.
        max_tokens: Longest reply; a cut-off one counts as it is.
        temperature: 0 is greedy.
    """

    def __init__(self, backend: ChatBackend, max_tokens: int = 512, temperature: float = 0.0) -> None:
        self.backend, self.max_tokens, self.temperature = backend, max_tokens, temperature
        self.name = backend.name

    def describe(self) -> dict[str, Any]:
        """Return name, weights and sampling."""
        return {
            "name": self.name,
            "weights": self.backend.weights,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }

    def reply(self, observations: Sequence[Observation]) -> Sequence[str | Failed]:
        """Return one reply, or why there is none, per observation."""
        results = self.backend.complete([self._request(o) for o in observations])
        replies = [
            Failed(f"{result.kind}: {result.reason}") if isinstance(result, ChatFailure) else result.text
            for result in results
        ]
        refuse_if_gone(self.backend, [r.reason for r in replies if isinstance(r, Failed)], len(replies))
        return replies

    def _request(self, observation: Observation) -> ChatRequest:
        images, messages, start = observation["images"], [], 0
        for m in observation["transcript"]:
            shown = tuple(images[start : start + m.images])
            start += m.images
            messages.append(ChatMessage("user" if m.role == USER else "assistant", str(m.content), shown))
        return ChatRequest(tuple(messages), None, self.max_tokens, self.temperature, 0)
