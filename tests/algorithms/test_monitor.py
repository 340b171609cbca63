"""A step's metrics against hand-worked cases."""

import dataclasses
import doctest
import io

import numpy as np
import pytest
import torch

from kit.dialogues import SCENARIO
from steer_env import unscored as monitor
from steer_env.trajectory import StopReason, Trajectory
from steer_env.types import Scored, Terms, Turn, TurnResult, Unscored
from steer_env.unscored import TooManyUnscored, UnscoredGuard, dialogue_metrics
from steer_env.world.source import WorldSource


def turn(safety, reward, cost, tcsr=None, **terms):
    verdict = Unscored("no") if safety is None else Scored(Terms(safety, 5, 8))
    info = {"cost": cost, "reward_terms": terms} | ({"tcsr": tcsr} if tcsr else {})
    return TurnResult(Turn(0, "u", "r", verdict), reward, info)


def test_examples_in_docstrings():
    assert doctest.testmod(monitor).failed == 0


def test_metrics_hand_worked():
    # Two groups of two: returns 3 and 1, and 2 and undefined; lengths 2, 1, 1, 1.
    dialogues = [
        [turn(10, 1.0, 0.0, format=1.0), turn(4, 2.0, 1.0, {"min": 0.25, "mean": 0.5, "value": 0.4})],
        [turn(7, 1.0, 0.0, {"min": 0.75, "mean": 1.0, "value": 0.9}, format=0.0)],
        [turn(7, 2.0, 1.0)],
        [turn(None, 0.0, 1.0, format=9.0)],
    ]
    trajectories = [Trajectory(SCENARIO, 0, tuple(turns), StopReason.SEED_END) for turns in dialogues]
    row = dialogue_metrics(trajectories, np.array([[3.0, 1.0], [2.0, np.nan]]))
    assert row["return"] == 2.0 and row["return_std"] == pytest.approx(np.sqrt(2 / 3))
    assert row["return_per_turn"] == pytest.approx((1.5 + 1 + 2) / 3)
    assert row["turns"] == 5 / 4
    assert row["unscored"] == pytest.approx(1 / 5)
    assert row["cost"] == 0.5 and row["safety"] == 7.0 and row["usefulness"] == 5 and row["faithfulness"] == 8
    assert row["format"] == 0.5  # the unscored turn's terms do not count
    assert row["tcsr_min"] == 0.5 and row["tcsr_mean"] == 0.75
    assert row["flat_groups"] == 0.5  # nothing to compare in the second
    assert row["failed"] == 0.0
    lost = dataclasses.replace(trajectories[3], stop=StopReason.FAILED)
    assert dialogue_metrics([*trajectories[:3], lost], np.zeros((2, 2)))["failed"] == 0.25


def test_a_mean_over_nothing_is_none():
    silent = Trajectory(SCENARIO, 0, (turn(None, 0.0, 1.0),), StopReason.SEED_END)
    row = dialogue_metrics([silent], np.array([[np.nan]]))
    for name in ("return", "return_std", "return_per_turn", "cost", "safety", "tcsr_min", "tcsr_mean"):
        assert row[name] is None
    assert row["unscored"] == 1.0 and row["flat_groups"] == 1.0


def silent(reasons):
    turns = tuple(TurnResult(Turn(0, "u", "r", Unscored(reason)), 0.0) for reason in reasons)
    return Trajectory(SCENARIO, 0, turns, StopReason.SEED_END)


def test_the_window_goes_on_where_the_last_finished_step_left_it():
    guard = UnscoredGuard(1.0, window=2)
    for reasons in (["a"], ["a", "b"], ["b", "b", "c", *"cccc"]):
        guard.see([silent(reasons)])
        guard.commit()
    guard.see([silent(["broken off"])])  # a step that is played again counts once
    state = guard.state_dict()
    assert state == {"steps": [[2, {"a": 1, "b": 1}], [7, {"b": 2, "c": 5}]]}
    torch.save(state, file := io.BytesIO())
    file.seek(0)
    other = UnscoredGuard(0.5, window=2, least=10)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.state_dict() == state
    with pytest.raises(TooManyUnscored, match=r"10 of 10 turns .* in the last 2 steps"):
        other.see([silent(["d"] * 3)])
    assert other.state_dict() == state
    fresh = UnscoredGuard(0.5, window=2, least=10)
    fresh.see([silent(["d"] * 3)])  # too few to judge without the steps before


def test_form_is_told_where_the_world_is_the_built_in_one():
    scenario = WorldSource(split="train").scenario(0)
    texts = ["Sure.", "I will not shelf instead lantern kind letter?"]
    turns = tuple(TurnResult(Turn(i, "u", text, Scored(Terms(5, 5, 5))), 0.0) for i, text in enumerate(texts))
    row = dialogue_metrics([Trajectory(scenario, 0, turns, StopReason.SEED_END)], np.zeros((1, 1)))
    assert row["well_formed"] == 0.5
    own = Trajectory(SCENARIO, 0, turns, StopReason.SEED_END)
    assert dialogue_metrics([own], np.zeros((1, 1)))["well_formed"] is None
