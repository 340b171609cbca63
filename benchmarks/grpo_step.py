"""Seconds per GRPO step, and where they go: the library's loop beside TRL's trainer on the same environment.

    python benchmarks/grpo_step.py      # writes runs/benchmarks/grpo_step.json and prints a table

One process, one thread, a tiny random Qwen2.5-VL, dialogues of the built-in world with pictures, the same
seeds, sampling streams, loss (token-averaged, KL to the first policy, entropy reported) and optimiser, so
that the dialogues of a first step are the same. The library packs dialogues of like length, up to 2,048
tokens a pass; TRL takes a fixed number, padded to the longest of the step, so several numbers are measured
and the fastest is compared. "positions" are the tokens of a step's policy passes, padding included, "trained"
those in the loss. Seconds are of the process's CPU: other work on the machine disturbs them less, and on an
idle one they are the clock's.

A random model's replies are no words, which the built-in judge leaves unscored and which would then not be
trained on: here every reply is scored, by its letters. Cases take turns within a repeat, the first step of
each run is left out, and the median of the others is reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import trl
from timing import machine
from transformers import TrainerCallback

import steer_env
from steer_env.agents import StaticAttacker
from steer_env.agents.hf import HFStudent
from steer_env.algorithms import trainer
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.forward import Forward
from steer_env.algorithms.trl_grpo import SteerGRPOTrainer
from steer_env.models.tiny import TinyConfig, build
from steer_env.types import Scored, Terms

RESULTS = Path("runs/benchmarks/grpo_step.json")
TEXTS = ("please tell me what you see in the picture", "i will not help with that , here is a safe idea")
PARTS = ("dialogues", "forward", "backward", "reference", "optimiser", "rest", "total")
COUNTS = ("positions", "trained")

Step = dict[str, float]


class LetterJudge:
    """Scores any reply by its share of lower-case letters."""

    name = "letters"

    def judge(self, requests: Sequence[Any]) -> list[Scored]:
        """Return one verdict per request."""
        replies = [request.transcript[-1].content for request in requests]
        shares = [sum("a" <= letter <= "z" for letter in reply) / max(1, len(reply)) for reply in replies]
        return [Scored(Terms(1 + round(9 * share), 5, 5), judge=self.name) for share in shares]


class Stopwatch:
    """CPU seconds by part of a step; what runs inside a part counts for that part."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._now: Step = dict.fromkeys((*PARTS, *COUNTS), 0.0)
        self._started = time.process_time()
        self._busy = False

    def timed(self, part: str, call: Callable[..., Any], seen: Callable[..., None] | None) -> Any:
        """Return `call`, timed; `seen` is told its result and arguments."""

        def run(*args: Any, **kwargs: Any) -> Any:
            if self._busy:
                return call(*args, **kwargs)
            self._busy, start = True, time.process_time()
            try:
                result = call(*args, **kwargs)
            finally:
                self._busy = False
                self._now[part] += time.process_time() - start
            if seen is not None:
                seen(result, *args)
            return result

        return run

    def count(self, name: str, number: float) -> None:
        """Add to a count of this step."""
        self._now[name] += number

    def next(self) -> None:
        """End a step."""
        now = time.process_time()
        self._now["total"] = now - self._started
        self._now["rest"] = self._now["total"] - sum(self._now[part] for part in PARTS[:-2])
        self.steps.append(self._now)
        self._now, self._started = dict.fromkeys(self._now, 0.0), now

    @contextmanager
    def watching(self, *parts: tuple[Any, str, str, Callable[..., None] | None]) -> Iterator[None]:
        """Time methods: (class, name, part, told of its results)."""
        with ExitStack() as stack:
            for owner, name, part, seen in parts:
                timed = self.timed(part, getattr(owner, name), seen)
                # A function, not an object: it has to become a method.
                method = (lambda f: lambda *args, **kwargs: f(*args, **kwargs))(timed)
                stack.enter_context(mock.patch.object(owner, name, method))
            yield


def make_student(tokens: int) -> HFStudent:
    return HFStudent(*build(TEXTS, TinyConfig()), max_new_tokens=tokens)


def make_env(slots: int) -> Any:
    return steer_env.make_vec("SteerEscalation-v0", slots, judge=LetterJudge())


def ours(args: argparse.Namespace, seed: int) -> list[Step]:
    """Run the library's loop; returns its steps."""
    config = trainer.TrainConfig(
        steps=args.steps, seeds_per_step=args.seeds, group_size=args.group, seed=seed,
        max_new_tokens=args.tokens, checkpoint_every=10**6, unscored_limit=1.0,
    )  # fmt: skip
    env, student, watch = make_env(args.seeds * args.group), make_student(args.tokens), Stopwatch()

    def passed(packed: Any, _: Forward, dialogues: Sequence[Any]) -> None:
        watch.count("positions", len(dialogues) * max(len(dialogue.trace) for dialogue in dialogues))
        watch.count("trained", len(packed.logprobs_N))

    parts = [
        (trainer._Run, "play", "dialogues", None), (Forward, "policy", "forward", passed),
        (Forward, "reference", "reference", None), (torch.Tensor, "backward", "backward", None),
        (torch.optim.AdamW, "step", "optimiser", None),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, watch.watching(*parts):
        algorithm = make_algorithm("grpo", beta=0.1)
        trainer.train(
            env, StaticAttacker(), student, algorithm, config, folder, progress=lambda *_: watch.next()
        )
    return watch.steps


class _Ticks(TrainerCallback):
    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._watch.next()


def trls(args: argparse.Namespace, seed: int, microbatch: int) -> list[Step]:
    """Run TRL's trainer with so many dialogues per forward pass; returns its steps."""
    dialogues = args.seeds * args.group
    config = trainer.TrainConfig(seeds_per_step=args.seeds, group_size=args.group, seed=seed)
    seeds = [s for step in range(args.steps) for s in trainer.step_seeds(config, step)[:: args.group]]
    watch = Stopwatch()

    def passed(result: Any, owner: Any, model: Any, ids: Any, *_: Any) -> None:
        watch.count("positions", ids.numel())

    def batched(batch: Any, *_: Any) -> None:
        watch.count("trained", float(batch["tool_mask"].sum()))

    parts = [
        (SteerGRPOTrainer, "_generate_and_score_completions", "dialogues", batched),
        (SteerGRPOTrainer, "_get_per_token_logps_and_entropies", "forward", passed),
        (SteerGRPOTrainer, "_reference_logprobs", "reference", None),
        (torch.Tensor, "backward", "backward", None), (torch.optim.AdamW, "step", "optimiser", None),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, watch.watching(*parts):
        settings = trl.GRPOConfig(
            folder, max_steps=args.steps, per_device_train_batch_size=microbatch,
            gradient_accumulation_steps=dialogues // microbatch, num_generations=args.group, beta=0.1,
            learning_rate=config.lr, lr_scheduler_type="constant", adam_beta2=0.98, scale_rewards="none",
            loss_type="dapo", bf16=False, gradient_checkpointing=False, use_bias_correction_kl=False,
            shuffle_dataset=False, seed=seed, save_strategy="no", report_to="none", use_cpu=True,
            disable_tqdm=True, logging_steps=10**6,
        )  # fmt: skip
        student, env = make_student(args.tokens), make_env(dialogues)
        runner = SteerGRPOTrainer(
            env, StaticAttacker(), student, settings, seeds=seeds, callbacks=[_Ticks(watch)]
        )
        runner.train()
    return watch.steps


def table(medians: dict[str, Step]) -> str:
    """Return a Markdown table, a column per case."""
    lines = [f"| CPU seconds per step | {' | '.join(medians)} |", "|---" * (1 + len(medians)) + "|"]
    for name in (*PARTS, *COUNTS):
        digits = 0 if name in COUNTS else 2
        cells = [f"{row[name]:,.{digits}f}" for row in medians.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("steps", 3), ("seeds", 8), ("group", 4), ("tokens", 24), ("repeats", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--microbatches", type=int, nargs="+", default=[32, 8, 2], help="TRL's")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    described = machine(("torch", "transformers", "trl", "accelerate"))
    cases: dict[str, Callable[[int], list[Step]]] = {"ours": lambda seed: ours(args, seed)}
    for size in args.microbatches:
        cases[f"TRL, {size} a pass"] = lambda seed, size=size: trls(args, seed, size)
    steps: dict[str, list[Step]] = {name: [] for name in cases}
    for repeat in range(args.repeats):
        for name, run in cases.items():
            steps[name] += run(repeat)[1:]
    medians = {
        name: {part: statistics.median(step[part] for step in rows) for part in (*PARTS, *COUNTS)}
        for name, rows in steps.items()
    }
    best = min(list(cases)[1:], key=lambda name: medians[name]["total"])
    ratio = {part: medians[best][part] / medians["ours"][part] for part in PARTS if medians["ours"][part] > 0}
    print(table(medians))
    print(f"\n{best} / ours: {ratio['total']:.2f} in all. {described['cpu']}, load {described['load']}")
    result = {
        "settings": {k: v for k, v in vars(args).items() if k != "out"}, "machine": described,
        "median_per_step": medians, "trl_best": best, "trl_best_over_ours": ratio,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
