"""Advantages and losses of the relatives of GRPO against hand-worked cases, and where they coincide."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.dialogues import CREDITS, advantages, batch, dialogue, group, loss_and_gradient
from steer_env.algorithms.base import Tally, make_algorithm


def test_advantages_hand_worked():
    returns = ([1.0], [2.0], [6.0])
    assert advantages("grpo", *returns) == [[-2.0], [-1.0], [3.0]]
    assert advantages("dr_grpo", *returns) == [[-2.0], [-1.0], [3.0]]
    assert advantages("rloo", *returns) == [[-3.0], [-1.5], [4.5]]
    # Sample deviation sqrt((4 + 1 + 9) / 2) = sqrt 7.
    for name in ("dapo", "gspo"):
        assert [a[0] for a in advantages(name, *returns)] == pytest.approx(
            [-0.7559, -0.3780, 1.1338], abs=1e-3
        )
    assert advantages("reinforce", *returns, baseline_kind="batch") == [[-2.0], [-1.0], [3.0]]


@given(st.lists(st.lists(st.floats(-5, 5), min_size=2, max_size=2), min_size=2, max_size=5))
def test_rloo_is_grpo_times_k_over_k_minus_1(members):
    factor = len(members) / (len(members) - 1)
    for kind in ("trajectory", "reward_to_go", "turn_normalised"):
        grpo, rloo = (np.array(advantages(name, *members, credit=kind)) for name in ("grpo", "rloo"))
        assert np.allclose(rloo, factor * grpo, atol=1e-6)


def test_flat_groups_are_dropped_only_where_asked_for():
    flat = ([1.0, 0.0], [0.0, 1.0])  # equal returns of unequal turns
    assert advantages("dapo", *flat, credit="trajectory") == [None, None]
    assert advantages("dapo", *flat, credit="trajectory", drop_flat=False) == [[0.0, 0.0], [0.0, 0.0]]
    assert advantages("grpo_paper", *flat, drop_flat=True) == [None, None]
    assert make_algorithm("dapo", credit="trajectory").examples([group(*flat)]) == []
    # What is flat as a whole may have turns to learn from.
    assert advantages("grpo", *flat, drop_flat=True) == [[0.5, -0.5], [-0.5, 0.5]]
    assert advantages("grpo", [1.0, 0.0], [1.0, 0.0], drop_flat=True) == [None, None]
    # Equal reward but unequal cost is something to learn from.
    members = [dialogue([1.0], [0.0]), dialogue([1.0], [1.0])]
    assert None not in advantages("constrained_grpo", *members, drop_flat=True)


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("returns", ["plain", "sum", "final", "mean"])
def test_reinforce_does_not_reward_length(credit, returns):
    """Dialogues that go equally well turn by turn are equally good, however many turns they have."""
    members = [group(dialogue([0.5] * turns, returns=returns)) for turns in (1, 3, 8)]
    algorithm = make_algorithm("reinforce", credit=credit, baseline_kind="batch")
    for advantage in algorithm.turn_advantages(members):
        assert advantage == pytest.approx(0.0, abs=1e-12)


def test_reinforce_takes_the_return_per_turn():
    long, short = dialogue([0.5] * 4, returns="sum"), dialogue([0.75] * 2, returns="sum")
    algorithm = make_algorithm("reinforce", credit="trajectory", baseline_kind="batch")
    got = [a.tolist() for a in algorithm.turn_advantages([group(long), group(short)])]
    assert got == [
        pytest.approx([-0.125] * 4),
        pytest.approx([0.125] * 2),
    ]  # returns 2 and 1.5 would have it the other way round


def test_the_running_baseline_is_of_earlier_steps():
    algorithm = make_algorithm("reinforce", decay=0.5)
    first, second = [group([1.0], [3.0])], [group([4.0], [8.0])]
    assert [a[0] for a in algorithm.turn_advantages(first)] == [-1.0, 1.0]  # nothing earlier: its own mean 2
    assert algorithm.finish(first) == {"baseline": 2.0}
    assert [a[0] for a in algorithm.turn_advantages(second)] == [2.0, 6.0]
    assert algorithm.finish(second) == {"baseline": 4.0}  # 0.5 * 2 + 0.5 * 6
    other = make_algorithm("reinforce", decay=0.5)
    other.load_state_dict(algorithm.state_dict())
    assert [a[0] for a in other.turn_advantages(second)] == [0.0, 4.0]
    assert algorithm.finish([group([None], [None])]) == {"baseline": 4.0}


def test_losses_of_tokens_sequences_and_a_constant_hand_worked():
    # Two dialogues of 3 tokens and 1 token, ratio 1 everywhere: the gradient is -weight * advantage.
    case = ([-1.0] * 4, [2.0, 2.0, 2.0, -1.0], [0, 0, 0, 1])
    _, token = loss_and_gradient("grpo", *case, options={"beta": 0.0})
    assert token.tolist() == pytest.approx([-0.5, -0.5, -0.5, 0.25])
    _, sequence = loss_and_gradient("grpo", *case, options={"aggregation": "sequence"})
    assert sequence.tolist() == pytest.approx([-1 / 3, -1 / 3, -1 / 3, 0.5])
    _, constant = loss_and_gradient("dr_grpo", *case, options={"normaliser": 8.0})
    assert constant.tolist() == pytest.approx([-0.125, -0.125, -0.125, 0.0625])


def test_clip_higher_lets_a_likely_token_grow_further():
    case = ([np.log(1.25)], [1.0], [0])
    assert loss_and_gradient("grpo", *case, old=[0.0])[0] == pytest.approx(-1.2)
    assert loss_and_gradient("dapo", *case, old=[0.0])[0] == pytest.approx(-1.25)


@pytest.mark.parametrize(("kl", "expected"), [("k3", 2 - np.log(2) - 1), ("k2", np.log(2) ** 2 / 2)])
def test_the_penalty_is_beta_times_the_estimate(kl, expected):
    case = ([np.log(0.5)], [0.0], [0])
    loss, _ = loss_and_gradient("grpo", *case, reference=[0.0], options={"kl": kl, "beta": 0.3})
    assert loss == pytest.approx(0.3 * expected)


def test_in_the_reward_the_kl_is_taken_from_the_advantages():
    # Two replies of one dialogue; each token answers for the log-ratios from there to its reply's end.
    case = ([-1.0, -2.0, -3.0], [2.0, 2.0, 1.0], [0, 0, 0])
    options = {"kl": "reward", "beta": 0.5}
    loss, gradient = loss_and_gradient(
        "grpo", *case, turns=[0, 0, 1], reference=[-1.5, -1.0, -1.0], options=options
    )
    advantages = np.array([2 - 0.5 * (0.5 - 1), 2 - 0.5 * -1, 1 - 0.5 * -2])
    assert loss == pytest.approx(-advantages.mean())
    assert gradient == pytest.approx(-advantages / 3)


@given(
    st.lists(st.floats(-3, -0.1), min_size=4, max_size=4),
    st.lists(st.floats(-3, -0.1), min_size=4, max_size=4),
)
def test_in_the_reward_and_on_policy_replies_of_one_token_have_the_gradient_of_k2(new, reference):
    case = (new, [1.0, -1.0, 0.5, 0.0], [0, 0, 1, 2])
    _, k2 = loss_and_gradient("grpo", *case, turns=[0, 1, 0, 0], reference=reference, options={"kl": "k2"})
    _, reward = loss_and_gradient(
        "grpo", *case, turns=[0, 1, 0, 0], reference=reference, options={"kl": "reward"}
    )
    assert np.allclose(k2, reward)


def test_dr_grpo_with_equal_lengths_is_grpo_up_to_the_constant():
    case = ([-1.0, -2.0, -0.5, -0.7], [1.0, 1.0, -1.0, -1.0], [0, 0, 1, 1])
    old = [-1.1, -1.9, -0.6, -0.6]
    plain = loss_and_gradient("grpo", *case, old=old, options={"beta": 0.0})
    constant = loss_and_gradient("dr_grpo", *case, old=old, options={"normaliser": 2.0})  # their length
    assert constant[0] == pytest.approx(plain[0])
    assert np.allclose(constant[1], plain[1])


GSPO_AS_GRPO = {"clip_low": 0.2, "clip_high": 0.2}


@given(
    st.lists(st.floats(-3, -0.1), min_size=3, max_size=3),
    st.lists(st.floats(-3, -0.1), min_size=3, max_size=3),
    st.lists(st.floats(-2, 2), min_size=3, max_size=3),
)
def test_gspo_on_replies_of_one_token_is_grpo(new, old, advantage):
    case = (new, advantage, [0, 1, 2])
    grpo = loss_and_gradient("grpo", *case, old=old, options={"aggregation": "sequence", "beta": 0.0})
    gspo = loss_and_gradient("gspo", *case, old=old, options=GSPO_AS_GRPO)
    assert gspo[0] == pytest.approx(grpo[0])
    assert np.allclose(gspo[1], grpo[1])
    # Two replies of one token in one dialogue: a ratio per turn is a ratio per token.
    case = (new, [advantage[0]] * 2 + [advantage[2]], [0, 0, 1])
    grpo = loss_and_gradient("grpo", *case, old=old, options={"aggregation": "sequence", "beta": 0.0})
    gspo = loss_and_gradient(
        "gspo", *case, old=old, turns=[0, 1, 0], options=GSPO_AS_GRPO | {"ratio": "turn"}
    )
    assert np.allclose(gspo[1], grpo[1])


def test_gspo_hand_worked():
    # One dialogue, ratios 2 and 1/2: their geometric mean is 1, so nothing is clipped and the loss is -A.
    loss, gradient = loss_and_gradient("gspo", [np.log(2), np.log(0.5)], [3.0, 3.0], [0, 0], old=[0.0, 0.0])
    assert loss == pytest.approx(-3.0)
    assert gradient.tolist() == pytest.approx([-1.5, -1.5])  # -A s / |y| for every token
    token, gradient = loss_and_gradient("grpo", [np.log(2), np.log(0.5)], [3.0, 3.0], [0, 0], old=[0.0, 0.0])
    assert token == pytest.approx(-3 * (1.2 + 0.5) / 2)
    assert gradient[0] == 0.0  # clipped


def test_what_a_loss_reports_hand_worked():
    # Ratios 2, 1 and 1/4 with advantage 1: only the first is clipped. The KL reported is k3's value.
    logprobs = [np.log(0.5), np.log(0.5), np.log(0.25)]
    tokens = batch(
        logprobs, [1.0] * 3, [0, 0, 1], old=[np.log(0.25), np.log(0.5), 0.0], reference=[0.0, 0.0, 0.0]
    )
    for kl in ("k2", "k3", "reward"):
        tally = Tally()
        make_algorithm("grpo", kl=kl).loss(dataclasses.replace(tokens, tally=tally))
        means = tally.means()
        assert means["clipped"] == pytest.approx(1 / 3)
        assert means["kl"] == pytest.approx((2 * (2 - np.log(2) - 1) + 4 - np.log(4) - 1) / 3)


def test_dapo_averages_over_tokens_and_keeps_no_reference():
    case = ([-1.0] * 4, [2.0, 2.0, 2.0, -1.0], [0, 0, 0, 1])
    _, gradient = loss_and_gradient("dapo", *case)
    assert gradient.tolist() == pytest.approx([-0.5, -0.5, -0.5, 0.25])
    assert make_algorithm("dapo").beta == 0
