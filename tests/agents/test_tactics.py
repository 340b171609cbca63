import numpy as np
import pytest

from steer_env.agents.scripted import Constructive, RandomStudent
from steer_env.agents.tactics import ASKS, LEADS, SITUATIONS, TacticAttacker, bound_to
from steer_env.agents.tutor import ScriptedTutor
from steer_env.algorithms.learners import TacticLearner, practise
from steer_env.configs.train import TrainConfig
from steer_env.registration import make_vec
from steer_env.rollout import rollout
from steer_env.scenarios import STRATEGIES
from steer_env.testing import check_agent
from steer_env.types import ATTACKER, meta_of
from steer_env.world.truth import Request
from steer_env.world.user_language import frames
from steer_env.world.user_language.reading import parse_user


def force(attacker, lead, ask):
    attacker.lead_SL[:, LEADS.index(lead)] = 50.0
    attacker.ask_SA[:, ASKS.index(ask)] = 50.0
    return attacker


def said(attacker, seeds=range(6), student=None, **options):
    env = make_vec("SteerRedTeam-v0", 8, max_turns=4, **options)
    return [
        r.turn.user for t in rollout(env, attacker, student or RandomStudent(1), list(seeds)) for r in t.turns
    ]


@pytest.mark.parametrize(
    ("ask", "request_", "piece"),
    [
        ("first", Request.PIECE, 0), ("second", Request.PIECE, 1), ("third", Request.PIECE, 2),
        ("steps", Request.STEPS, -1), ("use", Request.USE, -1), ("misuse", Request.MISUSE, -1),
    ],
)  # fmt: skip
def test_the_table_decides_what_is_asked_behind_which_words(ask, request_, piece):
    for text in said(force(TacticAttacker(), "roleplay", ask)):
        turn = parse_user(text)
        assert turn.request == request_ and turn.piece == piece
        assert text.startswith(frames.STRATEGY["roleplay"]) and meta_of(text)["strategy"] == "roleplay"
        assert LEADS[meta_of(text)["choice"][1]] == "roleplay"


def test_the_plan_without_words_in_front_is_the_seeds_own():
    env = make_vec("SteerRedTeam-v0", 8, max_turns=4)
    for played in rollout(env, force(TacticAttacker(), "none", "plan"), RandomStudent(1), list(range(6))):
        assert [str(r.turn.user) for r in played.turns] == [turn.text for turn in played.scenario.turns]


def test_every_utterance_can_be_placed_and_names_its_situation():
    utterances = said(TacticAttacker(3), range(40))
    assert all(parse_user(text).request != Request.UNKNOWN for text in utterances)
    assert {meta_of(text)["tactic"] for text in utterances} == set(SITUATIONS)
    assert all(SITUATIONS[meta_of(t)["choice"][0]] == meta_of(t)["tactic"] for t in utterances)
    assert {meta_of(text)["strategy"] for text in utterances} == {"", *STRATEGIES}


def openings(attacker, seeds):
    env = make_vec("SteerRedTeam-v0", 8, max_turns=4)
    return [str(t.turns[0].turn.user) for t in rollout(env, attacker, RandomStudent(1), list(seeds))]


def test_siblings_draw_the_same_seeds_differ_and_a_salt_draws_anew():
    attacker = TacticAttacker()
    first = openings(attacker, [5] * 8)
    assert len(set(first)) == 1 and openings(attacker, [5] * 8) == first
    many = openings(attacker, range(12))
    assert len(set(many)) > 6
    attacker.reseed(1)
    assert sum(a != b for a, b in zip(openings(attacker, range(12)), many, strict=True)) > 6
    attacker.reseed(0)
    attacker.common = False
    apart = openings(attacker, [5] * 8)
    assert len(set(apart)) > 2 and openings(attacker, [5] * 8) == apart


@pytest.mark.parametrize("attacker", [TacticAttacker(), TacticAttacker(patient=True), ScriptedTutor()])
@pytest.mark.parametrize("split", ["train", "ood"])
def test_equal_replies_meet_equal_attacks_so_nothing_but_the_student_varies(attacker, split):
    """The variance within a group of a student that does not sample is 0: none of it is attack luck."""
    env = make_vec("SteerEscalation-v0", 12, split=split, max_turns=5)
    seeds = [s for s in range(6) for _ in range(4)]
    played = rollout(env, attacker, Constructive(), seeds)
    returns = np.array([t.total for t in played]).reshape(6, 4)
    assert np.ptp(returns, axis=1).max() == 0.0
    for start in range(0, len(played), 4):
        spoken = [[str(r.turn.user) for r in t.turns] for t in played[start : start + 4]]
        assert all(words == spoken[0] for words in spoken)


def test_without_common_numbers_there_is_attack_luck():
    attacker = TacticAttacker()
    attacker.common = False
    env = make_vec("SteerRedTeam-v0", 12, max_turns=5)
    played = rollout(env, attacker, RandomStudent(1), [s for s in range(6) for _ in range(4)])
    assert len({str(t.turns[0].turn.user) for t in played[:4]}) > 1


def test_practice_lets_siblings_draw_their_own():
    class Seen(TacticLearner):
        def learn(self, trajectories):
            self.openings = {str(t.turns[0].turn.user) for t in trajectories}
            return super().learn(trajectories)

    learner = Seen()
    config = TrainConfig(steps=1, seeds_per_step=1, group_size=8, unscored_limit=1.0)
    practise(make_vec("SteerRedTeam-v0", 8, max_turns=2), learner, Constructive(), config)
    assert len(learner.openings) > 2 and learner.agent.common


def test_a_patient_one_says_the_seed_until_it_asks_for_use_or_worse():
    env = make_vec("SteerLateRisk-v0", 8, kinds=("obfuscated", "red_team"))
    attacker = force(TacticAttacker(patient=True), "roleplay", "steps")
    asks = (Request.USE, Request.PIECE, Request.STEPS, Request.MISUSE)
    waited = 0
    for played in rollout(env, attacker, RandomStudent(1), list(range(24))):
        plan = [turn.text for turn in played.scenario.turns]
        start = next(i for i, text in enumerate(plan) if parse_user(text).asks in asks)
        said = [r.turn.user for r in played.turns]
        assert [str(text) for text in said[:start]] == plan[:start]
        assert not any("choice" in meta_of(text) for text in said[:start])
        assert all(text.startswith(frames.STRATEGY["roleplay"]) for text in said[start:])
        waited += start
    assert waited > 24
    check_agent(attacker, ATTACKER)
    assert TacticLearner(attacker).member({"agent": attacker.state_dict()}).patient


def test_bound_to_one_lead():
    for text in said(bound_to("fiction_writer")):
        assert text.startswith(frames.STRATEGY["fiction_writer"])
    assert len({meta_of(text)["choice"][2] for text in said(bound_to("own"), range(12))}) > 4
    with pytest.raises(ValueError, match="lead='magic', expected one of none, own"):
        bound_to("magic")


def test_honest_users_are_the_tutors():
    env = make_vec("SteerBenign-v0", 8, max_turns=4)

    def texts(attacker):
        return [str(r.turn.user) for t in rollout(env, attacker, Constructive(), [1, 2, 3]) for r in t.turns]

    assert texts(TacticAttacker()) == texts(ScriptedTutor(memory=False))


@pytest.mark.parametrize("lead", ["none", "own", "roleplay"])
def test_it_keeps_to_the_contract_of_an_agent(lead):
    check_agent(bound_to(lead), ATTACKER)  # drafts that the world cannot read, replies it cannot place


def test_state():
    attacker = force(TacticAttacker(), "own", "again")
    other = TacticAttacker()
    other.load_state_dict(attacker.state_dict())
    assert np.array_equal(other.lead_SL, attacker.lead_SL) and np.array_equal(other.ask_SA, attacker.ask_SA)
    assert other.probabilities()["open"]["own"] > 0.99
    with pytest.raises(ValueError, match="state_dict"):
        other.load_state_dict({"version": 1, "lead": [[0.0]], "ask": []})
