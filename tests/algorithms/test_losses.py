import doctest
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer_env.algorithms import losses
from steer_env.algorithms.losses import clipped_policy_loss, kl_penalty, loss_weights, mean_over, weighted_sum

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
def test_k3_is_never_negative_and_zero_only_for_equals(values, rng):
    a = torch.tensor(values, dtype=torch.float64)
    b = torch.tensor([v - rng.random() for v in values], dtype=torch.float64)
    assert (kl_penalty(a, b) >= 0).all()
    assert (kl_penalty(a, a) == 0).all()


def test_estimators_agree_in_expectation():
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    q = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
    exact = (p * (p / q).log()).sum()
    for name in ("k1", "k3"):
        assert (p * kl_penalty(p.log(), q.log(), name)).sum() == pytest.approx(float(exact))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="estimator='k2', expected 'k1' or 'k3'"):
        kl_penalty(torch.zeros(1), torch.zeros(1), "k2")
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
