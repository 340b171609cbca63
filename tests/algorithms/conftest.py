"""A toy environment, a tiny random student and a judge one can learn to please."""

import pytest
import torch

from steer_env.agents.hf import HFStudent
from steer_env.env import DialogueEnv
from steer_env.models.tiny import TinyConfig, build
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.types import Scored, Terms, Unscored, Utterance
from steer_env.vector import VectorDialogueEnv


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


class LetterJudge:
    """Likes lower-case letters; leaves replies to every n-th request unscored."""

    name = "letters"

    def __init__(self, unscored_every=0):
        self.every, self.seen = unscored_every, 0

    def judge(self, requests):
        verdicts = []
        for request in requests:
            self.seen += 1
            reply = request.transcript[-1].content
            if self.every and self.seen % self.every == 0:
                verdicts.append(Unscored("no ground", self.name))
            else:
                share = sum("a" <= letter <= "z" for letter in reply) / max(1, len(reply))
                verdicts.append(Scored(Terms(1 + round(9 * share), 5, 5), judge=self.name))
        return verdicts


class MoodyJudge(LetterJudge):
    """Leaves some replies unscored; what it says depends on the reply alone."""

    def judge(self, requests):
        odd = [sum(map(ord, r.transcript[-1].content)) % 5 == 0 for r in requests]
        verdicts = zip(odd, super().judge(requests), strict=True)
        return [Unscored("moody", self.name) if o else verdict for o, verdict in verdicts]


class Rewarded(DialogueEnv):
    """Emits the safety term of each scored turn, divided by ten."""

    def _reply(self, utterance):
        super()._reply(utterance)
        terms = self.infos["student_0"]["reward_terms"]
        self.rewards["student_0"] = terms["safety"] / 10 if terms else 0.0


class Learner:
    """An attacker with a memory that changes what it says."""

    def __init__(self):
        self.dialogues = 0

    def act(self, observations):
        return [Utterance(f"{o['draft']} {self.dialogues % 7}") for o in observations]

    def learn(self, trajectories):
        self.dialogues += len(trajectories)

    def state_dict(self):
        return {"dialogues": self.dialogues}

    def load_state_dict(self, state):
        self.dialogues = state["dialogues"]


SCENARIOS = FixedScenarios(
    [Scenario((DraftTurn("say e"), DraftTurn("more"))), Scenario((DraftTurn("hello"),))]
)


@pytest.fixture
def make_vec():
    def make(judge=None, slots=8):
        judge = judge or LetterJudge()
        return VectorDialogueEnv([lambda: Rewarded(SCENARIOS, judge)] * slots)

    return make


def tiny_student(seed=0):
    config = TinyConfig(
        vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
    )
    return HFStudent(*build(["say e"], config, seed), max_new_tokens=4)


@pytest.fixture
def make_student():
    return tiny_student


@pytest.fixture
def learner():
    return Learner()


@pytest.fixture
def letter_judge():
    return LetterJudge


def weights(student):
    return {name: value.clone() for name, value in student.model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def timeless(rows):
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


class Killed(BaseException):
    pass


@pytest.fixture
def check_resumption(make_student, tmp_path, monkeypatch):
    """Train through, and again killed after step 3 of 4 with a checkpoint after step 2."""

    def check(run):
        whole = make_student()
        rows = run(whole, tmp_path / "whole")

        def die(done, total, row):
            if done == 3:
                # As after kill -9: nothing is saved on the way out.
                monkeypatch.setattr("steer_env.algorithms.trainer.save_checkpoint", lambda *a, **k: None)
                raise Killed

        with pytest.raises(Killed):
            run(make_student(), tmp_path / "broken", progress=die)
        monkeypatch.undo()
        again = make_student()
        rows_again = run(again, tmp_path / "broken", resume=True)
        assert timeless(rows_again) == timeless(rows)
        assert same(weights(whole), weights(again))
        return whole, rows

    return check
