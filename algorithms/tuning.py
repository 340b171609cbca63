"""How a model's weights take part in training: all of them or LoRA adapters, bfloat16, less memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from steer_env.algorithms.checks import check_integers, check_numbers
from steer_env.extras import need


@dataclass(frozen=True, slots=True)
class Tuning:
    """What of a model is trained, and in which precision.

    Attributes:
        lora_rank: Rank of LoRA adapters (Hu et al. 2021) on the linear layers; 0 trains all weights. At the
            end they are merged into the weights, so that an ordinary model is saved.
        lora_alpha: Scale of the adapters, alpha / rank times what they compute.
        lora_targets: "all-linear" for every linear layer but the head, or names of modules.
        bf16: Compute in bfloat16; trained weights stay float32, in which small updates are not lost.
        gradient_checkpointing: Compute activations anew in the backward pass: less memory, a third slower.

    Raises:
        ValueError: If a setting is out of its range.
    """

    lora_rank: int = 0
    lora_alpha: float = 32.0
    lora_targets: str | tuple[str, ...] = "all-linear"
    bf16: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_integers(self, ("lora_rank",), 0)
        check_numbers(self, ("lora_alpha",), above=True)


@contextmanager
def trained_part(model: PreTrainedModel, tuning: Tuning, seed: int) -> Iterator[Any]:
    """Give the model its adapters for the time of a training, and merge them into the weights at the end.

    Yields the model, or peft's wrapper around it; the model itself computes with the adapters either way.

    Raises:
        ImportError: If adapters are asked for and peft is not installed.
    """
    if not tuning.lora_rank:
        yield model
        return
    peft = need("peft", "trl")
    targets = tuning.lora_targets if isinstance(tuning.lora_targets, str) else list(tuning.lora_targets)
    config = peft.LoraConfig(r=tuning.lora_rank, lora_alpha=tuning.lora_alpha, target_modules=targets)
    learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of the adapters' first weights
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            wrapped = peft.get_peft_model(model, config)
    try:
        yield wrapped
    finally:
        wrapped.merge_and_unload()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(learns[name])


@contextmanager
def saving_memory(model: PreTrainedModel, tuning: Tuning) -> Iterator[None]:
    """Switch gradient checkpointing on for the time of a training; it works in training mode only."""
    if not tuning.gradient_checkpointing:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it gets another name in transformers 6
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        try:
            yield
        finally:
            model.eval()
            model.gradient_checkpointing_disable()


def precision(tuning: Tuning, device: torch.device) -> Any:
    """Return the context a forward pass runs in."""
    return torch.autocast(device.type, torch.bfloat16) if tuning.bf16 else nullcontext()
