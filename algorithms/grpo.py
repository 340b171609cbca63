"""Multi-turn GRPO against a live environment, to be read top to bottom (SaFeR-Steer, arXiv 2604.16358).

A step plays K dialogues for each of several seeds, takes each dialogue's return (the sum of what the wrapped
environment emitted, the sum of TCSR values by default), subtracts the mean of its group, gives every student
token of a dialogue that advantage, and takes a clipped policy-gradient step with a KL penalty to the frozen
first policy.

Where this departs from the paper, and why:

- The defaults of `lr`, `seeds_per_step` and `steps` suit small models; the paper's are 1e-5, and 64 dialogues
  a step in mini-batches of 2.
- Tokens are averaged over the batch (`aggregation="token"`), the paper does not say how; "sequence" is GRPO's
  own.
- KL uses the k3 estimator, which the paper does not name. `beta` is the paper's 0.1; its published script has
  0.001.
- Turns without a verdict are masked and count as an average turn in the return, and dialogues without any
  verdict are left out of their group's mean; the published code gives them reward 0.
- Returns are not divided by the group's standard deviation, as in the paper; `scale=True` does.
- Tokens are those that were sampled, never decoded and encoded again; the mask covers exactly them.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steer_env.agents.base import Agent
from steer_env.agents.hf.adapter import ModelAdapter
from steer_env.agents.hf.codec import Prompt
from steer_env.agents.hf.packed import Packed, microbatches, packed_logprobs
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.advantages import group_advantages, loss_mask, token_advantages, trajectory_return
from steer_env.algorithms.checkpoints import (
    attacker_state,
    checkpoints,
    drop_rows_from,
    load_checkpoint,
    save_checkpoint,
    uninterrupted,
)
from steer_env.algorithms.checks import check_choice, check_integers, check_numbers
from steer_env.algorithms.losses import (
    AGGREGATIONS,
    KL_ESTIMATORS,
    clipped_policy_loss,
    kl_penalty,
    loss_weights,
    weighted_sum,
)
from steer_env.algorithms.monitor import UnscoredGuard, dialogue_metrics
from steer_env.algorithms.record import record_rollouts
from steer_env.records import ROLLOUTS, JsonlWriter
from steer_env.rollout import VectorEnv, rollout, teach
from steer_env.trajectory import Trajectory, group_by_seed

Row = dict[str, Any]
#: Called after every step with the number of finished steps, of all, and the step's metrics.
Progress = Callable[[int, int, Row], None]


@dataclass(frozen=True, slots=True)
class GRPOConfig:
    """Settings of a GRPO run.

    Attributes:
        steps: Number of steps.
        seeds_per_step: Seeds (groups) per step.
        group_size: K, dialogues per seed; the paper has 5.
        lr: Learning rate of AdamW.
        warmup: Steps over which the learning rate rises to `lr`.
        weight_decay: AdamW's.
        beta: Weight of the KL penalty; 0 does without the reference model.
        kl: Estimator of the KL, "k3" or "k1".
        clip_low: How far the probability ratio may fall below 1, in (0, 1].
        clip_high: How far it may rise above 1 (DAPO's clip-higher if larger than `clip_low`).
        scale: Divide advantages by the group's standard deviation.
        aggregation: "token" or "sequence", see `loss_weights`.
        epochs: Passes over a step's dialogues.
        minibatch_size: Dialogues per optimiser step, 0 for all.
        microbatch_size: Most dialogues per forward pass; changes memory and speed, not results.
        microbatch_tokens: Most tokens per forward pass, padding included.
        max_grad_norm: Gradients are clipped to this norm.
        temperature: Of the sampled replies.
        max_new_tokens: Longest reply.
        seed: Decides the dialogues' seeds, the sampling and the order of mini-batches.
        unscored_limit: Stop when more than this share of turns has no verdict.
        unscored_window: Steps over which that share is taken.
        checkpoint_every: Steps between checkpoints; the last step always gets one.

    Raises:
        ValueError: If a setting is out of its range.
    """

    steps: int = 100
    seeds_per_step: int = 8
    group_size: int = 5
    lr: float = 1e-4
    warmup: int = 0
    weight_decay: float = 0.0
    beta: float = 0.1
    kl: str = "k3"
    clip_low: float = 0.2
    clip_high: float = 0.2
    scale: bool = False
    aggregation: str = "token"
    epochs: int = 1
    minibatch_size: int = 0
    microbatch_size: int = 32
    microbatch_tokens: int = 2048
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    max_new_tokens: int = 48
    seed: int = 0
    unscored_limit: float = 0.05
    unscored_window: int = 20
    checkpoint_every: int = 20

    def __post_init__(self) -> None:
        counts = ("steps", "seeds_per_step", "epochs", "max_new_tokens", "checkpoint_every")
        check_integers(self, (*counts, "microbatch_size", "microbatch_tokens", "unscored_window"), 1)
        check_integers(self, ("group_size",), 2, ": advantages compare siblings")
        check_integers(self, ("warmup", "minibatch_size", "seed"), 0)
        check_numbers(self, ("lr", "weight_decay", "beta"))
        check_numbers(self, ("max_grad_norm",), above=True, why="; a huge one switches clipping off")
        check_numbers(self, ("temperature",), above=True, why=": greedy siblings are all equal")
        check_numbers(self, ("clip_low",), 0, 1, above=True)
        check_numbers(self, ("clip_high",), above=True)
        check_numbers(self, ("unscored_limit",), 0, 1)
        check_choice(self, "kl", KL_ESTIMATORS)
        check_choice(self, "aggregation", AGGREGATIONS)
        if not isinstance(self.scale, bool):
            raise ValueError(f"scale={self.scale!r}, expected True or False")


@dataclass(frozen=True, slots=True, eq=False)
class _Example:
    """One dialogue as the loss sees it; arrays of shape (L,)."""

    dialogue: Prompt
    advantages_L: NDArray[np.float32]
    mask_L: NDArray[np.bool_]


def train(
    env: VectorEnv,
    attacker: Agent,
    student: HFStudent,
    config: GRPOConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    record_every: int = 0,
) -> list[Row]:
    """Train `student` in place and write metrics and checkpoints to `run_dir`.

    Args:
        env: A vector environment whose wrappers emit the reward to maximise.
        attacker: Plays `attacker_0`; if it has `learn`, it sees the dialogues after each step, and if it has
            `state_dict` and `load_state_dict`, its memory, made of plain values and tensors, is part of the
            checkpoints.
        student: The policy, as it is before the first step (also when resuming: it is the KL reference).
        config: Settings.
        run_dir: Gets `config.json`, `metrics.jsonl` and `checkpoints/`.
        resume: Go on after the last checkpoint; metrics rows beyond it are dropped.
        progress: Called after every step.
        record_every: Write the dialogues of every so many steps, with tokens, masks and advantages, to
            `rollouts.jsonl`; 0 writes none.

    Returns:
        One row of metrics per step, also those from before a resumption.

    Raises:
        FileExistsError: If `run_dir` holds a run and `resume` is False.
        ValueError: If it holds a run with other settings, or the weights to train are not float32.
        TypeError: If the attacker's memory could not be read back from a checkpoint.
        TooManyUnscored: If the judge fails too often; a checkpoint of the last finished step is written
            first.
    """
    run_dir = Path(run_dir)
    student.check_trainable()
    attacker_state(attacker)  # refused now rather than at the first checkpoint
    student.temperature, student.max_new_tokens = config.temperature, config.max_new_tokens
    reference = _frozen_copy(student) if config.beta else None
    optimizer = torch.optim.AdamW(
        student.model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    finished = _open_run(run_dir, config, student, optimizer, attacker, resume)
    rows = [json.loads(line) for line in _lines(run_dir / "metrics.jsonl")]
    guard = UnscoredGuard(config.unscored_limit, config.unscored_window)
    saved, complete = finished, True
    with JsonlWriter(run_dir / "metrics.jsonl") as metrics:
        try:
            for step in range(finished, config.steps):
                started = time.perf_counter()
                trajectories = _play(env, attacker, student, config, step)
                guard.see(trajectories)
                played = time.perf_counter()
                examples, row = _compare(trajectories, config)
                if record_every and step % record_every == 0:
                    of = {id(e.dialogue.trace): (e.mask_L, e.advantages_L) for e in examples}
                    credits = {i: of[id(t.trace)] for i, t in enumerate(trajectories) if id(t.trace) in of}
                    record_rollouts(run_dir, step, trajectories, credits, student.codec.tokenizer.decode)
                with uninterrupted():
                    complete = False
                    row |= _update(student, reference, optimizer, examples, config, step)
                    teach(attacker, trajectories)
                    row |= {"seconds_play": played - started, "seconds_update": time.perf_counter() - played}
                    row = {"step": step, **row}
                    metrics.write(row)
                    rows.append(row)
                    finished, complete = step + 1, True
                    if finished % config.checkpoint_every == 0 or finished == config.steps:
                        save_checkpoint(run_dir, finished, student, optimizer, attacker)
                        saved = finished
                if progress is not None:
                    progress(finished, config.steps, row)
        except BaseException:
            # Weights and memory change only in the guarded block above. An error inside it leaves them
            # between two steps: the last checkpoint stays, and resuming plays the steps after it again.
            if complete and saved < finished:
                with uninterrupted():
                    save_checkpoint(run_dir, finished, student, optimizer, attacker)
            raise
    return rows


def step_seeds(config: GRPOConfig, step: int) -> list[int]:
    """Return the reset seeds of a step, each repeated `group_size` times; settings alone decide them."""
    state = np.random.SeedSequence([config.seed, step]).generate_state(config.seeds_per_step)
    return [int(seed) for seed in state for _ in range(config.group_size)]


def _play(
    env: VectorEnv, attacker: Agent, student: HFStudent, config: GRPOConfig, step: int
) -> list[Trajectory]:
    student.reseed(int(np.random.SeedSequence([config.seed, step, 1]).generate_state(1)[0]))
    student.weights_changed()
    return rollout(env, attacker, student, step_seeds(config, step))


def _compare(trajectories: Sequence[Trajectory], config: GRPOConfig) -> tuple[list[_Example], Row]:
    """Turn dialogues into examples with group-relative advantages."""
    groups = group_by_seed(trajectories, config.group_size)
    returns_GK = np.array([[trajectory_return(t) for t in group.trajectories] for group in groups])
    advantages = group_advantages(returns_GK, scale=config.scale).ravel()
    examples = []
    for trajectory, advantage in zip(trajectories, advantages, strict=True):
        trace, scored = trajectory.trace, trajectory.scored
        if trace is None:
            raise ValueError(
                "a trajectory has no token trace, expected replies of an HFStudent; a scripted student "
                "cannot be trained"
            )
        mask_L = loss_mask(trace, scored)
        if mask_L.any():
            images = trajectory.scenario.images[: trace.images]
            advantages_L = token_advantages(float(advantage), trace, scored)
            examples.append(_Example(Prompt(trace, images), advantages_L, mask_L))
    return examples, dialogue_metrics(trajectories, returns_GK)


def _update(
    student: HFStudent,
    reference: ModelAdapter | None,
    optimizer: torch.optim.Optimizer,
    examples: list[_Example],
    config: GRPOConfig,
    step: int,
) -> Row:
    """Take the optimiser steps of one training step; returns its metrics."""
    for group in optimizer.param_groups:
        group["lr"] = config.lr * min(1.0, (step + 1) / (config.warmup + 1))
    tally = _Tally()
    rng = np.random.default_rng([config.seed, step, 2])
    size = config.minibatch_size or max(1, len(examples))
    for epoch in range(config.epochs):
        order = rng.permutation(len(examples)) if size < len(examples) else np.arange(len(examples))
        for start in range(0, len(examples), size):
            batch = [examples[i] for i in order[start : start + size]]
            _accumulate(student, reference, batch, config, tally, first=epoch == 0 and start == 0)
            norm = torch.nn.utils.clip_grad_norm_(student.model.parameters(), config.max_grad_norm)
            tally.add("grad_norm", float(norm), 1)
            optimizer.step()
            optimizer.zero_grad()
    student.weights_changed()
    lengths = [
        int(e.dialogue.trace.sampled_L.sum()) / (int(e.dialogue.trace.turn_L.max()) + 1) for e in examples
    ]
    return tally.means() | {"reply_tokens": float(np.mean(lengths)) if lengths else None}


def _accumulate(
    student: HFStudent,
    reference: ModelAdapter | None,
    batch: list[_Example],
    config: GRPOConfig,
    tally: _Tally,
    *,
    first: bool,
) -> None:
    """Add the gradient of one mini-batch, in forward passes of dialogues of like length."""
    adapter, forbidden = student.decoder.adapter, student.decoder.forbidden
    lengths = [len(e.dialogue.trace) for e in batch]
    total = sum(int(e.mask_L.sum()) for e in batch)
    for indices in microbatches(lengths, config.microbatch_size, config.microbatch_tokens):
        part = [batch[i] for i in indices]
        dialogues = [e.dialogue for e in part]
        packed = packed_logprobs(
            adapter, dialogues, temperature=config.temperature, forbidden=forbidden, entropy=True
        )
        old_N = packed.gather([e.dialogue.trace.logprobs_L for e in part])
        advantages_N = packed.gather([e.advantages_L for e in part])
        mask_N = packed.gather([e.mask_L for e in part]).bool()
        # The mean is over the whole mini-batch: each pass contributes its share of it.
        portion = int(mask_N.sum()) / total if config.aggregation == "token" else len(part) / len(batch)
        weights_N = loss_weights(mask_N, packed.rows_N, config.aggregation) * portion
        policy_N, clipped_N = clipped_policy_loss(
            packed.logprobs_N, old_N, advantages_N, config.clip_low, config.clip_high
        )
        loss = weighted_sum(policy_N, weights_N)
        if reference is not None:
            reference_N = _reference_logprobs(reference, dialogues, config, forbidden)
            kl_N = kl_penalty(packed.logprobs_N, reference_N, config.kl)
            loss = loss + config.beta * weighted_sum(kl_N, weights_N)
            tally.tokens("kl", kl_N, mask_N)
        loss.backward()
        tally.add("loss", loss.item(), 0)
        tally.tokens("clipped", clipped_N.float(), mask_N)
        tally.tokens("entropy", packed.entropy_N, mask_N)
        if first:  # before any update: sampled and recomputed log-probabilities must agree
            gap_N = (packed.logprobs_N - old_N).abs()
            tally.tokens("logprob_gap", gap_N, mask_N)
            tally.most("logprob_gap_max", gap_N, mask_N)


@torch.no_grad()
def _reference_logprobs(
    reference: ModelAdapter, dialogues: Sequence[Prompt], config: GRPOConfig, forbidden: torch.Tensor
) -> torch.Tensor:
    packed: Packed = packed_logprobs(
        reference, dialogues, temperature=config.temperature, forbidden=forbidden
    )
    return packed.logprobs_N


def _frozen_copy(student: HFStudent) -> ModelAdapter:
    return ModelAdapter(copy.deepcopy(student.model).requires_grad_(False), student.codec)


class _Tally:
    """Means over the tokens of a step."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}
        self._most: dict[str, float] = {}

    def add(self, name: str, value: float, count: int) -> None:
        """Add a value; with count 0 the sum is reported, not the mean."""
        total = self._sums.setdefault(name, [0.0, 0.0])
        total[0] += value
        total[1] += count

    def tokens(self, name: str, values_N: torch.Tensor | None, mask_N: torch.Tensor) -> None:
        """Add the values of the tokens in the mask."""
        if values_N is not None:
            self.add(name, float(values_N.detach()[mask_N].sum()), int(mask_N.sum()))

    def most(self, name: str, values_N: torch.Tensor, mask_N: torch.Tensor) -> None:
        """Keep the largest value."""
        if mask_N.any():
            self._most[name] = max(self._most.get(name, 0.0), float(values_N.detach()[mask_N].max()))

    def means(self) -> Row:
        """Return all means, sums and maxima."""
        return {
            name: total / count if count else total for name, (total, count) in self._sums.items()
        } | self._most


def _open_run(
    run_dir: Path,
    config: GRPOConfig,
    student: HFStudent,
    optimizer: torch.optim.Optimizer,
    attacker: Agent,
    resume: bool,
) -> int:
    """Prepare the run folder; returns the number of steps that are done already."""
    settings = {"algorithm": "grpo", **asdict(config)}
    path = run_dir / "config.json"
    if path.exists() and not resume:
        raise FileExistsError(
            f"run_dir={str(run_dir)!r} holds a run; pass resume=True (--resume) or choose another one"
        )
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        # These may change without changing what was computed.
        free = {"steps", "checkpoint_every", "microbatch_size", "microbatch_tokens"}
        changed = {k: (old.get(k), v) for k, v in settings.items() if k not in free and old.get(k) != v}
        if changed:
            raise ValueError(
                f"run_dir={str(run_dir)!r} was started with other settings, (then, now): {changed}; resume "
                "with the same ones or choose another folder"
            )
    run_dir.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    existing = checkpoints(run_dir)
    finished = load_checkpoint(existing[-1], student, optimizer, attacker) if existing else 0
    drop_rows_from(run_dir / "metrics.jsonl", finished)
    drop_rows_from(run_dir / ROLLOUTS, finished)
    return finished


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
