"""Settings of supervised training, and of the phases that a base is trained in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from steer_env.configs.base import AboveZero, Amount, Natural, Positive, Share, Switch, config, real


@config(frozen=True, kw_only=True)
class SFTSettings:
    """Settings of a supervised run, but for its length.

    Attributes:
        batch_size: Dialogues per step.
        optimizer: "adamw", or "muon" (Jordan et al. 2024): Muon for the matrices of all layers, AdamW for the
            rest. A small model trained from random weights needs about half the steps with it, and learns to
            read words in pictures, which it hardly does without.
        lr: Peak learning rate of AdamW, reached after `warmup` steps and followed by a cosine to `final_lr`.
        muon_lr: Peak learning rate of Muon, on the same schedule.
        warmup: Steps of linear warm-up.
        final_lr: Share of `lr` left at the end.
        weight_decay: AdamW's; the paper has 0.01.
        max_grad_norm: Gradients are clipped to this norm.
        microbatch_tokens: Most tokens per forward pass, padding included; changes memory and speed only.
        per_dialogue: Every dialogue of a step weighs the same; else every token does, and terse answers
            drown in long replies.
        seed: Decides the order of examples.
    """

    batch_size: Positive = 32
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: AboveZero = 2e-3
    muon_lr: AboveZero = 2e-2
    warmup: Natural = 20
    final_lr: Share = 0.05
    weight_decay: Amount = 0.01
    max_grad_norm: Annotated[float, real(above=True, why="; a huge one switches clipping off")] = 1.0
    microbatch_tokens: Positive = 2048
    per_dialogue: Switch = False
    seed: Natural = 0


@config(frozen=True, kw_only=True)
class SFTConfig(SFTSettings):
    """Settings of a supervised run.

    Attributes:
        steps: Number of optimiser steps; the examples are repeated as needed.

    Raises:
        ValueError: If a setting is out of its range.
    """

    steps: Positive = 300


@config(frozen=True)
class Gate:
    """Least accuracy on held-out pictures and dialogues; 0 asks for nothing.

    Attributes:
        ask: "caption" or "describe", see `algorithms.sight`.
        noun: Accuracy of the device's name.
        colour: Accuracy of its colour.
        mark: Accuracy of its mark, which decides what is safe.
        place: Accuracy of its place.
        purpose: How often it knows whether harm was stated in a dialogue.
        asked: How often it knows which steps were asked for.
        weighed: How often it knows what may be told.
        count: Pictures looked at, and dialogues.

    Raises:
        ValueError: If a setting is out of its range.
    """

    ask: Literal["caption", "describe"] = "caption"
    noun: Share = 0.0
    colour: Share = 0.0
    mark: Share = 0.0
    place: Share = 0.0
    purpose: Share = 0.0
    asked: Share = 0.0
    weighed: Share = 0.0
    count: Positive = 200

    def short_of(self, seen: Mapping[str, float]) -> list[str]:
        """Return what is missing, in words."""
        return [
            f"{name}={value:.3f}, expected at least {getattr(self, name)}"
            for name, value in seen.items()
            if value < getattr(self, name)
        ]


@config(frozen=True)
class Phase:
    """One phase of a base, see `algorithms.pretraining`.

    Attributes:
        name: Name of its folder and of its data.
        settings: Settings of the training; the seed is replaced by the run's.
        gate: What has to be seen after it.
        sees: Whether the vision tower learns; else it is frozen.
        extension: Share of the steps that is trained again, with new data, when the gate fails.
        extensions: How often, at most.

    Raises:
        ValueError: If a setting is out of its range.
    """

    name: str
    settings: SFTConfig
    gate: Gate
    sees: Switch = False
    extension: Share = 0.5
    extensions: Natural = 2
