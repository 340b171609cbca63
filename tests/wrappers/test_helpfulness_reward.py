"""`HelpfulnessReward`."""

import pytest

from steer_env import testing
from steer_env.testing.play import play
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import HelpfulnessReward


def test_follows_the_formula():
    played = play(HelpfulnessReward(testing.toy_env(), usefulness=0.5, faithfulness=0.1), 0)
    terms = [info["reward_terms"] for info in played.infos]
    expected = [0.5 * (t["usefulness"] - 1) / 9 + 0.1 * (t["faithfulness"] - 1) / 9 for t in terms]
    assert played.replies == pytest.approx(expected)


def test_sound():
    testing.check_wrapper(HelpfulnessReward)


@pytest.mark.parametrize("make", [testing.toy_env, lambda: VectorDialogueEnv([testing.toy_env])])
@pytest.mark.parametrize("bad", [{"usefulness": -0.1}, {"faithfulness": -1}, {"usefulness": float("inf")}])
def test_bad_weights(make, bad):
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name}=.*expected a finite number of at least 0"):
        HelpfulnessReward(make(), **bad)


def test_bad_normalization():
    with pytest.raises(ValueError, match="normalization='z'"):
        HelpfulnessReward(testing.toy_env(), normalization="z")
