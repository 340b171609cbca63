"""Chat back ends that answer from a function: judges, tutors, students and generators without a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from steer_env.models.base import ChatFailure, ChatReply, ChatRequest, ChatResult

Answer = Callable[[ChatRequest], Any]


class ScriptedBackend:
    """Answers each request with what a function makes of it.

    Attributes:
        requests: All requests so far.
        batches: The same, call by call.

    Args:
        answer: Returns the text of the answer, a `ChatReply` or `ChatFailure`, or a value as JSON.
    """

    def __init__(self, answer: Answer, name: str = "scripted", weights: str = "scripted") -> None:
        self.answer, self.name, self.weights = answer, name, weights
        self.requests: list[ChatRequest] = []
        self.batches: list[list[ChatRequest]] = []

    def complete(self, requests: Sequence[ChatRequest]) -> list[ChatResult]:
        """Return one result per request, in order."""
        self.batches.append(list(requests))
        return [self._one(request) for request in requests]

    def check(self) -> None:
        """Always able to answer."""

    def close(self) -> None:
        """Nothing to release."""

    def _one(self, request: ChatRequest) -> ChatResult:
        self.requests.append(request)
        said = self.answer(request)
        if isinstance(said, ChatReply | ChatFailure):
            return said
        return ChatReply(said if isinstance(said, str) else json.dumps(said))


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
