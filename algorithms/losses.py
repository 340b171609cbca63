"""Losses of policy gradient methods, per token, and how to average them.

Pure functions on tensors. Shape suffix: `_N` the sampled tokens of a batch, row by row. Every function keeps
excluded tokens out with `torch.where`: multiplying by a mask turns an infinite log-probability into NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Names of the KL estimators, see `kl_penalty`.
KL_ESTIMATORS = ("k3", "k1")
#: Names of the ways to average tokens, see `loss_weights`.
AGGREGATIONS = ("token", "sequence", "constant")
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


def kl_penalty(logprobs_N: Tensor, reference_N: Tensor, estimator: str = "k3") -> Tensor:
    r"""Return a per-token estimate of $KL(\pi \| \pi_{ref})$ from tokens sampled by $\pi$, (N,).

    With $d = \log\pi_{ref} - \log\pi$: "k1" is $-d$, unbiased and noisy, sometimes negative; "k3" is
    $e^{d} - d - 1$, unbiased and never negative (Schulman 2020, "Approximating KL divergence"; used in GRPO,
    arXiv 2402.03300, eq. 4).

    Raises:
        ValueError: On another name.

    Example:
        Half as likely as under the reference: d = log 2, so k3 = 2 - log 2 - 1.

        >>> kl_penalty(torch.tensor([0.5]).log(), torch.tensor([1.0]).log())
        tensor([0.3069])
    """
    difference_N = reference_N - logprobs_N
    if estimator == "k1":
        return -difference_N
    if estimator == "k3":
        return difference_N.exp() - difference_N - 1
    raise ValueError(f"estimator={estimator!r}, expected 'k1' or 'k3'")


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
