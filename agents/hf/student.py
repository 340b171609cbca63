"""A student played by any transformers chat model, in process."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from steer_env.agents.base import Failed, KeyedObservation, Observation, Sampler, stream_of
from steer_env.agents.hf.codec import ChatCodec, Prompt
from steer_env.agents.hf.decoder import Decoder, Sample
from steer_env.checks import integer
from steer_env.images import ImageError
from steer_env.models import tiny
from steer_env.models.pictures import as_view, in_words
from steer_env.models.thought import CLOSED, UNFINISHED, split_thought
from steer_env.models.weights import weights_id
from steer_env.types import Utterance, with_images


class TokenStudent(Sampler):
    """A student that keeps the tokens of its dialogues, whoever samples them.

    Each reply is an `Utterance` whose `meta` holds `trace`, the `TokenTrace` of the whole dialogue so far;
    the next prompt appends to it. A thought before a reply is not part of it: it is in the trace, and in
    `meta` as `thought`. Where the chat template rewrites earlier turns (`codec.rewrites`) there is no trace:
    every turn is rendered anew, so such a student can be evaluated and not trained.

    Attributes:
        codec: How dialogues become tokens.
        images: See below, as `max_thought` and `learn_thoughts`.

    Args:
        processor: Its processor, with a chat template, or the tokenizer of a model that reads text only.
        images: How pictures are shown: as "pixels"; as a "caption" from ground truth before the words they
            come with, for models that read text only; or not at all ("no").
        template_options: Further arguments of the chat template, such as `{"enable_thinking": False}`.
        max_thought: Most tokens of a thought; a longer one is ended there with words that nobody sampled and
            that carry no loss, and the reply has the rest of `max_new_tokens`. 0 sets no limit of its own.
        learn_thoughts: Whether thoughts carry the loss; else only what follows them does.
        **sampling: Of `Sampler`.

    Raises:
        ChatTemplateError: If the chat template is missing or cannot be used.
        ValueError: If a value is out of its range.
    """

    def __init__(
        self,
        processor: Any,
        *,
        images: str = "pixels",
        template_options: Mapping[str, Any] | None = None,
        max_thought: int = 0,
        learn_thoughts: bool = True,
        **sampling: Any,
    ) -> None:
        super().__init__(**sampling)
        self.images = as_view(images)
        self.max_thought, self.learn_thoughts = integer("max_thought", max_thought), learn_thoughts
        self.codec = ChatCodec(processor, system=self.system, template_options=template_options)

    def act(self, observations: Sequence[Observation]) -> list[Utterance | Failed]:
        """Return one reply per observation, in order, or why there is none.

        `Failed` where a dialogue outgrew the model's context, has a picture that its processor refuses, or
        got no further than a thought.

        Raises:
            ValueError: If a transcript does not end with a user turn, or shows a picture to a model that
                reads text only.
        """
        prompts: list[Prompt | Failed] = []
        for observation in observations:
            try:
                prompts.append(self.codec.prompt(self.seen(observation)))
            except ImageError as error:  # one dialogue's picture; the others go on
                prompts.append(Failed(f"picture: {error}"))
        said = iter(self.answer([prompt for prompt in prompts if isinstance(prompt, Prompt)]))
        return [prompt if isinstance(prompt, Failed) else next(said) for prompt in prompts]

    def seen(self, observation: Observation) -> Observation:
        """Return an observation with its pictures as the model is shown them.

        Raises:
            ImageError: If a picture has no ground truth to make a caption from.
        """
        if self.images == "pixels" or not observation["images"]:
            return observation
        transcript = []
        for message, shown in with_images(observation["transcript"], observation["images"]):
            if shown:
                words = in_words(message.content, shown, self.images)
                message = message._replace(content=words, images=0)
            transcript.append(message)
        seen = {**observation, "transcript": tuple(transcript), "images": ()}
        return KeyedObservation(seen, stream_of(observation))

    def answer(self, prompts: Sequence[Prompt]) -> list[Utterance | Failed]:
        """Return one sampled reply per prompt, in order, each with its trace; `Failed` as in `act`."""
        spare = len(self.codec.closed_thought(None)) if self.max_thought else 0
        reasons = [self._overflow(prompt, self.max_new_tokens + spare) for prompt in prompts]
        replies: list[Utterance | Failed] = [Failed(f"too_long: {reason}") for reason in reasons]
        fits = [index for index, reason in enumerate(reasons) if reason is None]
        for index, drawn in zip(fits, self._draw([prompts[index] for index in fits]), strict=True):
            replies[index] = self._said(*drawn)
        return replies

    @abstractmethod
    def _overflow(self, prompt: Prompt, new: int) -> str | None:
        """Return why a prompt and so many new tokens do not fit into the context, None if they do."""

    @abstractmethod
    def _sample(self, prompts: Sequence[Prompt], most: int) -> list[Sample]:
        """Sample at most so many tokens of a reply to each prompt."""

    def _draw(self, prompts: Sequence[Prompt]) -> list[tuple[Prompt, Sample]]:
        """Sample replies; each comes with its prompt, which holds the beginning of one that was stopped."""
        if not 0 < self.max_thought < self.max_new_tokens:
            return list(zip(prompts, self._sample(prompts, self.max_new_tokens), strict=True))
        drawn = list(zip(prompts, self._sample(prompts, self.max_thought), strict=True))
        stopped = [i for i, (_, sample) in enumerate(drawn) if not self._ended(sample)]
        further = [self._further(*drawn[i]) for i in stopped]
        rest = self._sample(further, self.max_new_tokens - self.max_thought)
        for i, prompt, sample in zip(stopped, further, rest, strict=True):
            drawn[i] = prompt, sample
        return drawn

    def _further(self, prompt: Prompt, sample: Sample) -> Prompt:
        """Return the prompt of what follows a stopped beginning; an open thought is closed."""
        trace = self.codec.sampled(prompt.trace, sample.ids, sample.logprobs, prompt.turn)
        if split_thought(self.codec.decode(sample.ids), opened=self.codec.thinks)[1] is None:
            trace = self.codec.closed_thought(trace)
        return replace(
            prompt,
            trace=trace,
            images_before=trace.images,
            begun=len(trace) - len(prompt.trace),
            draw_seed=None if prompt.draw_seed is None else prompt.draw_seed + 1,
        )

    def _ended(self, sample: Sample) -> bool:
        return self.codec.close_id in sample.ids[-1:]

    def _said(self, prompt: Prompt, sample: Sample) -> Utterance | Failed:
        codec, start = self.codec, len(prompt.trace) - prompt.begun
        ids = [*prompt.trace.ids_L[start:].tolist(), *sample.ids]
        thought, text = split_thought(codec.decode(ids), opened=codec.thinks)
        if text is None:
            return Failed(UNFINISHED)
        meta: dict[str, Any] = {"thought": thought} if thought else {}
        if not codec.rewrites:
            trace = codec.reply(prompt.trace, sample.ids, sample.logprobs, prompt.turn)
            end = 0 if self.learn_thoughts or not thought else _thought_end(codec, ids)
            if end < len(ids):  # a reply of nothing but a thought would leave no token to learn
                trace = codec.unlearned(trace, start, start + end)
            meta |= {"trace": trace, "codec": codec.fingerprint}
        return Utterance(text, finish="stop" if self._ended(sample) else "length", **meta)


def _thought_end(codec: ChatCodec, ids: Sequence[int]) -> int:
    """Return how many tokens of a reply its thought takes, its end included."""
    return bisect_left(range(len(ids)), True, key=lambda n: CLOSED in codec.decode(ids[: n + 1])) + 1


class HFStudent(TokenStudent):
    """Answers batches of dialogues with a transformers model, keeping tokens and KV cache across turns.

    Attributes:
        model: The model.
        processor: Its processor.
        decoder: The sampling loop; call `student.weights_changed()` after training the model.

    Args:
        model: A transformers model, image-text or text only; it is put into eval mode.
        processor: See `TokenStudent`.
        batch_size: Most dialogues per forward pass.
        name: For reports.
        weights: Identity of the weights it started from; what keeps a judge from being the student it judges.
        **options: Of `TokenStudent` and `Sampler`. Log-probabilities are those before `top_p` and `top_k`
            cut the distribution, in replies and in losses alike.

    Raises:
        ChatTemplateError: If the chat template is missing or cannot be used.
        ValueError: If a value is out of its range.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        *,
        batch_size: int = 64,
        name: str = "hf",
        weights: str = "",
        **options: Any,
    ) -> None:
        super().__init__(processor, **options)
        self.batch_size = batch_size = integer("batch_size", batch_size, 1)
        self.model, self.processor, self.name, self.weights = model.eval(), processor, name, weights
        self.decoder = Decoder(model, self.codec, cached_rows=4 * batch_size)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> HFStudent:
        """Open a Hugging Face folder, a shipped student or a hub id.

        Args:
            path: Folder or hub id of a chat model, or one of `steer_env.models.shipped.SHIPPED`.
            device: Where it runs.
            dtype: Of its weights; None takes the one they were saved in.
            **options: Of the constructor.
        """
        model, processor = tiny.load(path, dtype, device)
        return cls(model, processor, **{"name": Path(path).name, "weights": weights_id(path), **options})

    def _overflow(self, prompt: Prompt, new: int) -> str | None:
        return self.decoder.overflow(prompt, new)

    def _sample(self, prompts: Sequence[Prompt], most: int) -> list[Sample]:
        samples = []
        for start in range(0, len(prompts), self.batch_size):
            samples += self.decoder.generate(
                prompts[start : start + self.batch_size],
                temperature=self.temperature,
                max_new_tokens=most,
                seed=self.seed,
                top_p=self.top_p,
                top_k=self.top_k,
            )
        return samples

    def reseed(self, seed: int) -> None:
        """Start the random streams anew from `seed`."""
        super().reseed(seed)
        self.decoder.reseed()

    def weights_changed(self) -> None:
        """Drop cached keys and values; call it after every update of the weights."""
        self.decoder.invalidate()

    def check_trainable(self) -> None:
        """Refuse weights that small updates would round away, and dialogues that do not only grow.

        A bfloat16 number has 8 significant bits: adding 1e-6 to a weight of 0.02 leaves it as it is, so an
        optimiser needs float32 weights to write to.

        Raises:
            ChatTemplateError: If the chat template rewrites earlier turns.
            ValueError: If a parameter that takes gradients is of lower precision than float32.
        """
        self.codec.check_growing()
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and parameter.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"weight {name!r} has dtype={parameter.dtype}, expected torch.float32: small updates are "
                    "lost in lower precision. Load the model with dtype=torch.float32 (--dtype float32)"
                )

    def save(self, path: str | Path) -> None:
        """Write model and processor as one Hugging Face folder."""
        tiny.save(self.model, self.processor, path)


@contextmanager
def sampling(student: HFStudent, **settings: Any) -> Iterator[None]:
    """Let a student sample in another way for a while, such as `temperature=0.0`."""
    before = {name: getattr(student, name) for name in settings}
    for name, value in settings.items():
        setattr(student, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(student, name, value)
