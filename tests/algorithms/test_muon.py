"""Muon: against torch's own, and against a singular value decomposition."""

from __future__ import annotations

import pytest
import torch

from steer_env.algorithms.muon import Muon, orthogonalized

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (1, 3)])
def test_singular_values_come_close_to_one_and_vectors_stay(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalized(matrix, COEFFICIENTS, 5)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    for _ in range(5):  # the same polynomial on the singular values alone
        s = COEFFICIENTS[0] * s + COEFFICIENTS[1] * s**3 + COEFFICIENTS[2] * s**5
    torch.testing.assert_close(found, u @ torch.diag(s) @ v, atol=1e-4, rtol=1e-4)
    assert s.min() > 0.5 and s.max() < 1.3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": False, "weight_decay": 0.0, "momentum": 0.8},
        {"lr": 0.05, "adjust_lr_fn": "match_rms_adamw", "eps": 8.0},
    ],
)
def test_steps_are_those_of_torch_but_for_rounding(options):
    made = torch.Generator().manual_seed(1)
    start = [torch.randn(6, 10, generator=made), torch.randn(10, 6, generator=made)]
    grads = [[torch.randn(w.shape, generator=made) for w in start] for _ in range(4)]
    ended = []
    for kind in (torch.optim.Muon, Muon):
        weights = [torch.nn.Parameter(w.clone()) for w in start]
        optimizer = kind(weights, **{"lr": 0.02} | options)
        for step in grads:
            for weight, grad in zip(weights, step, strict=True):
                weight.grad = grad.clone()
            optimizer.step()
        ended.append((weights, optimizer.state_dict()))
    (theirs, their_state), (ours, our_state) = ended
    for a, b, before in zip(theirs, ours, start, strict=True):
        assert (b - before).norm() > 0.1
        assert (a - b).norm() < 0.02 * (b - before).norm()  # bfloat16 has three digits
    assert their_state["param_groups"] == our_state["param_groups"]
    for key, state in their_state["state"].items():
        torch.testing.assert_close(state["momentum_buffer"], our_state["state"][key]["momentum_buffer"])


def test_a_closure_is_called_with_gradients():
    weight = torch.nn.Parameter(torch.eye(3))
    optimizer = Muon([weight], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
    assert optimizer.step(closure).item() < 3.0
