"""Fully sharded data parallel (FSDP2): weights, gradients and optimiser spread over the processes.

`torch.distributed.fsdp.fully_shard` gathers the weights of a layer when it runs and lets go of them after.
All processes must therefore run the same layers equally often. Passes are dealt in lockstep, and one without
a picture sends a blank one through the vision tower. Sampling takes a different number of tokens in
each process, so the weights are gathered once before a step's dialogues and let go after them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from steer_env.algorithms.parallel import Replicas, whole
from steer_env.algorithms.scaling import Scaling, has_adapters

T = TypeVar("T")


class Shards(Replicas):
    """Weights, gradients and optimiser state spread over the processes.

    Args:
        device: Where this process computes. Load the model on the CPU: its layers move one by one.
        scaling: With precision "bf16" gathered weights are bfloat16; the shards stay float32, and gradients
            are summed in float32.
        layers: Class names of the layers that are gathered together; by default those that the model says
            must not be split.
        reshard: Let go of a layer's weights after its forward pass and gather them again for the backward
            pass.
        offload: Keep shards and optimiser state in the CPU's memory.
    """

    lockstep = True
    load_device = torch.device("cpu")

    def __init__(
        self,
        device: torch.device,
        scaling: Scaling,
        *,
        layers: Sequence[str] = (),
        reshard: bool = True,
        offload: bool = False,
    ) -> None:
        super().__init__(device)
        self._mesh = init_device_mesh(device.type, (self.size,))
        self._layers, self._reshard = tuple(layers), reshard
        bf16 = torch.bfloat16 if scaling.precision == "bf16" else None
        self._options: dict[str, Any] = {
            "mesh": self._mesh,
            "mp_policy": MixedPrecisionPolicy(
                param_dtype=bf16, reduce_dtype=torch.float32, cast_forward_inputs=False
            ),
            "offload_policy": CPUOffloadPolicy() if offload and device.type == "cuda" else OffloadPolicy(),
        }
        self._roots: dict[int, _Root] = {}

    @classmethod
    def from_environment(cls, device: torch.device, scaling: Scaling) -> Shards:
        """Take the options of accelerate's config file.

        Raises:
            ValueError: If it asks for the older FSDP.
        """
        environ = os.environ
        version = environ.get("FSDP_VERSION", "1")
        if version != "2":
            raise ValueError(f"fsdp_version={version} in accelerate's config, expected 2 (fully_shard)")
        named = environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "")
        return cls(
            device,
            scaling,
            layers=[name.strip() for name in named.split(",") if name.strip()],
            reshard=environ.get("FSDP_RESHARD_AFTER_FORWARD", "true") in ("true", "FULL_SHARD"),
            offload=environ.get("FSDP_OFFLOAD_PARAMS", "false") == "true",
        )

    def adopt(self, model: nn.Module) -> None:
        """Shard a model in place; its parameters become `DTensor`s.

        Raises:
            ValueError: If it has no layer of the classes named.
        """
        names = self._layers or tuple(getattr(model, "_no_split_modules", None) or ())
        layers = [module for module in model.modules() if type(module).__name__ in names]
        if not layers:
            raise ValueError(
                f"fsdp_transformer_layer_cls_to_wrap={','.join(names)!r}, expected classes of layers of "
                f"{type(model).__name__}"
            )
        for layer in layers:
            fully_shard(layer, reshard_after_forward=self._reshard, **self._options)
        # Passes call parts of the model, so that no logits are made where nobody looks: a root around it.
        root = _Root(model)
        fully_shard(root, reshard_after_forward=False, **self._options)
        for module in _sharded(root):
            # A sum, no mean: passes carry their shares of the mini-batch.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        self._roots[id(model)] = root

    def run(self, model: nn.Module, call: Callable[[], T]) -> T:
        """Call something that runs a forward pass of an adopted model."""
        outcome: T = self._roots[id(model)](call)
        return outcome

    @contextmanager
    def sampling(self, model: nn.Module) -> Iterator[None]:
        """Have all weights here for a while."""
        modules = list(_sharded(self._roots[id(model)]))
        self.run(model, lambda: None)  # the first pass must be the root's
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in modules:
                module.reshard()
            for module in modules[1:]:
                module.set_reshard_after_forward(self._reshard, recurse=False)

    def release(self, model: nn.Module) -> None:
        """Let go of what the root keeps until a backward pass."""
        for module in _sharded(self._roots[id(model)]):
            module.reshard()

    def _sum_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Sharded gradients are sums already; those of further parameters are not."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._sum([p for p in parameters if not isinstance(p, DTensor)])

    def weights(self, model: nn.Module) -> dict[str, Tensor] | None:
        """Collect what a checkpoint holds; the first process gets it, on the CPU, the others get nothing."""
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        held = model.state_dict()
        wanted = [name for name in held if name in trained] if has_adapters(model) else list(held)
        tensors = {name: id(tensor) for name, tensor in model.named_parameters(remove_duplicate=False)}
        collected: dict[object, Tensor] = {}
        for name in wanted:  # tied weights once, or they would be saved twice
            if (key := tensors.get(name, name)) not in collected:
                collected[key] = self._collected(held[name])
        return {name: collected[tensors.get(name, name)] for name in wanted}

    def fill(self, own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
        """Copy whole weights into those of an adopted model, by name."""
        for name, value in own.items():
            value.copy_(self._spread(stored[name], value))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimiser's state as one process would have it."""
        state = optimizer.state_dict()
        moments = {
            number: {
                name: self._collected(value) if isinstance(value, Tensor) else value
                for name, value in values.items()
            }
            for number, values in state["state"].items()
        }
        return {**state, "state": moments}

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Put such a state back."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        spread = {
            number: {
                name: self._spread(value, parameters[number]) if value.dim() else value
                for name, value in values.items()
            }
            for number, values in state["state"].items()
        }
        optimizer.load_state_dict({**state, "state": spread})

    def _collected(self, value: Tensor) -> Tensor:
        full = whole(value.detach())
        return full.cpu() if self.main else full.new_empty(0)

    def _spread(self, value: Tensor, like: Tensor) -> Tensor:
        if not isinstance(like, DTensor):
            return value.to(like.device)
        full = value.to(like.device, like.dtype)
        return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)


class _Root(nn.Module):
    """Runs anything as one forward pass of what it holds."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, call: Callable[[], T]) -> T:
        return call()


def _sharded(root: nn.Module) -> Iterator[FSDPModule]:
    """All sharded modules, the root first."""
    return (module for module in root.modules() if isinstance(module, FSDPModule))
