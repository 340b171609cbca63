"""Structured answers from a chat back end: JSON by schema, read with tolerance, asked again with the error.

Tolerance covers form (code fences, words around the object, digits in quotes, trailing commas) and never
content: a missing or impossible value, two different objects or a broken one is an error, and after the last
attempt there is no answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError, WithJsonSchema

from steer_env.checks import check_integers, check_numbers
from steer_env.models.base import (
    AsyncChatBackend,
    ChatBackend,
    ChatFailure,
    ChatMessage,
    ChatRequest,
    ChatResult,
)
from steer_env.models.thought import split_thought

Shape = TypeVar("Shape", bound=BaseModel)

#: Failures a second question can mend; a back end has already waited and repeated for the others.
_MENDABLE: Final = ("truncated", "bad_output")
#: Least temperature of the second and later attempts.
RETRY_TEMPERATURE: Final = 0.7
#: Characters of a bad answer that are shown to the model again.
_QUOTED: Final = 2000


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """There is no usable answer, and why: "kind: reason", the kinds are those of `ChatFailure`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Settings:
    """How to ask.

    Attributes:
        attempts: Questions per answer, the first one included.
        max_tokens: Longest answer in tokens.
        temperature: 0 is greedy.
        seed: Of the sampling.
    """

    attempts: int = 3
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = 0

    def __post_init__(self) -> None:
        check_integers(self, ("attempts", "max_tokens"), 1)
        check_numbers(self, ("temperature",))
        if self.seed is not None:
            check_integers(self, ("seed",), 0, " or None")


# -- reading an answer --------------------------------------------------------------------------------------


class BadAnswer(ValueError):
    """An answer that does not hold what was asked for; the message is shown to the model."""


def schema_of(shape: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of an answer: closed, without titles, the same in every version of pydantic."""
    made = shape.model_json_schema()
    properties = {name: _plain(body) for name, body in made["properties"].items()}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _plain(body: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in body.items() if key != "title"}
    if "const" in plain:  # a single choice as an enumeration of one: not every server knows "const"
        plain["enum"] = [plain.pop("const")]
    return plain


def read_answer(text: str, shape: type[Shape]) -> Shape:
    """Read a model's answer.

    Raises:
        BadAnswer: If it holds no such object, several different ones, or one with a wrong value.
    """
    found = _find_object(text, set(shape.model_fields))
    try:
        return shape.model_validate({key: found[key] for key in shape.model_fields if key in found})
    except ValidationError as error:
        raise BadAnswer("; ".join(_complaint(one) for one in error.errors())) from None


def _complaint(error: Any) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"{name} is missing"
    return f"{name}: {str(error['input'])[:60]!r}: {error['msg'].removeprefix('Value error, ')}"


# A string that is never closed runs to the end, or every quote in it would be tried again.
_COMMAS: Final = re.compile(r'("(?:\\.|[^"\\])*(?:"|\\?\Z))|,(?=\s*[}\]])', re.DOTALL)


def _find_object(text: str, keys: set[str]) -> dict[str, Any]:
    """Return the one object in `text` that has any of `keys`.

    The first brace must open a readable object: looking for another one inside a broken object could pick up
    a verdict that the judged reply imitated and the model quoted.
    """
    _, rest = split_thought(text)  # drafts in a thought are no answer
    if rest is None:
        raise BadAnswer("the thought was not finished, so there is no answer")
    start = rest.find("{")
    if start < 0:
        raise BadAnswer("there is no JSON object in the answer")
    rest = _COMMAS.sub(lambda m: m.group(1) or "", rest[start:])
    found: list[dict[str, Any]] = []
    place = 0
    while place >= 0:
        try:
            value, end = _DECODER.raw_decode(rest, place)
        except (json.JSONDecodeError, RecursionError) as error:
            if not found:
                raise BadAnswer(f"the JSON object is broken ({error})") from None
            end = place + 1
        else:
            if keys & set(value) and value not in found:
                found.append(value)
        place = rest.find("{", end)
    if len(found) != 1:
        raise BadAnswer(f"the answer holds {len(found)} JSON objects with the expected keys, expected one")
    return found[0]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise BadAnswer(f"a key occurs twice in the JSON object ({', '.join(keys)[:200]})")
    return dict(pairs)


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 20 else float(text)  # Python refuses integers of thousands of digits


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer, strict=False)


# -- fields of an answer ------------------------------------------------------------------------------------


def _whole(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,2}\s*", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 1 <= value <= 10:
        raise ValueError("expected an integer from 1 to 10")
    return value


#: A score. An enumeration, because not every server constrains decoding by minimum and maximum.
Score = Annotated[
    int, BeforeValidator(_whole), WithJsonSchema({"type": "integer", "enum": list(range(1, 11))})
]


def word(value: Any) -> Any:
    """Normalise the spelling of a name: "Role play" is "role_play"."""
    return re.sub(r"[\s-]+", "_", value.strip().lower()) if isinstance(value, str) else value


def clean(value: Any) -> Any:
    """Replace lone surrogates, which JSON escapes can smuggle in and no file can hold."""
    return value.encode("utf-8", "replace").decode("utf-8").strip() if isinstance(value, str) else value


# -- asking -------------------------------------------------------------------------------------------------


class Exchange(Generic[Shape]):
    """One question, its repetitions, and what came of it.

    Args:
        messages: The question.
        shape: Pydantic model of the answer.
        schema: Its JSON schema.
        check: Raises `BadAnswer` on an answer of the right shape that is of no use.
        settings: How to ask.
    """

    def __init__(
        self,
        messages: tuple[ChatMessage, ...],
        shape: type[Shape],
        schema: dict[str, Any],
        settings: Settings,
        check: Callable[[Shape], None] = lambda answer: None,
    ) -> None:
        self._messages, self._shape, self._schema = messages, shape, schema
        self._settings, self._check = settings, check
        self._left = settings.attempts
        self.outcome: Shape | NoAnswer = NoAnswer("not asked")

    def request(self) -> ChatRequest:
        """Return the question to ask now."""
        s = self._settings
        tried = s.attempts - self._left
        # A greedy model that rambled once rambles again: later attempts are drawn, each from other numbers.
        heat = max(s.temperature, RETRY_TEMPERATURE) if tried else s.temperature
        seed = None if s.seed is None else s.seed + tried
        return ChatRequest(self._messages, self._schema, s.max_tokens, heat, seed)

    def take(self, result: ChatResult) -> bool:
        """Take the back end's result; True if this is the end of it, False to ask `request()` again."""
        self._left -= 1
        said = ""
        if isinstance(result, ChatFailure):
            self.outcome = NoAnswer(f"{result.kind}: {result.reason}")
            if result.kind not in _MENDABLE:
                return True
            error = result.reason
        else:
            said = result.text
            try:
                if result.finish == "length" and not said.lstrip().startswith(("{", "```")):
                    raise BadAnswer("it ended in the middle, so an object in it may be a draft")
                answer = read_answer(said, self._shape)
                self._check(answer)
            except BadAnswer as bad:
                kind = "truncated" if result.finish == "length" else "bad_output"
                error = "it was cut off, be brief" if kind == "truncated" else str(bad)
                self.outcome = NoAnswer(f"{kind}: {bad}")
            else:
                self.outcome = answer
                return True
        if self._left > 0:
            self._complain(said, error)
        return self._left <= 0

    def _complain(self, said: str, error: str) -> None:
        first = self._messages[:2]  # a question and one complaint; earlier attempts only cost tokens
        text = f"Your answer could not be used: {error}. Answer again, with the JSON object only."
        self._messages = (
            *first,
            ChatMessage("assistant", said[:_QUOTED] or "(no answer)"),
            ChatMessage("user", text),
        )


def ask_all(backend: ChatBackend, exchanges: Sequence[Exchange[Any]]) -> None:
    """Ask in batches until every exchange has its outcome. A back end that raises gives no answers."""
    left = list(exchanges)
    while left:
        try:
            results = backend.complete([one.request() for one in left])
            taken = list(zip(left, results, strict=True))
        except Exception as error:
            for one in left:
                one.outcome = NoAnswer(f"back end {backend.name!r} raised {type(error).__name__}: {error}")
            return
        left = [one for one, result in taken if not _take(one, result)]


def _take(exchange: Exchange[Any], result: Any) -> bool:
    """Take a result; one that cannot even be read spoils its own answer and no other."""
    try:
        return exchange.take(result)
    except Exception as error:
        exchange.outcome = NoAnswer(f"bad_output: {type(error).__name__}: {error}")
        return True


def ask_one(backend: AsyncChatBackend, exchange: Exchange[Shape]) -> Future[Shape | NoAnswer]:
    """Start one exchange and return at once; the future never raises."""
    out: Future[Shape | NoAnswer] = Future()
    out.set_running_or_notify_cancel()  # shared: nobody may cancel it for the others

    def fail(error: BaseException) -> None:
        out.set_result(NoAnswer(f"back end {backend.name!r} raised {type(error).__name__}: {error}"))

    def ask() -> None:
        try:
            backend.submit(exchange.request()).add_done_callback(take)
        except Exception as error:
            fail(error)

    def take(done: Future[ChatResult]) -> None:
        try:
            finished = exchange.take(done.result())
        except BaseException as error:  # a cancelled request is one, too
            fail(error)
            return
        if finished:
            out.set_result(exchange.outcome)
        else:
            ask()

    ask()
    return out


Given = TypeVar("Given")
Made = TypeVar("Made")


def then(done: Future[Given], make: Callable[[Given], Made]) -> Future[Made]:
    """Return a future of `make(result)`."""
    out: Future[Made] = Future()
    out.set_running_or_notify_cancel()

    def convert(ready: Future[Given]) -> None:
        try:
            out.set_result(make(ready.result()))
        except BaseException as error:  # swallowed here, it would leave whoever waits waiting
            out.set_exception(error)

    done.add_done_callback(convert)
    return out
