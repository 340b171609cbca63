r"""Constrained GRPO: as helpful as possible while the harm stays below a limit.

$\max_\pi J_R(\pi)$ subject to $J_C(\pi) \le d$ becomes $\min_{\lambda \ge 0} \max_\pi J_R - \lambda(J_C - d)$
(Altman 1999; with policy gradients Ray et al. 2019, "Benchmarking safe exploration", and for language models
Safe RLHF, Dai et al. 2024, arXiv 2310.12773, sec. 3.3). Reward and cost stay apart: the environment emits
helpfulness as reward (`wrappers.HelpfulnessReward`) and harm in `info["cost"]` (there at every scored turn;
`wrappers.HarmCost` moves the threshold or grades it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from steer_env.algorithms.base import register_algorithm
from steer_env.algorithms.credit import Ledger, cost_ledger, reward_ledger, turn_values
from steer_env.algorithms.policy import PolicyGradient, is_flat
from steer_env.arrays import Floats
from steer_env.checks import check_numbers, check_switches
from steer_env.records import Row
from steer_env.trajectory import TrajectoryGroup


@register_algorithm("constrained_grpo")
@dataclass(kw_only=True)
class ConstrainedGRPO(PolicyGradient):
    r"""GRPO on $A_R - \lambda A_C$, with dual ascent on the multiplier $\lambda$.

    A dialogue's cost is its mean `info["cost"]` over scored turns, so the limit does not depend on length,
    and its reward counts per turn as well, so that the multiplier means the same for short and long
    dialogues; unscored turns are masked, and a dialogue without any cost takes no part. After a step
    $\lambda \leftarrow \min(\lambda_{max}, \max(0, \lambda + \eta (\bar C - d)))$ with $\bar C$ the mean over
    the step's dialogues.

    Attributes:
        limit: $d$, the highest mean cost allowed; with the default cost the share of harmful turns.
        multiplier_init: First multiplier.
        multiplier_lr: $\eta$.
        multiplier_max: Highest multiplier.
        rescale: Divide by $1 + \lambda$, which keeps step sizes apart from the multiplier.
        multiplier: $\lambda$ after the last step.
    """

    least_group: ClassVar[int] = 2

    limit: float = 0.05
    multiplier_init: float = 1.0
    multiplier_lr: float = 1.0
    multiplier_max: float = 100.0
    rescale: bool = True
    multiplier: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.credit == "counterfactual":
            raise ValueError(
                "credit='counterfactual', expected another: what a reply costs later is not looked at"
            )
        check_numbers(self, ("limit", "multiplier_init", "multiplier_lr", "multiplier_max"))
        check_switches(self, ("rescale",))
        self.multiplier = min(float(self.multiplier_init), float(self.multiplier_max))

    def group_advantages(self, group: TrajectoryGroup) -> Floats:
        """Return the advantages of reward and cost, weighed."""
        reward_TK = self.baseline(self._values([reward_ledger(t) for t in group.trajectories]))
        cost_TK = self.baseline(self._values([cost_ledger(t) for t in group.trajectories]))
        combined = reward_TK - self.multiplier * cost_TK
        return combined / (1 + self.multiplier) if self.rescale else combined

    def flat(self, group: TrajectoryGroup) -> bool:
        """Whether all members went equally well and cost the same."""
        costs = self._values([cost_ledger(t) for t in group.trajectories])
        return super().flat(group) and is_flat(costs)

    def finish(self, groups: Sequence[TrajectoryGroup]) -> Row:
        """Raise the multiplier where the step's cost was above the limit, lower it where it was below."""
        costs = np.array([cost_ledger(t).mean for group in groups for t in group.trajectories])
        costs = costs[~np.isnan(costs)]
        used, mean = self.multiplier, float(costs.mean()) if len(costs) else None
        if mean is not None:
            raised = used + self.multiplier_lr * (mean - self.limit)
            self.multiplier = min(self.multiplier_max, max(0.0, raised))
        return {"multiplier": used, "dialogue_cost": mean}

    def _values(self, ledgers: Sequence[Ledger]) -> Floats:
        return turn_values(ledgers, self.credit, discount=self.discount, per_turn=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the multiplier."""
        return {"multiplier": self.multiplier}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the multiplier back."""
        self.multiplier = float(state["multiplier"])
