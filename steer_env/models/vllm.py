"""A vLLM engine in process as chat back end: tutor, judge or data generator without a server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from transformers import GenerationConfig

from steer_env.models.base import (
    BackendError,
    ChatFailure,
    ChatMessage,
    ChatReply,
    ChatRequest,
    ChatResult,
    FailureKind,
)
from steer_env.models.encoder import ChatEncoder
from steer_env.models.pictures import as_view, shown
from steer_env.models.vllm_engine import Completion, EnginePrompt, Seeds, VLLMEngine, fold
from steer_env.models.weights import weights_id


class VLLMBackend:
    """Completes chats with a vLLM engine in process, a batch at a time.

    A schema constrains decoding. A seed gives the same answer to the same chat, whatever else is in the
    batch.

    Attributes:
        engine: The engine; a `VLLMStudent` may share it.
        name: "vllm:PATH".

    Args:
        engine: See above.
        seed: Of requests that bring none; asked again, they get another answer.
        images: How pictures are shown, one of `pictures.VIEWS`.
    """

    def __init__(self, engine: VLLMEngine, *, seed: int = 0, images: str = "pixels") -> None:
        self.engine, self.seed, self.images = engine, seed, as_view(images)
        self.name = f"vllm:{engine.path}"
        self._encoder = ChatEncoder(engine.processor)
        self._closing = _closing(engine.path, self._encoder.tokenizer)
        forbidden = self._encoder.forbidden(engine.vocabulary, set(self._closing))
        self._forbidden = dict.fromkeys(forbidden, float("-inf"))
        self._seeds = Seeds()
        self._weights = weights_id(engine.path)

    @property
    def weights(self) -> str:
        """Identity of the weights; changes when the engine takes others over."""
        version = self.engine.weights_version
        return f"{self._weights}#{version}" if version else self._weights

    def complete(self, requests: Sequence[ChatRequest]) -> list[ChatResult]:
        """Return one result per request, in order; all of them run at once.

        A chat that does not fit into the engine's context is a failure of kind "too_long".

        Raises:
            ValueError: If a chat shows pictures to a model without.
        """
        prompts = [self._prompt(request) for request in requests]
        results: dict[int, ChatResult] = {}
        for index, (prompt, request) in enumerate(zip(prompts, requests, strict=True)):
            if (reason := self.engine.overflow(len(prompt.ids), request.max_tokens)) is not None:
                results[index] = ChatFailure("too_long", reason)
        fits = [index for index in range(len(requests)) if index not in results]
        answers = self._generate([requests[i] for i in fits], [prompts[i] for i in fits])
        results.update(zip(fits, answers, strict=True))
        return [results[index] for index in range(len(requests))]

    def check(self) -> None:
        """Let the engine say one token.

        Raises:
            BackendError: If it cannot.
        """
        (result,) = self.complete([ChatRequest((ChatMessage("user", "Hello"),), max_tokens=1)])
        if isinstance(result, ChatFailure):
            raise BackendError(f"{self.name} cannot answer: {result.reason}")

    def close(self) -> None:
        """Stop the engine; safe to call twice."""
        self.engine.close()

    def _prompt(self, request: ChatRequest) -> EnginePrompt:
        encoder = self._encoder
        ids_L, images = encoder.chat(shown(request, self.images).messages)
        return fold(ids_L, images, lambda image: encoder.image(image).ids_N, encoder.image_id)

    def _generate(self, requests: Sequence[ChatRequest], prompts: Sequence[EnginePrompt]) -> list[ChatResult]:
        started = time.monotonic()
        try:
            params = [self._params(r, p) for r, p in zip(requests, prompts, strict=True)]
            completions = self.engine.generate(prompts, params)
        except Exception as error:
            # vLLM refuses a whole batch for one request it does not like, such as one with a broken schema.
            if len(requests) > 1:
                alone = zip(requests, prompts, strict=True)
                return [result for r, p in alone for result in self._generate([r], [p])]
            kind: FailureKind = "bad_request" if self.engine.is_refusal(error) else "server"
            return [ChatFailure(kind, f"{type(error).__name__}: {_line(error)}")]
        seconds = time.monotonic() - started
        pairs = zip(prompts, completions, strict=True)
        return [self._reply(prompt, answer, seconds) for prompt, answer in pairs]

    def _params(self, request: ChatRequest, prompt: EnginePrompt) -> Any:
        seed = self.seed if request.seed is None else request.seed
        return self.engine.params(
            temperature=request.temperature,
            max_new_tokens=request.max_tokens,
            closing=self._closing,
            forbidden=self._forbidden,
            seed=self._seeds.next(prompt, seed, count=request.seed is None) if request.temperature else None,
            schema=request.schema,
            top_p=request.top_p,
            top_k=request.top_k,
        )

    def _reply(self, prompt: EnginePrompt, answer: Completion, seconds: float) -> ChatReply:
        said = [token for token in answer.ids if token not in self._closing]
        meta = {
            "token_ids": answer.ids,
            "logprobs": answer.logprobs,
            "prompt_token_ids": prompt.ids,
            "attempts": 1,
            "seconds": seconds,
        }
        text = self._encoder.tokenizer.decode(said, skip_special_tokens=True)
        return ChatReply(text, answer.finish, meta)


def open_vllm(rest: str, *, seed: int = 0, images: str = "pixels", **options: Any) -> VLLMBackend:
    """Start an engine for "vllm:PATH".

    Args:
        rest: A Hugging Face folder or hub id.
        seed: See `VLLMBackend`, as `images`.
        images: See there.
        **options: Of `VLLMEngine`.

    Raises:
        BackendError: If vLLM is missing, there is no such model, or the engine does not start.
    """
    try:
        return VLLMBackend(VLLMEngine(rest, seed=seed, **options), seed=seed, images=images)
    except Exception as error:
        raise BackendError(f"vllm:{rest} cannot be opened: {_line(error)}") from error


def _closing(path: str, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the model's, else the tokenizer's."""
    try:
        ids = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # a model without generation_config.json
        ids = None
    ids = tokenizer.eos_token_id if ids is None else ids
    return [int(i) for i in (ids if isinstance(ids, list | tuple) else [ids]) if i is not None]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
