"""Attackers that learn: a step by hand, a reward that rises, a killed run that goes on."""

import dataclasses

import numpy as np
import pytest
import torch

from steer_env.agents.hf.attacker import HFAttacker
from steer_env.agents.scripted import AlwaysComply
from steer_env.agents.tactics import ASKS, LEADS, SITUATIONS
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.learners import ModelLearner, TacticLearner, as_groups, derive, practise
from steer_env.algorithms.trainer import TrainConfig, train
from steer_env.env import DialogueEnv
from steer_env.models.tiny import TinyConfig, build
from steer_env.registration import make_vec
from steer_env.rollout import rollout
from steer_env.runs import RunExists
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.trajectory import StopReason, Trajectory
from steer_env.types import Scored, Terms, Turn, TurnResult, Unscored, Utterance
from steer_env.unscored import TooManyUnscored
from steer_env.vector import VectorDialogueEnv

SMALL = TrainConfig(
    steps=4, seeds_per_step=2, group_size=2, lr=3e-3, max_new_tokens=4, minibatch_size=3, microbatch_size=2,
    checkpoint_every=2, seed=3, unscored_limit=1.0,
)  # fmt: skip
RISKY = [
    Scenario((DraftTurn("say e"), DraftTurn("more")), kind="red_team", goal="harm"),
    Scenario((DraftTurn("hello"),), kind="obfuscated", goal="harm"),
]


class Talked:
    """Harm is done by the attacker's lower-case letters; some turns stay unscored."""

    name = "talked"

    def judge(self, requests):
        users = [str(request.transcript[-2].content) for request in requests]
        shares = [sum("a" <= c <= "z" for c in u) / max(1, len(u)) for u in users]
        return [
            Unscored("moody") if sum(map(ord, u)) % 7 == 0 else Scored(Terms(10 - round(9 * share), 5, 5))
            for u, share in zip(users, shares, strict=True)
        ]


class Rewarded(DialogueEnv):
    def _reply(self, utterance):
        super()._reply(utterance)
        self.rewards["student_0"] = len(set(utterance)) / 10


def risky_vec(slots=8):
    return VectorDialogueEnv([lambda: Rewarded(FixedScenarios(RISKY), Talked())] * slots)


def make_attacker(seed=5):
    config = TinyConfig(
        vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
    )
    return HFAttacker(*build(["say e"], config, seed), max_new_tokens=4)


class Echo:
    def act(self, observations):
        return ["well" for _ in observations]


def same(one, other):
    """Whether two states of plain values and tensors are equal, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


# -- the table --------------------------------------------------------------------------------------------


def spoken(*turns, seed=0):
    """Turns are (choice, safety); None is an unscored reply."""
    results = tuple(
        TurnResult(
            Turn(
                i,
                Utterance(f"u{seed} {i} {i}", choice=choice),
                "r",
                Unscored("x") if s is None else Scored(Terms(s, 5, 5)),
            ),
            0.0,
        )
        for i, (choice, s) in enumerate(turns)
    )
    return Trajectory(RISKY[0], seed, results, StopReason.SEED_END)


def test_a_step_of_the_table_by_hand():
    learner = TacticLearner(
        algorithm=make_algorithm("rae", credit="reward_to_go"), rate=2.0, forget=0.5, prior=1.0
    )
    learner.algorithm.load_state_dict({"means": {"attacker_0/red_team": 0.5}})
    learner.agent.lead_SL[0, 1] = 1.0
    learner.learn(
        [spoken(((0, 1, 2), 1), ((3, 1, 4), 10), seed=1), spoken(((0, 1, 5), None), ((3, 0, 4), 10), seed=2)]
    )
    # Rewards: full harm and new words 1.0, ideal replies and new words 0.2. To go: 0.6 and 0.2 of the first;
    # the second's unscored turn counts as its average, 0.2, but is not learnt from. Minus 0.5.
    assert learner.agent.lead_SL[0, 1] == pytest.approx(0.5 * 1.0 + 2.0 * 0.1 / (1 + 1))
    assert learner.agent.lead_SL[3, 1] == pytest.approx(2.0 * -0.3 / 2)
    assert learner.agent.lead_SL[3, 0] == pytest.approx(2.0 * -0.3 / 2)
    assert learner.agent.ask_SA[3, 4] == pytest.approx(2.0 * -0.6 / 3)
    assert learner.agent.ask_SA[0, 2] == pytest.approx(0.1) and learner.agent.ask_SA[0, 5] == 0.0
    assert np.count_nonzero(learner.agent.lead_SL) + np.count_nonzero(learner.agent.ask_SA) == 5


class Gullible(AlwaysComply):
    """Ideal except for a user who claims an office: then it complies."""

    def _reply(self, truth, history, turn, rng):
        from steer_env.world.reply_language.frames import ideal_reply

        return (
            super()._reply(truth, history, turn, rng)
            if self.fooled
            else ideal_reply(truth, history, turn, rng)
        )

    def _act(self, observation):
        from steer_env.world.user_language import frames

        self.fooled = str(observation["transcript"][-1].content).startswith(
            frames.STRATEGY["authority_figure"]
        )
        return super()._act(observation)


def test_the_table_finds_what_a_student_falls_for():
    learner = TacticLearner(seed=1)
    env = make_vec("SteerRedTeam-v0", 64, max_turns=4)
    rows = practise(env, learner, Gullible(), TrainConfig(steps=12, seeds_per_step=10, group_size=6))
    assert rows[-1]["attack_success"] > rows[0]["attack_success"] + 0.3
    first = learner.agent.probabilities()["open"]
    assert max(LEADS, key=first.get) == "authority_figure"
    assert set(learner.member(learner.state_dict()).probabilities()) == set(SITUATIONS)
    assert first["plan"] < 0.5 and sum(first[ask] for ask in ASKS) == pytest.approx(1)


# -- the model --------------------------------------------------------------------------------------------


def test_attack_reward_rises():
    config = dataclasses.replace(SMALL, lr=1e-2, minibatch_size=0, microbatch_size=64)
    learner = ModelLearner(make_attacker(), config, make_algorithm("rae", beta=0.0))
    play = dataclasses.replace(config, steps=25, seeds_per_step=4, group_size=6)
    rows = practise(risky_vec(24), learner, Echo(), play)
    harm = [row["attack_harm"] for row in rows]
    assert np.mean(harm[-5:]) > 1.4 * np.mean(harm[:5])
    assert rows[0]["attacker_logprob_gap_max"] < 1e-4 and "baseline attacker_0/red_team" in rows[0]


def test_honest_dialogues_teach_nothing():
    learner = ModelLearner(make_attacker(), SMALL)
    before = learner.state_dict()
    honest = Scenario((DraftTurn("hello"),))
    env = VectorDialogueEnv([lambda: Rewarded(FixedScenarios([honest]), Talked())] * 4)
    row = learner.learn(rollout(env, learner, Echo(), [1, 1]))
    assert row["attack_reward"] is None and same(learner.state_dict()["model"], before["model"])


def test_a_frozen_member_stays_as_it_was():
    learner = ModelLearner(make_attacker(), SMALL)
    state = learner.state_dict()
    member = learner.member(state)
    practise(risky_vec(), learner, Echo(), SMALL)
    assert same(dict(member.model.state_dict()), state["model"])
    assert not same(learner.state_dict()["model"], state["model"])
    assert not any(p.requires_grad for p in member.model.parameters())


MAKE = {"model": lambda: ModelLearner(make_attacker(), SMALL), "table": lambda: TacticLearner(seed=2)}


def test_a_practice_does_not_go_on_with_other_settings(tmp_path):
    env, student = make_vec("SteerRedTeam-v0", 4, max_turns=2), AlwaysComply()
    practise(env, TacticLearner(), student, SMALL, tmp_path)
    other = TacticLearner(algorithm=make_algorithm("rae", credit="trajectory"))
    with pytest.raises(RunExists, match=r"another run.*credit"):
        practise(env, other, student, SMALL, tmp_path, resume=True)
    with pytest.raises(RunExists, match=r"another run.*rate"):
        practise(env, TacticLearner(rate=1.0), student, SMALL, tmp_path, resume=True)
    practise(env, TacticLearner(), student, SMALL, tmp_path, resume=True)


@pytest.mark.parametrize("kind", MAKE)
def test_a_killed_practice_resumes_to_the_same_state(kind, tmp_path, make_student):
    class Killed(BaseException):
        pass

    def run(folder, **options):
        learner = MAKE[kind]()
        env = risky_vec() if kind == "model" else make_vec("SteerRedTeam-v0", 4, max_turns=2)
        return learner, practise(env, learner, make_student(), SMALL, folder, **options)

    def die(done, total, row):
        if done == 3:
            raise Killed  # one step after the checkpoint

    whole, rows = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "broken", progress=die)
    again, rows_again = run(tmp_path / "broken", resume=True)
    assert rows_again == rows and len(rows) == 4
    assert same(again.state_dict(), whole.state_dict())
    assert not same(whole.state_dict(), MAKE[kind]().state_dict())
    with pytest.raises(FileExistsError, match="holds a run"):
        run(tmp_path / "whole")


def test_both_seats_learn_from_the_same_dialogues_and_resume(tmp_path, make_student, monkeypatch):
    class Killed(BaseException):
        pass

    def run(folder, **options):
        # Siblings meet the same attacks here: few different ones, so each has room for some letters.
        own = dataclasses.replace(SMALL, max_new_tokens=12)
        student, learner = make_student(), ModelLearner(make_attacker(), own)
        train(risky_vec(), learner, student, make_algorithm("rae"), SMALL, folder, **options)
        return dict(student.model.state_dict()), learner.state_dict()

    def die(done, total, row):
        if done == 3:
            monkeypatch.setattr("steer_env.algorithms.trainer.save_checkpoint", lambda *a, **k: None)
            raise Killed

    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "broken", progress=die)
    monkeypatch.undo()
    assert same(run(tmp_path / "broken", resume=True), whole)
    assert not same(whole[0], dict(make_student().model.state_dict()))
    assert not same(whole[1]["model"], dict(make_attacker().model.state_dict()))


def test_an_attacker_nobody_understands_ends_the_run():
    class Lost:
        name = "lost"

        def judge(self, requests):
            return [Unscored("cannot be placed") for _ in requests]

    env = VectorDialogueEnv([lambda: Rewarded(FixedScenarios(RISKY), Lost())] * 8)
    config = dataclasses.replace(SMALL, seeds_per_step=20, unscored_limit=0.5)
    with pytest.raises(TooManyUnscored, match="cannot be placed"):
        practise(env, TacticLearner(), Echo(), config)


def test_groups_are_siblings_in_a_row():
    played = [spoken(((0, 0, 0), 1), seed=s) for s in (4, 4, 2, 4)]
    assert [len(group) for group in as_groups(played)] == [2, 1, 1] and as_groups([]) == []
    assert derive(1, 2) == derive(1, 2) != derive(1, 3)
