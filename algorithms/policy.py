"""What all clipped policy-gradient methods share; a method of its own is often just another `baseline`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from steer_env.algorithms.advantages import group_advantages, leave_one_out
from steer_env.algorithms.base import Algorithm, TokenBatch
from steer_env.algorithms.credit import CREDITS, group_turn_values, split
from steer_env.algorithms.lookahead import PlayOn, look_ahead
from steer_env.algorithms.losses import (
    AGGREGATIONS,
    RATIOS,
    SAMPLER_WEIGHTS,
    SURROGATES,
    check_kl,
    cispo_loss,
    clipped_policy_loss,
    kl_estimate,
    kl_penalty,
    mean_over,
    reply_kl,
    sampler_weights,
    weighted_sum,
)
from steer_env.arrays import Floats
from steer_env.checks import check_choice, check_integers, check_numbers, check_switches
from steer_env.trajectory import TrajectoryGroup


@dataclass(kw_only=True)
class PolicyGradient(Algorithm):
    """Clipped policy gradient with group baselines and a KL penalty; `grpo_paper` has the paper's settings.

    Attributes:
        beta: Weight of the KL penalty; 0 does without the reference model. The default is the paper's 0.1
            divided by 4: turns' own rewards differ that much less among siblings than returns do.
        kl: The KL penalty: "k2" (gradient of the reverse KL, policy to reference) or "k3" (of the forward KL)
            in the loss, see `losses.kl_penalty`, or "reward": k1 subtracted from what a reply earns, see
            `losses.reply_kl` (reverse KL of whole replies).
        clip_low: How far the probability ratio may fall below 1, in (0, 1].
        clip_high: How far it may rise above 1 (DAPO's clip-higher if larger than `clip_low`).
        surrogate: "clip" (PPO) or "cispo", see `losses.cispo_loss`.
        sampler_weights: How the gap between sampler and trainer (bf16, a server that samples) is weighed:
            "truncate", "mask" or "none", see `losses.sampler_weights`.
        sampler_bound: Highest such weight, above 1; with "mask" the lowest is its inverse.
        ratio: What the ratio spans: "token", or the mean over a "turn" or the whole "sequence" (GSPO).
        scale: Divide advantages by the group's standard deviation.
        aggregation: "token", "sequence" or "constant", see `losses.loss_weights`.
        normaliser: Tokens that "constant" divides each dialogue's sum by.
        credit: What the tokens of a turn answer for: "own_turn", "discounted", "difference",
            "counterfactual", "reward_to_go", "turn_normalised" or "trajectory" (the paper's), see `credit`.
        discount: For "discounted": weight of the next turn's reward, in [0, 1]; the turn's own has weight 1.
        forks: For "counterfactual": continuations played from each point.
        fork_turns: For "counterfactual": most turns of a group that are played on from.
        drop_flat: Leave groups out whose returns are all equal (DAPO's dynamic sampling, arXiv 2503.14476,
            eq. 11, without drawing others in their place): they would add a KL penalty and nothing else.
            Without that, nothing pulls a student back from a habit in which all siblings are wrong.
        leave_one_out: Compare each sibling with the mean of the others rather than with that of all, which
            makes the advantages K / (K - 1) times as large.

    Raises:
        ValueError: If an option is out of its range.
    """

    beta: float = 0.025
    kl: str = "k2"
    clip_low: float = 0.2
    clip_high: float = 0.2
    surrogate: str = "clip"
    sampler_weights: str = "truncate"
    sampler_bound: float = 2.0
    ratio: str = "token"
    scale: bool = False
    aggregation: str = "token"
    normaliser: float = 256.0
    credit: str = "own_turn"
    discount: float = 0.5
    forks: int = 4
    fork_turns: int = 2
    drop_flat: bool = False
    leave_one_out: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, ("beta",))
        check_numbers(self, ("clip_low",), 0, 1, above=True)
        check_numbers(self, ("clip_high", "normaliser"), above=True)
        check_kl(self.kl, ("reward",))
        check_numbers(self, ("sampler_bound",), 1, above=True)
        check_choice(self, "surrogate", SURROGATES)
        check_choice(self, "sampler_weights", SAMPLER_WEIGHTS)
        check_choice(self, "ratio", RATIOS)
        check_choice(self, "aggregation", AGGREGATIONS)
        check_choice(self, "credit", CREDITS)
        check_numbers(self, ("discount",), 0, 1)
        check_integers(self, ("forks", "fork_turns"), 1)
        if self.credit == "counterfactual" and self.least_group < 2:
            raise ValueError(
                f"credit='counterfactual' with {self.name}, expected an algorithm that compares siblings"
            )
        check_switches(self, ("scale", "drop_flat", "leave_one_out"))

    def baseline(self, returns_TK: Floats) -> Floats:
        """Return advantages of the members of a group, (T, K), from what their turns answer for.

        Undefined members are NaN and get advantage 0.
        """
        scaled = self.scale or self.credit == "turn_normalised"
        if not self.leave_one_out:
            return group_advantages(returns_TK, scale=scaled)
        if not scaled:
            return leave_one_out(returns_TK)
        count = (~np.isnan(returns_TK)).sum(1, keepdims=True)
        return group_advantages(returns_TK, scale=True) * count / np.maximum(count - 1, 1)

    def group_advantages(self, group: TrajectoryGroup) -> Floats:
        """Return the advantages of a group's turns, (T, K), or (1, K) where all turns share one."""
        return self.baseline(group_turn_values(group, self.credit, discount=self.discount))

    def look_ahead(self, groups: Sequence[TrajectoryGroup], play_on: PlayOn) -> None:
        """Play dialogues on where the credit asks for it."""
        if self.credit == "counterfactual":
            look_ahead(groups, play_on, self.forks, self.fork_turns)

    def flat(self, group: TrajectoryGroup) -> bool:
        """Whether all members went equally well, so that there is nothing to learn from comparing them."""
        return is_flat(group_turn_values(group, self.credit, discount=self.discount))

    def turn_advantages(self, groups: Sequence[TrajectoryGroup]) -> list[NDArray[np.floating[Any]] | None]:
        """Compare the members of each group."""
        result: list[NDArray[np.floating[Any]] | None] = []
        for group in groups:
            if self.drop_flat and self.flat(group):
                result += [None] * len(group)
            else:
                result += split(self.group_advantages(group), group.trajectories)
        return result

    def loss(self, batch: TokenBatch) -> Tensor:
        """Return the surrogate, weighed for the gap to the sampler, plus the KL penalty."""
        weights_N = batch.weights(self.aggregation, self.normaliser)
        policy_N, clipped_N = self._surrogate(batch)
        batch.tally.tokens("clipped", clipped_N.float(), batch.mask_N)
        if batch.sampler_N is not None and self.sampler_weights != "none":
            gap_N, cut_N = sampler_weights(
                batch.old_N, batch.sampler_N, self.sampler_weights, self.sampler_bound
            )
            batch.tally.tokens("gap_cut", cut_N.float(), batch.mask_N)
            policy_N = policy_N * gap_N
        return weighted_sum(policy_N, weights_N) + self.penalty(batch, weights_N)

    def _surrogate(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Losses of the tokens, and where the clip bites."""
        new_N, old_N = self._log_ratio(batch)
        advantages_N, clip = self._advantages(batch), (self.clip_low, self.clip_high)
        if self.surrogate == "cispo":
            return cispo_loss(batch.logprobs_N, new_N - old_N, advantages_N, *clip)
        return clipped_policy_loss(new_N, old_N, advantages_N, *clip)

    def penalty(self, batch: TokenBatch, weights_N: Tensor) -> Tensor | float:
        """Return the weighted KL penalty, 0 without a reference or where it is in the reward."""
        if batch.reference_N is None:
            return 0.0
        batch.tally.tokens("kl", kl_estimate(batch.logprobs_N, batch.reference_N), batch.mask_N)
        if self.kl == "reward":
            return 0.0
        return self.beta * weighted_sum(kl_penalty(batch.logprobs_N, batch.reference_N, self.kl), weights_N)

    def _advantages(self, batch: TokenBatch) -> Tensor:
        """The advantages, less the KL where that is in the reward."""
        if batch.reference_N is None or self.kl != "reward":
            return batch.advantages_N
        kl_N = reply_kl(batch.old_N, batch.reference_N, _replies(batch), batch.mask_N)
        return batch.advantages_N - self.beta * kl_N

    def _log_ratio(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Two log-probabilities whose difference is the logarithm of the ratio."""
        if self.ratio == "token":
            return batch.logprobs_N, batch.old_N
        segments_N = _replies(batch) if self.ratio == "turn" else batch.rows_N
        mean_N = mean_over(batch.logprobs_N - batch.old_N, segments_N, batch.mask_N)
        return mean_N, mean_N.new_zeros(mean_N.shape)


def _replies(batch: TokenBatch) -> Tensor:
    """Number of each token's reply."""
    return batch.rows_N * (batch.turns_N.max() + 1) + batch.turns_N


def is_flat(returns_TK: Floats) -> bool:
    """Whether the defined values of each row are all equal."""
    rows = [row[~np.isnan(row)] for row in returns_TK]
    return all(len(row) == 0 or bool(np.ptp(row) < 1e-9) for row in rows)
