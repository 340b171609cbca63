import doctest
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer_env.algorithms import losses
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.losses import (
    K3_LIMIT,
    KL_ESTIMATORS,
    clipped_policy_loss,
    kl_estimate,
    kl_penalty,
    loss_weights,
    mean_over,
    reply_kl,
    weighted_sum,
)

numbers = st.lists(st.floats(-5, 0), min_size=1, max_size=8)


def test_examples_in_docstrings():
    assert doctest.testmod(losses).failed == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.5, 1.0, -1.2, True),  # rising further is not rewarded
        (1.5, -1.0, 1.5, False),  # a bad token that became likelier is punished in full
        (0.5, 1.0, -0.5, False),
        (0.5, -1.0, 0.8, True),
        (3.0, 0.0, 0.0, False),
    ],
)
def test_clip_hand_worked(ratio, advantage, loss, clipped):
    value, where = clipped_policy_loss(
        torch.tensor([math.log(ratio)]), torch.zeros(1), torch.tensor([advantage])
    )
    assert value.item() == pytest.approx(loss, abs=1e-6)
    assert where.item() is clipped


def test_a_constant_normaliser_makes_weights_independent_of_what_else_is_in_the_batch():
    mask, rows = torch.tensor([True, True, False, True]), torch.tensor([0, 0, 0, 1])
    # Two dialogues, each divided by 4.
    assert loss_weights(mask, rows, "constant", 4.0).tolist() == [0.125, 0.125, 0.0, 0.125]


def test_the_mean_over_a_segment_ignores_what_is_masked():
    values = torch.tensor([1.0, 3.0, float("-inf"), 5.0], requires_grad=True)
    mask, segments = torch.tensor([True, True, False, True]), torch.tensor([0, 0, 0, 1])
    means = mean_over(values, segments, mask)
    assert means.tolist() == [2.0, 2.0, 2.0, 5.0]
    (gradient,) = torch.autograd.grad(means[0] + means[3], values)
    assert gradient.tolist() == [0.5, 0.5, 0.0, 1.0]


def test_clip_bounds_may_differ():
    logprobs = torch.tensor([math.log(1.25), math.log(1.4)])
    value, _ = clipped_policy_loss(logprobs, torch.zeros(2), torch.ones(2), 0.2, 0.3)
    assert value.tolist() == pytest.approx([-1.25, -1.3])


def test_gradient_at_the_sampling_policy_is_the_policy_gradient():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss, _ = clipped_policy_loss(logprobs, logprobs.detach(), torch.tensor([3.0, -1.0]))
    loss.sum().backward()
    assert logprobs.grad.tolist() == [-3.0, 1.0]


@given(numbers, st.randoms())
def test_penalties_are_never_negative_and_zero_only_for_equals(values, rng):
    a = torch.tensor(values, dtype=torch.float64)
    b = torch.tensor([v - rng.random() for v in values], dtype=torch.float64)
    for name in KL_ESTIMATORS:
        assert (kl_penalty(a, b, name) >= 0).all()
        assert (kl_penalty(a, a, name) == 0).all()
    assert (kl_estimate(a, b) >= 0).all()


def test_the_estimate_is_unbiased():
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    q = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
    exact = (p * (p / q).log()).sum()
    assert (p * kl_estimate(p.log(), q.log())).sum() == pytest.approx(float(exact))
    assert (p * kl_penalty(p.log(), q.log(), "k3")).sum() == pytest.approx(float(exact))


def softmax_and_reference(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    theta, other = (torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(2))
    return theta.requires_grad_(), other.log_softmax(0)


def gradient(loss, theta):
    return torch.autograd.grad(loss, theta, retain_graph=True)[0]


@pytest.mark.parametrize("seed", range(5))
def test_expected_gradients_are_those_of_the_kl_that_is_named(seed):
    """All tokens of a small softmax, weighed by their probability: no sampling, no error but rounding."""
    theta, reference = softmax_and_reference(seed)
    policy = theta.log_softmax(0)
    weight = policy.exp().detach()  # how often each token is sampled; the loss does not see through it
    reverse = gradient((policy.exp() * (policy - reference)).sum(), theta)  # KL(policy || reference)
    forward = gradient((reference.exp() * (reference - policy)).sum(), theta)  # KL(reference || policy)
    assert not torch.allclose(reverse, forward, atol=1e-2)
    k2 = gradient((weight * kl_penalty(policy, reference, "k2")).sum(), theta)
    assert torch.allclose(k2, reverse, atol=1e-12)
    k3 = gradient((weight * ((reference - policy).exp() - (reference - policy) - 1)).sum(), theta)
    assert torch.allclose(k3, forward, atol=1e-12)
    if (reference - policy).max() < K3_LIMIT:
        assert torch.allclose(gradient((weight * kl_penalty(policy, reference, "k3")).sum(), theta), k3)
    k1 = gradient((weight * (policy - reference)).sum(), theta)
    assert torch.allclose(k1, torch.zeros_like(k1), atol=1e-12)
    # In the reward: the loss of a token is its log-probability times the reward it loses.
    kl = reply_kl(policy, reference, torch.arange(len(theta)), torch.ones(len(theta), dtype=torch.bool))
    assert torch.allclose(gradient((weight * policy * kl).sum(), theta), reverse, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_in_the_reward_the_gradient_is_that_of_whole_replies(seed):
    """Replies of two tokens, the second's distribution decided by the first: enumerated one by one."""
    generator = torch.Generator().manual_seed(seed)
    theta, other = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    theta.requires_grad_()
    policy, reference = theta.log_softmax(1), other.log_softmax(1)  # row 0, then a row per first token
    exact = total = torch.zeros((), dtype=torch.float64)
    for first in range(3):
        for second in range(3):
            logprobs = torch.stack([policy[0, first], policy[1 + first, second]])
            references = torch.stack([reference[0, first], reference[1 + first, second]])
            weight = logprobs.sum().exp()
            exact = exact + weight * (logprobs - references).sum()
            kl = reply_kl(logprobs, references, torch.zeros(2).long(), torch.ones(2).bool())
            total = total + weight.detach() * (logprobs * kl).sum()
    assert torch.allclose(gradient(total, theta), gradient(exact, theta), atol=1e-12)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.floats(-3, 3)), min_size=1, max_size=12))
def test_what_a_token_answers_for_is_the_sum_to_the_end_of_its_reply(tokens):
    tokens = sorted(tokens, key=lambda token: token[0])
    segments, mask, _ = (torch.tensor(column) for column in zip(*tokens, strict=True))
    kl = torch.tensor([value for *_, value in tokens], dtype=torch.float64)
    found = reply_kl(kl, torch.zeros(len(tokens)).double(), segments, mask)
    for index, (segment, kept, _) in enumerate(tokens):
        later = [k for s, m, k in tokens[index:] if s == segment and m]
        assert found[index].item() == pytest.approx(sum(later) if kept else 0.0, abs=1e-9)


def test_a_token_that_the_policy_has_given_up_does_not_swamp_the_others():
    for name, size in (("k2", math.log(0.5) - math.log(1e-4)), ("k3", 9.0)):
        logprobs = torch.tensor([math.log(1e-4)], requires_grad=True)
        kl_penalty(logprobs, torch.tensor([math.log(0.5)]), name).backward()
        assert logprobs.grad.item() == pytest.approx(-size, rel=1e-5)  # without a limit 4,999
    at = torch.tensor([-K3_LIMIT - 1e-4, -K3_LIMIT + 1e-4], dtype=torch.float64)
    low, high = kl_penalty(at, torch.zeros(2, dtype=torch.float64), "k3")
    assert low - high == pytest.approx(9 * 2e-4, rel=1e-3)  # no jump where the tangent begins


def test_k1_in_the_loss_is_refused_with_what_to_take_instead():
    with pytest.raises(
        ValueError, match=r"kl='k1', expected one of 'k2', 'k3'; the gradient of k1 in a loss is 0"
    ):
        kl_penalty(torch.zeros(1), torch.zeros(1), "k1")
    with pytest.raises(ValueError, match=r"'k2', 'k3', 'reward'; the gradient .* and 'reward' subtracts k1"):
        make_algorithm("grpo", kl="k1")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"kl='k4', expected one of 'k2', 'k3'$"):
        kl_penalty(torch.zeros(1), torch.zeros(1), "k4")
    with pytest.raises(ValueError, match="aggregation='mean'"):
        loss_weights(torch.ones(1).bool(), torch.zeros(1).long(), "mean")


def test_weights_hand_worked():
    rows = torch.tensor([0, 0, 0, 1, 2])
    mask = torch.tensor([True, True, False, True, False])
    third = 1 / 3
    assert loss_weights(mask, rows, "token").tolist() == pytest.approx([third, third, 0, third, 0])
    # Row 2 has no token in the loss and does not count as a dialogue.
    assert loss_weights(mask, rows, "sequence").tolist() == pytest.approx([0.25, 0.25, 0, 0.5, 0])


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12))
def test_weights_sum_to_one_or_the_mask_is_empty(tokens):
    rows, mask = torch.tensor([r for r, _ in tokens]), torch.tensor([m for _, m in tokens])
    for mode in ("token", "sequence"):
        total = float(loss_weights(mask, rows, mode).sum())
        assert total == pytest.approx(1.0 if mask.any() else 0.0, abs=1e-6)


def test_infinite_values_outside_the_mask_reach_neither_loss_nor_gradient():
    values = torch.tensor([1.0, float("-inf")], requires_grad=True)
    loss = weighted_sum(values, torch.tensor([1.0, 0.0]))
    loss.backward()
    assert loss.item() == 1.0
    assert values.grad.tolist() == [1.0, 0.0]
