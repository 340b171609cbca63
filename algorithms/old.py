"""The policy that a training step starts from: its log-probabilities as the trainer itself computes them.

Sampler and trainer are two programs. In float32 and in one process they agree to some 1e-5 nats; in bfloat16,
or with a server that samples, single tokens differ by tenths. A ratio of trainer to *sampler* then starts
away from 1, and a tight clip (GSPO's) cuts off dialogues although nothing has moved. So the ratio is taken to
what the trainer computes before the step's first update, and the gap to the sampler is a weight of its own,
see `losses.sampler_weights`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steer_env.agents.hf.packed import Packed
from steer_env.algorithms.base import Example
from steer_env.algorithms.forward import Forward

#: Where no token of the first mini-batch differs by more than this, in nats, the sampler's numbers serve.
AGREED: Final = 1e-4


class OldPolicy:
    """Log-probabilities of a step's dialogues before its first update.

    The first mini-batch costs nothing: its own forward pass gives them. For the mini-batches and epochs after
    it the other dialogues are run once more without gradient, but only if the sampler's numbers are off by
    more than `AGREED`.

    Args:
        forward: Runs the policy.
        examples: All dialogues of the step.
        more: Whether there are passes after the first mini-batch.
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
        gap_N = (now_N - sampled(packed, part)).abs()[mask_N]
        self._gap = max(self._gap, float(gap_N.max()) if len(gap_N) else 0.0)
        return now_N

    def later(self, packed: Packed, part: Sequence[Example]) -> Tensor:
        """Return the log-probabilities for a later pass, (N,)."""
        if not self._known:
            return sampled(packed, part)
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


def sampled(packed: Packed, part: Sequence[Example]) -> Tensor:
    """Return the log-probabilities that the sampler reported, (N,)."""
    return packed.gather([e.dialogue.trace.logprobs_L for e in part])
