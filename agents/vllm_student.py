"""Students that vLLM samples for: one to evaluate, one to train.

Their replies carry the same token traces as those of `HFStudent`, so rollouts, losses and checks do not tell
them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from steer_env.agents.base import Failed, Observation
from steer_env.agents.hf.codec import ChatCodec, Prompt
from steer_env.agents.hf.decoder import Sample
from steer_env.agents.hf.student import HFStudent, TokenStudent
from steer_env.models import tiny
from steer_env.models.vllm_engine import EnginePrompt, Seeds, VLLMEngine, fold
from steer_env.models.weights import weights_id
from steer_env.spaces import MAX_NEW_TOKENS
from steer_env.types import Utterance


class VLLMStudent(TokenStudent):
    """Answers batches of dialogues with a vLLM engine, token-exactly; for evaluation and play.

    A prompt appends to the dialogue's trace, so the engine's prefix cache holds all of it but what the user
    said since.

    Attributes:
        engine: The engine; several students, judges and tutors may share one.
        prompt_tokens: Prompt tokens so far.
        cached_tokens: How many of them the prefix cache held.

    Args:
        engine: See above.
        temperature: See `Sampler`, as `max_new_tokens`, `seed` and `images`.
        max_new_tokens: See there.
        seed: See there.
        images: See there.
        system: System prompt, "" for none.
        template_options: Further arguments of the chat template, such as `{"enable_thinking": False}`.
        name: For reports.

    Raises:
        ChatTemplateError: If the chat template is missing or cannot be used.
        ValueError: If a value is out of its range.
    """

    def __init__(
        self,
        engine: VLLMEngine,
        *,
        temperature: float = 1.0,
        max_new_tokens: int = MAX_NEW_TOKENS,
        seed: int = 0,
        images: str = "pixels",
        system: str = "",
        template_options: Mapping[str, Any] | None = None,
        name: str = "vllm",
    ) -> None:
        super().__init__(temperature, max_new_tokens, seed, images)
        self.engine, self.name = engine, name
        self.codec = ChatCodec(engine.processor, system=system, template_options=template_options)
        self.prompt_tokens = self.cached_tokens = 0
        self._weights = weights_id(engine.path)
        self._seeds = Seeds()
        forbidden = self.codec.forbidden(engine.vocabulary, {self.codec.close_id})
        self._forbidden = dict.fromkeys(forbidden, float("-inf"))
        placeholder = self.codec.placeholder
        self._placeholder = self.codec.tokenizer.convert_tokens_to_ids(placeholder) if placeholder else -1

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        dtype: str | None = None,
        engine: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> VLLMStudent:
        """Start an engine on a Hugging Face folder or hub id.

        Args:
            path: Folder or hub id of an image-text model.
            dtype: Of its weights, such as "float32"; None takes the one they were saved in.
            engine: Further options of `VLLMEngine`.
            **options: Of the constructor.
        """
        opened = VLLMEngine(path, dtype=dtype, **(engine or {}))
        return cls(opened, **{"name": Path(path).name, **options})

    @property
    def weights(self) -> str:
        """Identity of the weights the engine was started with; keeps a judge from being its own student."""
        return self._weights

    def _overflow(self, prompt: Prompt) -> str | None:
        return self.engine.overflow(len(prompt.trace), self.max_new_tokens)

    def _sample(self, prompts: Sequence[Prompt]) -> list[Sample]:
        folded = [self._folded(prompt) for prompt in prompts]
        completions = self.engine.generate(folded, [self._params(prompt) for prompt in folded])
        self.prompt_tokens += sum(len(prompt.ids) for prompt in folded)
        self.cached_tokens += sum(completion.cached for completion in completions)
        return [Sample(list(one.ids), list(one.logprobs)) for one in completions]

    def reseed(self, seed: int) -> None:
        """Start the random streams anew from `seed`."""
        super().reseed(seed)
        self._seeds.restart()

    def _folded(self, dialogue: Prompt) -> EnginePrompt:
        images = dialogue.images[: dialogue.trace.images]
        return fold(
            dialogue.trace.ids_L, images, lambda image: self.codec.image(image).ids_N, self._placeholder
        )

    def _params(self, prompt: EnginePrompt) -> Any:
        return self.engine.params(
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            closing=[self.codec.close_id],
            forbidden=self._forbidden,
            seed=self._seeds.next(prompt, self.seed) if self.temperature else None,
        )


class TrainableVLLMStudent(HFStudent):
    """A transformers model that learns, and a vLLM engine that samples with its weights.

    The training loops treat it as any `HFStudent`. After `weights_changed()` the next reply is sampled with
    the new weights; the engine is not restarted.

    Attributes:
        sampler: The student of the engine.

    Args:
        model: The model that learns, with the weights the engine was started with.
        processor: Its processor.
        engine: An engine on the same model.
        **options: Of `HFStudent`.
    """

    def __init__(self, model: PreTrainedModel, processor: Any, engine: VLLMEngine, **options: Any) -> None:
        super().__init__(model, processor, **{"name": "vllm", **options})
        codec = self.codec
        self.sampler = VLLMStudent(
            engine, images=self.images, system=codec.system, template_options=codec.template_options
        )
        if self.sampler.codec.fingerprint != codec.fingerprint:
            raise ValueError(
                f"the engine's model {engine.path!r} has another vocabulary or chat template than the model "
                "that learns, expected the same folder for both"
            )
        self.sampler.codec = codec  # one cache of encoded pictures
        self._stale = False

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = torch.float32,
        engine: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> TrainableVLLMStudent:
        """Open a Hugging Face folder or hub id twice, for the loss and for sampling.

        Args:
            path: Folder or hub id of an image-text model.
            device: Where the model that learns runs.
            dtype: Of its weights.
            engine: Options of `VLLMEngine`; `dtype` among them may differ.
            **options: Of `HFStudent`.
        """
        model, processor = tiny.load(path, dtype, device)
        precision = str(model.dtype).removeprefix("torch.")
        # The model that learns, its gradients and its optimiser need the rest of the memory.
        opened = VLLMEngine(path, **{"dtype": precision, "gpu_memory_utilization": 0.3, **(engine or {})})
        named = {"name": Path(path).name, "weights": weights_id(path), **options}
        return cls(model, processor, opened, **named)

    def act(self, observations: Sequence[Observation]) -> list[Utterance | Failed]:
        """Return one reply per observation, in order, sampled with the model's current weights.

        Raises:
            ValueError: If a transcript does not end with a user turn.
        """
        if self._stale:
            self.sampler.engine.load_weights(self.model)
            self._stale = False
        self.sampler.temperature, self.sampler.max_new_tokens = self.temperature, self.max_new_tokens
        self.sampler.seed = self.seed
        return self.sampler.act(observations)

    def reseed(self, seed: int) -> None:
        """Start the random streams anew from `seed`."""
        super().reseed(seed)
        self.sampler.reseed(seed)

    def weights_changed(self) -> None:
        """Let the next reply use the model's weights; call it after every update of them."""
        super().weights_changed()
        self._stale = True  # many updates, one exchange
