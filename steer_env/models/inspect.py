"""Every model that Inspect AI reaches as a chat back end: `inspect:PROVIDER/MODEL`.

Inspect knows some twenty providers, their keys, their names for things and their limits; we ask through its
model layer and keep nothing of that here. Needs the extra `inspect` and the provider's own package.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentImage,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)

from steer_env.images import ImageError, data_url
from steer_env.models.base import BackendError, ChatFailure, ChatReply, ChatRequest, ChatResult, split
from steer_env.models.base import ChatMessage as Message
from steer_env.models.eventloop import LoopThread
from steer_env.models.openai_wire import one_line
from steer_env.models.pictures import as_view, shown
from steer_env.models.weights import weights_id

#: Settings of Inspect's that a request of ours has an opinion on.
_OURS: Final = ("max_tokens", "temperature", "top_p", "top_k", "seed", "system_message")


class InspectBackend:
    """Chats with a model of Inspect's, many requests at once, each ready in its own time.

    Inspect repeats what failed for a passing reason, waits where it is asked to and bounds the requests under
    way (`max_retries`, `timeout`, `max_connections`). JSON schemas are not sent: answers are free text.

    Attributes:
        model: Inspect's model.
        name: "inspect:PROVIDER/MODEL".
        weights: The model's name.

    Args:
        model: See above.
        images: How pictures are shown, one of `pictures.VIEWS`.
    """

    def __init__(self, model: Model, *, images: str = "pixels") -> None:
        self.model, self.images = model, as_view(images)
        self.name, self.weights = f"inspect:{model}", weights_id(model.name)
        self._loop: LoopThread | None = None

    def submit(self, request: ChatRequest) -> Future[ChatResult]:
        """Start one request and return at once; the future never raises, failures are values."""
        if self._loop is None:
            self._loop = LoopThread(f"steer-env {self.name}")
        return self._loop.start(self._answer(request))

    def complete(self, requests: Sequence[ChatRequest]) -> list[ChatResult]:
        """Return one result per request, in order."""
        return [future.result() for future in [self.submit(request) for request in requests]]

    def check(self) -> None:
        """Send one tiny request.

        Raises:
            BackendError: If there is no answer.
        """
        (result,) = self.complete([ChatRequest((Message("user", "Say hello."),), max_tokens=16)])
        if isinstance(result, ChatFailure) and result.kind not in ("truncated", "refused"):
            raise BackendError(f"{self.name}: {result.reason}")

    def close(self) -> None:
        """End requests under way and the thread; safe to call twice."""
        if self._loop is not None:
            self._loop.stop(_nothing)
            self._loop = None

    async def _answer(self, request: ChatRequest) -> ChatResult:
        try:
            return await answer(self.model, shown(request, self.images))
        except ImageError as error:
            return ChatFailure("bad_request", str(error), 0)
        except Exception as error:  # providers raise what they like
            return ChatFailure("server", one_line(f"{type(error).__name__}: {error}", ""))


async def answer(model: Model, request: ChatRequest) -> ChatResult:
    """Ask a model of Inspect's; what its provider raises goes through."""
    config = GenerateConfig(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        seed=request.seed,
        top_p=request.top_p if request.top_p < 1 else None,
        top_k=request.top_k or None,
    )
    return read_output(await model.generate(_messages(request), config=config))


def read_output(output: ModelOutput) -> ChatResult:
    """Say what an output of Inspect's means."""
    text, stop = output.completion, output.stop_reason
    if stop == "content_filter":
        return ChatFailure("refused", "the provider's content filter stopped the answer", text=text)
    if not text:
        kind = {"max_tokens": "truncated", "model_length": "too_long"}.get(stop, "bad_output")
        return ChatFailure(kind, f"no text: {output.error or stop}")  # type: ignore[arg-type]
    content = output.choices[0].message.content
    parts = content if isinstance(content, list) else []
    thought = "".join(part.reasoning for part in parts if isinstance(part, ContentReasoning))
    finish = "length" if stop in ("max_tokens", "model_length") else "stop"
    return ChatReply(text, finish, {"thought": thought} if thought else {})


def _messages(request: ChatRequest) -> list[ChatMessage]:
    said: list[ChatMessage] = []
    for message in request.messages:
        if message.role == "system":
            said.append(ChatMessageSystem(content=message.content))
        elif message.role == "assistant":
            said.append(ChatMessageAssistant(content=message.content))
        else:
            pictures = [ContentImage(image=data_url(image)) for image in message.images]
            text = ContentText(text=message.content)
            said.append(ChatMessageUser(content=[*pictures, text] if pictures else message.content))
    return said


async def _nothing() -> None:
    pass


def open_inspect(rest: str, *, images: str = "pixels", **options: Any) -> InspectBackend:
    """Open "PROVIDER/MODEL".

    Args:
        rest: As Inspect names models, such as "anthropic/claude-sonnet-4-0".
        images: See `InspectBackend`.
        **options: Settings of Inspect's `GenerateConfig` (`max_connections`, `reasoning_effort`,
            `reasoning_tokens`, ...), `base_url`, and what the provider takes.

    Raises:
        ValueError: If an option is one that each request decides.
        BackendError: If there is no such model or provider, or its package or key is missing.
    """
    for name in _OURS:
        if name in options:
            raise ValueError(f"{name}={options[name]!r} is no option of inspect:{rest}, pass it to the agent")
    settings, others = split(options, GenerateConfig.model_fields)
    try:
        # Not the shared one that Inspect remembers: its settings are ours.
        model = get_model(rest, config=GenerateConfig(**settings), memoize=False, **others)
    except Exception as error:
        raise BackendError(f"inspect:{rest} cannot be opened: {one_line(str(error), '')}") from error
    return InspectBackend(model, images=images)
