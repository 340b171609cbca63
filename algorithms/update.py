"""The optimiser steps of one training step: mini-batches of dialogues, in forward passes of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from steer_env.agents.hf.packed import Packed
from steer_env.algorithms.base import Algorithm, Example, TokenBatch
from steer_env.algorithms.forward import Forward
from steer_env.algorithms.losses import kl_estimate
from steer_env.algorithms.old import OldPolicy, sampled
from steer_env.algorithms.schedule import rate_share
from steer_env.algorithms.tally import Tally
from steer_env.records import Row

if TYPE_CHECKING:
    from steer_env.configs.train import TrainConfig


def make_optimizer(forward: Forward, algorithm: Algorithm, config: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW over the policy's weights that take gradients and the algorithm's own parameters."""
    weights = [p for p in forward.student.model.parameters() if p.requires_grad]
    groups: list[dict[str, object]] = [{"params": weights}, *algorithm.parameters()]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay)


def update(
    forward: Forward,
    algorithm: Algorithm,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Example],
    config: TrainConfig,
    step: int,
) -> Row:
    """Take the optimiser steps of one training step; returns its metrics."""
    parallel = forward.parallel
    share = rate_share(
        step, config.steps, warmup=config.warmup, schedule=config.lr_schedule, final=config.final_lr
    )
    rates = [config.lr, *(group["lr"] for group in algorithm.parameters())]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * share
    tally, updates = Tally(), 0
    rng = np.random.default_rng([config.seed, step, 2])
    size = config.minibatch_size or max(1, len(examples))
    old = OldPolicy(forward, examples, more=config.epochs > 1 or size < len(examples))
    with forward.scaling.updating(forward.student.model):
        for number, batch in enumerate(minibatches(examples, size, config.epochs, rng)):
            moved = accumulate(forward, algorithm, batch, tally, old, first=number == 0)
            if number == 0:
                old.complete()
            if config.target_kl and number and _mean(parallel.everyone(moved)) > config.target_kl:
                optimizer.zero_grad()
                break
            tally.add("grad_norm", parallel.step(optimizer, config.max_grad_norm), 1)
            updates += 1
    forward.student.weights_changed()
    return Tally.merged(parallel.everyone(tally)).means() | {
        "reply_tokens": _reply_tokens(examples),
        "lr": config.lr * share,
        "updates": updates,
    }


def minibatches(
    examples: Sequence[Example], size: int, epochs: int, rng: np.random.Generator
) -> Iterator[list[Example]]:
    """Yield the mini-batches of all epochs, in an order of their own in each; one that has all keeps it."""
    for _ in range(epochs):
        order = rng.permutation(len(examples)) if size < len(examples) else np.arange(len(examples))
        for start in range(0, len(examples), size):
            yield [examples[i] for i in order[start : start + size]]


def accumulate(
    forward: Forward,
    algorithm: Algorithm,
    batch: Sequence[Example],
    tally: Tally,
    old: OldPolicy,
    *,
    first: bool,
) -> tuple[float, int]:
    """Add the gradient of one mini-batch, or of this process's passes of it.

    Args:
        forward: Runs the policy.
        algorithm: Its loss is taken.
        batch: Dialogues of the mini-batch.
        tally: Gets the metrics.
        old: The policy before the first update of the step.
        first: Whether this is the first mini-batch of the step, before any update: sampled and recomputed
            log-probabilities must agree there.

    Returns:
        How far the policy has moved within the step: the sum of estimates of KL(old to now) over this
        process's tokens, and their number.
    """
    total = sum(int(e.mask_L.sum()) for e in batch)
    moved, count = 0.0, 0
    for indices in forward.dealt([e.dialogue for e in batch]):
        part = [batch[i] for i in indices]
        tokens = _token_batch(forward, algorithm, part, (total, len(batch)), tally, old, first=first)
        loss = algorithm.loss(tokens)
        loss.backward()
        tally.add("loss", loss.item(), 0)
        kl_N = kl_estimate(tokens.old_N, tokens.logprobs_N)
        tally.tokens("step_kl", kl_N, tokens.mask_N)
        moved, count = moved + float(kl_N[tokens.mask_N].sum()), count + int(tokens.mask_N.sum())
        if first and tokens.sampler_N is not None:
            gap_N = (tokens.old_N - tokens.sampler_N).abs()
            tally.tokens("logprob_gap", gap_N, tokens.mask_N)
            tally.most("logprob_gap_max", gap_N, tokens.mask_N)
    return moved, count


def _mean(parts: Sequence[tuple[float, int]]) -> float:
    return sum(total for total, _ in parts) / max(1, sum(count for _, count in parts))


def _token_batch(
    forward: Forward,
    algorithm: Algorithm,
    part: Sequence[Example],
    whole: tuple[int, int],
    tally: Tally,
    old: OldPolicy,
    *,
    first: bool,
) -> TokenBatch:
    dialogues = [e.dialogue for e in part]
    hidden_NH = None
    if algorithm.needs_hidden:
        packed, hidden_NH = forward.policy_and_hidden(dialogues, entropy=True)
    else:
        packed = forward.policy(dialogues, entropy=True)
    mask_N = packed.gather([e.mask_L for e in part]).bool()
    tally.tokens("entropy", packed.entropy_N, mask_N)
    return TokenBatch(
        logprobs_N=packed.logprobs_N,
        old_N=old.first(packed, part, mask_N) if first else old.later(packed, part),
        sampler_N=sampled(packed, part),
        advantages_N=packed.gather([e.advantages_L for e in part]),
        mask_N=mask_N,
        rows_N=packed.rows_N,
        turns_N=packed.gather([e.dialogue.trace.turn_L for e in part]).long(),
        reference_N=forward.reference(dialogues),
        hidden_NH=hidden_NH,
        extras=_extras(packed, part),
        token_share=int(mask_N.sum()) / whole[0],
        row_share=len(part) / whole[1],
        tally=tally,
    )


def _extras(packed: Packed, part: Sequence[Example]) -> dict[str, torch.Tensor]:
    return {name: packed.gather([e.extras[name] for e in part]) for name in part[0].extras}


def _reply_tokens(examples: Sequence[Example]) -> float | None:
    """Mean number of tokens of a reply."""
    traces = [e.dialogue.trace for e in examples]
    lengths = [int(t.sampled_L.sum()) / (int(t.turn_L.max()) + 1) for t in traces]
    return float(np.mean(lengths)) if lengths else None
