"""SkyRL-Gym makes and plays our student's seat."""

import sys
from pathlib import Path

import pytest

skyrl_gym = pytest.importorskip("skyrl_gym")

sys.path.insert(0, str(Path(__file__).parent))
import recorded

import steer_env
from steer_env.interop import messages
from steer_env.interop.credit import CREDITS, advantages

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


def test_rewards_there_give_the_advantages_that_our_own_loop_gives():
    dialogues, earned, steps, pictures = recorded.load(), [], [], 0
    for played in dialogues:
        env = skyrl_gym.make("steer", env_config={"attacker": "static"}, extras={"seed": played.seed})
        chat, _ = env.init([])
        out = [env.step(r.turn.reply) for r in played.turns]
        said = [*chat, *(message for o in out for message in o["observations"])]
        parts = [p for m in said if isinstance(m["content"], list) for p in m["content"]]
        pictures += sum(p["type"] == "image_url" for p in parts)
        earned.append([o["reward"] for o in out])
        steps += out
        assert [o["reward"] for o in out] == pytest.approx(played.rewards)
        own = [
            r.info["turn_reward"] if ok else None for r, ok in zip(played.turns, played.scored, strict=True)
        ]
        assert [o["metadata"]["own"] for o in out] == pytest.approx(own)
        assert [o["done"] for o in out] == [False] * (len(out) - 1) + [True]
    equal = []
    for credit in CREDITS:
        found = [a for rewards in recorded.groups(earned) for a in advantages(rewards, credit)]
        wanted = recorded.turn_advantages(dialogues, credit)
        apart = [
            abs(x - y)
            for got, want, played in zip(found, wanted, dialogues, strict=True)
            for x, y, ok in zip(got, want, played.scored, strict=True)
            if ok  # the tokens of the others are not masked there
        ]
        equal += [credit] if max(apart) < 1e-5 else []
    lost = sum(t.scored.count(False) for t in dialogues)
    recorded.check_carried(
        "SkyRL-Gym",
        pictures=(pictures, sum(t.trace.images for t in dialogues)),
        rewards=(len(steps), sum(len(t.turns) for t in dialogues)),
        unscored=(sum(o["metadata"]["own"] is None for o in steps), lost),
        masked=(0, lost),  # a step has no word for it
        seats=("student",),
        tokens=None,
        credits=equal,
    )
