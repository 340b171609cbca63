"""Losses of policy gradient methods, per token, and how to average them.

Pure functions on tensors. Shape suffix: `_N` the sampled tokens of a batch, row by row. Every function keeps
excluded tokens out with `torch.where`: multiplying by a mask turns an infinite log-probability into NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: Names of the KL penalties of the loss, see `kl_penalty`.
KL_ESTIMATORS = ("k2", "k3")
#: Above this log-ratio (a token ten times likelier under the reference) k3 goes on as its tangent.
K3_LIMIT = math.log(10.0)
#: Names of the ways to average tokens, see `loss_weights`.
AGGREGATIONS = ("token", "sequence", "constant")
#: Names of the surrogates, see `clipped_policy_loss` and `cispo_loss`.
SURROGATES = ("clip", "cispo")
#: Names of the ways to weigh the gap to the sampler, see `sampler_weights`.
SAMPLER_WEIGHTS = ("truncate", "mask", "none")
#: What a probability ratio spans, see `mean_over`.
RATIOS = ("token", "turn", "sequence")


def clipped_policy_loss(
    logprobs_N: Tensor, old_N: Tensor, advantages_N: Tensor, clip_low: float = 0.2, clip_high: float = 0.2
) -> tuple[Tensor, Tensor]:
    r"""Return the clipped surrogate of every token, and where the clip bites.

    $-\min(\rho A, \mathrm{clip}(\rho, 1-\epsilon_l, 1+\epsilon_h) A)$ with $\rho = \pi/\pi_{old}$ (PPO,
    Schulman et al. 2017, arXiv 1707.06347, eq. 7; different bounds: DAPO, Yu et al. 2025, arXiv 2503.14476,
    eq. 10).

    Args:
        logprobs_N: Log-probabilities under the policy that is trained.
        old_N: Log-probabilities under the policy that sampled.
        advantages_N: Advantages.
        clip_low: How far the ratio may fall below 1.
        clip_high: How far it may rise above 1.

    Returns:
        Losses and a bool mask, both (N,).

    Example:
        Ratios 2 and 0.5 with advantage 1: the first is clipped to 1.2, the second is not.

        >>> loss, clipped = clipped_policy_loss(
        ...     torch.tensor([2.0, 0.5]).log(), torch.zeros(2), torch.ones(2))
        >>> loss, clipped
        (tensor([-1.2000, -0.5000]), tensor([ True, False]))
    """
    ratio_N = (logprobs_N - old_N).exp()
    free_N = ratio_N * advantages_N
    bound_N = ratio_N.clamp(1 - clip_low, 1 + clip_high) * advantages_N
    return -torch.minimum(free_N, bound_N), bound_N < free_N


def cispo_loss(
    logprobs_N: Tensor,
    log_ratio_N: Tensor,
    advantages_N: Tensor,
    clip_low: float = 1.0,
    clip_high: float = 4.0,
) -> tuple[Tensor, Tensor]:
    r"""Return CISPO's loss of every token, and where its weight is clipped.

    $-\mathrm{sg}(\mathrm{clip}(\rho, 1-\epsilon_l, 1+\epsilon_h)) A \log\pi$ (MiniMax-M1, arXiv 2506.13585,
    sec. 3.1): the ratio is a weight, clipped and without gradient, so a token that moved far is held back
    and not dropped, as the clip of `clipped_policy_loss` drops it.

    Args:
        logprobs_N: Log-probabilities under the policy that is trained.
        log_ratio_N: Logarithm of the ratio.
        advantages_N: Advantages.
        clip_low: How far the weight may fall below 1; 1 is no bound.
        clip_high: How far it may rise above 1.

    Returns:
        Losses and a bool mask, both (N,).

    Example:
        Ratio 8 is clipped to 5 and keeps its gradient, -5 A.

        >>> cispo_loss(torch.tensor([-1.0]), torch.tensor([8.0]).log(), torch.ones(1))
        (tensor([5.]), tensor([True]))
    """
    ratio_N = log_ratio_N.detach().exp()
    weight_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    return -weight_N * advantages_N * logprobs_N, weight_N != ratio_N


def sampler_weights(
    old_N: Tensor, sampler_N: Tensor, mode: str = "truncate", bound: float = 2.0
) -> tuple[Tensor, Tensor]:
    r"""Return importance weights for the gap between sampler and trainer, and where they were cut.

    Tokens come from the sampler, expectations are to be under the trainer's policy, so a token's loss has the
    weight $w = \pi_{old} / \pi_{sampler}$. Its variance is bounded in one of two ways:

    - "truncate": $\min(w, C)$ (truncated importance sampling; Yao et al. 2025, "Your efficient RL framework
      secretly brings you off-policy RL training").
    - "mask": tokens with $w$ outside $[1/C, C]$ are left out, $w$ = 0 (IcePop, arXiv 2510.18855): where the
      two disagree so much, neither is believed.

    Args:
        old_N: Log-probabilities of the step's first policy as the trainer computes them.
        sampler_N: As the sampler reported them.
        mode: "truncate", "mask", or "none" for weights of 1.
        bound: $C$, above 1.

    Returns:
        Weights and a bool mask, both (N,), without gradient.

    Example:
        >>> old, sampler = torch.tensor([4.0, 0.25, 1.5]).log(), torch.zeros(3)
        >>> sampler_weights(old, sampler)[0], sampler_weights(old, sampler, "mask")[0]
        (tensor([2.0000, 0.2500, 1.5000]), tensor([0.0000, 0.0000, 1.5000]))
    """
    weight_N = (old_N - sampler_N).detach().exp()
    if mode == "truncate":
        return weight_N.clamp(max=bound), weight_N > bound
    if mode == "mask":
        outside_N = (weight_N > bound) | (weight_N < 1 / bound)
        return torch.where(outside_N, 0.0, weight_N), outside_N
    return torch.ones_like(weight_N), torch.zeros_like(weight_N, dtype=torch.bool)


def kl_penalty(logprobs_N: Tensor, reference_N: Tensor, estimator: str = "k2") -> Tensor:
    r"""Return a per-token KL penalty for the loss, from tokens sampled by $\pi$; (N,).

    What counts in a loss is the gradient, and that need not be of the KL whose value the estimator has
    (arXiv 2506.09477, 2512.21852). With $d = \log\pi_{ref} - \log\pi$:

    - "k2" is $d^2 / 2$. Its expected gradient is that of the reverse KL, $KL(\pi \| \pi_{ref})$; its value is
      not an estimate of it. The gradient of a token is $-d$: it grows with the log of the ratio only.
    - "k3" is $e^d - d - 1$ (GRPO, arXiv 2402.03300, eq. 4). Its value is an unbiased estimate of
      $KL(\pi \| \pi_{ref})$, its expected gradient is that of the *forward* KL, $KL(\pi_{ref} \| \pi)$. The
      gradient of a token is $1 - e^d$, thousands where the policy has given up a token that the reference
      likes, so above `K3_LIMIT` the curve goes on as its tangent: at most 9, and still pulling back.

    Both agree to first order near $d = 0$. "k1", $-d$, estimates $KL(\pi \| \pi_{ref})$ without bias, but its
    expected gradient in a loss is 0: the mean of $\nabla \log\pi$. It belongs into the reward, `reply_kl`.

    Raises:
        ValueError: On another name.

    Example:
        Half as likely as under the reference: d = log 2, so k2 is (log 2)^2 / 2 and k3 is 2 - log 2 - 1.

        >>> half, one = torch.tensor([0.5]).log(), torch.tensor([1.0]).log()
        >>> kl_penalty(half, one), kl_penalty(half, one, "k3")
        (tensor([0.2402]), tensor([0.3069]))
    """
    check_kl(estimator)
    difference_N = reference_N - logprobs_N
    if estimator == "k2":
        return 0.5 * difference_N.square()
    near_N = difference_N.clamp(max=K3_LIMIT)
    return near_N.exp() - near_N - 1 + (math.exp(K3_LIMIT) - 1) * (difference_N - near_N)


def check_kl(estimator: str, others: Sequence[str] = ()) -> None:
    """Refuse names that are no KL penalty, with what to take instead of k1.

    Args:
        estimator: The name.
        others: Names that may be given beside `KL_ESTIMATORS`.

    Raises:
        ValueError: If it is unknown, or "k1".
    """
    names = (*KL_ESTIMATORS, *others)
    if estimator not in names:
        why = ""
        if estimator == "k1":
            why = "; the gradient of k1 in a loss is 0 in expectation, k2 has the one that is meant"
            why += " and 'reward' subtracts k1 from what a reply earns" if others else ""
        raise ValueError(f"kl={estimator!r}, expected one of {', '.join(map(repr, names))}{why}")


def kl_estimate(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    r"""Return an estimate of $KL(\pi \| \pi_{ref})$ per token sampled by $\pi$, for metrics; (N,).

    k3 without a limit (Schulman 2020, "Approximating KL divergence"): unbiased and never negative, precise
    where the policies are close, with rare large values where they are not. Without gradient.
    """
    difference_N = (reference_N - logprobs_N).detach()
    return difference_N.exp() - difference_N - 1


def reply_kl(logprobs_N: Tensor, reference_N: Tensor, segments_N: Tensor, mask_N: Tensor) -> Tensor:
    r"""Return what each token answers for where the KL is in the reward: k1 from there to the reply's end.

    $\sum_{s \ge t} \log\pi(y_s) - \log\pi_{ref}(y_s)$ over the tokens of a reply. Subtracted from advantages,
    it gives the gradient of the reverse KL of whole replies, $KL(\pi(y) \| \pi_{ref}(y))$, with
    what a token does to those after it, which a penalty per token in the loss leaves out; and more noise.

    Args:
        logprobs_N: Log-probabilities under the policy that sampled.
        reference_N: Under the reference.
        segments_N: Number of each token's reply, counted from 0; the tokens of a reply are neighbours.
        mask_N: Which tokens take part, bool.

    Returns:
        (N,), without gradient, 0 outside the mask.

    Example:
        >>> reply_kl(torch.tensor([1.0, 2.0, 5.0]), torch.zeros(3), torch.tensor([0, 0, 1]),
        ...     torch.tensor([True] * 3))
        tensor([3., 2., 5.])
    """
    kl_N = torch.where(mask_N, logprobs_N - reference_N, 0.0).detach().double()
    before_N = kl_N.cumsum(0) - kl_N
    first_N = segments_N.diff(prepend=segments_N[:1] - 1) != 0
    reply_N = first_N.cumsum(0) - 1
    sums = kl_N.new_zeros(int(first_N.sum())).index_add(0, reply_N, kl_N)
    to_go_N = (sums + before_N[first_N])[reply_N] - before_N
    return torch.where(mask_N, to_go_N, 0.0).to(logprobs_N.dtype)


def mean_over(values_N: Tensor, segments_N: Tensor, mask_N: Tensor) -> Tensor:
    r"""Replace every value by the mean of its segment over the mask; (N,).

    Of log-ratios it gives the logarithm of GSPO's sequence-level ratio
    $s_i = (\pi(y_i) / \pi_{old}(y_i))^{1/|y_i|}$ (Zheng et al. 2025, arXiv 2507.18071, eq. 7), for segments
    that are whole dialogues or single turns.

    Args:
        values_N: Values, with gradient.
        segments_N: Number of each token's segment, counted from 0.
        mask_N: Which tokens take part, bool.

    Example:
        >>> mean_over(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]), torch.tensor([True] * 3))
        tensor([2., 2., 5.])
    """
    size = int(segments_N.max()) + 1
    kept_N = torch.where(mask_N, values_N, 0.0)
    sums = values_N.new_zeros(size).index_add(0, segments_N, kept_N)
    counts = values_N.new_zeros(size).index_add(0, segments_N, mask_N.to(values_N.dtype))
    return (sums / counts.clamp(min=1))[segments_N]


def loss_weights(mask_N: Tensor, rows_N: Tensor, mode: str = "token", normaliser: float = 1.0) -> Tensor:
    """Return the weight of every token's loss in the batch mean; (N,).

    Args:
        mask_N: Which tokens take part, bool.
        rows_N: The dialogue of each token.
        mode: "token" weighs all tokens alike (DAPO, arXiv 2503.14476, eq. 8), so long dialogues count more;
            "sequence" first averages within each dialogue (GRPO, arXiv 2402.03300, eq. 3), so tokens of long
            dialogues count less; both sum to 1. "constant" divides each dialogue's sum by the same number
            (Dr. GRPO, arXiv 2503.20783, appendix), so length changes no token's weight, whatever else is in
            the batch.
        normaliser: That number of tokens, for "constant".

    Raises:
        ValueError: On another mode.

    Example:
        >>> loss_weights(torch.tensor([True, True, True, False]), torch.tensor([0, 0, 1, 1]), "sequence")
        tensor([0.2500, 0.2500, 0.5000, 0.0000])
    """
    mask = mask_N.float()
    if mode == "token":
        return mask / mask.sum().clamp(min=1)
    if mode not in AGGREGATIONS:
        raise ValueError(f"aggregation={mode!r}, expected 'token', 'sequence' or 'constant'")
    length_B = torch.zeros(int(rows_N.max()) + 1, device=mask.device).index_add(0, rows_N, mask)
    dialogues = (length_B > 0).sum().clamp(min=1)
    if mode == "sequence":
        return mask / length_B.clamp(min=1)[rows_N] / dialogues
    return mask / normaliser / dialogues


def weighted_sum(values_N: Tensor, weights_N: Tensor) -> Tensor:
    """Return the sum of values by weights; values of weight 0 do not matter, even infinite ones.

    Example:
        >>> weighted_sum(torch.tensor([1.0, float("inf")]), torch.tensor([0.5, 0.0]))
        tensor(0.5000)
    """
    return (torch.where(weights_N > 0, values_N, 0.0) * weights_N).sum()
