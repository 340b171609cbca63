r"""A mean of the weights over the steps of a run, which is often a better model than the last step's.

Policy gradients leave the weights jumping around where they ought to settle; a mean takes that noise out at
the price of a copy (Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407; for language models
with rewards Rame et al. 2024, arXiv 2406.16768).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

#: Names of the ways to average.
AVERAGES: Final = ("none", "tail", "ema")


class Average:
    r"""Running mean of a model's weights that take gradients.

    The newest weights have the share $1/n$ in the mean of $n$ ("tail", over the second half of the steps), or
    $\max(1/n, 1 - decay)$ ("ema": the plain mean until there are enough).

    Attributes:
        count: $n$, how many weights are in it.

    Args:
        model: The model.
        kind: "tail" or "ema".
        decay: Of "ema".
        steps: Number of steps of the run.
    """

    def __init__(self, model: nn.Module, kind: str, decay: float, steps: int) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._least = 1.0 - decay if kind == "ema" else 0.0
        self._from = 0 if kind == "ema" else steps // 2
        self._means: list[Tensor] = []
        self.count = 0

    @torch.no_grad()
    def take(self, step: int) -> None:
        """Take the weights after a step, counted from 0."""
        if step < self._from:
            return
        self.count += 1
        if self.count == 1:
            self._means = [p.detach().clone() for p in self._parameters]
            return
        share = max(1.0 / self.count, self._least)
        for mean, p in zip(self._means, self._parameters, strict=True):
            mean.mul_(1.0 - share).add_(p, alpha=share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the model carry the mean for a while; its own weights where there is none yet."""
        own = [p.detach().clone() for p in self._parameters] if self.count else []
        self._put(self._means)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for p, value in zip(self._parameters, values, strict=False):
            p.copy_(value)

    def adopt(self) -> None:
        """Take the weights that the model has now for the mean, as they come from a checkpoint."""
        self._means = [p.detach().clone() for p in self._parameters]

    def state_dict(self) -> dict[str, Any]:
        """Return the count; the mean is a model folder of its own in a checkpoint."""
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the count back."""
        self.count = int(state["count"])
