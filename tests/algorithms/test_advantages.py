import dataclasses
import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kit.dialogues import trajectory
from steer_env.algorithms import advantages
from steer_env.algorithms.advantages import group_advantages, loss_mask, spread, trajectory_return
from steer_env.env import DialogueEnv
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.trajectory import StopReason, TokenTrace, Trajectory
from steer_env.types import Scored, Terms, TurnResult, Unscored
from steer_env.wrappers import TCSR, TurnReward

NAN = float("nan")
returns = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 6)),
    elements=st.one_of(st.floats(-10, 10), st.just(NAN)),
)


def test_examples_in_docstrings():
    assert doctest.testmod(advantages).failed == 0


def test_hand_worked():
    assert group_advantages([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]]).tolist() == [
        [-2.0, -1.0, 3.0],
        [0.0, 0.0, 0.0],
    ]
    # Sample deviation of -1, 1 is sqrt 2.
    scaled = group_advantages([[1.0, 3.0, NAN]], scale=True, epsilon=0.0)
    assert np.allclose(scaled, [[-1 / np.sqrt(2), 1 / np.sqrt(2), 0.0]])


@given(returns)
def test_defined_advantages_sum_to_zero_and_undefined_ones_are_zero(values):
    result = group_advantages(values)
    assert np.isfinite(result).all()
    assert np.allclose(result.sum(1), 0.0, atol=1e-9)
    assert (result[np.isnan(values)] == 0).all()


@given(returns, st.floats(-5, 5))
def test_adding_a_constant_to_a_group_changes_nothing(values, shift):
    assert np.allclose(group_advantages(values), group_advantages(values + shift), atol=1e-9)


@given(returns)
def test_an_undefined_member_changes_nothing_for_its_siblings(values):
    more = np.concatenate([values, np.full((len(values), 1), NAN)], 1)
    assert np.array_equal(group_advantages(more)[:, :-1], group_advantages(values))


def trace_of(pieces):
    """Build a trace from (number of tokens, turn or -1)."""
    turn = np.concatenate([np.full(n, t, np.int32) for n, t in pieces])
    return TokenTrace(np.arange(len(turn)), turn >= 0, np.zeros(len(turn), np.float32), turn)


def token_advantages(advantage, trace, scored):
    return spread(np.full(len(scored), advantage), trace, loss_mask(trace, scored))


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), min_size=5, max_size=5),
    st.floats(-3, 3),
)
def test_inserted_observation_tokens_move_no_advantage(replies, gaps, advantage):
    plain = trace_of([(n, t) for t, n in enumerate(replies)])
    pieces = [(gaps[0], -1)]
    for t, n in enumerate(replies):
        pieces += [(n, t), (gaps[t + 1], -1)]
    padded = trace_of(pieces)
    scored = [True] * len(replies)
    a, b = token_advantages(advantage, plain, scored), token_advantages(advantage, padded, scored)
    assert np.array_equal(a, b[padded.sampled_L])
    assert not b[~padded.sampled_L].any()


def test_tokens_of_unscored_turns_are_left_out():
    trace = trace_of([(3, -1), (2, 0), (1, -1), (2, 1), (1, -1), (1, 2)])
    mask = loss_mask(trace, [True, False, True])
    assert mask.tolist() == [False] * 3 + [True] * 2 + [False] * 4 + [True]
    assert token_advantages(1.5, trace, [True, False, True])[mask].tolist() == [1.5] * 3


def test_a_trace_of_another_dialogue_is_refused():
    with pytest.raises(ValueError, match="tokens of turn 1 but the dialogue has 1 turns"):
        loss_mask(trace_of([(1, 0), (1, 1)]), [True])


def test_the_return_sums_what_was_emitted_and_is_undefined_without_verdicts():
    assert trajectory_return(trajectory(0.5, 0.25, 1.0)) == 1.75
    assert np.isnan(trajectory_return(trajectory(None, None)))
    assert np.isnan(trajectory_return(trajectory()))


def test_a_failed_dialogue_has_no_return_and_its_siblings_are_compared_without_it():
    lost = dataclasses.replace(trajectory(1.0, 1.0), stop=StopReason.FAILED, error="student_0: gone")
    returns = [trajectory_return(t) for t in (lost, trajectory(0.5, 0.5, 0.5), trajectory(0.5, 0.5, 1.5))]
    assert group_advantages(returns).tolist() == [[0.0, -0.5, 0.5]]


def test_an_unscored_turn_counts_as_an_average_one_and_not_as_zero():
    group = [trajectory_return(trajectory(*rewards)) for rewards in ([1.0, None], [1.0, 1.0], [0.0, 1.0])]
    assert group == [2.0, 2.0, 1.0]
    assert trajectory_return(trajectory(0.5, None, 1.0)) == 2.25


class HalfAsleep:
    """Scores first turns with full marks and no later ones."""

    name = "half"

    def judge(self, requests):
        return [
            Scored(Terms(10, 10, 10)) if len(request.transcript) == 2 else Unscored("asleep")
            for request in requests
        ]


class Graded:
    """Scores the replies of a dialogue by a list of levels, the next dialogue by the next list."""

    name = "graded"

    def __init__(self, *dialogues):
        self.levels = iter([level for levels in dialogues for level in levels])

    def judge(self, requests):
        return [Scored(Terms(*[next(self.levels)] * 3)) for _ in requests]


def test_grpo_as_in_the_authors_code():
    """Final value of TCSR with alpha 0.3, so 0.3 min + 0.7 mean, against the mean of the group."""
    levels = [10, 1], [1, 1], [10, 10]  # turn rewards 1 0, 0 0 and 1 1
    scenario = Scenario((DraftTurn("a"), DraftTurn("b")))
    env = TCSR(
        TurnReward(DialogueEnv(FixedScenarios([scenario]), Graded(*levels))),
        alpha=0.3, returns="final",
    )  # fmt: skip
    returns = []
    for _ in levels:
        env.reset(seed=0)
        total = 0.0
        for _ in range(4):
            seat = env.agent_selection
            env.step("word")
            total += env.rewards["student_0"] if seat == "student_0" else 0.0
        returns.append(total)
    assert returns == pytest.approx([0.7 * 0.5, 0.0, 1.0])
    assert group_advantages(returns)[0] == pytest.approx([-0.1, -0.45, 0.55])


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        (lambda env: env, 2.0),
        (lambda env: TCSR(env, returns="sum"), 2.0),
        (lambda env: TCSR(env, returns="final"), 1.0),
        (lambda env: TCSR(env, returns="mean"), 1.0),
    ],
)
def test_the_return_of_a_played_dialogue_is_the_declared_one(wrap, expected):
    env = wrap(
        TurnReward(DialogueEnv(FixedScenarios([Scenario((DraftTurn("a"), DraftTurn("b")))]), HalfAsleep()))
    )
    env.reset(seed=0)
    turns = []
    for _ in range(4):
        seat = env.agent_selection
        env.step("word")
        if seat == "student_0":
            turns.append(TurnResult(env.unwrapped.last_turn, env.rewards[seat], dict(env.infos[seat])))
    played = Trajectory(env.unwrapped.scenario, 0, tuple(turns), StopReason.SEED_END)
    assert played.scored == (True, False)
    assert trajectory_return(played) == expected
    assert played.turns[-1].info.get("return", expected) == expected
