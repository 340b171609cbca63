"""The optimiser steps of one training step: mini-batches of dialogues, in forward passes of like length.

**The old policy.** Sampler and trainer are two programs. In float32 and in one process they agree to some
1e-5 nats; in bfloat16, or with a server that samples, single tokens differ by tenths. A ratio of trainer to
*sampler* then starts away from 1, and a tight clip (GSPO's) cuts off dialogues although nothing has moved. So
the ratio is taken to what the trainer computes before the step's first update, and the gap to the sampler is
a weight of its own, see `losses.sampler_weights`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steer_env.agents.hf.packed import Packed
from steer_env.algorithms.advantages import cut_turns
from steer_env.algorithms.base import Algorithm, Example, Tally, TokenBatch
from steer_env.algorithms.forward import Forward, updating
from steer_env.algorithms.losses import kl_estimate
from steer_env.configs.train import TrainConfig
from steer_env.records import Row

#: Where no token of the first mini-batch differs by more than this, in nats, the sampler's numbers serve.
AGREED: Final = 1e-4


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
    supervise: Callable[[int], float] | None = None,
) -> Row:
    """Take the optimiser steps of one training step; returns its metrics.

    `supervise` is given the number of an update, adds a gradient to it and returns the loss of that.
    """
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
    with updating(forward.student.model, forward.scaling):
        for number, batch in enumerate(minibatches(examples, size, config.epochs, rng)):
            moved = accumulate(forward, algorithm, batch, tally, old, first=number == 0)
            if number == 0:
                old.complete()
            if config.target_kl and number and _mean(parallel.everyone(moved)) > config.target_kl:
                optimizer.zero_grad()
                break
            if supervise is not None:
                tally.add("sft_loss", supervise(number), int(parallel.main))
            tally.add("grad_norm", parallel.step(optimizer, config.max_grad_norm), 1)
            updates += 1
    forward.student.weights_changed()
    return Tally.merged(parallel.everyone(tally)).means() | {
        "reply_tokens": _reply_tokens(examples),
        "lr": config.lr * share,
        "updates": updates,
    }


def rate_share(
    step: int, steps: int, *, warmup: int = 0, schedule: str = "constant", final: float = 0.0
) -> float:
    r"""Return the share of the peak learning rate that a step, counted from 0, has; in [0, 1].

    It rises linearly over `warmup` steps. Then, with $p$ the share of the steps left that is done and $f$ the
    share at the end (`final`), it is 1 ("constant"), $1 - (1 - f) p$ ("linear") or
    $f + (1 - f)(1 + \cos \pi p) / 2$ ("cosine", Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5, without
    restarts). The last step is the last one before $p = 1$: it still learns where $f$ is 0.

    Example:
        >>> [rate_share(step, 5, warmup=1, schedule="linear") for step in range(5)]
        [0.5, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    if schedule == "linear":
        return 1.0 - (1.0 - final) * done
    if schedule == "cosine":
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


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
    """Add the gradient of one mini-batch, or of this process's passes of it; metrics go to `tally`.

    With `first`, the step's first mini-batch, nothing has been updated yet: sampled and recomputed
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
        sampler_N=_sampled(packed, part),
        advantages_N=packed.gather([e.advantages_L for e in part]),
        mask_N=mask_N,
        rows_N=packed.rows_N,
        turns_N=packed.gather([e.dialogue.trace.turn_L for e in part]).long(),
        reference_N=forward.reference(dialogues),
        hidden_NH=hidden_NH,
        extras={name: packed.gather([e.extras[name] for e in part]) for name in part[0].extras},
        token_share=int(mask_N.sum()) / whole[0],
        row_share=len(part) / whole[1],
        tally=tally,
    )


def _reply_tokens(examples: Sequence[Example]) -> float | None:
    """Mean number of tokens of a reply."""
    traces = [e.dialogue.trace for e in examples]
    lengths = [int(t.sampled_L.sum()) / (int(t.turn_L.max()) + 1) for t in traces]
    return float(np.mean(lengths)) if lengths else None


class OldPolicy:
    """Log-probabilities of a step's dialogues before its first update.

    The first mini-batch costs nothing: its own forward pass gives them. For the mini-batches and epochs after
    it (`more`) the other dialogues are run once more without gradient, but only if the sampler's numbers are
    off by more than `AGREED`.
    """

    def __init__(self, forward: Forward, examples: Sequence[Example], more: bool) -> None:
        self._forward, self._examples, self._more = forward, examples, more
        self._number = {id(example): number for number, example in enumerate(examples)}
        self._known: dict[int, NDArray[np.float32]] = {}
        self._gap = 0.0

    def first(self, packed: Packed, part: Sequence[Example], mask_N: Tensor) -> Tensor:
        """Take a pass of the first mini-batch for what it computed; (N,) without gradient."""
        now_N = packed.logprobs_N.detach()
        if self._more:
            self._remember(packed, part)
        gap_N = (now_N - _sampled(packed, part)).abs()[mask_N]
        self._gap = max(self._gap, float(gap_N.max()) if len(gap_N) else 0.0)
        return now_N

    def later(self, packed: Packed, part: Sequence[Example]) -> Tensor:
        """Return the log-probabilities for a later pass, (N,)."""
        if not self._known:
            return _sampled(packed, part)
        rows = [self._known[self._number[id(example)]] for example in part]
        return torch.from_numpy(np.concatenate(rows)).to(packed.logprobs_N.device)

    @torch.no_grad()
    def complete(self) -> None:
        """Compute what is missing, after the first mini-batch's passes and before its update."""
        if not self._more:
            return
        parallel = self._forward.parallel
        if max(parallel.everyone(self._gap)) <= AGREED:
            self._known.clear()
            return
        done = {number for known in parallel.everyone(list(self._known)) for number in known}
        others = [number for number in range(len(self._examples)) if number not in done]
        left = [self._examples[number] for number in others]
        for indices in self._forward.dealt([e.dialogue for e in left]) if left else ():
            part = [left[i] for i in indices]
            self._remember(self._forward.policy([e.dialogue for e in part]), part)
        for known in parallel.everyone(self._known):
            self._known.update(known)

    def _remember(self, packed: Packed, part: Sequence[Example]) -> None:
        now_N, rows_N = packed.logprobs_N.detach().float().cpu().numpy(), packed.rows_N.cpu().numpy()
        for row, example in enumerate(part):
            self._known[self._number[id(example)]] = now_N[rows_N == row]


def _sampled(packed: Packed, part: Sequence[Example]) -> Tensor:
    """The log-probabilities that the sampler reported, (N,)."""
    return packed.gather([e.dialogue.trace.logprobs_L for e in part])


def treat_cut(examples: Sequence[Example], how: str, penalty: float, close_id: int) -> list[Example]:
    """Return what the loss sees of dialogues with replies that were cut at `max_new_tokens`.

    Args:
        examples: The step's dialogues.
        how: "keep" changes nothing. "mask" leaves the tokens of cut replies out, because their worth is not
            known (DAPO, arXiv 2503.14476, sec. 3.4, overlong filtering); a dialogue of which nothing is
            left goes. "penalise" takes `penalty` from the advantage of their tokens, as if the turn had
            earned so much less (the same, soft punishment without its slope).
        penalty: In units of the advantage, that is of the reward unless advantages are scaled.
        close_id: The token that ends a reply.
    """
    if how == "keep":
        return list(examples)
    treated = []
    for example in examples:
        trace = example.dialogue.trace
        cut_L = np.isin(trace.turn_L, cut_turns(trace, close_id)) & example.mask_L
        mask_L, advantages_L = example.mask_L, example.advantages_L
        if how == "mask":
            mask_L, advantages_L = mask_L & ~cut_L, np.where(cut_L, np.float32(0.0), advantages_L)
        else:
            advantages_L = np.where(cut_L, advantages_L - np.float32(penalty), advantages_L)
        if mask_L.any():
            treated.append(Example(example.dialogue, advantages_L, mask_L, example.extras))
    return treated
