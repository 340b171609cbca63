"""A transformers model in process as a chat back end: tutor, judge or data generator on this machine.

For a student that is to be trained use `HFStudent`: it keeps the tokens of a dialogue and its KV cache.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

from steer_env.images import ImageError
from steer_env.models import tiny
from steer_env.models.base import (
    BackendError,
    ChatFailure,
    ChatReply,
    ChatRequest,
    ChatResult,
    refuse_unknown,
)
from steer_env.models.encoder import ChatEncoder, ChatPrompt
from steer_env.models.hf_schema import SchemaGuide, SchemaMask, can_constrain
from steer_env.models.pictures import as_view, shown
from steer_env.models.sampling import Streams, pick
from steer_env.models.shipped import local_path
from steer_env.models.weights import weights_id

_LOG = logging.getLogger(__name__)


class HFBackend:
    """Chats with any transformers model that has a chat template, with or without pictures.

    Requests are answered in batches. Each draws from a random stream of its own, which depends on its seed
    and its chat: what else is in the batch changes nothing but float rounding. Answers follow a request's
    JSON schema where llguidance is installed; without it they are free text.

    Attributes:
        name: "hf:PATH".
        weights: Identity of the weights, see `steer_env.models.weights`.

    Args:
        model: A causal or image-text model; it is put into eval mode.
        processor: Its processor, or its tokenizer if it takes no pictures.
        name: See above.
        weights: See above.
        batch_size: Most requests per batch.
        seed: Of requests that bring none.
        images: How pictures are shown, one of `pictures.VIEWS`.

    Raises:
        ValueError: If there is no chat template, `images` is unknown, or `batch_size` is not positive.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str = "hf",
        weights: str = "",
        batch_size: int = 16,
        seed: int = 0,
        images: str = "pixels",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r}, expected an integer of at least 1")
        self.name, self.weights = name, weights
        self.model, self.encoder = model.eval(), ChatEncoder(processor)
        self.batch_size, self.seed, self.images = batch_size, seed, as_view(images)
        self._accepts = set(inspect.signature(model.forward).parameters)
        self._closing = _closing(model, self.encoder.tokenizer)
        text = model.config.get_text_config()
        self._vocabulary = int(text.vocab_size)
        self._longest = int(getattr(text, "max_position_embeddings", 0) or 2**31)
        self._forbidden = torch.tensor(self.encoder.forbidden(self._vocabulary, self._closing)).long()
        self._guide: SchemaGuide | None = None
        self._streams = Streams()
        self._lock = threading.Lock()

    def complete(self, requests: Sequence[ChatRequest]) -> list[ChatResult]:
        """Return one result per request, in order.

        A chat that does not fit into the model's context is a failure of kind "too_long", one with a picture
        that the processor refuses of kind "bad_request".

        Raises:
            ValueError: If a chat shows pictures to a model without.
        """
        prompts: dict[int, ChatPrompt] = {}
        results: list[ChatResult] = []
        for i, request in enumerate(requests):
            try:
                prompts[i] = self.encoder.chat(shown(request, self.images).messages)
                results.append(self._too_long(prompts[i], request))
            except ImageError as error:  # one chat's picture; the others go on
                results.append(ChatFailure("bad_request", str(error)))
        fits = [i for i, prompt in prompts.items() if self._fits(prompt, requests[i])]
        with self._lock:  # one model, one batch at a time
            for start in range(0, len(fits), self.batch_size):
                batch = fits[start : start + self.batch_size]
                replies = self._batch([prompts[i] for i in batch], [requests[i] for i in batch])
                for index, reply in zip(batch, replies, strict=True):
                    results[index] = reply
        return results

    def check(self) -> None:
        """Make sure that it can answer. It was opened, so it can."""

    def close(self) -> None:
        """Give back the memory; safe to call twice. The back end cannot answer any more."""
        self.model = None

    # -- inner parts --------------------------------------------------------------------------------------

    def _fits(self, prompt: ChatPrompt, request: ChatRequest) -> bool:
        return len(prompt.ids_L) + request.max_tokens <= self._longest

    def _too_long(self, prompt: ChatPrompt, request: ChatRequest) -> ChatFailure:
        return ChatFailure(
            "too_long",
            f"the chat has {len(prompt.ids_L)} tokens and the answer may have {request.max_tokens}, expected "
            f"at most {self._longest} together",
        )

    @torch.no_grad()
    def _batch(self, prompts: Sequence[ChatPrompt], requests: Sequence[ChatRequest]) -> list[ChatReply]:
        started = time.monotonic()
        steps = max(request.max_tokens for request in requests)
        uniform_BT = np.stack([self._draws(p, r, steps) for p, r in zip(prompts, requests, strict=True)])
        device = self.model.device
        sampler = _Sampler(
            torch.tensor([request.temperature for request in requests], device=device),
            torch.tensor([request.top_p for request in requests], device=device),
            torch.tensor([request.top_k for request in requests], device=device),
            torch.from_numpy(uniform_BT).to(device),
            self._forbidden.to(device),
            self._schema_mask(requests),
        )
        inputs = self._inputs(prompts)
        width = inputs["input_ids"].shape[1]
        # A model's own defaults, such as a repetition penalty, would change the distribution.
        config = GenerationConfig(
            max_new_tokens=steps,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=sorted(self._closing),
            pad_token_id=self._pad(),
        )
        ids_BL = self.model.generate(
            **inputs, generation_config=config, logits_processor=LogitsProcessorList([sampler])
        )[:, width:]
        seconds = time.monotonic() - started
        return [self._reply(row, r, seconds) for row, r in zip(ids_BL.tolist(), requests, strict=True)]

    def _inputs(self, prompts: Sequence[ChatPrompt]) -> dict[str, Tensor]:
        width = max(len(prompt.ids_L) for prompt in prompts)
        ids_BL = np.full((len(prompts), width), self._pad(), np.int64)
        mask_BL = np.zeros((len(prompts), width), np.int64)
        for row, prompt in enumerate(prompts):
            ids_BL[row, width - len(prompt.ids_L) :] = prompt.ids_L
            mask_BL[row, width - len(prompt.ids_L) :] = 1
        device, dtype = self.model.device, self.model.dtype
        inputs = {
            "input_ids": torch.from_numpy(ids_BL).to(device),
            "attention_mask": torch.from_numpy(mask_BL).to(device),
        }
        for name in ("mm_token_type_ids", "token_type_ids"):
            if name in self._accepts:
                inputs[name] = (inputs["input_ids"] == self.encoder.image_id).long()
        images = [image for prompt in prompts for image in prompt.images]
        for name, value in self.encoder.image_inputs(images).items():
            inputs[name] = value.to(device, dtype if value.is_floating_point() else None)
        return inputs

    def _schema_mask(self, requests: Sequence[ChatRequest]) -> SchemaMask | None:
        schemas = [request.schema for request in requests]
        if not any(schema is not None for schema in schemas):
            return None
        if not can_constrain():
            _LOG.warning("JSON schemas are ignored without llguidance; pip install 'steer-env[schema]'")
            return None
        if self._guide is None:
            self._guide = SchemaGuide(self.encoder.tokenizer, self._vocabulary, self._closing)
        return SchemaMask(self._guide, schemas)

    def _pad(self) -> int:
        tokenizer = self.encoder.tokenizer
        return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self._closing))

    def _draws(self, prompt: ChatPrompt, request: ChatRequest, count: int) -> NDArray[np.float64]:
        """Uniform numbers of one request: from seed and chat; without a seed, also from how often asked."""
        named = request.seed is not None
        key = str(request.seed) if named else f"own {self.seed}"
        return self._streams.draw(prompt.ids_L, prompt.images, key, count, named=named)

    def _reply(self, ids: list[int], request: ChatRequest, seconds: float) -> ChatReply:
        ids = ids[: request.max_tokens]
        end = next((i for i, token in enumerate(ids) if token in self._closing), len(ids))
        finish = "stop" if end < len(ids) else "length"
        text = self.encoder.tokenizer.decode(ids[:end], skip_special_tokens=True)
        return ChatReply(text, finish, {"token_ids": ids[: end + 1], "seconds": seconds, "attempts": 1})


class _Sampler(LogitsProcessor):
    """Leaves one token per row: the likeliest at temperature 0, else one drawn from the row's own stream."""

    def __init__(
        self,
        temperature_B: Tensor,
        top_p_B: Tensor,
        top_k_B: Tensor,
        uniform_BT: Tensor,
        forbidden: Tensor,
        schema: SchemaMask | None,
    ) -> None:
        # Rows are sorted only where one of them is cut.
        self._top_p: float | Tensor = top_p_B if (top_p_B < 1).any() else 1.0
        self._top_k: int | Tensor = top_k_B if (top_k_B > 0).any() else 0
        self._temperature_B, self._uniform_BT, self._forbidden = temperature_B, uniform_BT, forbidden
        self._schema = schema
        self._step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits_BV = scores.float().index_fill(1, self._forbidden, float("-inf"))
        if self._schema is not None:
            logits_BV = self._schema.apply(logits_BV)
        uniform_B = self._uniform_BT[:, self._step]
        token_B, _ = pick(logits_BV, uniform_B, self._temperature_B, self._top_p, self._top_k)
        self._step += 1
        if self._schema is not None:
            self._schema.advance(token_B)
        return torch.full_like(scores, float("-inf")).scatter(1, token_B[:, None], 0.0)


def open_hf(
    path: str, *, device: str | torch.device | None = None, dtype: Any = None, **options: Any
) -> HFBackend:
    """Open a Hugging Face folder or hub id.

    Args:
        path: Folder or hub id of a causal or image-text model.
        device: Where it runs; None takes a GPU if there is one.
        dtype: Of its weights, a torch dtype or its name; None takes the one they were saved in.
        **options: Of `HFBackend`.

    Raises:
        BackendError: If the model cannot be opened.
        ValueError: If there is no such dtype or option.
    """
    refuse_unknown("hf", options, ("device", "dtype", "batch_size", "seed", "name", "weights", "images"))
    wanted = as_dtype(dtype)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    found: str | Path = local_path(path)
    found = found if Path(found).exists() else path
    try:
        model, processor = tiny.load(found, wanted, place)
    except OSError as error:
        first = str(error).strip().splitlines()[0]
        raise BackendError(
            f"hf:{path} cannot be opened ({first}); give a model folder or a hub id"
        ) from error
    return HFBackend(model, processor, **{"name": f"hf:{path}", "weights": weights_id(found), **options})


def as_dtype(dtype: Any) -> torch.dtype | None:
    """Return a torch dtype, given as such or by name; None stays None.

    Raises:
        ValueError: If there is none of that name.
    """
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, str(dtype), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"dtype={dtype!r}, expected one of torch's, such as float32 or bfloat16")
    return found


def _closing(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end an answer: the model's, else the tokenizer's."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    ids = tokenizer.eos_token_id if ids is None else ids
    found = {int(i) for i in (ids if isinstance(ids, list | tuple) else [ids]) if i is not None}
    if not found:
        raise ValueError("neither generation_config nor tokenizer has an eos_token_id; set one of them")
    return found
