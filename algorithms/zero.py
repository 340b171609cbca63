"""DeepSpeed ZeRO: optimiser state (stage 1) and gradients (stage 2) spread over the processes.

Stage 3, which spreads the weights too, is not supported: use `shards`. DeepSpeed's engine takes the
optimiser over; the rest stays the loop's. As with `shards`, passes go in lockstep, for gradients travel
during each backward pass. A checkpoint is what one process would write, so a run may go on without DeepSpeed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from steer_env.algorithms.parallel import Replicas
from steer_env.algorithms.scaling import Scaling

T = TypeVar("T")

#: What the loop decides.
_OURS = ("optimizer", "scheduler", "fp16", "bf16", "torch_autocast", "amp", "gradient_clipping")


class Zero(Replicas):
    """Gradients and optimiser state spread over the processes by DeepSpeed.

    Weights are float32; with precision "bf16" passes run in autocast, as in one process. A weight that a
    mini-batch did not touch (the vision tower's, no pictures) counts as one of gradient 0: its momentum
    goes on, where one process would leave it alone.

    Args:
        device: Where this process computes.
        settings: DeepSpeed's JSON config.

    Raises:
        ImportError: If DeepSpeed is not installed.
        ValueError: If the config decides what the loop decides, or its stage is 3.
    """

    lockstep = True
    droppable = False

    def __init__(self, device: torch.device, settings: Mapping[str, Any]) -> None:
        try:
            import deepspeed
        except ImportError as error:
            raise ImportError("deepspeed is not installed; run: pip install deepspeed") from error
        for name in _OURS:
            if name in settings:
                raise ValueError(
                    f"{name}={settings[name]!r} in DeepSpeed's config, expected none: the loop's"
                )
        stage = settings.get("zero_optimization", {}).get("stage", 0)
        if stage not in (1, 2):
            raise ValueError(
                f"zero_optimization.stage={stage!r}, expected 1 or 2; to spread the weights too use FSDP"
            )
        super().__init__(device)
        self._deepspeed, self._settings = deepspeed, dict(settings)
        self._policy: nn.Module | None = None
        self._engine: Any = None
        self._groups: list[dict[str, Any]] = []

    @classmethod
    def from_environment(cls, device: torch.device, scaling: Scaling) -> Zero:
        """Take the JSON file that accelerate's config names.

        Raises:
            ValueError: If it names none.
        """
        path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "")
        if path in ("", "none"):
            raise ValueError("accelerate's config names no deepspeed_config_file, expected a JSON file")
        return cls(device, json.loads(Path(path).read_text(encoding="utf-8")))

    def adopt(self, model: nn.Module) -> None:
        """Start from the weights of the first process."""
        super().adopt(model)
        if any(p.requires_grad for p in model.parameters()):
            self._policy = model

    def launch(self, optimizer: torch.optim.Optimizer, max_grad_norm: float) -> None:
        """Hand the optimiser to DeepSpeed.

        Raises:
            ValueError: If the algorithm has weights of its own, which the engine does not know.
        """
        if len(optimizer.param_groups) > 1:
            raise ValueError(
                "DeepSpeed with an algorithm that has weights of its own (ppo), expected another; use FSDP"
            )
        self._groups = optimizer.state_dict()["param_groups"]
        self._parameters = list(optimizer.param_groups[0]["params"])
        settings = self._settings | {
            "train_micro_batch_size_per_gpu": 1,  # passes are ours; this is for its counters only
            "gradient_accumulation_steps": 1,
            "gradient_clipping": max_grad_norm,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        self._engine = self._deepspeed.initialize(
            model=_Module(self._policy), optimizer=optimizer, config=settings, dist_init_required=False
        )[0]

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of a pass; DeepSpeed averages over processes, and passes carry their shares."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self.size)

    def step(self, optimizer: torch.optim.Optimizer, max_norm: float) -> float:
        """Clip and step; returns the gradient norm."""
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def run(self, model: nn.Module, call: Callable[[], T]) -> T:
        """Call something that runs a forward pass of an adopted model."""
        if self._engine is None or model is not self._policy or not torch.is_grad_enabled():
            return call()
        outcome: T = self._engine(call)
        return outcome

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimiser's state as one process would have it."""
        from deepspeed.utils import safe_get_full_optimizer_state

        groups = [
            {**old, **{k: v for k, v in now.items() if k != "params"}}
            for old, now in zip(self._groups, optimizer.param_groups, strict=True)
        ]
        flat = next(iter(optimizer.state.values()), None)
        if flat is None:
            return {"state": {}, "param_groups": groups}
        state = {
            number: {"step": flat["step"].clone()}
            | {
                name: safe_get_full_optimizer_state(parameter, name).view_as(parameter).cpu()
                for name in ("exp_avg", "exp_avg_sq")
            }
            for number, parameter in enumerate(self._parameters)
        }
        return {"state": state, "param_groups": groups}

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Put such a state back."""
        from deepspeed.utils import safe_set_full_optimizer_state

        steps = {int(values["step"]) for values in state["state"].values()}
        if len(steps) > 1:
            raise ValueError(
                f"optimiser steps={sorted(steps)}, expected one number for all weights: DeepSpeed keeps no "
                "more. Some mini-batches had no picture; go on without it"
            )
        if not steps:
            return
        for (flat,) in (group["params"] for group in optimizer.param_groups):
            optimizer.state[flat] = {
                "step": torch.tensor(float(steps.pop())),
                "exp_avg": torch.zeros_like(flat),
                "exp_avg_sq": torch.zeros_like(flat),
            }
        self._engine.optimizer._link_all_hp_params()
        for number, values in state["state"].items():
            for name in ("exp_avg", "exp_avg_sq"):
                safe_set_full_optimizer_state(self._parameters[number], values[name], name)

    def fill(self, own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
        """Copy whole weights into those of an adopted model, by name, and into the optimiser's copy."""
        super().fill(own, stored)
        if self._engine is not None:
            self._engine.optimizer.refresh_fp32_params()


class _Module(nn.Module):
    """Runs anything as one forward pass of what it holds."""

    def __init__(self, model: nn.Module | None) -> None:
        super().__init__()
        self.model = model

    def forward(self, call: Callable[[], T]) -> T:
        return call()
