"""Generations of self-play on tiny models: both modes, killed anywhere, resumed to the same weights."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from steer_env.agents import ScriptedTutor, make_agent
from steer_env.agents.hf import HFStudent
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.learners import TacticLearner
from steer_env.algorithms.selfplay import attacker_of, self_play, student_of
from steer_env.algorithms.trainer import TrainConfig
from steer_env.configs.train import SelfPlayConfig
from steer_env.registration import make_vec
from steer_env.runs import RunExists

STEPS = TrainConfig(
    steps=2, seeds_per_step=3, group_size=2, lr=3e-3, max_new_tokens=4, minibatch_size=3, checkpoint_every=1,
    unscored_limit=1.0,
)  # fmt: skip
CONFIG = SelfPlayConfig(generations=2, student=STEPS, attacker=STEPS, league_share=0.5, seed=1)


class Killed(BaseException):
    pass


class Letters:
    """Scores any reply by its letters: a random model says no words the built-in judge knows."""

    name = "letters"

    def judge(self, requests):
        from steer_env.types import Scored, Terms

        replies = [request.transcript[-1].content for request in requests]
        shares = [sum("a" <= c <= "z" for c in reply) / max(1, len(reply)) for reply in replies]
        return [Scored(Terms(1 + round(9 * share), 5, 5)) for share in shares]


def state(value):
    """Plain values and tensors as something that compares."""
    if isinstance(value, dict):
        return {key: state(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [state(v) for v in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


@pytest.fixture
def play(make_student):
    def run(folder, config=CONFIG, **options):
        student, learner, tutor = make_student(), TacticLearner(seed=4), ScriptedTutor(seed=2)
        env = make_vec("SteerEscalation-v0", 6, max_turns=2, judge=Letters())
        rows = self_play(
            env, student, learner, make_algorithm("rae"), config, folder, fixed={"tutor": tutor}, **options
        )
        return rows, state(dict(student.model.state_dict())), learner.state_dict(), tutor.state_dict()

    return run


@pytest.mark.parametrize("mode", ["alternating", "simultaneous"])
def test_a_run_and_what_it_leaves_behind(mode, play, tmp_path, make_student):
    config = dataclasses.replace(CONFIG, mode=mode)
    rows, weights, learnt, tutor = play(tmp_path / "run", config, measure=lambda g: {"measured": g})
    assert [(row["generation"], row["measured"]) for row in rows] == [(0, 0), (1, 1)]
    assert set(rows[1]["attacker_pool"]) == {"tutor", "generation_000"}
    assert set(rows[0]["attacker_pool"]) == {"tutor"} and rows[0]["student/unscored"] == 0.0
    assert ("attacker/attack_reward" in rows[0]) == (mode == "alternating")
    assert weights != state(dict(make_student().model.state_dict()))
    assert learnt["agent"] != TacticLearner().agent.state_dict() and learnt["steps"] == 4
    assert tutor != ScriptedTutor(seed=2).state_dict()  # it went on learning, in the league
    # Every snapshot can be opened; the last ones are what is in memory.
    saved = HFStudent.from_pretrained(student_of(tmp_path / "run", 1), dtype=torch.float32)
    assert state(dict(saved.model.state_dict())) == weights
    first = HFStudent.from_pretrained(student_of(tmp_path / "run", -1), dtype=torch.float32)
    assert state(dict(first.model.state_dict())) == state(dict(make_student().model.state_dict()))
    assert attacker_of(tmp_path / "run", 1, TacticLearner()).state_dict() == learnt["agent"]
    assert attacker_of(tmp_path / "run", 0, TacticLearner()).state_dict() != learnt["agent"]


#: Where the run dies: (what was being trained, finished steps).
DEATHS = {
    "alternating": [("generation 0, student", 1), ("generation 1, attacker", 1),
                    ("generation 1, student", 1)],
    "simultaneous": [("generation 1, student", 1)],
}  # fmt: skip


@pytest.mark.parametrize(("mode", "death"), [(m, d) for m in DEATHS for d in DEATHS[m]])
def test_a_killed_run_resumes_to_the_same_state(mode, death, play, tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, mode=mode)
    every = {"checkpoint_every": 2}  # so that a step of the stage is lost
    config = dataclasses.replace(config, student=dataclasses.replace(STEPS, **every))
    whole = play(tmp_path / "whole", config)

    def die(what, done, total, row):
        if (what, done) == death:
            # As after kill -9: nothing is saved on the way out.
            monkeypatch.setattr("steer_env.algorithms.trainer.save_checkpoint", lambda *a, **k: None)
            raise Killed

    with pytest.raises(Killed):
        play(tmp_path / "broken", config, progress=die)
    monkeypatch.undo()
    again = play(tmp_path / "broken", config, resume=True)
    assert timeless(again[0]) == timeless(whole[0]) and again[1:] == whole[1:]


def timeless(rows):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


_SCRIPT = """
import importlib.util, os, signal, sys
from pathlib import Path
import torch
spec = importlib.util.spec_from_file_location("these_tests", {tests!r})
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
torch.set_num_threads(1)

def progress(what, done, total, row):
    if (what, done) == ("generation 1, student", 1):
        os.kill(os.getpid(), signal.SIGKILL)

tests.self_play(
    tests.make_vec("SteerEscalation-v0", 6, max_turns=2, judge=tests.Letters()),
    tests.HFStudent.from_pretrained({model!r}, dtype=torch.float32), tests.TacticLearner(seed=4),
    tests.make_algorithm("rae"), tests.CONFIG, {run!r}, fixed={{"tutor": tests.ScriptedTutor(seed=2)}},
    progress=progress,
)
"""


def test_kill_minus_nine(play, make_student, tmp_path):
    make_student().save(tmp_path / "model")
    script = _SCRIPT.format(
        tests=str(Path(__file__)), model=str(tmp_path / "model"), run=str(tmp_path / "killed")
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert outcome.returncode == -signal.SIGKILL, outcome.stderr
    assert play(tmp_path / "killed", resume=True)[1:] == play(tmp_path / "whole")[1:]


def test_more_generations_can_be_asked_for_and_nothing_else(play, tmp_path):
    one = dataclasses.replace(CONFIG, generations=1)
    play(tmp_path / "run", one)
    with pytest.raises(FileExistsError, match="resume=True"):
        play(tmp_path / "run", one)
    with pytest.raises(RunExists, match=r"league_share: 0.5 there, 0.25 now"):
        play(tmp_path / "run", dataclasses.replace(one, league_share=0.25), resume=True)
    assert play(tmp_path / "run", resume=True)[1:] == play(tmp_path / "whole")[1:]
    settings = json.loads((tmp_path / "run" / "selfplay.json").read_text())
    assert settings["generations"] == 2 and settings["fixed"] == ["tutor"]


def test_the_attacker_can_practise_elsewhere(play, tmp_path):
    one = dataclasses.replace(CONFIG, generations=1)
    elsewhere = make_vec("SteerRedTeam-v0", 6, max_turns=2, judge=Letters())
    rows, _, learnt, _ = play(tmp_path / "run", one, attack_env=elsewhere)
    assert rows[0]["attacker/attack_words"] > 0
    assert learnt["algorithm"]["means"].keys() == {"attacker_0/red_team"}


def test_mistakes_are_named(play, tmp_path):
    with pytest.raises(ValueError, match="mode='both'"):
        dataclasses.replace(CONFIG, mode="both")
    with pytest.raises(ValueError, match="generations=0"):
        dataclasses.replace(CONFIG, generations=0)
    with pytest.raises(ValueError, match="league's own"):
        self_play(None, None, None, None, CONFIG, tmp_path, fixed={"generation_000": ScriptedTutor()})


def test_a_league_of_attacks_that_search_trains_a_student_and_resumes(make_student, tmp_path, monkeypatch):
    """Attacks take turns back while the student learns; a killed run goes on to the same weights."""

    def run(folder, **options):
        student = make_student()
        zoo = {
            name: make_agent(f"{name}?memory=yes&tries=2", seat="attacker_0")
            for name in ("pair", "crescendo", "x-teaming")
        }
        env = make_vec("SteerRedTeam-v0", 6, max_turns=2, judge=Letters())
        config = dataclasses.replace(CONFIG, generations=1, league_share=0.9, sampling="uniform")
        rows = self_play(
            env,
            student,
            TacticLearner(seed=4),
            make_algorithm("rae"),
            config,
            folder,
            fixed=zoo,
            **options,
        )
        return rows, state(dict(student.model.state_dict())), {n: a.state_dict() for n, a in zoo.items()}

    whole = run(tmp_path / "whole")
    assert set(whole[0][0]["attacker_pool"]) == {"pair", "crescendo", "x-teaming"}
    assert whole[1] != state(dict(make_student().model.state_dict()))
    assert sum(sum(map(sum, one["counts"].values())) for one in whole[2].values()) > 0

    def die(what, done, total, row):
        if (what, done) == ("generation 0, student", 1):
            monkeypatch.setattr("steer_env.algorithms.trainer.save_checkpoint", lambda *a, **k: None)
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "killed", progress=die)
    monkeypatch.undo()
    again = run(tmp_path / "killed", resume=True)
    assert again[1:] == whole[1:]
