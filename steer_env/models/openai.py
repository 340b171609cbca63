"""Any OpenAI-compatible server as a chat back end: vLLM, `transformers serve`, llama.cpp, a hosted API.

One client, one event loop in a background thread, connections kept open, a bounded number of requests at a
time. Failures are retried with exponential backoff and then become values.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

try:
    import openai
except ImportError as error:
    raise ImportError(
        "openai is not installed and back ends by that name need it; run: pip install 'steer-env[openai]'"
    ) from error

from steer_env.images import Image, ImageError
from steer_env.models import openai_wire as wire
from steer_env.models.base import BackendError, ChatFailure, ChatMessage, ChatReply, ChatRequest, ChatResult
from steer_env.models.eventloop import LoopThread
from steer_env.models.pictures import as_view
from steer_env.models.pictures import shown as as_shown
from steer_env.models.weights import weights_id

_LOG = logging.getLogger(__name__)
_REMEDIES = {
    "connection": "start the server, or check the URL",
    "timeout": "is the server busy? Raise read_timeout or total_timeout",
    "bad_request": "check the model's name and the URL, which usually ends in /v1",
    "truncated": "raise max_tokens",
}


def _as_json(value: Any) -> Any:
    """Read what stands in a name."""
    return json.loads(value) if isinstance(value, str) else value


class OpenAIOptions(BaseModel):
    """How to talk to a server. Each can stand in the name: `openai:MODEL@URL?retries=8&concurrency=64`.

    Attributes:
        key_env: Environment variable that holds the key; its name ends in API_KEY, so that no name from
            elsewhere can have another secret sent. A server that needs none gets a placeholder.
        retries: How often a request that failed for a passing reason is repeated.
        backoff: Seconds before the first repetition; doubles each time, with jitter. A server's Retry-After
            header goes first.
        backoff_max: Longest pause in seconds. A Retry-After beyond it ends the attempts.
        connect_timeout: Seconds to reach the server.
        read_timeout: Seconds without a byte before an attempt is given up.
        total_timeout: Seconds for a request with all its attempts, counted from when it is sent first.
        concurrency: Requests under way at once; others wait here.
        json_schema: "on" sends a request's JSON schema as `response_format`, "off" never does, "auto" does
            until the server refuses it.
        max_tokens_name: What the server calls the longest answer; OpenAI's reasoning models say
            "max_completion_tokens".
        images: How pictures are shown: as "pixels"; as a "caption" from ground truth or not at all ("no"),
            for models that read text only.
        image_check: Whether `check` makes sure that pixels reach the model.
        extra_body: More fields for every request, such as {"return_token_ids": true} for vLLM or a provider's
            thinking budget; in a name as JSON.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key_env: Annotated[str, Field(pattern=r"^([A-Z][A-Z0-9_]*_)?API_KEY$")] = "OPENAI_API_KEY"
    retries: int = Field(4, ge=0)
    backoff: float = Field(0.5, ge=0)
    backoff_max: float = Field(60.0, ge=0)
    connect_timeout: float = Field(10.0, gt=0)
    read_timeout: float = Field(120.0, gt=0)
    total_timeout: float = Field(600.0, gt=0)
    concurrency: int = Field(32, ge=1)
    json_schema: Literal["auto", "on", "off"] = "auto"
    max_tokens_name: str = "max_tokens"
    images: Annotated[str, BeforeValidator(as_view)] = "pixels"
    image_check: bool = True
    extra_body: Annotated[dict[str, Any] | None, BeforeValidator(_as_json)] = None


@dataclass(frozen=True, slots=True)
class _Live:
    """What runs while a back end is open, in one process."""

    pid: int
    loop: LoopThread
    client: Any
    slots: asyncio.Semaphore
    key: str = field(repr=False)


class OpenAIBackend:
    """Chats with a model behind an OpenAI-compatible server.

    Threads may share one. The loop's thread starts with the first request, and again in a forked child,
    which opens connections of its own. Copies and pickles hold no key and no connection.

    Attributes:
        name: "openai:MODEL@URL", without options.
        weights: The model's name, or the hash of its folder if the server runs one from this machine.
        model: Name of the model, as the server knows it.
        url: Base URL, usually with "/v1" at the end.
        options: See `OpenAIOptions`.

    Args:
        model: See above.
        url: See above.
        **options: See `OpenAIOptions`.

    Raises:
        ValueError: If an option is unknown or out of range, or the URL is none or holds a password.
    """

    _live: _Live | None
    _sends_schema: bool
    _finalizer: Callable[[], Any]

    def __init__(self, model: str, url: str, **options: Any) -> None:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise ValueError("the URL holds a user name or password; put the key in the environment instead")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url={url!r}, expected http://HOST:PORT/v1 or https://HOST/v1")
        self.model, self.url, self.options = model, url.rstrip("/"), _options(options)
        self.name, self.weights = f"openai:{model}@{self.url}", weights_id(model)
        self._start()

    def submit(self, request: ChatRequest) -> Future[ChatResult]:
        """Start one request and return at once; the future never raises, failures are values."""
        live = self._open()
        return live.loop.start(self._answer(live, request, self.options.retries))

    def complete(self, requests: Sequence[ChatRequest]) -> list[ChatResult]:
        """Return one result per request, in order; up to `concurrency` are under way at once."""
        return [future.result() for future in [self.submit(request) for request in requests]]

    def check(self) -> None:
        """Make sure that the server answers, knows the model and shows it the pictures.

        Sends one tiny request, and a second one with a picture if pixels are shown and `image_check` is on.

        Raises:
            BackendError: If not.
        """
        if self.options.key_env != "OPENAI_API_KEY" and not os.environ.get(self.options.key_env):
            raise BackendError(f"{self.name}: key_env={self.options.key_env!r} is not set; export it")
        plain = self._probe()
        if not self.options.image_check or self.options.images != "pixels":
            return
        grey = Image(_grey, "steer-env-probe", "probe")
        shown = self._probe(grey)
        if plain is not None and shown is not None and shown <= plain:
            raise BackendError(
                f"{self.name}: the server drops pictures (a prompt has {shown} tokens with one and {plain} "
                "without); serve the model with its image processor, or pass images='caption' or 'no' "
                "(in a name: ?images=no) for a model that reads text only"
            )

    def close(self) -> None:
        """End requests under way, connections and the thread; safe to call twice."""
        self._finalizer()
        self._live = None

    # -- one request --------------------------------------------------------------------------------------

    async def _answer(self, live: _Live, request: ChatRequest, retries: int) -> ChatResult:
        try:
            request = as_shown(request, self.options.images)
            async with live.slots:
                result = await self._persist(live, request, retries)
        except asyncio.CancelledError:
            result = ChatFailure("connection", "the back end was closed before the answer came", 0)
        except ImageError as error:
            result = ChatFailure("bad_request", str(error), 0)
        except Exception as error:  # whatever an answer does to its reader
            result = ChatFailure("bad_output", f"{type(error).__name__}: {error}", 1)
        result = replace(result, text=wire.without_secret(result.text, live.key))
        if isinstance(result, ChatFailure):
            return replace(result, reason=wire.one_line(result.reason, live.key))
        return result

    async def _persist(self, live: _Live, request: ChatRequest, retries: int) -> ChatResult:
        """Try until there is an answer, a failure that stays, or no time left."""
        options, started, attempts = self.options, time.monotonic(), 0
        failure: ChatFailure | None = None
        try:
            async with asyncio.timeout(options.total_timeout):
                while True:
                    failure, attempts = None, attempts + 1
                    result, pause = await self._attempt(live, request, attempts, retries)
                    if isinstance(result, ChatReply):
                        spent = {"attempts": attempts, "seconds": time.monotonic() - started}
                        return replace(result, meta={**result.meta, **spent})
                    failure = replace(result, attempts=attempts)
                    if pause is None:
                        return failure
                    await asyncio.sleep(pause)
        except TimeoutError:
            if failure is not None:  # while it waited to try again
                return failure
            reason = f"no answer within total_timeout={options.total_timeout:g} s"
            return ChatFailure("timeout", reason, attempts)

    async def _attempt(
        self, live: _Live, request: ChatRequest, attempt: int, retries: int
    ) -> tuple[ChatResult, float | None]:
        """Try once; returns the result, and after how many seconds to try again (None: never)."""
        error = None
        with_schema = request.schema is not None and self._sends_schema
        body = wire.payload(
            request, self.model, max_tokens_name=self.options.max_tokens_name, schema=with_schema
        )
        try:
            completions = live.client.chat.completions.with_raw_response
            extra = {**body.pop("extra_body", {}), **(self.options.extra_body or {})}
            raw = await completions.create(**body, extra_body=extra or None)
            result = wire.read_answer(raw.http_response.text)
        except openai.OpenAIError as problem:
            error = problem
            result = wire.read_error(problem)
        if isinstance(result, ChatReply):
            return result, None
        if with_schema and self.options.json_schema == "auto" and wire.blames_schema(result):
            _LOG.warning("%s takes no JSON schema; its answers are read as free text", self.name)
            self._sends_schema = False
            return result, 0.0
        if attempt > retries or not wire.worth_retrying(result, error):
            return result, None
        return result, self._pause(attempt, wire.retry_after(error))

    def _pause(self, attempt: int, asked: float | None) -> float | None:
        if asked is not None:
            return asked if asked <= self.options.backoff_max else None
        longest = min(self.options.backoff * 2.0 ** (attempt - 1), self.options.backoff_max)
        return longest * self._jitter.uniform(0.75, 1.0)

    # -- opening and closing ------------------------------------------------------------------------------

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._live = None
        self._jitter = random.Random()
        self._sends_schema = self.options.json_schema != "off"
        self._finalizer = lambda: None

    def _open(self) -> _Live:
        with self._lock:
            if self._live is None or self._live.pid != os.getpid():
                self._live = self._connect()
                # At exit, and when nobody holds the back end any more.
                self._finalizer = weakref.finalize(self, _shut, self._live)
            return self._live

    def _connect(self) -> _Live:
        options = self.options
        key = read_key(options.key_env)
        client = openai.AsyncOpenAI(
            api_key=key or "none",  # the client insists on one, local servers do not
            base_url=self.url,
            # A redirect would send prompts and pictures to a server nobody named.
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False, event_hooks={"response": [wire.read_limited]}
            ),
            # Retries are counted here: the client's own draw from the global random state, have a fixed
            # backoff and do not repeat an answer that holds no message.
            max_retries=0,
            timeout=openai.Timeout(options.read_timeout, connect=options.connect_timeout),
        )
        loop = LoopThread(f"steer-env {self.name}")
        return _Live(os.getpid(), loop, client, asyncio.Semaphore(options.concurrency), key)

    def _probe(self, *images: Image) -> int | None:
        """Send a tiny request; returns its length in tokens, None if the server does not say."""
        message = ChatMessage("user", "Say hello.", images)
        request, live = ChatRequest((message,), max_tokens=16, temperature=0.0), self._open()
        # A wrong URL should not take long to find out.
        result = live.loop.start(self._answer(live, request, min(1, self.options.retries))).result()
        if isinstance(result, ChatReply):
            length = (result.meta.get("usage") or {}).get("prompt_tokens")
            return length if isinstance(length, int) else None
        if result.kind in ("truncated", "refused"):  # it works, it just has nothing to say here
            return None
        remedy = _REMEDIES.get(result.kind, "")
        if result.kind == "auth":
            remedy = f"set {self.options.key_env} to a valid key"
        elif images and result.kind in ("bad_request", "server"):
            remedy = "can the model see? For one that reads text only pass images='caption' or 'no' (in a "
            remedy += "name: ?images=no)"
        raise BackendError(f"{self.name}: {result.reason.rstrip('.')}" + (f"; {remedy}" if remedy else ""))

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("model", "url", "options", "name", "weights")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __repr__(self) -> str:
        return f"OpenAIBackend({self.name!r})"


def open_openai(rest: str, **options: Any) -> OpenAIBackend:
    """Open "MODEL@URL" or "MODEL@URL?option=value&..."; keyword arguments go first.

    Raises:
        ValueError: If it has another form, or an option is no good.
    """
    found = re.fullmatch(r"(?P<model>.+)@(?P<url>https?://[^?]+)(\?(?P<query>.*))?", rest)
    if found is None:
        raise ValueError(
            f"backend='openai:{_without_password(rest)}', expected openai:MODEL@URL, such as openai:my-model@http://localhost:8000/v1"
        )
    query = dict(parse_qsl(found["query"] or "", keep_blank_values=True))
    return OpenAIBackend(found["model"], found["url"], **{**query, **options})


def read_key(name: str) -> str:
    """Return the key in an environment variable, without the blanks and line ends around it.

    Files of secrets often end in a line end, which no HTTP header may hold.

    Raises:
        BackendError: If it has a character that no HTTP header can carry; the message does not show it.
    """
    key = os.environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()):
        place = next(i for i, c in enumerate(key) if not (c.isascii() and c.isprintable()))
        raise BackendError(
            f"{name} holds a character that no key has, number {place + 1} of {len(key)} (a quotation mark, "
            "a line end in the middle?), expected printable ASCII; set it again"
        )
    return key


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//***@", text)


def _options(given: dict[str, Any]) -> OpenAIOptions:
    try:
        return OpenAIOptions(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(OpenAIOptions.model_fields)
        if first["type"] == "extra_forbidden":
            raise ValueError(f"{name} is no option of an OpenAI-compatible server; known: {known}") from None
        if name == "key_env":  # people put the key itself there
            raise ValueError(
                "key_env is not the name of an environment variable that ends in API_KEY, expected one such "
                "as MY_API_KEY; put the key into one and name it"
            ) from None
        raise ValueError(f"{name}={given[name]!r}: {first['msg']}") from None


def _shut(live: _Live) -> None:
    if live.pid == os.getpid():  # a forked child has neither the thread nor the connections
        live.loop.stop(live.client.close)


def _grey() -> Any:
    from PIL import Image as PILImage

    return PILImage.new("RGB", (64, 64), (128, 128, 128))
