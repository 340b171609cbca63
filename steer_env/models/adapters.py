"""LoRA adapters apart from the weights they stand beside: what an engine that samples is handed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from steer_env.extras import need


def active_adapters(model: PreTrainedModel) -> set[str]:
    """Return the names of the adapters that a model answers with."""
    layers: list[Any] = [layer for layer in model.modules() if hasattr(layer, "get_delta_weight")]
    return {name for layer in layers for name in layer.active_adapters}


def adapters(model: PreTrainedModel) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return PEFT's configuration of a model's adapters, and their weights as adapter files name them.

    Raises:
        ValueError: If not one adapter is active, or more learns than the adapters.
        ImportError: If peft is not installed.
    """
    active = active_adapters(model)
    if len(active) != 1:
        raise ValueError(f"active adapters are {sorted(active)}, expected one: vLLM adds one to a reply")
    _check_frozen(model)
    (name,) = active
    peft = need("peft", "lora")
    state = peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    configs: Any = model.peft_config
    return configs[name], {f"base_model.model.{key}": value for key, value in state.items()}


def base_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return a model's state without its adapters, under the names of a model that has none.

    Raises:
        ValueError: If it has adapters and more learns than they.
    """
    state = dict(model.state_dict())
    if active_adapters(model):
        _check_frozen(model)
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            own = {key: state.pop(key) for key in list(state) if key.startswith(f"{name}.")}
            base = f"{name}.base_layer."
            state |= {f"{name}.{key.removeprefix(base)}": own[key] for key in own if key.startswith(base)}
    return state


def _check_frozen(model: PreTrainedModel) -> None:
    for name, weight in model.named_parameters():
        if weight.requires_grad and ".lora_" not in name:
            raise ValueError(
                f"weight {name!r} learns beside the adapters, which are all that is handed to the engine; "
                "expected LoRA without bias and modules_to_save"
            )


@contextmanager
def without_adapters(model: PreTrainedModel) -> Iterator[None]:
    """Let `save_pretrained` write the weights it is given, of a model of which it would write adapters."""
    before = getattr(model, "_hf_peft_config_loaded", False)
    model._hf_peft_config_loaded = False
    try:
        yield
    finally:
        model._hf_peft_config_loaded = before
