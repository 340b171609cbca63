"""What goes over the wire to an OpenAI-compatible server, and what the answers mean. Pure functions.

Nothing here trusts the server: an answer without a message is a failure. Reasons quote the server as it is;
`one_line` makes them fit for logs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import openai

from steer_env.images import data_url
from steer_env.models.base import ChatFailure, ChatMessage, ChatReply, ChatRequest, FailureKind
from steer_env.render import visible

#: Longest reason in characters; servers like to quote the whole request.
_LONGEST = 300
_TOO_LONG = ("context_length", "context length", "maximum context", "max_model_len", "too many tokens")
_FILTERED = ("content_filter", "content_policy", "content management policy")
#: Most bytes of an answer, unpacked.
MAX_ANSWER = 8 << 20
_SCHEMA_WORDS = ("response_format", "json_schema", "guided", "structured")


def payload(request: ChatRequest, model: str, *, max_tokens_name: str, schema: bool) -> dict[str, Any]:
    """Return the arguments of a chat completion.

    Args:
        request: What to complete.
        model: Name of the model.
        max_tokens_name: What the server calls the longest answer.
        schema: Whether to send the request's JSON schema as `response_format`.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "temperature": request.temperature,
        max_tokens_name: request.max_tokens,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.top_p < 1:
        body["top_p"] = request.top_p
    if request.top_k:  # no field of OpenAI's own, but of vLLM, llama.cpp and others
        body["extra_body"] = {"top_k": request.top_k}
    if schema and request.schema is not None:
        described: dict[str, Any] = {"name": "answer", "schema": dict(request.schema)}
        if request.schema.get("additionalProperties") is False:  # what OpenAI asks of a strict schema
            described["strict"] = True
        body["response_format"] = {"type": "json_schema", "json_schema": described}
    return body


def _message(message: ChatMessage) -> dict[str, Any]:
    text = message.content.encode("utf-8", "replace").decode()  # JSON cannot carry lone surrogates
    if not message.images:
        return {"role": message.role, "content": text}
    pictures = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in message.images]
    return {"role": message.role, "content": [*pictures, {"type": "text", "text": text}]}


class AnswerTooLarge(Exception):
    """A server that sends more than `MAX_ANSWER`."""


async def read_limited(response: Any) -> None:
    """Read an answer's body as it streams in, and stop where it gets too large (a hook of httpx).

    Raises:
        AnswerTooLarge: If it is larger than `MAX_ANSWER`, counted after unpacking.
    """
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER:
            await response.aclose()
            raise AnswerTooLarge(f"the answer is larger than {MAX_ANSWER >> 20} MiB")
    response._content = bytes(body)  # what `aread`, which has no limit, would have left there


def read_answer(body: str) -> ChatReply | ChatFailure:
    """Read the body of an answer with status 200."""
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        message = choice["message"]
        message.keys()
        finish = choice.get("finish_reason") or "stop"
    except (ValueError, RecursionError):
        return ChatFailure("bad_output", f"the answer is no JSON: {body[:_LONGEST]}")
    except (LookupError, TypeError, AttributeError):
        return ChatFailure("bad_output", f"the answer holds no message: {body[:_LONGEST]}")
    said, thought, refusal = _parts(message)
    if refusal:
        return ChatFailure("refused", f"the model refuses: {refusal}", text=_plain(refusal))
    if finish == "content_filter":
        reason = "the server's content filter stopped the answer"
        return ChatFailure("refused", reason, text=_plain(said or ""))
    if finish == "length" and not said:
        return ChatFailure("truncated", "max_tokens were used up before the first word; raise max_tokens")
    if said is None:
        return ChatFailure("bad_output", f"the message holds no text: {body[:_LONGEST]}")
    meta = _meta(answer, choice)
    if thought:
        meta["thought"] = thought
    return ChatReply(_plain(said), str(finish), meta)


def _parts(message: Mapping[str, Any]) -> tuple[str | None, str, str]:
    """Return text (None for none), thought and refusal of a message, wherever its server puts them."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []

    def joined(*names: str) -> str:
        return "".join(str(part[name]) for part in parts for name in names if isinstance(part.get(name), str))

    text = content if isinstance(content, str) else joined("text") or None
    thought = message.get("reasoning_content") or message.get("reasoning") or joined("thinking")
    refusal = message.get("refusal") or joined("refusal")
    return text, thought if isinstance(thought, str) else "", str(refusal or "")


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _meta(answer: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "token_ids": choice.get("token_ids"),
        "prompt_token_ids": answer.get("prompt_token_ids") or choice.get("prompt_token_ids"),
        "logprobs": choice.get("logprobs"),
        "usage": answer.get("usage"),
    }
    return {name: value for name, value in found.items() if value is not None}


def read_error(error: openai.OpenAIError) -> ChatFailure:
    """Say what an exception of the client means."""
    if isinstance(error, openai.APITimeoutError):
        return ChatFailure("timeout", "the server did not answer in time")
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        if isinstance(cause, AnswerTooLarge):
            return ChatFailure("bad_output", str(cause))
        return ChatFailure("connection", f"{type(cause).__name__}: {cause!s}")
    if isinstance(error, openai.APIStatusError):
        return _status(error)
    return ChatFailure("bad_output", f"{type(error).__name__}: {error!s}")


def _status(error: openai.APIStatusError) -> ChatFailure:
    status = error.status_code
    if status in (401, 403):  # servers like to quote the key they refuse
        return ChatFailure("auth", f"HTTP {status}: the server refuses the key")
    said = _said(error)
    if 300 <= status < 400:
        said = "the server sends us to another address; name that one"
    clues = f"{error.code} {said}".lower()
    kind: FailureKind = "bad_request"
    if status == 429:
        kind = "rate_limit"
    elif status == 408:
        kind = "timeout"
    elif status >= 500 or status == 409:
        kind = "server"
    elif status == 413 or any(word in clues for word in _TOO_LONG):
        kind = "too_long"
    elif any(word in clues for word in _FILTERED):
        kind = "refused"
    return ChatFailure(kind, f"HTTP {status}: {said}")


def _said(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, Mapping):
        for name in ("message", "detail", "error"):
            if body.get(name):
                return str(body[name])
    return error.response.text


def worth_retrying(failure: ChatFailure, error: openai.OpenAIError | None) -> bool:
    """Whether the same request may succeed a little later."""
    if getattr(error, "code", None) == "insufficient_quota":
        return False
    return failure.kind in ("connection", "timeout", "rate_limit", "server", "bad_output")


def blames_schema(failure: ChatFailure) -> bool:
    """Whether a refused request was refused for its JSON schema."""
    return failure.kind == "bad_request" and any(word in failure.reason.lower() for word in _SCHEMA_WORDS)


def retry_after(error: openai.OpenAIError | None) -> float | None:
    """Return the seconds a server asks to wait, None if it does not say."""
    if not isinstance(error, openai.APIStatusError):
        return None
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "")))
    except ValueError:  # absent, or a date: our own backoff then
        return None


def one_line(text: str, secret: str) -> str:
    """Return a reason as one short line without the secret, which is taken out before the line is cut.

    Control characters, which could steer a terminal, are written out.
    """
    line = visible(" ".join(without_secret(text, secret).split()))
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "..."


def without_secret(text: str, secret: str) -> str:
    """Return a text without the secret, also where it is written with escapes; very short ones are none."""
    if len(secret) >= 4:
        for form in {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]}:
            text = text.replace(form, "***")
    return text
