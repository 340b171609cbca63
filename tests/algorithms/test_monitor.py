"""A step's metrics against hand-worked cases."""

import dataclasses
import doctest

import numpy as np
import pytest

from steer_env.algorithms import monitor
from steer_env.algorithms.monitor import dialogue_metrics
from steer_env.trajectory import StopReason, Trajectory
from steer_env.types import Scored, Terms, Turn, TurnResult, Unscored

from .test_credit import SCENARIO


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
