"""PPO with a value head on the student's hidden states (Schulman et al. 2017, arXiv 1707.06347).

A learnt value takes the place of the siblings. Groups are not needed: each turn is compared with what could
be expected from its own history. That pays off when rollouts are expensive and dialogues long, if the critic
is accurate; in small batches the group mean is often the better baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steer_env.algorithms.advantages import gae
from steer_env.algorithms.base import Example, TokenBatch, make_example, register_algorithm
from steer_env.algorithms.credit import turn_rewards
from steer_env.algorithms.forward import Forward
from steer_env.algorithms.losses import weighted_sum
from steer_env.algorithms.policy import PolicyGradient
from steer_env.arrays import Floats
from steer_env.checks import check_choice, check_numbers, check_switches
from steer_env.records import Row
from steer_env.trajectory import Trajectory, TrajectoryGroup


@register_algorithm("ppo")
@dataclass(kw_only=True)
class PPO(PolicyGradient):
    r"""Clipped surrogate on generalised advantages, and a value head trained on $\lambda$-returns.

    The value of a step is read from the hidden state that predicts its first token, before anything of the
    reply is known. The head is linear, starts at zero, and has an optimiser group of its own; its error does
    not reach the language model. An unscored turn's reward counts as in `credit.turn_rewards`, and its tokens
    train neither policy nor head. `scale`, `credit` and `drop_flat`, which compare siblings, would be without
    effect and are refused.

    Attributes:
        beta: Weight of the KL penalty; higher than elsewhere, because advantages are whitened.
        credit: "trajectory" only.
        unit: What a step is: a "turn" (its tokens share one advantage) or a "token" (the turn's reward
            comes with its last token). With tokens, a `trace_decay` below 1 forgets over about
            1/(1 - trace_decay) tokens, often less than a turn.
        discount: $\gamma$ per step, in [0, 1].
        trace_decay: $\lambda$ per step, in [0, 1].
        head_lr: Learning rate of the head.
        whiten: Give the batch's advantages mean 0 and deviation 1 over tokens.
    """

    needs_hidden: ClassVar[bool] = True

    beta: float = 0.1
    credit: str = "trajectory"
    unit: str = "turn"
    discount: float = 1.0
    trace_decay: float = 0.95
    head_lr: float = 1e-2
    whiten: bool = True
    _head: torch.nn.Linear = field(init=False, repr=False)
    _forward: Forward = field(init=False, repr=False)
    _explained: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "unit", ("turn", "token"))
        check_numbers(self, ("discount", "trace_decay"), 0, 1)
        check_numbers(self, ("head_lr",))
        check_switches(self, ("whiten",))
        for name, neutral in (("scale", False), ("credit", "trajectory"), ("drop_flat", False)):
            if getattr(self, name) != neutral:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}, expected {neutral!r}: ppo does not compare siblings"
                )

    def setup(self, forward: Forward) -> None:
        """Make the value head."""
        self._forward = forward
        # skip_init draws nothing: random weights would only be overwritten, and move torch's generator.
        self._head = torch.nn.utils.skip_init(torch.nn.Linear, forward.width, 1)
        for parameter in self._head.parameters():
            torch.nn.init.zeros_(parameter)
        self._head.to(forward.student.model.device)

    def parameters(self) -> list[dict[str, Any]]:
        """Return the head's weights."""
        return [{"params": list(self._head.parameters()), "lr": self.head_lr, "weight_decay": 0.0}]

    def examples(self, groups: Sequence[TrajectoryGroup]) -> list[Example]:
        """Estimate values, then advantages and targets of every token."""
        members = [t for group in groups for t in group.trajectories]
        plain = [make_example(t, np.zeros(len(t.turns))) for t in members]
        kept = [(t, e) for t, e in zip(members, plain, strict=True) if e is not None]
        values = self._values([example for _, example in kept])
        made = [self._estimate(t, e, v) for (t, e), v in zip(kept, values, strict=True)]
        self._explained = _explained_variance(made)
        return _whitened(made) if self.whiten else made

    def loss(self, batch: TokenBatch) -> Tensor:
        """Return the surrogate with its KL penalty, and half the squared error of the values."""
        assert batch.hidden_NH is not None
        values_N = self._head(batch.hidden_NH)[:, 0]
        error_N = 0.5 * (values_N - batch.extras["target"]).square()
        marked_N = batch.extras["marked"].bool()
        batch.tally.tokens("value_loss", error_N, marked_N)
        return super().loss(batch) + weighted_sum(error_N, batch.weights("sequence", mask_N=marked_N))

    def finish(self, groups: Sequence[TrajectoryGroup]) -> Row:
        """Report how much of the targets' variance the values explained before the update."""
        return {"explained_variance": self._explained}

    def state_dict(self) -> dict[str, Any]:
        """Return the head's weights."""
        return {"head": {name: value.cpu().clone() for name, value in self._head.state_dict().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the head's weights back, also before `setup`, which makes a new head."""
        if not hasattr(self, "_head"):
            self._head = torch.nn.utils.skip_init(torch.nn.Linear, state["head"]["weight"].shape[1], 1)
        self._head.load_state_dict(state["head"])

    @torch.no_grad()
    def _values(self, examples: Sequence[Example]) -> list[Floats]:
        """Value at each sampled token of each dialogue."""
        dialogues = [example.dialogue for example in examples]
        values: dict[int, Floats] = {}
        for indices in self._forward.dealt(dialogues):
            packed, hidden_NH = self._forward.policy_and_hidden([dialogues[i] for i in indices])
            values_N = self._head(hidden_NH)[:, 0]
            for row, index in enumerate(indices):
                values[index] = values_N[packed.rows_N == row].double().cpu().numpy()
        for others in self._forward.parallel.everyone(values):
            values.update(others)
        return [values[index] for index in range(len(dialogues))]

    def _estimate(self, trajectory: Trajectory, example: Example, values_S: Floats) -> Example:
        trace = example.dialogue.trace
        rewards = np.nan_to_num(turn_rewards(trajectory))  # all or nothing is NaN, and nothing was dropped
        at = np.flatnonzero(trace.sampled_L)
        first, last = _ends(trace.turn_L[at])
        advantages_L, target_L, marked_L = (np.zeros(len(trace), np.float32) for _ in range(3))
        if self.unit == "turn":
            # Turns without a token of their own (an empty reply has its closing one) do not occur.
            advantages_T = self._gae(rewards[trace.turn_L[at[first]]], values_S[first])
            marked_L[at[first]] = 1.0
            target_L[at[first]] = advantages_T + values_S[first]
            advantages_L[at] = np.repeat(advantages_T, last - first + 1)
        else:
            rewards_S = np.zeros(len(at))
            rewards_S[last] = rewards[trace.turn_L[at[last]]]
            advantages_S = self._gae(rewards_S, values_S)
            marked_L[at], target_L[at] = 1.0, advantages_S + values_S
            advantages_L[at] = advantages_S
        mask_L = example.mask_L
        extras = {"target": target_L, "marked": np.where(mask_L, marked_L, np.float32(0.0))}
        return Example(example.dialogue, np.where(mask_L, advantages_L, np.float32(0.0)), mask_L, extras)

    def _gae(self, rewards_S: Floats, values_S: Floats) -> Floats:
        return gae(rewards_S, values_S, discount=self.discount, trace_decay=self.trace_decay)


def _ends(turn_S: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last place of each turn among the sampled tokens."""
    changes = np.flatnonzero(np.diff(turn_S))
    return np.append(0, changes + 1), np.append(changes, len(turn_S) - 1)


def _whitened(examples: Sequence[Example]) -> list[Example]:
    if not examples:
        return []
    values = np.concatenate([e.advantages_L[e.mask_L] for e in examples]).astype(np.float64)
    mean, deviation = values.mean(), values.std() + 1e-8
    return [
        Example(
            e.dialogue,
            np.where(e.mask_L, (e.advantages_L - mean) / deviation, 0.0).astype(np.float32),
            e.mask_L,
            e.extras,
        )
        for e in examples
    ]


def _explained_variance(examples: Sequence[Example]) -> float | None:
    """1 - Var(target - value) / Var(target) over steps, None if the targets do not vary.

    Target minus value is the advantage, which is therefore taken before whitening.
    """
    if not examples:
        return None
    marks = [e.extras["marked"] > 0 for e in examples]
    targets = np.concatenate([e.extras["target"][m] for e, m in zip(examples, marks, strict=True)])
    errors = np.concatenate([e.advantages_L[m] for e, m in zip(examples, marks, strict=True)])
    variance = float(targets.var())
    return 1 - float(errors.var()) / variance if variance > 1e-12 else None
