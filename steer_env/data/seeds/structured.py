"""Asking a chat back end for JSON of a given shape: tolerant parsing, bounded retries, reasons.

A back end that can constrain decoding gets the schema. Others answer as they like: the first JSON object in
the answer that has the shape counts, whatever stands around it. An answer without one goes back with what is
wrong with it, at most a few times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from steer_env.agents.backends.base import (
    BackendError,
    ChatBackend,
    ChatFailure,
    ChatMessage,
    ChatReply,
    ChatRequest,
    ChatResult,
)

#: Failures that the same request may not meet again, and those after which no request will be answered.
_PASSING: Final = ("connection", "timeout", "rate_limit", "server", "bad_output")
_GONE: Final = ("connection", "auth")
_REFUSAL: Final = re.compile(
    r"\b(?:i can(?:no|['’])t|i(?: am|['’]m) (?:sorry|unable|not able)|i (?:will not|won['’]t)|as an ai)\b",
    re.I,
)
_THINKING: Final = re.compile(r"<think>.*?</think>", re.S)
#: Characters of a wrong answer that are shown back to the model, and kept with a rejected row.
_QUOTED: Final = 4_000


class Answer(BaseModel):
    """What a model is asked for; other keys are forbidden in the schema and ignored when they come."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"additionalProperties": False}, use_attribute_docstrings=True
    )


A = TypeVar("A", bound=Answer)


@dataclass(frozen=True)
class Question(Generic[A]):
    """One thing to ask.

    Attributes:
        messages: The chat, instructions and data.
        model: Shape of the answer.
        check: Says what else is wrong with an answer of that shape, "" if nothing.
        seed: Of the sampling.
    """

    messages: tuple[ChatMessage, ...]
    model: type[A]
    check: Callable[[A], str] = lambda answer: ""
    seed: int | None = None


class NoAnswer(NamedTuple):
    """No answer of the wanted shape: why in one word, in one line, and what the model said last."""

    reason: str
    detail: str
    raw: str = ""


@dataclass(frozen=True)
class Limits:
    """How a back end is asked.

    Attributes:
        retries: Further attempts after a first answer that is no good, 0 or more.
        max_tokens: Longest answer in tokens.
        temperature: Of the sampling.
    """

    retries: int = 2
    max_tokens: int = 1536
    temperature: float = 0.8

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"retries={self.retries!r}, expected an integer >= 0")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens!r}, expected a positive integer")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature!r}, expected a number >= 0; 0 is greedy")


def ask(backend: ChatBackend, questions: Sequence[Question[A]], limits: Limits) -> list[A | NoAnswer]:
    """Ask all questions, each attempt in one batch, and return an answer or the reason for each, in order.

    Raises:
        BackendError: If the back end is gone: every request of an attempt failed to reach it or to log in.
    """
    found: dict[int, A | NoAnswer] = {}
    chats = {i: question.messages for i, question in enumerate(questions)}
    for attempt in range(limits.retries + 1):
        if not chats:
            break
        requests = [_request(questions[i], chats[i], limits) for i in chats]
        results = complete(backend, requests, give_up=False)
        again: dict[int, tuple[ChatMessage, ...]] = {}
        for i, result in zip(chats, results, strict=True):
            found[i], feedback = _read(questions[i], result, limits)
            if feedback is not None and attempt < limits.retries:
                again[i] = questions[i].messages + feedback
        chats = again
    lost = [a for a in found.values() if isinstance(a, NoAnswer) and a.reason in _GONE]
    if lost and len(lost) == len(found):
        raise _gone(backend, lost[-1].reason, lost[-1].detail)
    return [found[i] for i in range(len(questions))]


def complete(backend: ChatBackend, requests: Sequence[ChatRequest], give_up: bool = True) -> list[ChatResult]:
    """Complete a batch.

    Raises:
        BackendError: If it does not give one result per request; with `give_up` also if nobody is there to
            answer any of them.
    """
    results = backend.complete(requests)
    if len(results) != len(requests):
        raise BackendError(f"{backend.name} gave {len(results)} results for {len(requests)} requests")
    lost = [r for r in results if isinstance(r, ChatFailure) and r.kind in _GONE]
    if give_up and lost and len(lost) == len(results):
        raise _gone(backend, lost[-1].kind, lost[-1].reason)
    return results


def _gone(backend: ChatBackend, kind: str, reason: str) -> BackendError:
    return BackendError(
        f"{backend.name} answers nothing any more ({kind}: {reason}); what is finished is on disk, go on "
        "with --resume once it is back"
    )


def _request(question: Question[Any], messages: tuple[ChatMessage, ...], limits: Limits) -> ChatRequest:
    schema = question.model.model_json_schema()
    return ChatRequest(messages, schema, limits.max_tokens, limits.temperature, question.seed)


def _read(
    question: Question[A], result: ChatResult, limits: Limits
) -> tuple[A | NoAnswer, tuple[ChatMessage, ...] | None]:
    """Return what a result gives, and how to ask again; None where asking again is of no use."""
    if isinstance(result, ChatFailure):
        return NoAnswer(result.kind, result.reason), () if result.kind in _PASSING else None
    answer = _parse(question, result, limits)
    if not isinstance(answer, NoAnswer):
        return answer, None
    if answer.reason == "refused":  # a refusal is an answer: it is recorded, not argued with
        return answer, None
    told = f"That cannot be used: {answer.detail}. Answer again, with one JSON object and nothing else."
    quoted = result.text[:_QUOTED]
    # An assistant's turn must not be empty, and a second user turn in a row would break chat templates.
    return answer, (ChatMessage("assistant", quoted or "(nothing)"), ChatMessage("user", told))


def _parse(question: Question[A], reply: ChatReply, limits: Limits) -> A | NoAnswer:
    raw = reply.text[:_QUOTED]
    wrong = ""
    for body in json_objects(reply.text):
        try:
            answer = question.model.model_validate(body)
        except ValidationError as error:
            wrong = wrong or _explain(error)
            continue
        problem = question.check(answer)
        return NoAnswer("unfit", problem, raw) if problem else answer
    if reply.finish == "length":
        return NoAnswer("truncated", f"it was cut off after {limits.max_tokens} tokens; be shorter", raw)
    if wrong:
        return NoAnswer("wrong_shape", wrong, raw)
    if _REFUSAL.search(reply.text):
        return NoAnswer("refused", "the model refused", raw)
    return NoAnswer("no_json", "it holds no JSON object", raw)


def json_objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the outermost JSON objects in a text, past thinking, fences and talk around them."""
    text = _THINKING.sub(" ", text)
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            body, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield body
        start = text.find("{", end)


def _explain(error: ValidationError) -> str:
    shown = [f"{'.'.join(map(str, e['loc'])) or 'the object'}: {e['msg']}" for e in error.errors()[:5]]
    return "; ".join(shown)
