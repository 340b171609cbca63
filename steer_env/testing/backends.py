"""Chat back ends that answer from a function: to try judges, tutors and students without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from steer_env.models.base import ChatReply, ChatRequest, ChatResult

Answer = Callable[[ChatRequest], str | ChatResult]


class ScriptedBackend:
    """Answers each request with what a function makes of it.

    Attributes:
        requests: All requests so far.

    Args:
        answer: Returns the text of the answer, or a `ChatReply` or `ChatFailure`.
        name: See `ChatBackend`.
        weights: See `ChatBackend`.
    """

    def __init__(self, answer: Answer, name: str = "scripted", weights: str = "scripted") -> None:
        self.answer, self.name, self.weights = answer, name, weights
        self.requests: list[ChatRequest] = []

    def complete(self, requests: Sequence[ChatRequest]) -> list[ChatResult]:
        """Return one result per request, in order."""
        return [self._one(request) for request in requests]

    def check(self) -> None:
        """Always able to answer."""

    def close(self) -> None:
        """Nothing to release."""

    def _one(self, request: ChatRequest) -> ChatResult:
        self.requests.append(request)
        said = self.answer(request)
        return ChatReply(said) if isinstance(said, str) else said


class AsyncScriptedBackend(ScriptedBackend):
    """The same, answering each request in a thread of its own, as a server does."""

    def __init__(self, answer: Answer, name: str = "scripted", weights: str = "scripted") -> None:
        super().__init__(answer, name, weights)
        self._pool = ThreadPoolExecutor(8, "scripted-backend")

    def submit(self, request: ChatRequest) -> Future[ChatResult]:
        """Start one request and return at once."""
        return self._pool.submit(self._one, request)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True)
