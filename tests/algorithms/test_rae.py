"""Role-conditioned baselines against numbers worked out by hand."""

import numpy as np
import pytest

from steer_env.algorithms.attack import SeatTrajectory
from steer_env.algorithms.base import make_algorithm
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.trajectory import StopReason, Trajectory, TrajectoryGroup
from steer_env.types import ATTACKER, Scored, Terms, Turn, TurnResult, Unscored


def dialogue(*rewards, kind="red_team", seat="", seed=0):
    """A reward of None is an unscored turn."""
    scenario = Scenario(tuple(DraftTurn(f"{kind} {i}") for i in range(len(rewards))), kind=kind)
    turns = tuple(
        TurnResult(
            Turn(i, "u", "r", Scored(Terms(5, 5, 5)) if r is not None else Unscored("x")),
            0.0 if r is None else r,
        )
        for i, r in enumerate(rewards)
    )
    if not seat:
        return Trajectory(scenario, seed, turns, StopReason.SEED_END)
    known = tuple(r is not None for r in rewards)
    return SeatTrajectory(scenario, seed, turns, StopReason.SEED_END, seat=seat, known=known)


def groups(*members):
    return [TrajectoryGroup((member,)) for member in members]


def advantages(algorithm, *members):
    return [None if a is None else a.tolist() for a in algorithm.turn_advantages(groups(*members))]


def test_each_seat_and_kind_has_its_own_running_mean():
    rae = make_algorithm("rae", decay=0.5)
    first = (
        dialogue(1.0, 3.0),  # 2 per turn
        dialogue(4.0),
        dialogue(0.25, kind="obfuscated"),
        dialogue(0.5, 0.0, seat=ATTACKER),
    )
    # Nothing is known yet: the step's own means, 3 of the student's red team, 0.25 and 0.25 of the others.
    assert advantages(rae, *first) == [[-1.0, -1.0], [1.0], [0.0], [0.0, 0.0]]
    row = rae.finish(groups(*first))
    # From 3: 0.5*3 + 0.5*2 = 2.5, then 0.5*2.5 + 0.5*4 = 3.25.
    assert row == {
        "baseline attacker_0/red_team": 0.25,
        "baseline student_0/obfuscated": 0.25,
        "baseline student_0/red_team": 3.25,
    }
    assert advantages(rae, dialogue(1.0), dialogue(1.0, seat=ATTACKER)) == [[-2.25], [0.75]]
    again = make_algorithm("rae", decay=0.5)
    again.load_state_dict(rae.state_dict())
    assert advantages(again, dialogue(1.0)) == [[-2.25]]


def test_the_baseline_is_of_earlier_steps():
    rae = make_algorithm("rae")
    rae.load_state_dict({"means": {"student_0/red_team": 0.0}})
    assert advantages(rae, dialogue(1.0), dialogue(5.0)) == [[1.0], [5.0]]  # not moved by one another


def test_reward_to_go_is_a_mean_over_what_is_left():
    rae = make_algorithm("rae", credit="reward_to_go")
    rae.load_state_dict({"means": {"student_0/red_team": 1.0}})
    assert advantages(rae, dialogue(0.0, 3.0, 6.0)) == [[2.0, 3.5, 5.0]]


def test_dialogues_without_a_return_take_no_part():
    rae = make_algorithm("rae")
    assert advantages(rae, dialogue(None, None), dialogue(2.0, None)) == [None, [0.0, 0.0]]
    rae.finish(groups(dialogue(None)))
    assert rae.state_dict() == {"means": {}}


def test_scale_divides_by_the_seats_own_deviation():
    rae = make_algorithm("rae", scale=True)
    rae.load_state_dict({"means": {"student_0/red_team": 0.0, "attacker_0/red_team": 0.0}})
    got = rae.turn_advantages(groups(dialogue(3.0), dialogue(4.0), dialogue(0.1, seat=ATTACKER)))
    deviation = np.sqrt((9 + 16) / 2)
    assert [float(a[0]) for a in got] == pytest.approx(
        [3 / (deviation + 1e-4), 4 / (deviation + 1e-4), 0.1 / (0.1 + 1e-4)]
    )


def test_options():
    with pytest.raises(ValueError, match="credit='turn_normalised', expected"):
        make_algorithm("rae", credit="turn_normalised")
    with pytest.raises(ValueError, match=r"decay=1\.5"):
        make_algorithm("rae", decay=1.5)
