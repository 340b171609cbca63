"""Asking a chat back end: a prompt template and data in, a checked answer or the reason for none out.

The asking itself is `steer_env.models.structured`: JSON by schema, read with tolerance, asked again with the
error. Here an exchange also keeps what the model said last, takes a refusal for an answer, and tells a bad
answer from a back end that is gone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from string import Template
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from steer_env.images import Image
from steer_env.judges.prompting import data_line, fence
from steer_env.models.base import BackendError, ChatBackend, ChatMessage, ChatReply, ChatResult
from steer_env.models.structured import BadAnswer, Exchange, NoAnswer, Settings, ask_all

#: Beginnings of reasons after which no further request will be answered either.
_GONE: Final = ("connection", "auth", "back end")
_REFUSAL: Final = re.compile(
    r"\b(?:i can(?:no|['’])t|i(?: am|['’]m) (?:sorry|unable|not able)|i (?:will not|won['’]t)|as an ai)\b",
    re.I,
)
#: Characters of an answer that are kept with a rejected row.
_KEPT: Final = 4_000

#: 1..5, an enumeration because not every server constrains decoding by minimum and maximum.
Level = Annotated[int, Field(ge=1, le=5), WithJsonSchema({"type": "integer", "enum": [1, 2, 3, 4, 5]})]


@lru_cache
def template(name: str) -> str:
    """Return a prompt template: a versioned text file of the package, with `$name` for what is filled in."""
    return (files(__package__) / "prompts" / f"{name}.txt").read_text(encoding="utf-8")


def template_hash(name: str) -> str:
    """Return the first twelve hex digits of a template's SHA-256, for the provenance of what it made."""
    return hashlib.sha256(template(name).encode()).hexdigest()[:12]


def chat(
    name: str, *data: Mapping[str, Any], images: tuple[Image, ...] = (), **slots: Any
) -> tuple[ChatMessage, ...]:
    """Return a template as a chat: instructions as the system's message, data as the user's.

    Args:
        name: Template.
        *data: What comes from rows and other models, a line of JSON each, between two marker lines that
            nothing in it can imitate.
        images: Pictures shown with the data.
        **slots: What is filled into the instructions; never anything from a row.
    """
    lines = [data_line(record) for record in data]
    marker = fence(lines)
    return (
        ChatMessage("system", Template(template(name)).substitute(slots)),
        ChatMessage("user", "\n".join((marker, *lines, marker)), images),
    )


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
    seed: int = 0


class Unanswered(NamedTuple):
    """No usable answer: why in one word, why in one line, and what the model said last."""

    reason: str
    detail: str
    raw: str = ""


class _Asked(Exchange[A]):
    """An exchange that keeps the last answer as it came; a refusal is an answer and not argued with."""

    raw = ""

    def take(self, result: ChatResult) -> bool:
        if isinstance(result, ChatReply):
            self.raw = result.text[:_KEPT]
            if "{" not in result.text and _REFUSAL.search(result.text):
                self.outcome = NoAnswer("refused: the model said no")
                return True
        return super().take(result)


def ask(backend: ChatBackend, questions: Sequence[Question[A]], settings: Settings) -> list[A | Unanswered]:
    """Ask all questions, each attempt in one batch, and return an answer or the reason for each, in order.

    Raises:
        BackendError: If the back end is gone: it answered none of them and cannot be reached.
    """
    exchanges = [_exchange(question, settings) for question in questions]
    ask_all(backend, exchanges)
    reasons = [one.outcome.reason for one in exchanges if isinstance(one.outcome, NoAnswer)]
    refuse_if_gone(backend, reasons, len(questions))
    return [_answer(one) for one in exchanges]


def refuse_if_gone(backend: ChatBackend, reasons: Sequence[str], asked: int) -> None:
    """Raise `BackendError` if none of the requests was answered because nobody is there to answer."""
    if reasons and len(reasons) == asked and all(reason.startswith(_GONE) for reason in reasons):
        raise BackendError(
            f"{backend.name} answers nothing any more ({reasons[-1]}); what is finished is on disk, go on "
            "with --resume once it is back"
        )


def _exchange(question: Question[A], settings: Settings) -> _Asked[A]:
    def check(answer: A) -> None:
        if problem := question.check(answer):
            raise BadAnswer(problem)

    schema = question.model.model_json_schema()
    return _Asked(question.messages, question.model, schema, replace(settings, seed=question.seed), check)


def _answer(one: _Asked[A]) -> A | Unanswered:
    if not isinstance(one.outcome, NoAnswer):
        return one.outcome
    reason, _, detail = one.outcome.reason.partition(": ")
    return Unanswered(reason, detail or reason, one.raw)
