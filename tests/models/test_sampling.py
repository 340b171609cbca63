"""Drawing tokens: what `top_p` and `top_k` leave, by hand, by enumeration, and beside transformers' own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from steer_env.models.sampling import pick, truncated

MASS = (0.1, 0.4, 0.05, 0.3, 0.15)


@pytest.mark.parametrize(
    ("top_p", "top_k", "left"),
    [
        (1.0, 0, {0, 1, 2, 3, 4}),
        (1.0, 2, {1, 3}),
        (1.0, 9, {0, 1, 2, 3, 4}),
        (0.3, 0, {1}),  # the likeliest stays, however small the share
        (0.5, 0, {1, 3}),
        (0.75, 0, {1, 3, 4}),
        (0.75, 3, {1, 3}),  # of the 0.85 that three of them hold, 0.7 is 0.82
        (0.83, 3, {1, 3, 4}),
        (0.75, 1, {1}),
    ],
)
def test_what_stays_by_hand(top_p, top_k, left):
    kept = truncated(torch.tensor([MASS]), top_p, top_k)[0]
    assert set(torch.nonzero(kept)[:, 0].tolist()) == left
    assert torch.equal(kept[kept > 0], torch.tensor(MASS)[kept > 0])


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.75, 0), (1.0, 3), (0.8, 3)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_every_number_draws_its_token_and_tells_the_whole_distributions_log_probability(
    top_p, top_k, temperature
):
    rows = 20_000
    uniform = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    logits = torch.tensor([MASS]).log().expand(rows, -1).clone()
    token, logprob = pick(logits, uniform, temperature, top_p, top_k)
    whole = (torch.tensor(MASS).log() / temperature).softmax(0)
    left = truncated(whole[None], top_p, top_k)[0]
    drawn = torch.bincount(token, minlength=5) / rows
    assert torch.allclose(drawn, left / left.sum(), atol=2e-4)
    assert torch.allclose(logprob, whole.log()[token], atol=1e-6)


@given(
    st.lists(st.integers(-32, 32), min_size=2, max_size=12, unique=True),
    st.floats(0.01, 0.99),
    st.integers(0, 12),
    st.floats(0.2, 3),
)
def test_transformers_leaves_the_same(logits, top_p, top_k, temperature):
    row = torch.tensor([logits]) / 4
    theirs = TemperatureLogitsWarper(temperature)(None, row)
    if top_k:
        theirs = TopKLogitsWarper(top_k)(None, theirs)
    ours = truncated((row / temperature).softmax(1), top_p, top_k)
    share = theirs.softmax(1).sort(descending=True)[0].cumsum(1)
    if (share - top_p).abs().min() > 1e-5:  # on the edge rounding decides
        theirs = TopPLogitsWarper(top_p)(None, theirs)
        assert torch.equal(ours > 0, theirs.softmax(1) > 0)


def test_a_row_is_cut_as_it_would_be_alone():
    rng = np.random.default_rng(0)
    logits, uniform = torch.from_numpy(rng.normal(size=(4, 50))).float(), torch.from_numpy(rng.random(4))
    temperature = torch.tensor([1.0, 0.0, 0.5, 2.0])
    top_p, top_k = torch.tensor([1.0, 0.5, 0.9, 0.3]), torch.tensor([0, 0, 5, 3])
    together = pick(logits.clone(), uniform, temperature, top_p, top_k)
    for row in range(4):
        one = slice(row, row + 1)
        alone = pick(logits[one].clone(), uniform[one], temperature[one], float(top_p[row]), int(top_k[row]))
        assert alone[0] == together[0][one] and torch.equal(alone[1], together[1][one])
