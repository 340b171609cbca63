import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_env.algorithms import credit
from steer_env.algorithms.advantages import gae, leave_one_out
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.credit import CREDITS, turn_costs, turn_rewards
from steer_env.scenarios import Scenario, SeedTurn
from steer_env.trajectory import StopReason, TokenTrace, Trajectory, TrajectoryGroup
from steer_env.types import Scored, Terms, Turn, TurnResult, Unscored

SCENARIO = Scenario((SeedTurn("u"),))


def dialogue(rewards, costs=None, tokens=None):
    """A dialogue of these rewards (None: unscored), one token per reply or the given pieces."""
    turns = []
    for i, value in enumerate(rewards):
        verdict = Unscored("no") if value is None else Scored(Terms(5, 5, 5))
        info = {} if value is None or costs is None else {"cost": costs[i]}
        turns.append(TurnResult(Turn(i, "u", "r", verdict), value or 0.0, info))
    pieces = tokens or [piece for i in range(len(rewards)) for piece in ((1, -1), (1, i))]
    turn = np.concatenate([np.full(n, t, np.int32) for n, t in pieces])
    trace = TokenTrace(np.arange(len(turn)), turn >= 0, np.zeros(len(turn), np.float32), turn)
    return Trajectory(SCENARIO, 0, tuple(turns), StopReason.SEED_END, trace)


def group(*members):
    return TrajectoryGroup(tuple(m if isinstance(m, Trajectory) else dialogue(m) for m in members))


def advantages(name, *members, **options):
    result = make_algorithm(name, **options).turn_advantages([group(*members)])
    return [None if a is None else a.tolist() for a in result]


def test_examples_in_docstrings():
    assert doctest.testmod(credit).failed == 0


def test_unscored_turns_have_average_reward_and_no_cost():
    assert turn_rewards(dialogue([1.0, None, 0.5])).tolist() == [1.0, 0.75, 0.5]
    assert np.isnan(turn_rewards(dialogue([None, None]))).all()
    # Costs 1 and 0 over two scored turns: mean 1/2, of which the first has all.
    assert turn_costs(dialogue([1.0, None, 0.5], [1.0, 1.0, 0.0])).tolist() == [0.5, 0.0, 0.0]
    assert np.isnan(turn_costs(dialogue([None], [1.0]))).all()


def test_credit_hand_worked():
    good, bad = [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]  # returns 2 and 1
    assert advantages("grpo", good, bad) == [[0.5] * 3, [-0.5] * 3]
    # To go: 2 1 1 and 1 1 0.
    assert advantages("grpo", good, bad, credit="reward_to_go") == [[0.5, 0.0, 0.5], [-0.5, 0.0, -0.5]]
    # Divided by the sample deviation 1/sqrt 2 of each turn (plus 1e-4).
    scaled = advantages("grpo", good, bad, credit="turn_normalised")
    assert scaled[0] == pytest.approx([0.5 / (0.5**0.5 + 1e-4), 0.0, 0.5 / (0.5**0.5 + 1e-4)])
    assert advantages("rloo", good, bad, credit="reward_to_go") == [[1.0, 0.0, 1.0], [-1.0, 0.0, -1.0]]


def test_a_turn_that_one_sibling_alone_reaches_has_no_baseline_and_no_advantage():
    long, short = [0.0, 2.0], [1.0]
    assert advantages("grpo", long, short, credit="reward_to_go") == [[0.5, 0.0], [-0.5]]


@pytest.mark.parametrize("name", ["grpo", "rloo", "reinforce", "constrained_grpo"])
def test_dialogues_without_verdicts_change_nothing_for_their_siblings(name):
    options = {"limit": 0.0} if name == "constrained_grpo" else {}
    members = [dialogue([1.0, 0.5], [0.0, 1.0]), dialogue([0.0, 0.5], [1.0, 1.0])]
    lost = dialogue([None, None])
    assert advantages(name, *members, lost, **options)[:2] == advantages(name, *members, **options)
    assert advantages(name, *members, lost, **options)[2] == [0.0, 0.0]


PIECES = st.lists(st.integers(0, 4), min_size=4, max_size=4)


@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=2, max_size=3),
    st.lists(PIECES, min_size=3, max_size=3),
    st.sampled_from(["grpo", "dr_grpo", "rloo", "reinforce", "constrained_grpo"]),
    st.sampled_from(CREDITS),
)
def test_inserted_observation_tokens_move_no_advantage(rewards, gaps, name, kind):
    def examples(spaces):
        members = []
        for values, space in zip(rewards, spaces, strict=False):
            pieces = [(1 + space[0], -1)]
            for turn in range(3):
                pieces += [(2, turn), (space[turn + 1], -1)]
            members.append(dialogue(values, [1.0, 0.0, 1.0], pieces))
        return make_algorithm(name, credit=kind).examples([group(*members)])

    plain, padded = examples([[0] * 4] * 3), examples(gaps)
    for a, b in zip(plain, padded, strict=True):
        assert np.array_equal(a.advantages_L[a.mask_L], b.advantages_L[b.mask_L])
        assert not b.advantages_L[~b.mask_L].any()
        assert np.array_equal(b.mask_L, b.dialogue.trace.sampled_L)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=6))
def test_leave_one_out_is_the_group_mean_rescaled(values):
    count = len(values)
    factor = count / (count - 1) if count > 1 else 0.0
    centred = np.array(values) - np.mean(values)
    assert np.allclose(leave_one_out([values])[0], factor * centred, atol=1e-9)


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=6),
    st.lists(st.floats(-1, 1), min_size=6, max_size=6),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_gae_is_the_sum_of_its_definition(rewards, values, discount, decay):
    values = values[: len(rewards)]
    after = [*values[1:], 0.0]
    errors = [r + discount * n - v for r, n, v in zip(rewards, after, values, strict=True)]
    expected = [
        sum((discount * decay) ** (j - s) * errors[j] for j in range(s, len(errors)))
        for s in range(len(errors))
    ]
    assert np.allclose(gae(rewards, values, discount=discount, trace_decay=decay), expected)
    full = gae(rewards, values, discount=1.0, trace_decay=1.0)
    assert np.allclose(full, np.cumsum(rewards[::-1])[::-1] - values)
