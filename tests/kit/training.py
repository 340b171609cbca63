"""A toy environment, a tiny random student and a judge one can learn to please."""

import torch

from steer_env.agents.hf import HFStudent
from steer_env.algorithms.trainer import TrainConfig
from steer_env.env import DialogueEnv
from steer_env.models.tiny import TinyConfig, build
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.types import Scored, Terms, Unscored, Utterance

#: Bound on how much log-probabilities of two implementations of one model differ in float32.
SAME_WEIGHTS = 1e-4
#: Least difference between the weights before and after an update in these tests; about 5 was seen.
OTHER_WEIGHTS = 1.0


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


def tiny_student(seed=0):
    config = TinyConfig(
        vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
    )
    return HFStudent(*build(["say e"], config, seed), max_new_tokens=4)


def weights(student):
    return {name: value.clone() for name, value in student.model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def timeless(rows):
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


SMALL = TrainConfig(
    steps=4, seeds_per_step=2, group_size=2, lr=3e-3, max_new_tokens=4, minibatch_size=3, microbatch_size=2,
    checkpoint_every=2, seed=6, unscored_limit=1.0,
)  # fmt: skip
