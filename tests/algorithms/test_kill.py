"""A run that is killed at random moments (kill -9) and resumed ends, bit by bit, as an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from functools import partial
from pathlib import Path

import pytest
import torch

import steer_env
from kit.training import MoodyJudge, tiny_student
from steer_env.agents import make_agent
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.checkpoints import checkpoints
from steer_env.algorithms.curriculum import Curriculum
from steer_env.algorithms.trainer import TrainConfig, train
from steer_env.configs.train import Stage

ROOT = Path(__file__).parents[2]
CONFIG = TrainConfig(
    steps=4, seeds_per_step=2, group_size=2, lr=3e-3, max_new_tokens=4, minibatch_size=3, microbatch_size=2,
    checkpoint_every=1, seed=3, unscored_limit=1.0,
)  # fmt: skip
ALGORITHMS = ("grpo", "ppo", "constrained_grpo")
STAGES = [Stage({"max_turns": 2, "strategies": ["roleplay"]}, steps=2), Stage({"max_turns": 3})]


def run(name, folder):
    """Train against the tutor, which remembers, on dialogues that get longer; goes on where it was."""
    make = partial(steer_env.make_vec, "SteerEscalation-v0", 4, judge=MoodyJudge())
    algorithm = make_algorithm(name)
    train(
        Curriculum(STAGES, make), make_agent("tutor"), tiny_student(), algorithm, CONFIG, folder, resume=True
    )


def fork(name, folder):
    if pid := os.fork():
        return pid
    try:
        run(name, folder)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def kill_and_resume(name, folder):
    """Run once undisturbed, and once killed up to three times; returns how many kills there were."""
    started = time.perf_counter()
    assert os.waitpid(fork(name, folder / "whole"), 0)[1] == 0
    seconds = time.perf_counter() - started
    rng, kills, status = random.Random(name), 0, None
    while status != 0:
        pid = fork(name, folder / "killed")
        if kills < 3:
            time.sleep(rng.uniform(0.1, 0.6) * seconds)
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        assert status in (0, signal.SIGKILL)
        kills += status != 0
    return kills


def main(folder):
    torch.set_num_threads(1)
    print(json.dumps({name: kill_and_resume(name, folder / name) for name in ALGORITHMS}))


def rows(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in lines]


def state(run_dir):
    return torch.load(checkpoints(run_dir)[-1] / "training_state.pt", weights_only=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments(tmp_path):
    code = "import sys, pathlib; sys.path.append('tests'); from tests.algorithms.test_kill import main; "
    code += "main(pathlib.Path(sys.argv[1]))"
    outcome = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert outcome.returncode == 0, outcome.stderr
    for name, kills in json.loads(outcome.stdout).items():
        assert kills, f"{name} was not killed"
        check(name, tmp_path / name)


def check(name, folder):
    whole, killed = folder / "whole", folder / "killed"
    last = [checkpoints(run_dir)[-1] / "model.safetensors" for run_dir in (whole, killed)]
    assert last[0].parent.name == last[1].parent.name == "step_000004"
    assert last[0].read_bytes() == last[1].read_bytes()
    assert rows(whole) == rows(killed) and len(rows(whole)) == 4
    left, other = state(whole), state(killed)
    assert left["attacker"] == other["attacker"]
    assert left["parts"]["curriculum"] == other["parts"]["curriculum"] == {"stage": 1, "done": 2}
    assert sum(map(sum, left["attacker"]["counts"].values())) > 0, "the tutor remembers something"
    torch.testing.assert_close(left["optimizer"]["state"], other["optimizer"]["state"], rtol=0, atol=0)
    if name == "ppo":
        torch.testing.assert_close(left["parts"]["algorithm"], other["parts"]["algorithm"], rtol=0, atol=0)
    if name == "constrained_grpo":
        assert left["parts"]["algorithm"] == other["parts"]["algorithm"] != {"multiplier": 1.0}
