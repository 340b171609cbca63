"""`RepetitionPenalty`."""

import pytest

from steer_env import testing
from steer_env.testing.play import play
from steer_env.testing.toys import UNSCORED_WORD
from steer_env.types import STUDENT
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import RepetitionPenalty


def penalty_for(reply, **options):
    played = play(
        RepetitionPenalty(testing.toy_env(), **options),
        0,
        lambda agent, *_: reply if agent == STUDENT else "hello",
    )
    return -played.replies[0], played.infos[0]["reward_terms"].get("repetition")


def test_by_hand():
    """24 words of two repeat 20 of their 22 3-grams."""
    penalty, share = penalty_for("so on " * 12)
    assert share == pytest.approx(20 / 22)
    assert penalty == pytest.approx(0.2 * 20 / 22)


def test_varied_and_short_replies_are_free():
    assert penalty_for(" ".join(map(str, range(40)))) == (0.0, 0.0)
    assert penalty_for("so on " * 11 + "so") == (0.0, 0.0)


def test_parameters():
    assert penalty_for("a a a a", min_tokens=1, n=1, coefficient=1.0) == (0.75, 0.75)


def test_unscored_turns_pay_nothing():
    assert penalty_for(f"{UNSCORED_WORD} on " * 12) == (0.0, None)


def test_sound():
    testing.check_wrapper(RepetitionPenalty)


@pytest.mark.parametrize("make", [testing.toy_env, lambda: VectorDialogueEnv([testing.toy_env])])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"coefficient": -0.1}, "coefficient=-0.1, expected a finite number of at least 0"),
        ({"coefficient": float("inf")}, "coefficient=inf, expected a finite number of at least 0"),
        ({"coefficient": float("nan")}, "coefficient=nan, expected a finite number of at least 0"),
        ({"n": 0}, "n=0, expected an integer of at least 1"),
    ],
)
def test_bad_parameters(make, bad, message):
    with pytest.raises(ValueError, match=message):
        RepetitionPenalty(make(), **bad)
