"""Relatives of GRPO: each is the policy gradient of `policy` with other defaults or another baseline.

KL weights are the sources'; where a source has none, `beta` is 0 and no reference model is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from steer_env.algorithms.advantages import leave_one_out
from steer_env.algorithms.base import register_algorithm
from steer_env.algorithms.checks import check_choice, check_numbers
from steer_env.algorithms.credit import reward_ledger, split, turn_values
from steer_env.algorithms.policy import PolicyGradient
from steer_env.arrays import Floats
from steer_env.records import Row
from steer_env.trajectory import TrajectoryGroup


@register_algorithm("dapo")
@dataclass(kw_only=True)
class DAPO(PolicyGradient):
    """Clip-higher, token-level loss, no flat groups, no KL (Yu et al. 2025, arXiv 2503.14476, eq. 8-11).

    Flat groups are left out, not replaced by others. For overlong replies see `TrainConfig.overlong`.
    """

    least_group: ClassVar[int] = 2

    beta: float = 0.0
    clip_high: float = 0.28
    scale: bool = True
    drop_flat: bool = True


@register_algorithm("dr_grpo")
@dataclass(kw_only=True)
class DrGRPO(PolicyGradient):
    """No division by deviation or by length, which favour easy seeds and long wrong replies.

    Source: Liu et al. 2025, "Understanding R1-Zero-like training", arXiv 2503.20783, sec. 3. `normaliser` is
    its constant, a generous bound of a dialogue's student tokens.
    """

    least_group: ClassVar[int] = 2

    beta: float = 0.0
    aggregation: str = "constant"


@register_algorithm("gspo")
@dataclass(kw_only=True)
class GSPO(PolicyGradient):
    """One ratio per sequence, as the reward is (Zheng et al. 2025, arXiv 2507.18071, eq. 5-7).

    A sequence is all of the student's tokens in a dialogue; `ratio="turn"` takes each reply for one. The clip
    is tight, for a geometric mean over many tokens hardly moves.
    """

    least_group: ClassVar[int] = 2

    beta: float = 0.0
    ratio: str = "sequence"
    clip_low: float = 3e-4
    clip_high: float = 4e-4
    scale: bool = True
    aggregation: str = "sequence"


@register_algorithm("cispo")
@dataclass(kw_only=True)
class CISPO(PolicyGradient):
    """The ratio as a clipped weight without gradient (MiniMax-M1, arXiv 2506.13585, sec. 3.1).

    No token loses its gradient to the clip. The source sets no lower bound and does not give its upper one;
    5 (`clip_high` 4) is from Khatri et al. 2025, arXiv 2510.13786.
    """

    least_group: ClassVar[int] = 2

    beta: float = 0.0
    surrogate: str = "cispo"
    clip_low: float = 1.0
    clip_high: float = 4.0
    scale: bool = True


@register_algorithm("rloo")
@dataclass(kw_only=True)
class RLOO(PolicyGradient):
    """Leave-one-out baseline, unbiased (Ahmadian et al. 2024, arXiv 2402.14740, sec. 2.4).

    The KL is a penalty of the loss here, a part of the reward there. With `scale` advantages are divided by
    the group's deviation, which the source does not do.
    """

    least_group: ClassVar[int] = 2

    def baseline(self, returns_TK: Floats) -> Floats:
        """Compare each member with the mean of the others."""
        advantages = super().baseline(returns_TK)
        if self.scale or self.credit == "turn_normalised":
            count = (~np.isnan(returns_TK)).sum(1, keepdims=True)
            return advantages * count / np.maximum(count - 1, 1)
        return leave_one_out(returns_TK)


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
        decay: Of the running mean, in [0, 1).
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
