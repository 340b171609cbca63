"""A student played by any transformers image-text model, in process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from steer_env.agents.base import Agent, Failed, Observation
from steer_env.agents.hf.codec import ChatCodec, Prompt
from steer_env.agents.hf.decoder import Decoder
from steer_env.checks import integer, number
from steer_env.images import ImageError
from steer_env.models import tiny
from steer_env.models.weights import weights_id
from steer_env.spaces import MAX_NEW_TOKENS
from steer_env.types import Utterance


class HFStudent(Agent):
    """Answers batches of dialogues with a transformers model, keeping tokens and KV cache across turns.

    Each reply is an `Utterance` whose `meta` holds `trace`, the `TokenTrace` of the whole dialogue so far;
    the next prompt appends to it.

    Attributes:
        model: The model.
        processor: Its processor.
        codec: How dialogues become tokens.
        decoder: The sampling loop; call `student.weights_changed()` after training the model.

    Args:
        model: A transformers image-text model; it is put into eval mode.
        processor: Its processor, with a chat template.
        temperature: Of the sampled distribution; 0 is greedy.
        max_new_tokens: Longest reply in tokens.
        seed: Seeds the sampling. The same seed, prompts and weights give the same replies.
        batch_size: Most dialogues per forward pass.
        name: For reports.
        weights: Identity of the weights it started from; what keeps a judge from being the student it judges.

    Raises:
        ChatTemplateError: If the chat template is missing or rewrites earlier turns.
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        *,
        temperature: float = 1.0,
        max_new_tokens: int = MAX_NEW_TOKENS,
        seed: int = 0,
        batch_size: int = 64,
        name: str = "hf",
        weights: str = "",
    ) -> None:
        self.batch_size = batch_size = integer("batch_size", batch_size, 1)
        self.model, self.processor, self.name, self.weights = model.eval(), processor, name, weights
        self.codec = ChatCodec(processor)
        self.decoder = Decoder(model, self.codec, cached_rows=4 * batch_size)
        self.temperature = number("temperature", temperature)
        self.max_new_tokens = integer("max_new_tokens", max_new_tokens, 1)
        self.seed = seed

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
            path: Folder or hub id of an image-text model, or one of `steer_env.models.shipped.SHIPPED`.
            device: Where it runs.
            dtype: Of its weights; None takes the one they were saved in.
            **options: Of the constructor.
        """
        model, processor = tiny.load(path, dtype, device)
        return cls(model, processor, **{"name": Path(path).name, "weights": weights_id(path), **options})

    def act(self, observations: Sequence[Observation]) -> list[Utterance | Failed]:
        """Return one reply per observation, in order, or why there is none.

        `Failed` where a dialogue outgrew the model's context or has a picture that its processor refuses.

        Raises:
            ValueError: If a transcript does not end with a user turn.
        """
        prompts: list[Prompt | Failed] = []
        for observation in observations:
            try:
                prompts.append(self.codec.prompt(observation))
            except ImageError as error:  # one dialogue's picture; the others go on
                prompts.append(Failed(f"picture: {error}"))
        said = iter(self.answer([prompt for prompt in prompts if isinstance(prompt, Prompt)]))
        return [prompt if isinstance(prompt, Failed) else next(said) for prompt in prompts]

    def answer(self, prompts: Sequence[Prompt]) -> list[Utterance | Failed]:
        """Return one sampled reply per prompt, in order, each with its trace; `Failed` as in `act`."""
        reasons = [self.decoder.overflow(prompt, self.max_new_tokens) for prompt in prompts]
        replies: list[Utterance | Failed] = [Failed(f"too_long: {reason}") for reason in reasons]
        fits = [index for index, reason in enumerate(reasons) if reason is None]
        for start in range(0, len(fits), self.batch_size):
            batch = fits[start : start + self.batch_size]
            samples = self.decoder.generate(
                [prompts[index] for index in batch],
                temperature=self.temperature,
                max_new_tokens=self.max_new_tokens,
                seed=self.seed,
            )
            for index, sample in zip(batch, samples, strict=True):
                prompt = prompts[index]
                trace = self.codec.reply(prompt.trace, sample.ids, sample.logprobs, prompt.turn)
                text = self.codec.decode(sample.ids)
                finish = "stop" if self.codec.close_id in sample.ids[-1:] else "length"
                replies[index] = Utterance(text, trace=trace, codec=self.codec.fingerprint, finish=finish)
        return replies

    @property
    def varies(self) -> bool:
        """A greedy model does not."""
        return self.temperature > 0

    def reseed(self, seed: int) -> None:
        """Start the random streams anew from `seed`."""
        self.seed = seed
        self.decoder.reseed()

    def weights_changed(self) -> None:
        """Drop cached keys and values; call it after every update of the weights."""
        self.decoder.invalidate()

    def check_trainable(self) -> None:
        """Refuse weights that small updates would round away.

        A bfloat16 number has 8 significant bits: adding 1e-6 to a weight of 0.02 leaves it as it is, so an
        optimiser needs float32 weights to write to.

        Raises:
            ValueError: If a parameter that takes gradients is of lower precision than float32.
        """
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and parameter.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"weight {name!r} has dtype={parameter.dtype}, expected torch.float32: small updates are "
                    "lost in lower precision. Load the model with dtype=torch.float32 (--dtype float32)"
                )

    def save(self, path: str | Path) -> None:
        """Write model and processor as one Hugging Face folder."""
        tiny.save(self.model, self.processor, path)
