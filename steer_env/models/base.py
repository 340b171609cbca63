"""What a chat back end is: requests in, replies or failures out, whoever runs the model.

One contract for a transformers model in process, a vLLM engine in process and any OpenAI-compatible server,
so that each can serve as student, tutor, judge or data generator. A failure is a value and never an
exception: a dialogue that lost its server is data, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from steer_env.images import Image
from steer_env.naming import read_name

Role = Literal["system", "user", "assistant"]
FailureKind = Literal[
    "connection",  # nobody answers there, or the line broke
    "timeout",
    "rate_limit",
    "server",  # it answers with an error of its own
    "refused",  # a content filter, or the model's own refusal field
    "truncated",  # `max_tokens` were used up before the first word
    "bad_output",  # the answer holds no message
    "too_long",  # the chat does not fit into the model's context
    "auth",
    "bad_request",  # the server does not know the model or an option
]


class ChatMessage(NamedTuple):
    """One message of a chat; its images come before its text.

    Attributes:
        role: "system", "user" or "assistant".
        content: The text, always data: a back end escapes control tokens in it.
        images: Pictures shown with it.
    """

    role: Role
    content: str
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One completion to make.

    Attributes:
        messages: The chat so far; the last one is not the assistant's.
        schema: JSON schema the answer must satisfy, None for free text. A back end that can constrain
            decoding does; others ignore it, and the caller parses with tolerance.
        max_tokens: Longest answer in tokens.
        temperature: 0 is greedy.
        seed: Of the sampling, None for the back end's own.
        top_p: Only the likeliest tokens that hold this share are sampled; 1 for all.
        top_k: Only so many of the likeliest tokens are sampled; 0 for all.
    """

    messages: tuple[ChatMessage, ...]
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 256
    temperature: float = 1.0
    seed: int | None = None
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A completed answer.

    Attributes:
        text: What the model said, without control tokens.
        finish: "stop", or "length" when `max_tokens` cut it off.
        meta: What else the back end knows: `token_ids`, `logprobs`, `prompt_token_ids`, `trace`, `attempts`,
            `seconds`. Empty where it does not say.
    """

    text: str
    finish: str = "stop"
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChatFailure:
    """No answer, and why.

    Attributes:
        kind: What went wrong.
        reason: One line for people; never holds a key.
        attempts: How often it was tried.
        text: Of kind "refused": what was said before a filter stopped it, or the words of the refusal.
    """

    kind: FailureKind
    reason: str
    attempts: int = 1
    text: str = ""


ChatResult = ChatReply | ChatFailure


class ContextOverflow(ValueError):
    """A dialogue that does not fit into the model's context."""


class BackendError(RuntimeError):
    """A back end that cannot work at all: wrong URL, model or key. One clear line, before any work."""


@runtime_checkable
class ChatBackend(Protocol):
    """Completes chats in batches.

    Attributes:
        name: How to ask for it again, such as "openai:MODEL@http://host:8000/v1"; never holds a key.
        weights: Identity of the weights, equal for two back ends that run the same model; what keeps a judge
            from being the student it judges.
    """

    name: str
    weights: str

    def complete(self, requests: Sequence[ChatRequest]) -> list[ChatResult]:
        """Return one result per request, in order; the whole batch may run at once."""
        ...

    def check(self) -> None:
        """Make sure that it can answer.

        Raises:
            BackendError: If not.
        """
        ...

    def close(self) -> None:
        """Give back connections and memory; safe to call twice."""
        ...


@runtime_checkable
class AsyncChatBackend(ChatBackend, Protocol):
    """A back end that works on many requests at once, each ready in its own time: a server."""

    def submit(self, request: ChatRequest) -> Future[ChatResult]:
        """Start one request and return at once; the future never raises, failures are values."""
        ...


#: Scheme -> function of what stands behind the colon, and options. Filled by `register_backend`.
_OPENERS: dict[str, Callable[..., ChatBackend]] = {}


def register_backend(scheme: str, opener: Callable[..., ChatBackend]) -> None:
    """Make `scheme:REST` open a back end of your own: `opener(rest, **options)`."""
    _OPENERS[scheme] = opener


def is_backend(name: str) -> bool:
    """Whether `open_backend` knows the scheme of `name`."""
    scheme, colon, rest = name.partition(":")
    return bool(colon and rest and scheme in _OPENERS)


def refuse_unknown(scheme: str, options: Collection[str], known: Sequence[str]) -> None:
    """Refuse options that a kind of model does not have.

    Raises:
        ValueError: If there is one; the message lists the known ones.
    """
    for name in options:
        if name not in known:
            raise ValueError(f"{name} is no option of {scheme}:..., expected one of {', '.join(known)}")


def open_backend(spec: str, **options: Any) -> ChatBackend:
    """Open a back end by name: "hf:PATH", "vllm:PATH", "openai:MODEL@URL" or "inspect:PROVIDER/MODEL".

    It is checked here, before any work starts.

    Args:
        spec: Scheme and what stands behind it, with options as in "hf:PATH?device=cpu&dtype=float32".
        **options: Of the back end (see its class); they go before those in the name.

    Raises:
        ValueError: If the scheme is unknown; the message lists the known ones.
        BackendError: If the back end cannot be opened, or cannot answer.
    """
    if not is_backend(spec):
        known = ", ".join(f"{name}:..." for name in _OPENERS)
        raise ValueError(f"backend={spec!r}, expected one of {known}")
    bare, named = read_name(spec)
    scheme, _, rest = bare.partition(":")
    backend = _OPENERS[scheme](rest, **{**named, **options})
    backend.check()
    return backend


def _lazy(module: str, name: str) -> Callable[..., ChatBackend]:
    def opener(rest: str, **options: Any) -> ChatBackend:
        from importlib import import_module

        backend: ChatBackend = getattr(import_module(module), name)(rest, **options)
        return backend

    return opener


# Heavy libraries are imported only when a back end of theirs is opened.
register_backend("hf", _lazy("steer_env.models.hf", "open_hf"))
register_backend("vllm", _lazy("steer_env.models.vllm", "open_vllm"))
register_backend("openai", _lazy("steer_env.models.openai", "open_openai"))
register_backend("inspect", _lazy("steer_env.models.inspect", "open_inspect"))


def split(options: Mapping[str, Any], own: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options named in `own`, and the others."""
    mine = {key: value for key, value in options.items() if key in own}
    return mine, {key: value for key, value in options.items() if key not in own}
