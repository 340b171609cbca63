import doctest
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer_env.algorithms import update
from steer_env.algorithms.update import rate_share
from steer_env.configs.train import Schedule


def test_examples_in_docstrings():
    assert doctest.testmod(update).failed == 0


def shares(steps, **options):
    return [rate_share(step, steps, **options) for step in range(steps)]


def test_hand_worked():
    assert shares(4) == [1, 1, 1, 1]
    assert shares(5, warmup=3) == [0.25, 0.5, 0.75, 1, 1]
    assert shares(4, schedule="linear") == [1, 0.75, 0.5, 0.25]
    assert shares(4, schedule="linear", final=0.6) == pytest.approx([1, 0.9, 0.8, 0.7])
    assert shares(4, schedule="cosine") == pytest.approx([1, 0.5 + 2**0.5 / 4, 0.5, 0.5 - 2**0.5 / 4])
    assert rate_share(9, 4, schedule="linear", final=0.25) == 0.25  # an opponent may take more steps
    assert shares(2, warmup=5, schedule="cosine") == pytest.approx([1 / 6, 1 / 3])


@given(st.integers(1, 40), st.floats(0, 1))
def test_they_are_those_of_torch(steps, final):
    for name, make in {
        "linear": lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, final, total_iters=steps),
        "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, steps, eta_min=final),
    }.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        theirs, scheduler = [], make(optimizer)
        for _ in range(steps):
            theirs.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        assert shares(steps, schedule=name, final=final) == pytest.approx(theirs, abs=1e-6)


@given(st.sampled_from(get_args(Schedule)), st.integers(1, 30), st.integers(0, 40), st.floats(0, 1))
def test_they_rise_to_one_and_then_fall_no_further_than_they_are_told(name, steps, warmup, final):
    values = shares(steps, schedule=name, warmup=warmup, final=final)
    top = min(warmup, steps - 1)
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)
    assert all(0 < value <= 1 for value in values)
    if steps > warmup:
        assert values[top] == 1 and min(values[top:]) >= final
