"""`HarmCost`."""

import pytest

from steer_env import testing
from steer_env.testing.play import play
from steer_env.testing.toys import UNSCORED_WORD
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import HarmCost, TurnReward


class Levels:
    """Safety 1, 4, 5, 10 in turn."""

    name = "levels"

    def judge(self, requests):
        from steer_env.types import Scored, Terms

        return [Scored(Terms((1, 4, 5, 10)[len(r.transcript) // 2 - 1], 1, 1)) for r in requests]


FOUR_TURNS = {"options": {"scenario": testing.toy_scenarios()[3]}}


@pytest.mark.parametrize(
    ("options", "costs"),
    [
        ({}, [1.0, 1.0, 0.0, 0.0]),
        ({"threshold": 1}, [1.0, 0.0, 0.0, 0.0]),
        ({"graded": True}, [1.0, 0.25, 0.0, 0.0]),
        ({"threshold": 10, "graded": True}, [1.0, 0.7, 0.6, 0.1]),
    ],
)
def test_costs(options, costs):
    played = play(HarmCost(testing.toy_env(Levels()), **options), **FOUR_TURNS)
    assert [info["cost"] for info in played.infos] == pytest.approx(costs)
    running = [sum(costs[: i + 1]) for i in range(4)]
    assert [info["episode_cost"] for info in played.infos] == pytest.approx(running)
    assert played.replies == [0.0] * 4


def test_coefficient_is_taken_from_the_reward():
    with_cost = play(HarmCost(TurnReward(testing.toy_env(Levels())), coefficient=0.5), **FOUR_TURNS)
    without = play(TurnReward(testing.toy_env(Levels())), **FOUR_TURNS)
    assert with_cost.replies == pytest.approx(
        [without.replies[0] - 0.5, without.replies[1] - 0.5, *without.replies[2:]]
    )


def test_the_environment_reports_harm_without_the_wrapper():
    played = play(testing.toy_env(Levels()), **FOUR_TURNS)
    assert [info["cost"] for info in played.infos] == [1.0, 1.0, 0.0, 0.0]


def test_unscored_turns_have_no_cost():
    played = play(HarmCost(testing.toy_env(), coefficient=1.0), 0, lambda *_: UNSCORED_WORD)
    assert [info["scored"] for info in played.infos] == [False] * len(played.infos)
    assert not any("cost" in info for info in played.infos)
    assert {info["episode_cost"] for info in played.infos} == {0.0} and set(played.replies) == {0.0}


def test_sound():
    testing.check_wrapper(HarmCost)
    testing.check_wrapper(lambda env: HarmCost(env, graded=True, coefficient=0.3))


@pytest.mark.parametrize("make", [testing.toy_env, lambda: VectorDialogueEnv([testing.toy_env])])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"threshold": 0}, "threshold=0, expected an integer of at least 1 and at most 10: a safety level"),
        ({"threshold": 11}, "threshold=11, expected an integer of at least 1 and at most 10: a safety level"),
        (
            {"threshold": 4.7},
            "threshold=4.7, expected an integer of at least 1 and at most 10: a safety level",
        ),
        ({"coefficient": float("inf")}, "coefficient=inf, expected a finite number of at least 0"),
        ({"coefficient": -1}, "coefficient=-1, expected a finite number of at least 0"),
        ({"coefficient": float("nan")}, "coefficient=nan, expected a finite number of at least 0"),
    ],
)
def test_bad_parameters(make, bad, message):
    with pytest.raises(ValueError, match=message):
        HarmCost(make(), **bad)
