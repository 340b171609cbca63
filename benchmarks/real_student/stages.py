"""Stages II and III for a pretrained model: the demo's dialogues, and adapters in place of all weights.

Dialogues are short, and Stage III takes steps until its share of the core seconds is spent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

import steer_env
from steer_env.agents.hf.student import HFStudent
from steer_env.agents.tutor import ScriptedTutor
from steer_env.algorithms import recipes, sft, trainer
from steer_env.algorithms.forward import save_merged
from steer_env.algorithms.recipe_data import ENV, Shares
from steer_env.algorithms.recipes import DemoConfig
from steer_env.configs.train import Scaling
from steer_env.files import replacing_folder
from steer_env.world import WorldSource

_PARTS = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")
#: Adapters on the upper layers of the language model: two thirds of the work of training all weights, and
#: neither the tower nor the lower layers, which read what it wrote, forget anything.
LORA = Scaling(
    lora_rank=16,
    lora_alpha=32.0,
    lora_targets=",".join(f"layers.{layer}.{part}_proj" for layer in range(8, 30) for part in _PARTS),
)

Progress = Callable[..., None]


class _Enough(Exception):
    """Stage III has had its seconds."""


def cold_start(before: Path, folder: Path, config: DemoConfig, progress: Progress) -> Path:
    """Stage II on the demo's ideal dialogues, in whole contrast groups; returns the model's folder."""
    student = HFStudent.from_pretrained(before, dtype=torch.float32)
    dialogues = recipes.cold_start(config)
    settings = replace(config.sft, seed=config.seed)
    resume = (folder / sft.STATE).exists()
    sft.train(
        student, dialogues, settings, scaling=LORA, run_dir=folder, resume=resume, checkpoint_every=10,
        progress=progress,
    )  # fmt: skip
    with replacing_folder(folder / "model") as part:
        student.save(part)
    return folder / "model"


def tutored(before: Path, folder: Path, config: DemoConfig, seconds: float, progress: Progress) -> Path:
    """Stage III for so many core seconds, or all steps of the settings; returns the model's folder."""
    student = HFStudent.from_pretrained(before, name="grpo", dtype=torch.float32)
    settings = replace(config.grpo, seed=config.seed)
    source = Shares(WorldSource(split="train", max_turns=config.grpo_turns), config.grpo_shares)
    slots = settings.seeds_per_step * settings.group_size
    env = steer_env.make_vec(ENV, slots, scenarios=source, judge=config.grpo_judge)
    began = time.process_time()

    def counted(*told: object) -> None:
        progress(*told)
        if time.process_time() - began > seconds:
            raise _Enough

    with suppress(_Enough):
        trainer.train(
            env, ScriptedTutor(seed=config.seed), student, settings.algorithm(), settings, folder,
            scaling=LORA, resume=(folder / "checkpoints").exists(), progress=counted,
        )  # fmt: skip
    with replacing_folder(folder / "model") as part:
        save_merged(student, part)
    return folder / "model"
