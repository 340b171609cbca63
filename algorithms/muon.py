"""Muon (Jordan et al. 2024), computed in the precision of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim._muon import _adjust_lr


def orthogonalized(
    matrix_MN: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float = 1e-7
) -> Tensor:
    """Return roughly U V^T of a matrix U S V^T, by Newton-Schulz iteration.

    The polynomial a X + b (X X^T) X + c (X X^T)^2 X is applied to X / |X| so many times; with the usual
    coefficients five steps bring singular values that are not tiny to between 0.7 and 1.2.

    Args:
        matrix_MN: Any shape of two axes.
        coefficients: a, b, c.
        steps: Of the iteration.
        eps: Least norm that is divided by.
    """
    a, b, c = coefficients
    wide = matrix_MN.shape[0] <= matrix_MN.shape[1]
    x = matrix_MN if wide else matrix_MN.T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T


class Muon(torch.optim.Muon):
    """torch's Muon without its cast to bfloat16.

    A processor without instructions for bfloat16 emulates them: there torch's iteration takes ten to thirty
    times as long as one in float32, and most of a training step. State and arguments are torch's.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; returns what the closure does, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params: list[Tensor] = []
            grads: list[Tensor] = []
            buffers: list[Tensor] = []
            self._init_group(group, params, grads, buffers)
            for param, grad, buffer in zip(params, grads, buffers, strict=True):
                buffer.lerp_(grad, 1 - group["momentum"])
                update = grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
                update = orthogonalized(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                param.mul_(1 - group["lr"] * group["weight_decay"])
                param.add_(update, alpha=-_adjust_lr(group["lr"], group["adjust_lr_fn"], param.shape))
        return loss
