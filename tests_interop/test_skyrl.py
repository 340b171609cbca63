"""SkyRL-Gym makes and plays our student's seat."""

import pytest

skyrl_gym = pytest.importorskip("skyrl_gym")

import steer_env
from steer_env.interop import messages

REFUSAL = "I will not help with that. Shall we look for a safe place to keep it?"


@pytest.fixture(scope="module", autouse=True)
def known():
    skyrl_gym.register(id="steer", entry_point="steer_env.interop.skyrl:SteerTextEnv")


def test_it_plays_what_is_played_here():
    system = {"role": "system", "content": "Be kind."}
    env = skyrl_gym.make("steer", extras={"seed": 3, "reward_spec": {"method": "rule"}})
    chat, _ = env.init([system])
    ours = steer_env.make_student_env("SteerEscalation-v0")
    seen, _ = ours.reset(seed=3)
    assert chat == [system, *messages(seen)]
    done = False
    while not done:
        out = env.step(REFUSAL)
        seen, reward, ended, cut, info = ours.step(REFUSAL)
        done = ended or cut
        assert (out["reward"], out["done"]) == (reward, done)
        assert out["metadata"] == {"scored": True, "own": info["turn_reward"]}
        assert out["observations"] == ([] if done else messages(seen, start=-1))


def test_an_unscored_turn_earns_nothing_and_says_so():
    class Silent:
        name = "silent"

        def judge(self, requests):
            return [steer_env.Unscored("no verdict") for _ in requests]

    env = skyrl_gym.make("steer", env_config={"judge": Silent()})
    env.init([])
    out = env.step(REFUSAL)
    assert out["reward"] == 0.0 and out["metadata"] == {"scored": False, "own": None}
