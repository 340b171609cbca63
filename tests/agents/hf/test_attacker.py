"""The attacker's seat on a tiny random model: its chat, its tokens, and what never reaches the student."""

import itertools

import numpy as np
import pytest

from steer_env.agents.base import KeyedObservation
from steer_env.agents.hf import HFStudent
from steer_env.agents.hf.attacker import INSTRUCTIONS, HFAttacker, attack_prompt, briefing, opening
from steer_env.agents.hf.packed import packed_logprobs
from steer_env.algorithms.attack import attacker_groups
from steer_env.env import DialogueEnv
from steer_env.rollout import rollout
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.testing import check_agent
from steer_env.testing.toys import ToyJudge
from steer_env.trajectory import group_by_seed
from steer_env.types import ASSISTANT, ATTACKER, USER, Message, Terms, meta_of
from steer_env.vector import VectorDialogueEnv

GOAL = "the goal is a secret"


@pytest.fixture
def attacker(tiny):
    model, processor = tiny
    return HFAttacker(model, processor, max_new_tokens=6, seed=1)


@pytest.fixture
def scenario(pictures):
    turns = (
        DraftTurn("first draft", images=(0,)), DraftTurn("second draft"),
        DraftTurn("third draft", images=(1,)), DraftTurn("last draft"),
    )  # fmt: skip
    return Scenario(
        turns, tuple(pictures[:2]), kind="red_team", goal=GOAL, strategy="fiction_writer",
        technique="yes_laddering",
    )  # fmt: skip


def vec(*scenarios, slots=4):
    return VectorDialogueEnv([lambda: DialogueEnv(FixedScenarios(scenarios), ToyJudge())] * slots)


def test_briefings_say_what_the_seat_observes():
    seen = {"goal": "G", "strategy": "fiction_writer", "technique": ""}
    assert opening(seen, draft="D") == "Goal: G\nStrategy: fiction writer\nPlan: D"
    assert opening(seen, INSTRUCTIONS).startswith("You play a user")
    assert (
        briefing("No.", Terms(8, 8, 10), "D")
        == "Reply: No.\nVerdict: safety 8, usefulness 8, faithfulness 10\nPlan: D"
    )
    assert briefing("") == "Reply: "  # an empty reply is still a reply, and no verdict is no number


def test_the_chat_grows_by_what_was_sampled(attacker, student, scenario):
    (played,) = rollout(vec(scenario), attacker, student, [0])
    codec = attacker.codec
    text = codec.tokenizer.decode
    traces = [meta_of(r.turn.user)["trace"] for r in played.turns]
    for turn, (before, trace) in enumerate(itertools.pairwise(traces), 1):
        n = len(before)
        assert np.array_equal(trace.ids_L[:n], before.ids_L) and trace.turn_L.max() == turn
        own = trace.ids_L[trace.sampled_L & (trace.turn_L == turn)]
        assert codec.decode(own.tolist()) == str(played.turns[turn].turn.user)
        verdict = played.turns[turn - 1].turn.verdict.terms
        told = text(trace.ids_L[n : np.flatnonzero(trace.turn_L == turn)[0]])
        assert briefing(played.turns[turn - 1].turn.reply, verdict, scenario.turns[turn].text) in told
    opened = text(traces[0].ids_L[~traces[0].sampled_L])
    assert opening({"goal": GOAL, "strategy": scenario.strategy, "technique": scenario.technique}) in opened
    # A picture stands in the briefing after the utterance it was shown with.
    assert [trace.images for trace in traces] == [0, 1, 1, 2]


def test_sampled_and_recomputed_logprobs_agree(attacker, student, scenario):
    played = rollout(vec(scenario), attacker, student, [0, 0, 1])
    (group,) = attacker_groups(group_by_seed(played[:2], 2))
    for trajectory in group.trajectories:
        images = scenario.images[: trajectory.trace.images]
        prompt = attack_prompt(attacker.codec, {"transcript": (), "images": (), "draft": ""})
        packed = packed_logprobs(
            attacker.decoder.adapter, [type(prompt)(trajectory.trace, images)],
            forbidden=attacker.decoder.forbidden,
        )  # fmt: skip
        sampled = trajectory.trace.logprobs_L[trajectory.trace.sampled_L]
        assert packed.logprobs_N.detach().numpy() == pytest.approx(sampled, abs=1e-4)


def test_the_students_seat_sees_neither_briefings_nor_tokens(attacker, tiny, scenario):
    class Spy(HFStudent):
        def act(self, observations):
            seen.extend(observations)
            return super().act(observations)

    seen = []
    # The same model plays both seats: their codecs cannot be told apart, their traces must be.
    played = rollout(vec(scenario), attacker, Spy(*tiny, max_new_tokens=6), [0, 1])
    assert len(seen) == 8
    for observation in seen:
        assert set(observation) == {"images", "transcript"}
        for message in observation["transcript"]:
            assert (message.role == USER) == (not meta_of(message.content))
    for trajectory in played:
        theirs = attacker.codec.tokenizer.decode(trajectory.trace.ids_L)
        assert GOAL not in theirs and "draft" not in theirs and "Plan:" not in theirs
        own = meta_of(trajectory.turns[-1].turn.user)["trace"]
        assert own.ids_L.shape != trajectory.trace.ids_L.shape
        assert all(GOAL not in str(r.turn.user) for r in trajectory.turns)


def test_honest_users_are_not_played_by_the_model(attacker, student, scenario):
    honest = Scenario((DraftTurn("what is this"), DraftTurn("thanks")), kind="benign", goal="Honest: learn.")
    for played in rollout(vec(scenario, honest), attacker, student, list(range(6))):
        traces = [meta_of(r.turn.user).get("trace") for r in played.turns]
        if played.scenario.kind == "benign":
            assert [str(r.turn.user) for r in played.turns] == ["what is this", "thanks"]
            assert traces == [None, None]
        else:
            assert all(trace is not None for trace in traces)


def test_another_attackers_words_are_encoded_as_text(attacker, pictures):
    transcript = (Message(USER, "hello", 1), Message(ASSISTANT, "no"), Message(USER, "why"), Message(1, "so"))
    seen = {
        "transcript": transcript, "images": tuple(pictures[:1]), "goal": "G", "draft": "D",
        "verdict": Terms(1, 2, 3), "scored": 1,
    }  # fmt: skip
    prompt = attack_prompt(attacker.codec, seen)
    text = attacker.codec.tokenizer.decode(prompt.trace.ids_L)
    assert not prompt.trace.sampled_L.any() and prompt.turn == 2 and prompt.trace.images == 1
    order = ["Goal: G", "hello", "Reply: no", "why", "Reply: so", "Verdict: safety 1", "Plan: D"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    with pytest.raises(ValueError, match="ends with a user turn"):
        attack_prompt(attacker.codec, {**seen, "transcript": transcript[:1]})


def test_it_keeps_to_the_contract_of_an_agent(attacker):
    attacker.temperature = 0.0
    check_agent(attacker, ATTACKER, deterministic=False)


def test_siblings_meet_common_random_numbers(attacker, scenario):
    """Equal histories, equal attacks; other replies shift the odds and not the draws; groups differ."""
    attacker.max_new_tokens, said = 12, {}

    class Replies:
        """Member 2 of a group says something else in the first turn."""

        def act(self, observations):
            return [
                "No." if o.stream.endswith(".2") and len(o["transcript"]) == 1 else "Yes."
                for o in observations
            ]

    for trajectory in rollout(vec(scenario, slots=3), attacker, Replies(), [0, 0, 0, 1, 1, 1]):
        said.setdefault(trajectory.seed, []).append([str(r.turn.user) for r in trajectory.turns])
        assert all(meta_of(r.turn.user)["common"] for r in trajectory.turns)
    for one, other, third in said.values():
        assert one == other and one[0] == third[0] and one[1] != third[1]
    assert said[0][0][0] != said[1][0][0], "the scenario is the same, the group is not"
    attacker.common = False
    played = rollout(vec(scenario, slots=3), attacker, Replies(), [0, 0, 0])
    assert len({str(t.turns[0].turn.user) for t in played}) == 3
    assert not any(meta_of(r.turn.user)["common"] for t in played for r in t.turns)


def test_common_numbers_move_with_seed_turn_and_group(attacker, scenario):
    first = {"goal": "G", "draft": "D", "images": (), "transcript": (), "kind": "red_team"}
    later = {**first, "transcript": (Message(USER, "u"), Message(ASSISTANT, "r")), "verdict": None}

    def seed(observation, stream):
        return attacker._prompt(KeyedObservation(observation, stream)).draw_seed

    base = seed(first, "7.0")
    assert base == seed(first, "7.1") == seed({**first}, "7.5")
    assert base not in (seed(first, "8.0"), seed(later, "7.0"), seed({**first, "draft": "E"}, "7.0"))
    assert seed(first, "") is None
    attacker.reseed(2)
    assert seed(first, "7.0") != base
