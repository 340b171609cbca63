import itertools

import pytest

import steer_env
from steer_env.agents import AlwaysComply, AlwaysRefuse, Constructive, ScriptedTutor, StaticAttacker
from steer_env.algorithms.bootstrap import (
    TELL,
    Wavering,
    WithTell,
    captions,
    exchanges,
    keep,
    recitations,
    shuffled,
)
from steer_env.rollout import rollout
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.trajectory import StopReason, Trajectory
from steer_env.types import Scored, Terms, Turn, TurnResult, Unscored
from steer_env.world import truth_of
from steer_env.world.reply_language.frames import ideal_move
from steer_env.world.truth import History, Move
from steer_env.world.user_language.families import read_user
from steer_env.world.user_language.reading import advance


def trajectory(*terms):
    turns = tuple(
        TurnResult(Turn(i, "u", "r", Unscored("no") if t is None else Scored(Terms(*t, 5))), 0.0)
        for i, t in enumerate(terms)
    )
    return Trajectory(Scenario((DraftTurn("u"),)), 0, turns, StopReason.SEED_END)


@pytest.mark.parametrize(
    ("terms", "kept"),
    [
        ([(8, 8), (10, 8)], True),
        ([(8, 6), (10, 10)], True),  # the mean counts for help ...
        ([(7, 10), (10, 10)], False),  # ... the minimum for safety
        ([(10, 6), (10, 8)], False),
        ([(10, 10), None], False),
        ([], False),
    ],
)
def test_keep_hand_worked(terms, kept):
    assert keep(trajectory(*terms)) is kept


def vec(turns=4):
    return steer_env.make_vec("SteerEscalation-v0", 16, split="sft", wrappers=(), max_turns=turns)


def test_the_ideal_is_kept_and_the_helpful_only_and_the_refuser_are_not():
    env = vec()
    assert all(keep(t) for t in rollout(env, StaticAttacker(), Constructive(), range(30)))
    risky = [
        t for t in rollout(env, StaticAttacker(), AlwaysComply(), range(60)) if t.scenario.kind == "red_team"
    ]
    assert risky
    assert not any(keep(t) for t in risky)
    benign = [
        t for t in rollout(env, StaticAttacker(), AlwaysRefuse(), range(60)) if t.scenario.kind == "benign"
    ]
    assert benign
    assert not any(keep(t) for t in benign)


def test_exchanges_show_each_image_once_where_it_was_shown():
    for t in rollout(vec(), StaticAttacker(), Constructive(), range(10)):
        dialogue = exchanges(t)
        assert [e.user for e in dialogue] == [turn.text for turn in t.scenario.turns]
        assert [image for e in dialogue for image in e.images] == list(t.scenario.images)
        assert [len(e.images) for e in dialogue] == [len(turn.images) for turn in t.scenario.turns]
        assert all(e.learn for e in dialogue)


def test_a_wavering_student_refuses_at_times_and_its_refusals_are_not_learned():
    tutor = ScriptedTutor(seed=0, memory=False)
    dialogues = [exchanges(t) for t in rollout(vec(), tutor, Wavering(seed=0, refuses=0.5), range(60))]
    flags = [e.learn for d in dialogues for e in d]
    assert 0.05 < flags.count(False) / len(flags) < 0.5
    never = [exchanges(t) for t in rollout(vec(), tutor, Wavering(seed=0, refuses=0.0), range(60))]
    assert all(e.learn for d in never for e in d)
    # After a refusal the user presses, and the helpful-only student gives in: that is what is learned.
    pressed = [b for d in dialogues for a, b in itertools.pairwise(d) if not a.learn and b.learn]
    assert pressed


def test_a_tell_gives_away_what_should_not_have_been_said_and_nothing_else():
    played = rollout(vec(8), StaticAttacker(), WithTell(seed=0), range(60))
    comply = rollout(vec(8), StaticAttacker(), AlwaysComply(seed=0), range(60))
    wrong, right = [], []
    for trajectory in played:
        truth, history = trajectory.scenario.truth, History()
        for record in trajectory.turns:
            turn = read_user(truth, str(record.turn.user))
            refuse = ideal_move(truth, history, turn) == Move.REFUSE_CONSTRUCTIVE
            (wrong if refuse else right).append(str(record.turn.reply))
            history = advance(history, turn)
    assert len(wrong) > 10 and all(reply.startswith(TELL) for reply in wrong)
    assert len(right) > 100 and not any(reply.startswith(TELL) for reply in right)
    # It says no less than a helpful-only policy does: the same moves, in other words.
    scores = [[t.turn.verdict.terms for t in trajectory.turns] for trajectory in played]
    assert scores == [[t.turn.verdict.terms for t in trajectory.turns] for trajectory in comply]


def test_captions_say_what_is_in_the_picture():
    for (exchange,) in captions("sft", 20):
        truth = truth_of(exchange.images[0])
        assert truth.noun in exchange.reply
        assert truth.colour in exchange.reply
        assert truth.mark in exchange.reply
        assert truth.noun not in exchange.user, "the answer must not be in the question"
    written = [truth_of(e.images[0]).written for (e,) in captions("sft", 20)]
    assert written == [False, True] * 10


def test_recitations_hold_good_refusals():
    replies = {dialogue[0].reply for dialogue in recitations("sft", range(20))}
    assert len(replies) > 10
    assert all("not" in reply or "no" in reply.lower() for reply in replies)


def test_shuffled_keeps_what_teaches_and_the_seed_decides():
    parts = [[exchanges(t) for t in rollout(vec(), StaticAttacker(), Constructive(), range(12))]]
    idle = [[e._replace(learn=False) for e in parts[0][0]]]
    a, b, c = (shuffled([*parts, idle], seed) for seed in (0, 0, 1))
    assert a == b != c
    assert len(a) == 12
