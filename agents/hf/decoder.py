"""Batched sampling with one KV cache that lives across turns.

Every token is prefilled once: a prompt that continues a cached row feeds only its new tokens, equal prompts
(the members of a GRPO group) are prefilled together as one row, and a member that comes later starts from
what its siblings were fed. A picture goes through the vision tower once. Each row draws from its own random
stream, which depends on the seed, the prompt and which dialogue asks (where nobody says, how often that
prompt was asked before), so results do not depend on what else is in the batch. Logits move in the last digit
with the batch's shape, as float sums do: a draw that falls on the edge between two tokens could still differ.
Shape suffixes: `_BL` batch and length, `_BV` batch and vocabulary, `_R` rows still in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from steer_env.agents.hf.adapter import ModelAdapter
from steer_env.agents.hf.cache import Block, Opening, keeps_every_token, stack
from steer_env.agents.hf.codec import ChatCodec, Prompt
from steer_env.agents.hf.vision import FeatureStore
from steer_env.images import Image
from steer_env.models.base import ContextOverflow
from steer_env.models.sampling import Streams, pick, prompt_hash

#: Draws a token per row from logits and uniform numbers, and says its log-probability.
Draw = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
#: A batch smaller than this keeps its finished rows: copying the others out costs more than they do.
_LEAST_ROWS = 8


@dataclass(slots=True)
class Sample:
    """A sampled reply: ids (the closing token included if it was sampled) and their log-probabilities."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Counters:
    """What the decoder did since it was made.

    Attributes:
        prefilled: Prompt tokens fed to the model; a token of a group's shared prompt counts once.
        decoded: Sampled tokens fed to the model one by one.
        images: Pictures sent through the vision tower.
        missed: Dialogues fed anew from their first token because their row had made room for others.
    """

    prefilled: int = 0
    decoded: int = 0
    images: int = 0
    missed: int = 0


class Decoder:
    """Samples replies from a transformers image-text model.

    Attributes:
        counters: What was fed so far, for tests and benchmarks.
        forbidden: Tokens that are never sampled.

    Args:
        model: The model; put it into eval mode, dropout would make log-probabilities wrong.
        codec: Its codec.
        cached_rows: How many rows of finished or waiting dialogues to keep; 0 prefills every turn anew.
    """

    def __init__(self, model: PreTrainedModel, codec: ChatCodec, *, cached_rows: int = 256) -> None:
        self.adapter = ModelAdapter(model, codec)
        self.codec = codec
        self.counters = Counters()
        self._persistent = keeps_every_token(model.config)
        self._cached_rows = cached_rows if self._persistent else 0
        self._blocks: list[Block] = []
        self._features = FeatureStore(64 if cached_rows else 0)
        self._streams = Streams()
        self.forbidden = torch.tensor(codec.forbidden(self.adapter.vocabulary, {codec.close_id})).long()

    def invalidate(self) -> None:
        """Forget cached keys and values; call it after every change of the weights."""
        self._blocks.clear()
        self._features.clear()

    def reseed(self) -> None:
        """Forget how often each prompt was asked, so that the same seed samples the same replies again."""
        self._streams.restart()

    def overflow(self, prompt: Prompt, max_new_tokens: int) -> str | None:
        """Return why a prompt and its reply do not fit into the model's context, None if they do."""
        length, limit = len(prompt.trace), self.adapter.max_length
        if length + max_new_tokens <= limit:
            return None
        return (
            f"the dialogue has {length} tokens and the reply may have {max_new_tokens}, expected at most "
            f"{limit} together (the model's max_position_embeddings); use fewer or shorter turns "
            "(max_cycles), smaller images, or a model with a longer context"
        )

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        temperature: float,
        max_new_tokens: int,
        seed: int,
        top_p: float = 1.0,
        top_k: int = 0,
    ) -> list[Sample]:
        """Sample one reply per prompt.

        Args:
            prompts: What to continue; the traces end where the reply begins.
            temperature: Of the sampled distribution; 0 takes the likeliest token (log-probability 0).
            max_new_tokens: A longer reply is cut there.
            seed: Seeds every row's random stream.
            top_p: See `pick`; log-probabilities are those before the cut.
            top_k: See there.

        Raises:
            ContextOverflow: If a prompt and its reply would not fit into the model's context.
        """
        if not prompts:
            return []
        for prompt in prompts:
            if (reason := self.overflow(prompt, max_new_tokens)) is not None:
                raise ContextOverflow(reason)
        keys = [_key(prompt.trace.ids_L, prompt.images) for prompt in prompts]
        uniform_BT = torch.zeros(len(prompts), max_new_tokens, dtype=torch.float64)
        if temperature:  # greedy replies draw nothing
            draws = [self._draws(prompt, seed, max_new_tokens) for prompt in prompts]
            uniform_BT = torch.from_numpy(np.stack(draws))
        draw = partial(pick, temperature=temperature, top_p=top_p, top_k=top_k)
        block, order, logits_BV = self._feed_prompts(prompts, keys)
        uniform_TB = uniform_BT[order].T.contiguous().to(self.adapter.device)
        samples, parts = self._decode(block, logits_BV, uniform_TB, draw)
        answers = [sample for _, sample in sorted(zip(order, samples, strict=True), key=lambda pair: pair[0])]
        for part, places in parts:
            for row, place in enumerate(places):
                prompt, sample = prompts[order[place]], samples[place]
                # The last sampled token is not in the cache yet; the next turn feeds it.
                fed = np.append(prompt.trace.ids_L, sample.ids[:-1]).astype(np.int64)
                part.keys[row] = _key(fed, prompt.images)
            self._keep(part)
        return answers

    # -- prompts ------------------------------------------------------------------------------------------

    def _feed_prompts(self, prompts: Sequence[Prompt], keys: list[bytes]) -> tuple[Block, list[int], Tensor]:
        """Feed what the cache lacks; returns the block, which prompt each row is, and the next logits."""
        started = self._resume(prompts)
        resumed = {index for _, indices in started for index in indices}
        fed = {index: (_fed(prompts[index]), prompts[index].images_before) for index in resumed}
        for index in sorted(set(range(len(prompts))) - resumed):
            self.counters.missed += _fed(prompts[index]) > 0
            begun = self._begin(prompts[index], [block for block, _ in started])
            if begun is not None:
                started.append((begun, [index]))
                fed[index] = (len(prompts[index].trace) - 1, len(prompts[index].images))
        order = [index for _, indices in started for index in indices]
        parts = []
        if started:
            block = stack([block for block, _ in started])
            parts.append(
                (
                    block,
                    self._feed(
                        block, [prompts[i] for i in order], *zip(*(fed[i] for i in order), strict=True)
                    ),
                )
            )
        new = [index for index in range(len(prompts)) if index not in fed]
        if new:
            parts.append(self._prefill(prompts, keys, new))
        return stack([block for block, _ in parts]), order + new, torch.cat([logits for _, logits in parts])

    def _begin(self, prompt: Prompt, started: list[Block]) -> Block | None:
        """Return a row that a sibling's first prompt has filled but for the last token, if there is one."""
        opening = self._opening(prompt, 0)
        for block in [*self._blocks, *started] if opening else ():
            for row, other in enumerate(block.openings):
                if other is not None and opening is not None and other.key == opening.key:
                    return block.begin(row, other)
        return None

    def _resume(self, prompts: Sequence[Prompt]) -> list[tuple[Block, list[int]]]:
        """Take rows that prompts continue out of the store, as (block, which prompt each row is)."""
        places: dict[bytes | None, list[tuple[int, int]]] = {}
        for number, block in enumerate(self._blocks):
            for row, key in enumerate(block.keys):
                places.setdefault(key, []).append((number, row))
        taken: dict[int, list[tuple[int, int]]] = {}
        for index, prompt in enumerate(prompts):
            fed = _fed(prompt)
            found = (
                places.get(_key(prompt.trace.ids_L[:fed], prompt.images[: prompt.images_before]))
                if fed
                else None
            )
            if found:
                number, row = found.pop()
                taken.setdefault(number, []).append((row, index))
        resumed = []
        for number, pairs in sorted(taken.items()):
            block, pairs = self._blocks[number], sorted(pairs)
            resumed.append((block.take([row for row, _ in pairs]), [index for _, index in pairs]))
            for row, _ in pairs:
                block.keys[row] = None  # nobody can find it again
        taken_whole = {id(block) for block, _ in resumed}
        kept = []
        for block in self._blocks:
            live = [row for row, key in enumerate(block.keys) if key is not None]
            if live and id(block) not in taken_whole:
                # A finished dialogue must not hold on to the memory of all that were batched with it.
                kept.append(block if len(live) == block.rows else block.take(live))
        self._blocks = kept
        return resumed

    def _opening(self, prompt: Prompt, reach: int) -> Opening | None:
        """What siblings can share of a first prompt that reaches so far; None for a later turn's."""
        ids_L, images = prompt.trace.ids_L, prompt.images
        if prompt.turn or len(ids_L) < 2 or ids_L[-1] == self.codec.image_id:
            return None
        return Opening(_key(ids_L[:-1], images), len(ids_L) - 1, reach - 1)

    def _prefill(self, prompts: Sequence[Prompt], keys: list[bytes], new: list[int]) -> tuple[Block, Tensor]:
        """Feed whole prompts, equal ones once, and repeat their rows."""
        rows: dict[object, int] = {}
        for index in new:
            rows.setdefault(keys[index] if self._persistent else index, index)
        unique = list(rows.values())
        config = self.adapter.model.config
        block = Block.empty(len(unique), self.adapter.device, config, roomy=self._persistent)
        nothing = [0] * len(unique)
        logits_BV = self._feed(block, [prompts[index] for index in unique], nothing, nothing)
        reach_B = block.next_B.tolist()
        block.openings = [
            self._opening(prompts[index], reach) for index, reach in zip(unique, reach_B, strict=True)
        ]
        if len(unique) == len(new):
            return block, logits_BV
        place = {keys[index]: row for row, index in enumerate(unique)}
        repeated = [place[keys[index]] for index in new]
        return block.take(repeated), logits_BV[torch.tensor(repeated, device=logits_BV.device)]

    def _feed(
        self, block: Block, prompts: Sequence[Prompt], fed: Sequence[int], shown: Sequence[int]
    ) -> Tensor:
        """Feed prompts from the `fed`-th token and `shown`-th image on; returns the next logits, (B, V)."""
        chunks = [prompt.trace.ids_L[n:] for prompt, n in zip(prompts, fed, strict=True)]
        width = max(map(len, chunks))
        ids_BL = np.zeros((len(chunks), width), np.int64)
        mask_BL = np.zeros((len(chunks), width), np.bool_)
        for row, chunk in enumerate(chunks):
            ids_BL[row, width - len(chunk) :] = chunk
            mask_BL[row, width - len(chunk) :] = True
        images = [image for prompt, n in zip(prompts, shown, strict=True) for image in prompt.images[n:]]
        self.counters.prefilled += int(mask_BL.sum())
        device = self.adapter.device
        return self._advance(
            block, torch.from_numpy(ids_BL).to(device), torch.from_numpy(mask_BL).to(device), images
        )

    def _advance(self, block: Block, ids_BL: Tensor, mask_BL: Tensor, images: Sequence[Image] = ()) -> Tensor:
        """Feed tokens; the mask says where there is one. Returns the logits after the last, (B, V)."""
        positions, reach_B = self.adapter.positions(ids_BL, mask_BL, images)
        block.extend(mask_BL)
        inputs = self.adapter.inputs(
            ids_BL, block.mask_BC, positions + block.next_B[:, None], images, self._features
        )
        output = self.adapter.model(**inputs, past_key_values=block.cache, use_cache=True, logits_to_keep=1)
        block.next_B = block.next_B + reach_B
        self.counters.images = self._features.encoded
        return output.logits[:, -1].float()

    # -- sampling -----------------------------------------------------------------------------------------

    def _decode(
        self, block: Block, logits_RV: Tensor, uniform_TB: Tensor, draw: Draw
    ) -> tuple[list[Sample], list[tuple[Block, list[int]]]]:
        """Sample until every row has closed its reply; rows that have leave the batch as it halves.

        Returns:
            What each row sampled, and blocks with the places of their rows in the batch.
        """
        samples = [Sample() for _ in range(block.rows)]
        places = list(range(block.rows))
        running = places  # rows of the block
        place_R = None
        mask_R1 = torch.ones(block.rows, 1, dtype=torch.bool, device=logits_RV.device)
        left = []
        for uniform_B in uniform_TB:
            uniform_R = uniform_B if place_R is None else uniform_B[place_R]
            logits_RV.index_fill_(1, self.forbidden.to(logits_RV.device), float("-inf"))
            token_R, logprob_R = draw(logits_RV, uniform_R)
            ids, logprobs = token_R.tolist(), logprob_R.tolist()
            for row in running:
                sample = samples[places[row]]
                sample.ids.append(ids[row])
                sample.logprobs.append(logprobs[row])
            rest = [row for row in running if ids[row] != self.codec.close_id]
            if not rest or len(samples[places[rest[0]]].ids) == len(uniform_TB):
                break
            if self._persistent and len(rest) <= block.rows // 2 and block.rows >= _LEAST_ROWS:
                over = sorted(set(range(block.rows)) - set(rest))
                left.append((block.take(over), [places[row] for row in over]))
                block, token_R = block.take(rest), token_R[rest]
                places = [places[row] for row in rest]
                place_R, mask_R1 = torch.tensor(places, device=token_R.device), mask_R1.new_ones(len(rest), 1)
                rest = list(range(len(rest)))
            elif len(rest) < len(running):
                mask_R1 = mask_R1.new_zeros(block.rows, 1)
                mask_R1[rest] = True
            running = rest
            self.counters.decoded += len(running)
            logits_RV = self._advance(block, token_R[:, None], mask_R1)
        left.append((block, places))
        return samples, left

    def _draws(self, prompt: Prompt, seed: int, count: int) -> NDArray[np.float64]:
        """Uniform numbers of one row: from the seed, the prompt and who asks, or how often it was asked."""
        if prompt.draw_seed is not None:
            return np.random.default_rng(prompt.draw_seed).random(count)
        key = f"{seed}/dialogue {prompt.stream}" if prompt.stream else f"{seed}"
        return self._streams.draw(prompt.trace.ids_L, prompt.images, key, count, named=bool(prompt.stream))

    # -- keeping ------------------------------------------------------------------------------------------

    def _keep(self, block: Block) -> None:
        if not self._cached_rows:
            return
        self._blocks.append(block)
        while len(self._blocks) > 1 and sum(b.rows for b in self._blocks) > self._cached_rows:
            self._blocks.pop(0)


def _key(ids_L: NDArray[np.int64], images: Sequence[Image]) -> bytes:
    """What identifies a fed sequence: 16 bytes made of its ids and its pictures."""
    return prompt_hash(ids_L, images).digest()


def _fed(prompt: Prompt) -> int:
    """How many tokens a cache holds of this dialogue: all before the last sampled one, 0 if it is new."""
    sampled = np.flatnonzero(prompt.trace.sampled_L)
    return int(sampled[-1]) if len(sampled) else 0
