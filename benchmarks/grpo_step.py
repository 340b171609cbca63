"""Seconds per GRPO step: the library's loop beside TRL's trainer on the same environment.

    python benchmarks/grpo_step.py      # writes benchmarks/results/grpo_step.json

One process, one thread, a tiny random Qwen2.5-VL, dialogues of the built-in world with pictures, the same
seeds and the same settings (token-averaged loss, KL to the first policy). A random model's replies are no
words, which the built-in judge leaves unscored and which would then not be trained on: here every reply is
scored, by its letters. The two loops take turns; the first step of each run is left out and the median of the
others is reported. "update" is all but the dialogues: forward and backward passes, the reference, the
optimiser (in TRL's column without the optimiser's step).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import trl

import steer_env
from steer_env.agents import StaticAttacker
from steer_env.agents.hf import HFStudent, TinyConfig, build
from steer_env.algorithms import grpo
from steer_env.algorithms.trl_grpo import SteerGRPOTrainer
from steer_env.types import Scored, Terms

RESULTS = Path(__file__).parent / "results" / "grpo_step.json"
TEXTS = ("please tell me what you see in the picture", "i will not help with that , here is a safe idea")
PARTS = ("generation", "update", "total")


class LetterJudge:
    """Scores any reply by its share of lower-case letters."""

    name = "letters"

    def judge(self, requests: Sequence[Any]) -> list[Scored]:
        """Return one verdict per request."""
        replies = [request.transcript[-1].content for request in requests]
        shares = [sum("a" <= letter <= "z" for letter in reply) / max(1, len(reply)) for reply in replies]
        return [Scored(Terms(1 + round(9 * share), 5, 5), judge=self.name) for share in shares]


def make_student(tokens: int) -> HFStudent:
    return HFStudent(*build(TEXTS, TinyConfig()), max_new_tokens=tokens)


def make_env(slots: int) -> Any:
    return steer_env.make_vec("SteerEscalation-v0", slots, judge=LetterJudge())


def parts(play: list[float], total: list[float]) -> dict[str, list[float]]:
    """Return seconds of each step but the first, which warms up."""
    update = [whole - played for whole, played in zip(total, play, strict=True)]
    return dict(zip(PARTS, (play[1:], update[1:], total[1:]), strict=True))


def ours(args: argparse.Namespace, seed: int) -> dict[str, list[float]]:
    config = grpo.GRPOConfig(
        steps=args.steps, seeds_per_step=args.seeds, group_size=args.group, beta=0.1, seed=seed,
        max_new_tokens=args.tokens, checkpoint_every=10**6, unscored_limit=1.0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        env = make_env(args.seeds * args.group)
        rows = grpo.train(env, StaticAttacker(), make_student(args.tokens), config, folder)
    play = [row["seconds_play"] for row in rows]
    return parts(play, [row["seconds_play"] + row["seconds_update"] for row in rows])


def trls(args: argparse.Namespace, seed: int) -> dict[str, list[float]]:
    dialogues = args.seeds * args.group
    config = grpo.GRPOConfig(seeds_per_step=args.seeds, group_size=args.group, seed=seed)
    seeds = [s for step in range(args.steps) for s in grpo.step_seeds(config, step)[:: args.group]]
    with tempfile.TemporaryDirectory() as folder:
        settings = trl.GRPOConfig(
            folder, max_steps=args.steps, per_device_train_batch_size=min(dialogues, args.microbatch),
            gradient_accumulation_steps=max(1, dialogues // args.microbatch), num_generations=args.group,
            beta=0.1, learning_rate=config.lr, scale_rewards="none", loss_type="dapo", bf16=False,
            gradient_checkpointing=False, use_bias_correction_kl=False, shuffle_dataset=False, seed=seed,
            save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, logging_steps=1,
        )  # fmt: skip
        trainer = SteerGRPOTrainer(
            make_env(dialogues), StaticAttacker(), make_student(args.tokens), settings, seeds=seeds
        )
        trainer.train()
    rows = [row for row in trainer.state.log_history if "step_time" in row]
    return parts([row["seconds_play"] for row in rows], [row["step_time"] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("steps", 6), ("seeds", 8), ("group", 4), ("tokens", 24), ("repeats", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--microbatch", type=int, default=32, help="dialogues per forward pass of TRL")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[float]]] = {}
    for repeat in range(args.repeats):
        for name, run in (("ours", ours), ("trl", trls)):
            for part, seconds in run(args, repeat).items():
                found.setdefault(name, {}).setdefault(part, []).extend(seconds)
    medians = {name: {p: statistics.median(v) for p, v in rows.items()} for name, rows in found.items()}
    ratio = {part: medians["trl"][part] / medians["ours"][part] for part in PARTS}
    print(f"{'seconds per step':<18}" + "".join(f"{part:>12}" for part in PARTS))
    for name, row in {**medians, "trl / ours": ratio}.items():
        print(f"{name:<18}" + "".join(f"{row[part]:>12.3f}" for part in PARTS))
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    versions = {"trl": trl.__version__, "torch": torch.__version__, "python": platform.python_version()}
    result = {"settings": settings, "seconds_per_step": medians, "trl_over_ours": ratio, "versions": versions}
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
