"""A budget of replies: nobody exceeds it, whoever does not look is held to it, and the share is even."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import steer_env
from steer_env.agents import make_agent
from steer_env.agents.base import Agent, KeyedObservation, attempt, tried_of
from steer_env.agents.budget import Budget
from steer_env.agents.scripted import AlwaysRefuse, RandomStudent
from steer_env.records import trajectory_row
from steer_env.rollout import rollout
from steer_env.types import ASSISTANT, USER, Message, Utterance, meta_of

ZOO = ("crescendo", "pair", "tap", "goat", "actor", "x-teaming", "many-shot", "resample", "static", "tutor")


class Counting(Agent):
    """A student that counts what it was asked."""

    def __init__(self, student):
        self.student, self.calls = student, 0

    def act(self, observations):
        self.calls += len(observations)
        return self.student.act(observations)


class Greedy(Agent):
    """Tries on and on, three turns at a time, and never keeps one."""

    def act(self, observations):
        return [
            attempt([Utterance(f"{o['draft']} {len(tried_of(o))}.{i}") for i in range(3)])
            for o in observations
        ]


def play(attacker, budget, turns, student=None, seeds=(0, 1, 2)):
    student = Counting(student or AlwaysRefuse())
    vec = steer_env.make_vec("SteerRedTeam-v0", 2, split="bench", min_turns=turns, max_turns=turns)
    made = make_agent(attacker, seat="attacker_0") if isinstance(attacker, str) else attacker
    return rollout(vec, Budget(made, budget), student, list(seeds)), student.calls


def replies(t):
    return [meta_of(r.turn.user).get("attack", {}).get("student_calls", 1) for r in t.turns]


@pytest.mark.parametrize("name", ZOO)
def test_every_attack_keeps_within_the_budget(name):
    for budget, turns in ((3, 3), (8, 3), (30, 3)):
        played, calls = play(name, budget, turns)
        assert [len(t.turns) for t in played] == [turns] * 3
        assert all(sum(replies(t)) <= budget for t in played)
        assert sum(sum(replies(t)) for t in played) == calls  # what rows say is what the student was asked


def test_a_stranger_that_never_has_enough_is_held():
    played, calls = play(Greedy(), 7, 3)
    assert [replies(t) for t in played] == [[2, 2, 3]] * 3 and calls == 21
    for t in played:  # the last attempt is what was said
        assert str(t.turns[0].turn.user).endswith(" 0.1") and str(t.turns[2].turn.user).endswith(" 0.2")
    row = trajectory_row(played[0])
    assert row["turns"][2]["attack"] == {"student_calls": 3}


def test_what_a_turn_leaves_over_goes_to_the_later_ones():
    class Late(Agent):
        def act(self, observations):
            return [
                Utterance(o["draft"])
                if len(o["transcript"]) < 4
                else attempt([Utterance(f"{o['draft']} {i}") for i in range(20)])
                for o in observations
            ]

    played, _ = play(Late(), 10, 3)
    assert [replies(t) for t in played] == [[1, 1, 8]] * 3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(2, 5), st.integers(0, 12), st.lists(st.integers(1, 20), min_size=5, max_size=5))
def test_shares_never_add_up_to_more(turns, more, wishes):
    budget = turns + more
    agent, transcript, spent = Budget(make_agent("static"), budget), (), 0
    for turn in range(turns):
        seen = agent.seen(KeyedObservation({"transcript": transcript}, "0.0", (), turns))
        assert seen.replies >= 1
        taken = min(seen.replies, wishes[turn])
        spent += taken
        said = Utterance("?", attack={"student_calls": taken}) if taken > 1 else Utterance("?")
        transcript += (Message(USER, said, 0), Message(ASSISTANT, "!", 0))
    assert spent <= budget


def test_a_budget_changes_nothing_for_who_stays_below_it():
    vec = steer_env.make_vec("SteerRedTeam-v0", 2, split="bench", max_turns=4)
    one, other = (
        rollout(vec, agent, RandomStudent(1), [0, 1])
        for agent in (
            make_agent("goat", seat="attacker_0"),
            Budget(make_agent("goat", seat="attacker_0"), 99),
        )
    )
    assert [trajectory_row(t) for t in one] == [trajectory_row(t) for t in other]
