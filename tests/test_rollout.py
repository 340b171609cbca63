import subprocess
import sys

import numpy as np
import pytest

from steer_env.env import DialogueEnv
from steer_env.rollout import rollout
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.trajectory import StopReason, TokenTrace, group_by_seed
from steer_env.types import Scored, Terms, Utterance
from steer_env.vector import VectorDialogueEnv

SCENARIOS = [Scenario(tuple(DraftTurn(f"ask {n}.{t}") for t in range(n))) for n in (1, 2, 3, 4)]


class LengthJudge:
    name = "length"

    def judge(self, requests):
        return [
            Scored(Terms(min(10, 1 + len(r.transcript[-1].content)), 5, 5), judge=self.name) for r in requests
        ]


class Draft:
    """Says the seed's draft; remembers what it was asked and taught."""

    def __init__(self):
        self.batches, self.taught = [], []

    def act(self, observations):
        self.batches.append(len(observations))
        return [Utterance(o["draft"]) for o in observations]

    def learn(self, trajectories):
        self.taught += trajectories


class Echo:
    """Repeats the user and counts turns in a trace."""

    def __init__(self):
        self.batches = []

    def act(self, observations):
        self.batches.append(len(observations))
        replies = []
        for o in observations:
            n = len(o["transcript"])
            trace = TokenTrace(np.arange(n), np.ones(n, bool), np.zeros(n, np.float32), np.zeros(n, np.int32))
            replies.append(Utterance(o["transcript"][-1].content, trace=trace))
        return replies


def vec(slots):
    return VectorDialogueEnv([lambda: DialogueEnv(FixedScenarios(SCENARIOS), LengthJudge())] * slots)


@pytest.mark.parametrize("slots", [1, 3, 8, 40])
def test_one_trajectory_per_seed_in_order_whatever_the_number_of_slots(slots):
    seeds = [int(s) for s in np.random.default_rng(0).integers(0, 1000, 20)]
    trajectories = rollout(vec(slots), Draft(), Echo(), seeds)
    assert [t.seed for t in trajectories] == seeds
    alone = {seed: rollout(vec(1), Draft(), Echo(), [seed])[0] for seed in seeds}
    for t in trajectories:
        assert t.scenario.id == alone[t.seed].scenario.id
        assert [(x.turn.user, x.turn.reply) for x in t.turns] == [(s.text, s.text) for s in t.scenario.turns]
        assert t.stop is StopReason.SEED_END
        assert all(t.scored)


def test_places_are_refilled_at_once():
    student = Echo()
    seeds = list(range(24))
    trajectories = rollout(vec(4), Draft(), student, seeds)
    turns = sum(len(t.turns) for t in trajectories)
    assert sum(student.batches) == turns
    # Never waiting for the longest of a batch: nearly all calls are full.
    assert len(student.batches) <= turns / 4 + 4


def test_the_trace_is_that_of_the_last_reply():
    for t in rollout(vec(3), Draft(), Echo(), list(range(6))):
        assert t.trace is not None
        assert len(t.trace) == 2 * len(t.turns) - 1


def test_groups_share_seed_and_scenario():
    trajectories = rollout(vec(6), Draft(), Echo(), [5, 5, 5, 9, 9, 9])
    assert [len(group) for group in group_by_seed(trajectories, 3)] == [3, 3]


def test_learn_and_progress():
    attacker, seen = Draft(), []
    rollout(vec(2), attacker, Echo(), [1, 2, 3])
    assert attacker.taught == []
    trajectories = rollout(
        vec(2), attacker, Echo(), [1, 2, 3], learn=True, progress=lambda a, b: seen.append((a, b))
    )
    assert attacker.taught == trajectories
    assert seen[-1] == (3, 3)
    assert [a for a, _ in seen] == sorted(a for a, _ in seen)


def test_no_seeds_no_dialogues():
    assert rollout(vec(2), Draft(), Echo(), []) == []


@pytest.mark.parametrize(
    ("replies", "error", "message"),
    [
        (
            lambda n: [Utterance("x")] * (n - 1),
            ValueError,
            "Bad.act.. for student_0 returned 2 utterances for 3",
        ),
        (
            lambda n: [Utterance("x")] * (n - 1) + [None],
            TypeError,
            "returned None at index 2, expected a str",
        ),
        (lambda n: "xyz", TypeError, "returned 'xyz', expected a list"),
        (lambda n: None, TypeError, "returned None, expected a list"),
    ],
)
def test_a_student_that_breaks_its_contract_is_named(replies, error, message):
    class Bad:
        def act(self, observations):
            return replies(len(observations))

    with pytest.raises(error, match=message):
        rollout(vec(3), Draft(), Bad(), [1, 2, 3])


def test_no_deep_learning_framework_is_imported():
    code = "import steer_env.rollout, steer_env.algorithms.advantages, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("odd", ["x" * 5000, "half of a pair \ud83d"])
@pytest.mark.parametrize("seat", ["attacker_0", "student_0"])
def test_an_utterance_the_environment_refuses_ends_its_dialogue_alone(seat, odd):
    class Slips(Echo if seat == "student_0" else Draft):
        """Says something odd in the second turn of the dialogues of three."""

        def act(self, observations):
            said = super().act(observations)
            late = [o["transcript"][:1] and "3.0" in o["transcript"][0].content for o in observations]
            turn = 3 if seat == "student_0" else 2
            return [
                odd if hit and len(o["transcript"]) == turn else reply
                for o, reply, hit in zip(observations, said, late, strict=True)
            ]

    players = {"attacker_0": Draft(), "student_0": Echo(), seat: Slips()}
    trajectories = rollout(vec(4), players["attacker_0"], players["student_0"], range(24))
    failed = [t for t in trajectories if t.stop is StopReason.FAILED]
    others = [t for t in trajectories if t.stop is StopReason.SEED_END]
    assert len(failed) + len(others) == 24 and len(failed) > 2
    assert {len(t.scenario) for t in failed} == {3} and not any(len(t.scenario) == 3 for t in others)
    assert all(len(t.turns) == 1 and t.error.startswith(f"{seat}: invalid: ") for t in failed)
    said = "expected at most 4096" if len(odd) > 4096 else "lone surrogate"
    assert all(said in t.error for t in failed)


@pytest.mark.parametrize("seat", ["attacker_0", "student_0"])
def test_what_a_model_says_beyond_the_environments_limit_is_cut_and_says_so(seat):
    """A reply that says how it ended is a model's; its dialogue goes on, with the reply cut."""

    class Verbose(Echo if seat == "student_0" else Draft):
        def act(self, observations):
            return [Utterance("y" * 5000, finish="stop", known=1) for _ in observations]

    players = {"attacker_0": Draft(), "student_0": Echo(), seat: Verbose()}
    trajectories = rollout(vec(4), players["attacker_0"], players["student_0"], range(6))
    assert all(t.stop is StopReason.SEED_END for t in trajectories)
    said = [r.turn.user if seat == "attacker_0" else r.turn.reply for t in trajectories for r in t.turns]
    assert said and all(text == "y" * 4096 for text in said)
    if seat == "student_0":
        assert all(dict(text.meta) == {"finish": "length", "known": 1} for text in said)


@pytest.mark.parametrize("finish", [True, False])
def test_a_candidate_beyond_the_environments_limit_is_cut_where_a_model_made_it(finish):
    class Trying(Draft):
        def act(self, observations):
            meta = {"finish": "stop"} if finish else {}
            tries = (Utterance("short", **meta), Utterance("y" * 5000, **meta))
            return [
                Utterance("short", **meta) if seen.tried else Utterance("short", **meta, tries=tries)
                for seen in observations
            ]

    trajectories = rollout(vec(2), Trying(), Echo(), range(2))
    if finish:
        assert all(t.stop is StopReason.SEED_END for t in trajectories)
    else:
        assert all(t.error.startswith("attacker_0: invalid: ") for t in trajectories)
