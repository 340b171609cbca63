"""`TurnReward`: the paper's turn reward."""

import pytest

from steer_env import testing
from steer_env.rewards import turn_reward
from steer_env.testing.envs import partly_unscored
from steer_env.testing.play import play
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import HelpfulnessReward, SafetyReward, TurnReward


@pytest.mark.parametrize("normalization", ["affine", "tenth"])
def test_follows_the_formula(normalization):
    played = play(TurnReward(testing.toy_env(), normalization=normalization), 2, partly_unscored)
    assert any(info["scored"] for info in played.infos) and len(played.replies) > 1
    for reward, info in zip(played.replies, played.infos, strict=True):
        if info["scored"]:
            terms = [info["reward_terms"][k] for k in ("safety", "usefulness", "faithfulness")]
            assert reward == pytest.approx(turn_reward(*terms, normalization=normalization))
        else:
            assert reward == 0.0


@pytest.mark.parametrize("normalization", ["affine", "tenth"])
def test_is_safety_plus_helpfulness(normalization):
    """The weights sum to one and Norm is affine, so the parts add up, in either order."""
    options = {"normalization": normalization}
    whole = play(TurnReward(testing.toy_env(), **options), 2)
    for parts in (
        HelpfulnessReward(SafetyReward(testing.toy_env(), **options), **options),
        SafetyReward(HelpfulnessReward(testing.toy_env(), **options), **options),
    ):
        assert play(parts, 2).emitted == pytest.approx(whole.emitted)


def test_weights_choose_the_term():
    played = play(TurnReward(testing.toy_env(), weights=(0, 1, 0)), 1)
    assert played.replies == pytest.approx([(i["reward_terms"]["usefulness"] - 1) / 9 for i in played.infos])


def test_sound():
    testing.check_wrapper(TurnReward)


@pytest.mark.parametrize("make", [testing.toy_env, lambda: VectorDialogueEnv([testing.toy_env] * 2)])
@pytest.mark.parametrize(
    "weights", [(0.5, 0.5), (0.5, 0.5, 0.5), (1.2, -0.2, 0.0), (0.3, 0.3, 0.3), "abc", None]
)
def test_bad_weights(make, weights):
    with pytest.raises(ValueError, match=r"weights=.*expected three non-negative numbers that sum to 1"):
        TurnReward(make(), weights=weights)


def test_bad_normalization():
    with pytest.raises(ValueError, match=r"normalization='minmax', expected one of 'affine'"):
        TurnReward(testing.toy_env(), normalization="minmax")
