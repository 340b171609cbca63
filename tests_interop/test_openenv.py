"""OpenEnv plays our dialogues over its own wire: a server of its own process, its client, its validator."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("openenv")

import yaml

sys.path.insert(0, str(Path(__file__).parent))
import recorded

import steer_env
from steer_env.interop import messages
from steer_env.interop.openenv import SteerAction, SteerClient, SteerEnvironment

SPACE = Path(__file__).parents[1] / "examples" / "openenv"
REFUSAL = "I will not help with that. Shall we look for a safe place to keep it?"


@pytest.fixture(scope="module")
def server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "server.app:app", "--port", str(port), "--log-level", "error"]
    process = subprocess.Popen(command, cwd=SPACE, env={**os.environ, "ENABLE_WEB_INTERFACE": "false"})
    url = f"http://127.0.0.1:{port}"
    for _ in range(1500):
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1)
            break
        except OSError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.2)
    yield url
    process.terminate()
    process.wait(10)


def play(url, seed, **options):
    said, rewards, scored = [], [], []
    with SteerClient(base_url=url).sync() as client:
        result = client.reset(seed=seed, **options)
        while not result.done:
            said += result.observation.messages
            text = "See here, please." if result.observation.seat == "attacker_0" else REFUSAL
            result = client.step(SteerAction(text=text))
            rewards.append(result.reward)
            scored.append(result.observation.scored)
        steps = client.state().step_count
    assert steps == len(rewards)
    return said, rewards, scored


@pytest.mark.parametrize("seed", [3, 4])
def test_the_same_seed_is_the_same_episode_as_here(server, seed):
    said, rewards, scored = play(server, seed)
    env = steer_env.make_student_env("SteerEscalation-v0")
    seen, _ = env.reset(seed=seed)
    here, earned, done = [], [], False
    while not done:
        here += messages(seen, start=-1)
        seen, reward, ended, cut, _ = env.step(REFUSAL)
        earned.append(reward)
        done = ended or cut
    assert said == here and rewards == pytest.approx(earned) and all(scored)
    assert any(isinstance(m["content"], list) for m in said)
    low, high = yaml.safe_load((SPACE / "openenv.yaml").read_text())["validation"]["reward"]["range"]
    assert all(low <= reward <= high for reward in rewards)
    assert play(server, seed) == (said, rewards, scored)


def test_both_seats_can_be_the_clients_and_only_the_attacker_sees_the_goal(server):
    with SteerClient(base_url=server).sync() as client:
        first = client.reset(seed=3, both=True).observation
        assert first.seat == "attacker_0" and first.goal and first.draft and first.messages == []
        reply = client.step(SteerAction(text=first.draft)).observation
        assert reply.seat == "student_0" and not reply.goal and not reply.draft and reply.scored is None
        back = client.step(SteerAction(text=REFUSAL)).observation
        assert (
            back.seat == "attacker_0"
            and back.scored is True
            and set(back.rewards) == {"student_0", "attacker_0"}
        )
        assert back.messages[-1] == {"role": "user", "content": REFUSAL}


def test_the_environment_carries_recorded_dialogues():
    dialogues, seen, seats = recorded.load(), [], set()
    for played in dialogues:
        env = SteerEnvironment(recorded.ENV, "static")
        seen.append(env.reset(seed=played.seed))
        for one in played.turns:
            seen.append(env.step(SteerAction(text=one.turn.reply)))
        assert [o.reward for o in seen[-len(played.turns) :]] == pytest.approx(played.rewards)
        seats |= {env.reset(seed=played.seed, both=True).seat, env.step(SteerAction(text="See.")).seat}
    parts = [p for o in seen for m in o.messages if isinstance(m["content"], list) for p in m["content"]]
    turns = sum(len(t.turns) for t in dialogues)
    recorded.check_carried(
        "OpenEnv",
        pictures=(
            sum(p["type"] == "image_url" for p in parts),
            sum(t.trace.images for t in dialogues),
        ),
        rewards=(sum(o.scored is not None for o in seen), turns),
        unscored=(sum(o.scored is False for o in seen), sum(t.scored.count(False) for t in dialogues)),
        masked=None,
        seats=[seat.removesuffix("_0") for seat in sorted(seats, reverse=True)],
        tokens=None,
        credits=(),
    )


def test_the_validator_passes_the_package_and_the_running_server(server):
    openenv = str(Path(sys.executable).with_name("openenv"))
    package = subprocess.run(
        [openenv, "validate", str(SPACE), "--level", "static"], capture_output=True, text=True
    )
    assert package.returncode == 0 and "Verdict: PASS" in package.stdout, package.stdout + package.stderr
    running = subprocess.run(
        [openenv, "validate", "--url", server, "--timeout", "60"], capture_output=True, text=True
    )
    assert running.returncode == 0 and "Verdict: PASS" in running.stdout, running.stdout + running.stderr
