"""Every algorithm on a tiny model: it changes the weights, and a killed run resumes to the same ones."""

import dataclasses
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from kit.training import SMALL, MoodyJudge, same, weights
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.curriculum import Curriculum
from steer_env.algorithms.trainer import train
from steer_env.configs.train import Stage
from steer_env.runs import RunExists
from steer_env.types import Scored, Terms

ALGORITHMS = {
    "dapo": {"drop_flat": False},
    "dr_grpo": {"normaliser": 16.0},
    "gspo": {"clip_low": 0.1, "clip_high": 0.1},
    "rloo": {"credit": "reward_to_go"},
    "reinforce": {},
    "ppo": {},
    "constrained_grpo": {"limit": 0.2},
}


@pytest.fixture
def moody_judge():
    return MoodyJudge()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_killed_run_resumes_to_the_same_weights(
    name, check_resumption, make_vec, make_student, learner, moody_judge
):
    def run(student, folder, **options):
        learner.dialogues = 0
        algorithm = make_algorithm(name, **ALGORITHMS[name])
        return train(make_vec(moody_judge), learner, student, algorithm, SMALL, folder, **options)

    whole, rows = check_resumption(run)
    assert not same(weights(make_student()), weights(whole))
    assert rows[0]["logprob_gap_max"] < 1e-4
    assert 0 < max(row["unscored"] for row in rows) < 1
    if name == "constrained_grpo":
        multiplier, costs = 1.0, [row["dialogue_cost"] for row in rows]
        for row, cost in zip(rows, costs, strict=True):
            assert row["multiplier"] == pytest.approx(multiplier)
            multiplier = max(0.0, multiplier + cost - 0.2)
        assert len(set(costs)) > 1
    if name == "ppo":
        assert all(row["value_loss"] > 0 for row in rows)


_SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
from kit import training as toys
from steer_env.agents.hf import HFStudent
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.trainer import TrainConfig, train
from steer_env.types import Scored, Terms, Unscored
from steer_env.vector import VectorDialogueEnv

torch.set_num_threads(1)
judge = toys.LetterJudge()
env = VectorDialogueEnv([lambda: toys.Rewarded(toys.SCENARIOS, judge)] * 8)

def progress(done, total, row):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

student = HFStudent.from_pretrained({model!r}, dtype=torch.float32)
config = TrainConfig(**{config!r})
train(env, toys.Learner(), student, make_algorithm("ppo"), config, {run!r}, progress=progress)
"""


def test_kill_minus_nine(make_vec, make_student, learner, tmp_path):
    make_student().save(tmp_path / "model")
    run = tmp_path / "killed"
    script = _SCRIPT.format(
        tests=str(Path(__file__).parents[1]),
        model=str(tmp_path / "model"),
        config=dataclasses.asdict(SMALL),
        run=str(run),
    )
    outcome = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert outcome.returncode == -signal.SIGKILL, outcome.stderr
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step_000002"]
    resumed, whole = make_student(), make_student()
    train(make_vec(), learner, resumed, make_algorithm("ppo"), SMALL, run, resume=True)
    learner.dialogues = 0
    train(make_vec(), learner, whole, make_algorithm("ppo"), SMALL, tmp_path / "whole")
    assert same(weights(resumed), weights(whole))


def test_a_curriculum_changes_the_dialogues_and_resumes(check_resumption, make_vec, learner):
    def run(student, folder, **options):
        def make(slots):
            made.append(slots)
            return make_vec(slots=slots)

        made = []
        learner.dialogues = 0
        curriculum = Curriculum([Stage({"slots": 2}, steps=3), Stage({"slots": 4})], make)
        rows = train(curriculum, learner, student, make_algorithm("grpo"), SMALL, folder, **options)
        # A killed run had finished the first stage's second step; the third is played again.
        assert made == [2, 4]
        return rows

    _, rows = check_resumption(run)
    assert [row["curriculum_stage"] for row in rows] == [0, 0, 0, 1]


@pytest.mark.parametrize("name", ["rloo", "reinforce", "ppo"])
def test_reward_rises(name, make_vec, make_student, learner, tmp_path):
    config = dataclasses.replace(
        SMALL, steps=25, seeds_per_step=4, group_size=6, lr=1e-2, minibatch_size=0, microbatch_size=64,
        checkpoint_every=100,
    )  # fmt: skip
    algorithm = make_algorithm(name, beta=0.0)
    rows = train(make_vec(slots=24), learner, make_student(), algorithm, config, tmp_path / "run")
    returns = [row["return"] for row in rows]
    assert np.mean(returns[-5:]) > 1.4 * np.mean(returns[:5])


def test_groups_too_small_for_the_algorithm_are_refused_before_anything_is_written(
    make_vec, make_student, learner, tmp_path
):
    config = dataclasses.replace(SMALL, group_size=1)
    with pytest.raises(ValueError, match="group_size=1, expected an integer of at least 2: advantages"):
        train(make_vec(), learner, make_student(), make_algorithm("rloo"), config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    rows = train(
        make_vec(), learner, make_student(), make_algorithm("reinforce"),
        dataclasses.replace(config, steps=1), tmp_path / "run",
    )  # fmt: skip
    assert rows[0]["trained_dialogues"] == 2


def test_another_algorithm_or_option_does_not_go_on_with_a_run(make_vec, make_student, learner, tmp_path):
    config = dataclasses.replace(SMALL, steps=1)

    def run(algorithm, **options):
        return train(make_vec(), learner, make_student(), algorithm, config, tmp_path / "run", **options)

    run(make_algorithm("rloo"))
    with pytest.raises(RunExists, match="algorithm: 'rloo' there, 'grpo' now"):
        run(make_algorithm("grpo"), resume=True)
    with pytest.raises(RunExists, match=r"beta: 0\.025 there, 0\.2 now"):
        run(make_algorithm("rloo", beta=0.2), resume=True)
    # A run from before an option existed had its default.
    path = tmp_path / "run" / "config.json"
    settings = json.loads(path.read_text())
    del settings["credit"], settings["lora_rank"]
    path.write_text(json.dumps(settings))
    with pytest.raises(RunExists, match="credit: 'own_turn' there, 'reward_to_go' now"):
        run(make_algorithm("rloo", credit="reward_to_go"), resume=True)
    assert len(run(make_algorithm("rloo"), resume=True)) == 1


def test_flat_groups_are_left_out(make_vec, make_student, learner, tmp_path):
    class Constant:
        name = "constant"

        def judge(self, requests):
            return [Scored(Terms(5, 5, 5))] * len(requests)

    student = make_student()
    before = weights(student)
    rows = train(make_vec(Constant()), learner, student, make_algorithm("dapo"), SMALL, tmp_path / "run")
    assert [row["trained_dialogues"] for row in rows] == [0] * 4
    assert rows[0]["flat_groups"] == 1.0
    assert same(before, weights(student))
