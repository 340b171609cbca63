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
from steer_env.agents.hf.codec import Prompt
from steer_env.agents.hf.decoder import Sample
from steer_env.agents.hf.student import HFStudent, TokenStudent
from steer_env.models import tiny
from steer_env.models.adapters import active_adapters
from steer_env.models.vllm_engine import EnginePrompt, Seeds, VLLMEngine, fold
from steer_env.models.weights import weights_id
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
        name: For reports.
        **options: Of `TokenStudent` and `Sampler`. Log-probabilities are those after `top_p` and `top_k` cut
            the distribution.

    Raises:
        ChatTemplateError: If the chat template is missing or cannot be used.
        ValueError: If a value is out of its range.
    """

    def __init__(self, engine: VLLMEngine, *, name: str = "vllm", **options: Any) -> None:
        super().__init__(engine.processor, **options)
        self.engine, self.name = engine, name
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

    def _overflow(self, prompt: Prompt, new: int) -> str | None:
        return self.engine.overflow(len(prompt.trace), new)

    def _sample(self, prompts: Sequence[Prompt], most: int) -> list[Sample]:
        folded = [self._folded(prompt) for prompt in prompts]
        completions = self.engine.generate(folded, [self._params(prompt, most) for prompt in folded])
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

    def _params(self, prompt: EnginePrompt, most: int) -> Any:
        return self.engine.params(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_new_tokens=most,
            closing=[self.codec.close_id],
            forbidden=self._forbidden,
            seed=self._seeds.next(prompt, self.seed) if self.temperature else None,
        )


class TrainableVLLMStudent(HFStudent):
    """A transformers model that learns, and a vLLM engine that samples with its weights.

    The training loops treat it as any `HFStudent`. After `weights_changed()` the next reply is sampled with
    the new weights; the engine is not restarted. Of a model with LoRA adapters only these go to the engine,
    which has to be started with room for them (`lora_rank`).

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
        shown: dict[str, Any] = {"images": self.images, "template_options": codec.template_options}
        self.sampler = VLLMStudent(engine, system=self.system, **shown)
        if self.sampler.codec.fingerprint != codec.fingerprint:
            raise ValueError(
                f"the engine's model {engine.path!r} has another vocabulary or chat template than the model "
                "that learns, expected the same folder for both"
            )
        self.sampler.codec = codec  # one cache of encoded pictures
        self._base_stale = False  # whether the engine lacks the model's weights
        self._stale = bool(active_adapters(model))  # whether it lacks the adapters, or the weights

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
        self._exchange()
        for name in (
            "temperature",
            "max_new_tokens",
            "seed",
            "top_p",
            "top_k",
            "max_thought",
            "learn_thoughts",
        ):
            setattr(self.sampler, name, getattr(self, name))
        return self.sampler.act(observations)

    def reseed(self, seed: int) -> None:
        """Start the random streams anew from `seed`."""
        super().reseed(seed)
        self.sampler.reseed(seed)

    def check_trainable(self) -> None:
        """Refuse what `HFStudent` refuses, and log-probabilities of a cut distribution.

        Raises:
            ChatTemplateError: See there.
            ValueError: See there; or if `top_p` or `top_k` cut what the engine samples from, or the engine
                does not take the model's adapters.
        """
        super().check_trainable()
        if self.top_p < 1 or self.top_k:
            raise ValueError(
                f"top_p={self.top_p!r} and top_k={self.top_k!r}, expected 1 and 0: vLLM tells the log-"
                "probabilities after the cut, which no loss can recompute; train without, or with hf:"
            )
        if active_adapters(self.model):
            self.weights_changed()
            self._exchange()  # what vLLM does not take, it refuses now

    def weights_changed(self) -> None:
        """Let the next reply use the model's weights; call it after every update of them."""
        super().weights_changed()
        self._base_stale |= not active_adapters(self.model)  # beside adapters the weights stay as they are
        self._stale = True  # many updates, one exchange

    def _exchange(self) -> None:
        """Hand the engine what it lacks."""
        engine = self.sampler.engine
        if self._base_stale:
            engine.load_weights(self.model)
            self._base_stale = False
        if self._stale and active_adapters(self.model):
            engine.load_adapters(self.model)
        self._stale = False
