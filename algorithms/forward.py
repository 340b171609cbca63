"""Runs the policy and its reference on packed dialogues, in the precision that was asked for."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steer_env.agents.hf.adapter import ModelAdapter
from steer_env.agents.hf.codec import Prompt
from steer_env.agents.hf.packed import Packed, microbatches, packed_logprobs
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.parallel import Parallel
from steer_env.algorithms.scaling import Scaling, adapters_off


class Forward:
    """Forward passes over packed dialogues.

    Args:
        student: The policy.
        scaling: Precision and adapters.
        temperature: Of the sampled replies.
        microbatch_size: Most dialogues per pass.
        microbatch_tokens: Most tokens per pass, padding included.
        reference: Keep the policy as it is now as the reference of the KL penalty: a frozen copy, or with
            LoRA the same weights with the adapters off.
        parallel: The processes that share the passes.
    """

    def __init__(
        self,
        student: HFStudent,
        scaling: Scaling,
        *,
        temperature: float = 1.0,
        microbatch_size: int = 32,
        microbatch_tokens: int = 2048,
        reference: bool = False,
        parallel: Parallel | None = None,
    ) -> None:
        self.student, self.scaling, self.temperature = student, scaling, temperature
        self.parallel = parallel or Parallel()
        self._size, self._tokens = microbatch_size, microbatch_tokens
        self._reference: ModelAdapter | None = None
        if reference and scaling.lora_rank:
            self._reference = student.decoder.adapter
        elif reference:
            frozen = copy.deepcopy(student.model).requires_grad_(False)
            self.parallel.adopt(frozen)
            self._reference = ModelAdapter(frozen, student.codec)
        self.parallel.adopt(student.model)

    @property
    def width(self) -> int:
        """Width of the policy's hidden states."""
        return int(self.student.model.config.get_text_config().hidden_size)

    def passes(self, dialogues: Sequence[Prompt]) -> list[list[int]]:
        """Split dialogues into forward passes of like length, some for each process; returns indices."""
        size = min(self._size, max(1, -(-len(dialogues) // self.parallel.size)))
        return microbatches([len(d.trace) for d in dialogues], size, self._tokens)

    def dealt(self, dialogues: Sequence[Prompt]) -> list[list[int]]:
        """Return this process's share of the passes."""
        return self.parallel.share(self.passes(dialogues))

    def policy(self, dialogues: Sequence[Prompt], *, entropy: bool = False) -> Packed:
        """Return the policy's log-probabilities, with gradient where it is on."""
        return self._packed(self.student.decoder.adapter, dialogues, entropy=entropy)

    def policy_and_hidden(
        self, dialogues: Sequence[Prompt], *, entropy: bool = False
    ) -> tuple[Packed, Tensor]:
        """Return log-probabilities and the last hidden states they come from, (N, H) without gradient."""
        with _head_inputs(self.student.model) as seen:
            packed = self.policy(dialogues, entropy=entropy)
        hidden = seen[-1]
        if hidden.dim() == 3:  # a head that was given all positions
            hidden = hidden[packed.rows_N, packed.columns_N - 1]
        return packed, hidden.detach().float()

    @torch.no_grad()
    def reference(self, dialogues: Sequence[Prompt]) -> Tensor | None:
        """Return the reference's log-probabilities, (N,), None without one."""
        if self._reference is None:
            return None
        with adapters_off(self.student.model) if self.scaling.lora_rank else nullcontext():
            return self._packed(self._reference, dialogues).logprobs_N

    def precision(self) -> AbstractContextManager[object]:
        """Return the context that forward passes run in."""
        return self.scaling.autocast(self.student.model.device)

    def _packed(self, adapter: ModelAdapter, dialogues: Sequence[Prompt], *, entropy: bool = False) -> Packed:
        with self.precision():
            return packed_logprobs(
                adapter,
                dialogues,
                temperature=self.temperature,
                forbidden=self.student.decoder.forbidden,
                entropy=entropy,
            )


@contextmanager
def _head_inputs(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Collect what the language head is given: the hidden states behind the logits."""
    seen: list[Tensor] = []
    head = model.get_output_embeddings()
    if head is None:
        raise ValueError(
            f"{type(model).__name__} has no output embeddings, expected a model with a language head"
        )
    handle = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
