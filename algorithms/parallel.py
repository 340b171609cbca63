"""Several processes that train one policy, and the one process that is the ordinary case.

The processes share the work and nothing else: each plays some of a step's groups and runs some of its forward
and backward passes. What was played goes to all of them, so that advantages, running baselines, multipliers,
the tutor's memory, the curriculum and the metrics are computed from the whole step everywhere, by the same
code and with the same outcome as in one process. Gradients are added up: the passes of a mini-batch carry
their shares of it, whoever runs them.

`Parallel` is one process and does nothing; `Replicas` keep a copy of all weights each (data parallel). Models
whose weights have to be spread over several GPUs are trained with TRL, see docs/trl.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")

#: A rank may wait this long for the slowest one, which may be waiting for a judge behind a server.
_PATIENCE = timedelta(hours=2)
#: Gradients travel in pieces of about this many numbers.
_BUCKET = 32 * 2**20


class Parallel:
    """One process: nothing is shared and nothing is waited for.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        device: Where this process computes, None where the model decides.
    """

    rank = 0
    size = 1
    device: torch.device | None = None

    @property
    def main(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    # -- who does what ------------------------------------------------------------------------------------

    def share(self, items: Sequence[T]) -> list[T]:
        """Return this process's share: every `size`-th of the items."""
        return list(items[self.rank :: self.size])

    def gather(self, mine: Sequence[T]) -> list[T]:
        """Put the shares of all processes together again, in the order before `share`."""
        return list(mine)

    def everyone(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        return [value]

    def wait(self) -> None:
        """Return once all processes are here."""

    # -- the model ----------------------------------------------------------------------------------------

    def adopt(self, model: nn.Module) -> None:
        """Get a model ready for all processes, in place, before its optimiser is made."""

    def step(self, optimizer: torch.optim.Optimizer, max_norm: float) -> float:
        """Sum the gradients of all processes, clip them and step; returns the policy's gradient norm."""
        self._sum_gradients(optimizer)
        # Each group by itself: a value head's gradients must not shrink the policy's.
        norms = [nn.utils.clip_grad_norm_(group["params"], max_norm) for group in optimizer.param_groups]
        optimizer.step()
        optimizer.zero_grad()
        return float(norms[0])

    def _sum_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Add up what each process has; nothing to do for one."""


class Replicas(Parallel):
    """Data parallel: every process has all weights, and gradients are summed once per optimiser step.

    It is plain `all_reduce` rather than `DistributedDataParallel`: the number of passes and which weights
    they touch (a pass may have no picture) differ between processes, and passes do not go through
    `model.forward` alone.

    Args:
        device: Where this process computes.
    """

    def __init__(self, device: torch.device) -> None:
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        self._dist = dist
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device

    def everyone(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        values: list[Any] = [None] * self.size
        self._dist.all_gather_object(values, value)
        return values

    def gather(self, mine: Sequence[T]) -> list[T]:
        """Put the shares of all processes together again, in the order before `share`."""
        shares = self.everyone(list(mine))
        longest = max(map(len, shares))
        return [share[i] for i in range(longest) for share in shares if i < len(share)]

    def wait(self) -> None:
        """Return once all processes are here."""
        self._dist.barrier()

    def adopt(self, model: nn.Module) -> None:
        """Make sure that all processes start from the weights of the first."""
        for tensor in (*model.parameters(), *model.buffers()):
            self._dist.broadcast(tensor.detach(), 0)

    def _sum_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # A weight without gradient anywhere stays without: the optimiser leaves it alone, as in one process.
        has = torch.tensor([p.grad is not None for p in parameters], device=self.device, dtype=torch.int32)
        self._dist.all_reduce(has, self._dist.ReduceOp.MAX)
        used = [p for p, here in zip(parameters, has.tolist(), strict=True) if here]
        for bucket in _buckets(used):
            for p in bucket:
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
            gradients = [p.grad for p in bucket if p.grad is not None]
            flat = torch.cat([g.reshape(-1) for g in gradients])
            self._dist.all_reduce(flat)
            for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))


def launched() -> Parallel:
    """Return what `accelerate launch` or `torchrun` asks for, one process where neither was used.

    Raises:
        ValueError: If accelerate's config file asks for more than replicas: FSDP, DeepSpeed or a precision.
    """
    environ = os.environ
    if "WORLD_SIZE" not in environ or "RANK" not in environ:
        return Parallel()
    mixed = environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if mixed != "no":
        raise ValueError(
            f"mixed_precision={mixed!r} in accelerate's config, expected 'no': --precision decides that"
        )
    for name in ("FSDP", "DEEPSPEED"):
        if environ.get(f"ACCELERATE_USE_{name}") == "true":
            raise ValueError(
                f"distributed_type={name} in accelerate's config, expected MULTI_GPU or MULTI_CPU: this loop "
                "trains replicas only; use TRL to spread a model over GPUs (docs/trl.md)"
            )
    device = _own_device()
    return Replicas(device) if int(environ["WORLD_SIZE"]) > 1 else Parallel()


def _own_device() -> torch.device:
    if os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Cut parameters into runs of one type and about `_BUCKET` numbers."""
    bucket: list[nn.Parameter] = []
    size = 0
    for p in parameters:
        if bucket and (size + p.numel() > _BUCKET or p.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(p)
        size += p.numel()
    if bucket:
        yield bucket
