import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kit.dialogues import PIECES, batch, dialogue, group
from steer_env.agents.hf.packed import Packed
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.forward import Forward
from steer_env.algorithms.parallel import Parallel
from steer_env.configs.train import Scaling
from steer_env.rollout import rollout
from steer_env.trajectory import TokenTrace, Trajectory


class Fake:
    """Stands in for the model: the hidden state behind a sampled token is how many were sampled before it."""

    width = 1
    student = type("Student", (), {"model": type("Model", (), {"device": torch.device("cpu")})})

    parallel = Parallel()

    def dealt(self, dialogues):
        return [[i] for i in range(len(dialogues))]

    def policy_and_hidden(self, dialogues):
        (one,) = dialogues
        columns = torch.from_numpy(np.flatnonzero(one.trace.sampled_L))
        rows = torch.zeros_like(columns)
        packed = Packed(rows.double(), None, rows, columns)
        return packed, torch.arange(len(columns))[:, None].float()


def ppo(weight=0.0, bias=0.0, **options):
    algorithm = make_algorithm("ppo", **{"whiten": False} | options)
    algorithm.setup(Fake())
    algorithm.load_state_dict({"head": {"weight": torch.tensor([[weight]]), "bias": torch.tensor([bias])}})
    return algorithm


def test_a_state_can_be_put_back_before_setup():
    state = ppo(weight=2.0, bias=1.0).state_dict()
    fresh = make_algorithm("ppo")
    fresh.load_state_dict(state)  # as a resumed self-play does between two stages
    assert {name: float(value) for name, value in fresh.state_dict()["head"].items()} == {
        "weight": 2.0,
        "bias": 1.0,
    }


def two_tokens_a_turn(rewards, spaces=(0, 0, 0, 0)):
    pieces = [(1 + spaces[0], -1)]
    for turn in range(len(rewards)):
        pieces += [(2, turn), (spaces[turn + 1], -1)]
    return dialogue(rewards, tokens=pieces)


@pytest.mark.parametrize("unit", ["turn", "token"])
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_without_decay_the_advantage_is_reward_to_go_minus_value(unit, bias):
    (example,) = ppo(bias=bias, unit=unit, trace_decay=1.0).examples([group(two_tokens_a_turn([1, 0, 2]))])
    sampled = example.dialogue.trace.sampled_L
    expected = np.array([3.0, 3.0, 2.0, 2.0, 2.0, 2.0])
    assert example.advantages_L[sampled].tolist() == (expected - bias).tolist()
    marked = example.extras["marked"][sampled].astype(bool)
    assert marked.tolist() == ([True, False] * 3 if unit == "turn" else [True] * 6)
    assert example.extras["target"][sampled][marked].tolist() == expected[marked].tolist()


def test_turns_hand_worked():
    # Values 0, 2, 4 before the turns; discount 1/2, decay 1/2.
    # Errors: 1 + 1 - 0 = 2; 0 + 2 - 2 = 0; 2 - 4 = -2. Advantages: 2 + 0/4 - 2/16, 0 - 2/4, -2.
    algorithm = ppo(weight=1.0, discount=0.5, trace_decay=0.5)
    (example,) = algorithm.examples([group(two_tokens_a_turn([1, 0, 2]))])
    sampled = example.dialogue.trace.sampled_L
    assert example.advantages_L[sampled].tolist() == [1.875, 1.875, -0.5, -0.5, -2.0, -2.0]
    assert example.extras["target"][sampled].tolist() == [1.875, 0, 1.5, 0, 2.0, 0]
    errors, targets = np.array([1.875, -0.5, -2.0]), np.array([1.875, 1.5, 2.0])
    assert algorithm.finish([])["explained_variance"] == pytest.approx(1 - errors.var() / targets.var())


def test_tokens_hand_worked():
    # Two tokens, reward 1 with the last; values 0 and 1: errors 1 and 0.
    (example,) = ppo(weight=1.0, unit="token", trace_decay=0.5).examples([group(two_tokens_a_turn([1]))])
    assert example.advantages_L.tolist() == [0.0, 1.0, 0.0]


@given(PIECES, st.sampled_from(["turn", "token"]))
def test_inserted_observation_tokens_move_no_advantage(spaces, unit):
    algorithm = ppo(weight=0.3, bias=0.1, unit=unit)
    plain, padded = (
        algorithm.examples([group(two_tokens_a_turn([1, 0, 2], s))])[0] for s in ((0,) * 4, spaces)
    )
    assert np.array_equal(plain.advantages_L[plain.mask_L], padded.advantages_L[padded.mask_L])
    assert not padded.advantages_L[~padded.mask_L].any()


def test_unscored_turns_train_neither_policy_nor_head():
    members = two_tokens_a_turn([1.0, None, 0.0]), two_tokens_a_turn([None, None])
    (example,) = ppo(trace_decay=1.0).examples([group(*members)])  # nothing is known of the second one
    sampled = example.dialogue.trace.sampled_L
    assert example.advantages_L[sampled].tolist() == [1.5, 1.5, 0, 0, 0, 0]  # the lost turn counts as 0.5
    assert example.extras["marked"][sampled].tolist() == [1, 0, 0, 0, 1, 0]


def test_whitening_is_over_the_tokens_of_the_batch():
    members = two_tokens_a_turn([1.0]), two_tokens_a_turn([0.0])
    examples = ppo(whiten=True).examples([group(*members)])
    assert [e.advantages_L[e.mask_L].tolist() for e in examples] == [
        pytest.approx([1.0, 1.0]), pytest.approx([-1.0, -1.0]),
    ]  # fmt: skip


def test_the_loss_of_the_head_hand_worked():
    algorithm = ppo(bias=1.0, beta=0.0)
    extras = {"target": torch.tensor([3.0, 9.0, 2.0]), "marked": torch.tensor([1.0, 0.0, 1.0])}
    tokens = batch([-1.0] * 3, [0.0] * 3, [0, 0, 1], extras=extras, hidden=torch.zeros(3, 1))
    loss = algorithm.loss(tokens)
    assert float(loss.detach()) == pytest.approx((2.0 + 0.5) / 2)  # halves of 2 squared and 1 squared
    loss.backward()
    head = algorithm.parameters()[0]["params"]
    assert head[1].grad.item() == pytest.approx((-2.0 - 1.0) / 2)


def test_hidden_states_are_those_behind_the_logits(make_vec, make_student, learner):
    student = make_student()
    played = rollout(make_vec(), learner, student, [0, 0, 1])
    algorithm = make_algorithm("ppo")
    dialogues = [e.dialogue for e in make_algorithm("grpo").examples([group(*played[:2])])]
    forward = Forward(student, Scaling())
    algorithm.setup(forward)
    with torch.no_grad():
        packed, hidden_NH = forward.policy_and_hidden(dialogues)
        logits_NV = student.model.get_output_embeddings()(hidden_NH)
    logits_NV = logits_NV.index_fill(1, student.decoder.forbidden, float("-inf"))
    ids = torch.from_numpy(np.concatenate([d.trace.ids_L[d.trace.sampled_L] for d in dialogues]))
    assert torch.allclose(
        logits_NV.log_softmax(1).gather(1, ids[:, None])[:, 0], packed.logprobs_N, atol=1e-6
    )
    assert [type(t) for t in played] == [Trajectory] * 3
    assert all(isinstance(t.trace, TokenTrace) for t in played)
