"""What makes a large student fit: bf16 forward passes, gradient checkpointing and LoRA adapters."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from steer_env.agents.hf.student import HFStudent
from steer_env.configs.train import ScalingConfig
from steer_env.extras import need
from steer_env.models import tiny


class Scaling(ScalingConfig):
    """A `ScalingConfig` that can be applied to a student."""

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context of forward passes."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def prepare(self, student: HFStudent, seed: int) -> None:
        """Add adapters and switch checkpointing on, in place.

        Raises:
            ValueError: If a layer to adapt does not exist, or the model would drop activations in training.
            ImportError: If adapters are asked for and peft is not installed.
        """
        if self.lora_rank and not has_adapters(student.model):
            _add_adapters(student.model, self, seed)
        if self.gradient_checkpointing:
            _check_no_dropout(student.model)
            _checkpoint_activations(student.model)

    @contextmanager
    def applied(self, student: HFStudent, seed: int) -> Iterator[None]:
        """Prepare a student for the time of a training; at the end it is an ordinary one again.

        Raises:
            ValueError, ImportError: As `prepare`.
        """
        model = student.model
        learns = {name: p.requires_grad for name, p in model.named_parameters()}
        self.prepare(student, seed)
        try:
            yield
        finally:
            if self.lora_rank:
                merge_adapters(model)
                for name, p in model.named_parameters():
                    p.requires_grad_(learns[name])
            if self.gradient_checkpointing:
                model.gradient_checkpointing_disable()

    @contextmanager
    def updating(self, model: PreTrainedModel) -> Iterator[None]:
        """Be in train mode where checkpointing needs it; replies are sampled and scored without dropout."""
        if not self.gradient_checkpointing:
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
