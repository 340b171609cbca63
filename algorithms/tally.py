"""Means over the tokens of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class Tally:
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

    @classmethod
    def merged(cls, parts: Sequence[Tally]) -> Tally:
        """Return the tally of all that the parts saw."""
        merged = cls()
        for other in parts:
            for name, (total, count) in other._sums.items():
                sums = merged._sums.setdefault(name, [0.0, 0.0])
                sums[0] += total
                sums[1] += count
            for name, value in other._most.items():
                merged._most[name] = max(merged._most.get(name, 0.0), value)
        return merged

    def means(self) -> dict[str, Any]:
        """Return all means, sums and maxima."""
        return {
            name: total / count if count else total for name, (total, count) in self._sums.items()
        } | self._most
