"""A student played by any transformers chat model, in process."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from steer_env.agents.base import Failed, Observation, Sampler
from steer_env.agents.hf.codec import ChatCodec, Prompt
from steer_env.agents.hf.decoder import Decoder, Sample
from steer_env.checks import integer
from steer_env.images import ImageError
from steer_env.models import tiny
from steer_env.models.thought import UNFINISHED, split_thought
from steer_env.models.weights import weights_id
from steer_env.spaces import MAX_NEW_TOKENS
from steer_env.types import Utterance


class TokenStudent(Sampler):
    """A student that keeps the tokens of its dialogues, whoever samples them.

    Each reply is an `Utterance` whose `meta` holds `trace`, the `TokenTrace` of the whole dialogue so far;
    the next prompt appends to it. A thought before a reply is not part of it: it is in the trace, and in
    `meta` as `thought`. Where the chat template rewrites earlier turns (`codec.rewrites`) there is no trace:
    every turn is rendered anew, so such a student can be evaluated and not trained.

    Attributes:
        codec: How dialogues become tokens.
    """

    codec: ChatCodec

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

    def answer(self, prompts: Sequence[Prompt]) -> list[Utterance | Failed]:
        """Return one sampled reply per prompt, in order, each with its trace; `Failed` as in `act`."""
        reasons = [self._overflow(prompt) for prompt in prompts]
        replies: list[Utterance | Failed] = [Failed(f"too_long: {reason}") for reason in reasons]
        fits = [index for index, reason in enumerate(reasons) if reason is None]
        samples = self._sample([prompts[index] for index in fits])
        for index, sample in zip(fits, samples, strict=True):
            replies[index] = self._said(prompts[index], sample)
        return replies

    @abstractmethod
    def _overflow(self, prompt: Prompt) -> str | None:
        """Return why a prompt and its reply do not fit into the context, None if they do."""

    @abstractmethod
    def _sample(self, prompts: Sequence[Prompt]) -> list[Sample]:
        """Sample a reply to each prompt."""

    def _said(self, prompt: Prompt, sample: Sample) -> Utterance | Failed:
        codec = self.codec
        thought, text = split_thought(codec.decode(sample.ids), opened=codec.thinks)
        if text is None:
            return Failed(UNFINISHED)
        meta: dict[str, Any] = {"thought": thought} if thought else {}
        if not codec.rewrites:
            trace = codec.reply(prompt.trace, sample.ids, sample.logprobs, prompt.turn)
            meta |= {"trace": trace, "codec": codec.fingerprint}
        finish = "stop" if codec.close_id in sample.ids[-1:] else "length"
        return Utterance(text, finish=finish, **meta)


class HFStudent(TokenStudent):
    """Answers batches of dialogues with a transformers model, keeping tokens and KV cache across turns.

    Attributes:
        model: The model.
        processor: Its processor.
        decoder: The sampling loop; call `student.weights_changed()` after training the model.

    Args:
        model: A transformers model, image-text or text only; it is put into eval mode.
        processor: Its processor, with a chat template, or the tokenizer of a model that reads text only.
        temperature: See `Sampler`, as `max_new_tokens`, `seed` and `images`.
        max_new_tokens: See there.
        seed: See there.
        images: See there.
        system: System prompt, "" for none.
        template_options: Further arguments of the chat template, such as `{"enable_thinking": False}`.
        batch_size: Most dialogues per forward pass.
        name: For reports.
        weights: Identity of the weights it started from; what keeps a judge from being the student it judges.

    Raises:
        ChatTemplateError: If the chat template is missing or cannot be used.
        ValueError: If a value is out of its range.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        *,
        temperature: float = 1.0,
        max_new_tokens: int = MAX_NEW_TOKENS,
        seed: int = 0,
        images: str = "pixels",
        system: str = "",
        template_options: Mapping[str, Any] | None = None,
        batch_size: int = 64,
        name: str = "hf",
        weights: str = "",
    ) -> None:
        super().__init__(temperature, max_new_tokens, seed, images)
        self.batch_size = batch_size = integer("batch_size", batch_size, 1)
        self.model, self.processor, self.name, self.weights = model.eval(), processor, name, weights
        self.codec = ChatCodec(processor, system=system, template_options=template_options)
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

    def _overflow(self, prompt: Prompt) -> str | None:
        return self.decoder.overflow(prompt, self.max_new_tokens)

    def _sample(self, prompts: Sequence[Prompt]) -> list[Sample]:
        samples = []
        for start in range(0, len(prompts), self.batch_size):
            samples += self.decoder.generate(
                prompts[start : start + self.batch_size],
                temperature=self.temperature,
                max_new_tokens=self.max_new_tokens,
                seed=self.seed,
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
