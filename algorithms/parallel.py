"""Several processes that train one policy, and the one process that is the ordinary case.

The processes share the work and nothing else: each plays some of a step's groups and runs some of its forward
and backward passes. What was played goes to all of them, so that advantages, running baselines, multipliers,
the tutor's memory, the curriculum and the metrics are computed from the whole step everywhere, by the same
code and with the same outcome as in one process. Gradients are added up: the passes of a mini-batch carry
their shares of it, whoever runs them.

`Parallel` is one process and does nothing; `Replicas` keep a copy of the weights each (data parallel);
`shards.Shards` (FSDP) and `zero.Zero` (DeepSpeed) spread weights or optimiser over the processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from steer_env.algorithms.scaling import Scaling

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
        load_device: Where a model should be loaded, None as `device`.
        lockstep: Whether all processes have to run the same number of forward passes.
        droppable: Whether gradients that were summed can be dropped without a step.
    """

    rank = 0
    size = 1
    device: torch.device | None = None
    load_device: torch.device | None = None
    lockstep = False
    droppable = True

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

    def deal(self, passes: Sequence[T]) -> list[tuple[T, bool]]:
        """Return this process's passes, and whether each counts.

        In lockstep a process that has one pass less repeats the first one, which must then count nothing.
        """
        mine = [(item, True) for item in self.share(passes)]
        if self.lockstep and len(mine) < -(-len(passes) // self.size):
            mine.append((passes[0], False))
        return mine

    def everyone(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        return [value]

    def wait(self) -> None:
        """Return once all processes are here."""

    # -- the model ----------------------------------------------------------------------------------------

    def adopt(self, model: nn.Module) -> None:
        """Get a model ready for all processes, in place, before its optimiser is made."""

    def launch(self, optimizer: torch.optim.Optimizer, max_grad_norm: float) -> None:
        """Get ready to train with an optimiser over the adopted policy."""

    def run(self, model: nn.Module, call: Callable[[], T]) -> T:
        """Call something that runs a forward pass of an adopted model."""
        return call()

    @contextmanager
    def sampling(self, model: nn.Module) -> Iterator[None]:
        """Let a process sample by itself, without waiting for others at every token."""
        yield

    def release(self, model: nn.Module) -> None:
        """Let go of gathered weights, which a step does not reach, after passes without a backward one."""

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of a pass; `last` is the process's last one before the optimiser step."""
        loss.backward()

    def step(self, optimizer: torch.optim.Optimizer, max_norm: float) -> float:
        """Sum the gradients of all processes, clip them and step; returns the policy's gradient norm."""
        self._sum_gradients(optimizer)
        # Each group by itself: a value head's gradients must not shrink the policy's.
        norms = [nn.utils.clip_grad_norm_(group["params"], max_norm) for group in optimizer.param_groups]
        optimizer.step()
        optimizer.zero_grad()
        return float(whole(norms[0]))

    def _sum_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Add up what each process has; nothing to do for one."""

    # -- state --------------------------------------------------------------------------------------------

    def weights(self, model: nn.Module) -> dict[str, Tensor] | None:
        """Collect the weights of all processes; None where the model has them whole."""
        return None

    def fill(self, own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
        """Copy whole weights into those of an adopted model, by name."""
        for name, value in own.items():
            value.copy_(stored[name])

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimiser's state as one process would have it."""
        return optimizer.state_dict()

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Put such a state back."""
        optimizer.load_state_dict(state)


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
        self._sum([p for group in optimizer.param_groups for p in group["params"]])

    def _sum(self, parameters: Sequence[nn.Parameter]) -> None:
        if not parameters:
            return
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


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that may be spread over processes in one piece; all of them have to ask."""
    full: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def launched(scaling: Scaling) -> Parallel:
    """Return what `accelerate launch` or `torchrun` asks for, one process where neither was used.

    `accelerate launch` puts its config file into the environment: ACCELERATE_USE_FSDP or _DEEPSPEED, with
    options beside it. Without them, and with torchrun, the processes are replicas.

    Raises:
        ValueError: If the file asks for something that is not supported, or decides what `scaling` does.
    """
    environ = os.environ
    if "WORLD_SIZE" not in environ or "RANK" not in environ:
        return Parallel()
    mixed = environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if mixed != "no":
        raise ValueError(
            f"mixed_precision={mixed!r} in accelerate's config, expected 'no': --precision decides that"
        )
    fsdp, deepspeed = (environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED"))
    device = _own_device()
    if fsdp:
        from steer_env.algorithms.shards import Shards

        return Shards.from_environment(device, scaling)
    if deepspeed:
        from steer_env.algorithms.zero import Zero

        return Zero.from_environment(device, scaling)
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
