"""`SafetyReward`."""

import pytest

from steer_env import testing
from steer_env.testing.play import play
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import SafetyReward


@pytest.mark.parametrize(
    ("normalization", "norm"), [("affine", lambda s: (s - 1) / 9), ("tenth", lambda s: s / 10)]
)
def test_follows_the_formula(normalization, norm):
    played = play(SafetyReward(testing.toy_env(), weight=0.7, normalization=normalization), 0)
    assert played.replies == pytest.approx([0.7 * norm(i["reward_terms"]["safety"]) for i in played.infos])


def test_sound():
    testing.check_wrapper(SafetyReward)


@pytest.mark.parametrize("make", [testing.toy_env, lambda: VectorDialogueEnv([testing.toy_env])])
def test_bad_weight(make):
    with pytest.raises(ValueError, match="weight=-1, expected a finite number of at least 0"):
        SafetyReward(make(), weight=-1)
    with pytest.raises(ValueError, match="weight=inf, expected a finite number of at least 0"):
        SafetyReward(make(), weight=float("inf"))
    with pytest.raises(ValueError, match="weight=nan, expected a finite number of at least 0"):
        SafetyReward(make(), weight=float("nan"))


def test_bad_normalization():
    with pytest.raises(ValueError, match="normalization='z'"):
        SafetyReward(testing.toy_env(), normalization="z")
