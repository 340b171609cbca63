"""The policy as it is trained: what makes a large one fit, and its passes over packed dialogues.

`prepare` gives a student what a `Scaling` asks for (gradient checkpointing, LoRA adapters); `Forward` runs
policy and reference in its precision.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steer_env.agents.hf.adapter import ModelAdapter
from steer_env.agents.hf.codec import Prompt
from steer_env.agents.hf.packed import Packed, microbatches, packed_logprobs
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.parallel import Parallel
from steer_env.configs.train import Scaling
from steer_env.extras import need
from steer_env.models import tiny


def autocast(scaling: Scaling, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of forward passes."""
    if scaling.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def prepare(student: HFStudent, scaling: Scaling, seed: int) -> Callable[[], None]:
    """Add adapters and switch checkpointing on, in place.

    Returns:
        What undoes it: adapters that were added are merged, and what learned before learns again.

    Raises:
        ValueError: If a layer to adapt does not exist, or the model would drop activations in training.
        ImportError: If adapters are asked for and peft is not installed.
    """
    model = student.model
    learns = {name: p.requires_grad for name, p in model.named_parameters()}
    adds = bool(scaling.lora_rank) and not has_adapters(model)

    def undo() -> None:
        if adds:
            merge_adapters(model)
            for name, p in model.named_parameters():
                p.requires_grad_(learns[name])
        if scaling.gradient_checkpointing:
            model.gradient_checkpointing_disable()

    if scaling.gradient_checkpointing:
        _check_no_dropout(model)
    try:
        if adds:
            _add_adapters(model, scaling, seed)
        if scaling.gradient_checkpointing:
            _checkpoint_activations(model)
    except BaseException:
        undo()  # a layer that cannot be adapted may come after some that can
        raise
    return undo


@contextmanager
def prepared(student: HFStudent, scaling: Scaling, seed: int) -> Iterator[None]:
    """Prepare a student for the duration of a training; at the end what `prepare` added is gone again.

    Raises:
        ValueError, ImportError: As `prepare`.
    """
    undo = prepare(student, scaling, seed)
    try:
        yield
    finally:
        undo()


@contextmanager
def updating(model: PreTrainedModel, scaling: Scaling) -> Iterator[None]:
    """Be in train mode where checkpointing needs it; replies are sampled and scored without dropout."""
    if not scaling.gradient_checkpointing:
        yield
        return
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    try:
        yield
    finally:
        model.eval()


class Forward:
    """Forward passes over packed dialogues.

    Args:
        student: The policy.
        scaling: Precision and adapters.
        temperature: Temperature that replies are sampled at.
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
        return autocast(self.scaling, self.student.model.device)

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


# -- adapters ---------------------------------------------------------------------------------------------


def has_adapters(model: torch.nn.Module) -> bool:
    """Whether a model carries LoRA adapters."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


@contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[None]:
    """Run the model as it was before it got adapters."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()


def merge_adapters(model: PreTrainedModel) -> None:
    """Add a model's adapters to its weights, in place; it is an ordinary model then."""
    layer_type = need("peft.tuners.tuners_utils", "lora").BaseTunerLayer
    for name, module in list(model.named_modules()):
        if isinstance(module, layer_type):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    model._hf_peft_config_loaded = False


def save_merged(student: HFStudent, path: str | Path) -> None:
    """Write the student as one ordinary Hugging Face folder, adapters merged into a copy of the weights."""
    model = student.model
    if has_adapters(model):
        model = copy.deepcopy(model)
        merge_adapters(model)
    tiny.save(model, student.processor, path)


def load_adapters(model: PreTrainedModel, folder: Path) -> None:
    """Put the adapters of a checkpoint into a model that has them already.

    Raises:
        ValueError: If the checkpoint has adapters of other layers.
    """
    from safetensors.torch import load_file

    file = load_file(folder / "adapter_model.safetensors")
    stored = {name.removeprefix("base_model.model."): value for name, value in file.items()}
    own = model.get_adapter_state_dict()
    others = sorted(own.keys() ^ stored.keys())
    if others:
        raise ValueError(f"{str(folder)!r} holds adapters of other layers: {others[:3]}, expected this run's")
    for name, value in own.items():
        value.copy_(stored[name])


def _add_adapters(model: PreTrainedModel, scaling: Scaling, seed: int) -> None:
    peft = need("peft", "lora")
    config: Any = peft.LoraConfig(
        r=scaling.lora_rank,
        lora_alpha=scaling.lora_alpha,
        target_modules=[name.strip() for name in scaling.lora_targets.split(",")],
        lora_dropout=0.0,
    )
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random state alone
        torch.manual_seed(seed)
        model.add_adapter(config)
    model.eval()


def _checkpoint_activations(model: PreTrainedModel) -> None:
    # Renamed in transformers 5; not reentrant, so that it works where only adapters take gradients.
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _check_no_dropout(model: PreTrainedModel) -> None:
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        rate = getattr(config, "attention_dropout", 0.0)
        if rate:
            raise ValueError(
                f"attention_dropout={rate!r}, expected 0 with gradient_checkpointing: it needs train mode, "
                "where attention would drop what sampling did not; set it to 0 in the model's config"
            )
