"""REINFORCE with a baseline that all seeds share: it needs no groups of siblings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_env.algorithms.base import register_algorithm
from steer_env.algorithms.credit import reward_ledger, split, turn_values
from steer_env.algorithms.policy import PolicyGradient
from steer_env.arrays import Floats
from steer_env.checks import check_choice, check_numbers
from steer_env.records import Row
from steer_env.trajectory import TrajectoryGroup


@register_algorithm("reinforce")
@dataclass(kw_only=True)
class Reinforce(PolicyGradient):
    r"""Return minus a baseline that all seeds share; works without groups (K = 1).

    Williams 1992. With one optimiser step per batch the ratio is 1 and this is $-A \log\pi$; with several the
    clip keeps it safe. Seeds differ in difficulty, which a shared baseline leaves in the advantages as noise.
    They differ in length too: all credit is per turn here (`credit.turn_values`), or a long dialogue would
    pass for a good one.

    Attributes:
        baseline_kind: "batch" is the mean over the step's dialogues; "running" the exponential mean over
            earlier steps, which no reply of this step has moved (the first step uses its own mean).
        decay: Decay of the running mean, in [0, 1).
    """

    baseline_kind: str = "running"
    decay: float = 0.9
    _means: list[float] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "baseline_kind", ("batch", "running"))
        check_numbers(self, ("decay",), 0, 1)

    def turn_advantages(self, groups: Sequence[TrajectoryGroup]) -> list[NDArray[np.floating[Any]] | None]:
        """Compare all dialogues of the step with one baseline per turn index."""
        returns_TK = self._returns(groups)
        means = self._batch_means(returns_TK)
        if self.baseline_kind == "running":
            known = np.full(len(means), np.nan)
            known[: len(self._means)] = self._means[: len(means)]
            means = np.where(np.isnan(known), means, known)
        defined = ~np.isnan(returns_TK)
        advantages_TK = np.where(defined, returns_TK - means[:, None], 0.0)
        if self.scale or self.credit == "turn_normalised":
            square = np.square(advantages_TK).sum(1, keepdims=True) / np.maximum(
                defined.sum(1, keepdims=True), 1
            )
            advantages_TK = advantages_TK / (np.sqrt(square) + 1e-4)
        result: list[NDArray[np.floating[Any]] | None] = []
        result += split(advantages_TK, [t for group in groups for t in group.trajectories])
        return result

    def finish(self, groups: Sequence[TrajectoryGroup]) -> Row:
        """Move the running mean by this step's returns."""
        means = self._batch_means(self._returns(groups))
        for index, mean in enumerate(means):
            if index == len(self._means):
                self._means.append(float(mean))
            elif np.isnan(self._means[index]):
                self._means[index] = float(mean)
            elif not np.isnan(mean):
                self._means[index] = self.decay * self._means[index] + (1 - self.decay) * float(mean)
        first = self._means[0] if self._means else float("nan")
        return {"baseline": None if np.isnan(first) else first}

    def state_dict(self) -> dict[str, Any]:
        """Return the running means."""
        return {"means": list(self._means)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the running means back."""
        self._means = list(state["means"])

    def _returns(self, groups: Sequence[TrajectoryGroup]) -> Floats:
        """All dialogues of the step as one group, (T, all)."""
        ledgers = [reward_ledger(t) for group in groups for t in group.trajectories]
        return turn_values(ledgers, self.credit, discount=self.discount, per_turn=True)

    @staticmethod
    def _batch_means(returns_TK: Floats) -> Floats:
        defined = ~np.isnan(returns_TK)
        total = np.where(defined, returns_TK, 0.0).sum(1)
        return np.where(defined.any(1), total / np.maximum(defined.sum(1), 1), np.nan)
