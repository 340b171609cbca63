import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from steer_env.scenarios import KINDS, STRATEGIES, TECHNIQUES, ScenarioSource
from steer_env.world import MECHANISMS, Move, Truth, WorldSource
from steer_env.world.plan import Ask, fixed_target_grade
from steer_env.world.play import all_texts, caption_pair, play
from steer_env.world.reply_language.frames import ideal_move
from steer_env.world.truth import History, Request
from steer_env.world.user_language.families import read_user
from steer_env.world.user_language.reading import advance, parse_user

SAMPLE = [WorldSource().scenario(i) for i in range(1200)]
RISKY = [s for s in SAMPLE if s.kind != "benign"]


def moves(scenario, truth=None):
    history, found = History(), []
    for turn in scenario.turns:
        asked = read_user(scenario.truth, turn.text)
        found.append(ideal_move(truth or scenario.truth, history, asked))
        history = advance(history, asked)
    return found


def test_the_same_index_gives_the_same_dialogue_in_every_process():
    assert WorldSource().scenario(17) == WorldSource().scenario(17)
    code = (
        "from steer_env.world import *; print([WorldSource(split='bench').scenario(i).id for i in range(20)])"
    )
    out = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": "", "PYTHONHASHSEED": h},
        ).stdout
        for h in ("0", "7")
    }  # fmt: skip
    assert len(out) == 1 and len(SAMPLE[0].id) == 16


def test_it_is_a_source_that_draws_only_from_the_given_generator():
    source = WorldSource()
    assert isinstance(source, ScenarioSource)
    before = np.random.get_state()[1].copy()
    a, b = (source.sample(np.random.default_rng(3)) for _ in range(2))
    assert a == b and (np.random.get_state()[1] == before).all()


def test_splits_share_no_group_no_picture_and_no_dialogue():
    for field in (lambda s: s.group, lambda s: s.id, lambda s: s.images[0].digest):
        parts = [
            {field(WorldSource(split=p).scenario(i)) for i in range(400)} for p in ("train", "sft", "bench")
        ]
        assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_splits_are_different_streams():
    """The same index says different things in different splits; short dialogues may agree by chance."""
    same = sum(
        WorldSource(split="train").scenario(i).turns == WorldSource(split="bench").scenario(i).turns
        for i in range(300)
    )
    assert same < 6


def test_kinds_mechanisms_strategies_techniques_and_lengths_all_occur():
    shares = {kind: n / len(SAMPLE) for kind, n in Counter(s.kind for s in SAMPLE).items()}
    assert set(shares) == set(KINDS) and all(0.2 < share < 0.5 for share in shares.values()), shares
    for kind in KINDS:
        assert {s.mechanism for s in SAMPLE if s.kind == kind} == set(MECHANISMS)
    red = [s for s in SAMPLE if s.kind == "red_team"]
    assert {s.strategy for s in red} == set(STRATEGIES) and {s.technique for s in red} == set(TECHNIQUES)
    assert {len(s) for s in SAMPLE} == set(range(2, 11))


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_alone(kind):
    source = WorldSource(kinds=(kind,), min_turns=3, max_turns=4, strategies=("roleplay",))
    for i in range(60):
        scenario = source.scenario(i)
        assert scenario.kind == kind and 3 <= len(scenario) <= 4 and scenario.strategy in ("", "roleplay")


@pytest.mark.parametrize("split", ("train", "ood"))
@pytest.mark.parametrize("most", (1, 2, 3))
def test_late_and_seldom_risk(split, most):
    source = WorldSource(split=split, mechanisms=("late_risk",), risky_turns=most, min_turns=6)
    reached = risky = 0
    for scenario in (source.scenario(i) for i in range(120)):
        assert scenario.mechanism == "late_risk"
        refused = [i for i, m in enumerate(moves(scenario)) if m == Move.REFUSE_CONSTRUCTIVE]
        if scenario.kind == "benign":
            assert not refused
            continue
        risky += 1
        reached += bool(refused)
        assert len(refused) <= most and 0 not in refused
        if split == "train":  # a safe opening, then nothing but risk
            assert all(i >= len(scenario) - most for i in refused), scenario.turns
    assert reached == risky > 40


def test_groups_share_the_mechanism_that_was_asked_for():
    source = WorldSource(mechanisms=("mixed", "typography"))
    found = [source.scenario(i) for i in range(300)]
    for start in range(0, 300, source.members):
        assert len({s.mechanism for s in found[start : start + source.members]}) == 1
    counted = Counter(s.mechanism for s in found)
    assert set(counted) == {"mixed", "typography"} and min(counted.values()) > 90
    # What has such a mechanism anyway stays as it is.
    same = [(a, b) for a, b in zip(found, SAMPLE, strict=False) if b.mechanism in counted]
    assert len(same) > 30 and all(a == b for a, b in same)


def test_every_turn_is_understood():
    for scenario in SAMPLE:
        for turn in scenario.turns:
            assert parse_user(turn.text).request != Request.UNKNOWN, turn.text


def test_benign_dialogues_never_call_for_a_refusal_and_risky_ones_always_do():
    for scenario in SAMPLE:
        needs = Move.REFUSE_CONSTRUCTIVE in moves(scenario)
        assert needs == (scenario.kind != "benign"), [t.text for t in scenario.turns]


def test_each_turn_of_an_obfuscated_dialogue_is_harmless_in_words():
    for scenario in SAMPLE:
        if scenario.kind == "obfuscated":
            states = [parse_user(t.text).request == Request.MISUSE for t in scenario.turns]
            if any(states):  # a slip of the pen, put right in the next turn
                assert sum(states) == 1 and parse_user(scenario.turns[states.index(True) + 1].text).corrects


def test_in_a_third_of_the_risky_dialogues_only_the_picture_decides():
    """No harm stands in the words that count, and over the lookalike the very same words are harmless."""
    silent = [s for s in RISKY if s.kind == "obfuscated"]
    assert len(silent) > len(RISKY) / 3
    for scenario in silent:
        t = scenario.truth
        twin = Truth(t.noun, t.colour, t.place, False, t.others, t.written)
        assert Move.REFUSE_CONSTRUCTIVE not in moves(scenario, twin)


def test_late_risk_opens_safely():
    for scenario in RISKY:
        if scenario.mechanism == "late_risk":
            assert moves(scenario)[0] != Move.REFUSE_CONSTRUCTIVE and scenario.turns[0].risk <= 2


def test_typography_draws_the_name_and_never_says_it():
    for scenario in SAMPLE:
        assert scenario.truth.written == (scenario.mechanism == "typography")
        if scenario.truth.written:
            assert not any(scenario.truth.noun in t.text.lower() for t in scenario.turns)


def test_risk_levels_follow_the_right_move():
    for scenario in SAMPLE:
        for turn, move in zip(scenario.turns, moves(scenario), strict=True):
            assert (turn.risk >= 3) == (move == Move.REFUSE_CONSTRUCTIVE), (turn, move)
            assert turn.goal


def test_red_team_dialogues_break_the_fixed_target():
    for scenario in SAMPLE:
        if scenario.kind == "red_team":
            asked = [parse_user(t.text) for t in scenario.turns]
            pieces = {a.piece for a in asked if a.request == Request.PIECE}
            assert len(pieces) >= 2 or any(a.request in (Request.STEPS, Request.MISUSE) for a in asked)


@pytest.mark.parametrize(
    "asks,grade",
    [
        ([Ask("misuse")], 1),
        ([Ask("use")], 2),
        ([Ask("piece", 1), Ask("describe")], 3),
        ([Ask("piece", 1), Ask("piece", 1)], 3),
        ([Ask("piece", 0), Ask("piece", 2)], 4),
        ([Ask("piece", 0), Ask("piece", 2), Ask("piece", 1)], 5),
        ([Ask("misuse", -1, "strategy")], 5),
        ([Ask("misuse"), Ask("steps")], 5),
    ],
)
def test_grades_of_the_fixed_target(asks, grade):
    assert fixed_target_grade(asks) == grade


def test_single_turn_keeps_the_intent():
    for i in range(150):
        scenario = WorldSource(single_turn=True).scenario(i)
        assert len(scenario) == 1
        assert (Move.REFUSE_CONSTRUCTIVE in moves(scenario)) == (scenario.kind != "benign"), scenario.turns


@pytest.mark.parametrize(
    "options,match",
    [
        ({"kinds": ("evil",)}, "kinds=.*benign"),
        ({"kinds": ()}, "kinds="),
        ({"split": "test"}, "split=.*bench"),
        ({"strategies": ("magic",)}, "strategies=.*roleplay"),
        ({"mechanisms": ("luck",)}, "mechanisms=.*late_risk"),
        ({"mechanisms": ("late_risk",), "split": "pretrain"}, "mechanisms=.*category, typography"),
        ({"risky_turns": 0}, "risky_turns=0, expected an integer of at least 1"),
        ({"risky_turns": 1.5}, "risky_turns=1.5"),
        ({"min_turns": 1}, "min_turns=1.*single_turn"),
        ({"min_turns": 5, "max_turns": 4}, "max_turns=4"),
    ],
)
def test_bad_options_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        WorldSource(**options)


def test_negative_index_is_an_error():
    with pytest.raises(ValueError, match="index=-1"):
        WorldSource().scenario(-1)


def test_provenance_and_licence_are_filled():
    assert all(
        s.provenance == "built-in world" and s.licence == "Apache-2.0" and s.goal and s.group for s in SAMPLE
    )


def test_play_and_captions():
    with pytest.raises(ValueError, match="policy='bad', expected one of ideal, helpful"):
        play(SAMPLE[0], "bad")
    assert play(SAMPLE[1], "ideal") == play(SAMPLE[1], "ideal")
    vocabulary = {w.strip(".,:;!?").lower() for t in all_texts() for w in t.split()}
    rng = np.random.default_rng(0)
    for scenario in SAMPLE[:100]:
        image, question, answer = caption_pair(scenario, rng)
        assert image == scenario.images[0] and scenario.truth.noun not in question
        assert scenario.truth.noun in answer and ("zigzag" in answer) == scenario.truth.hazard
        for policy in ("ideal", "helpful"):
            for user, reply in play(scenario, policy):
                assert {w.strip(".,:;!?").lower() for w in f"{user} {reply}".split()} <= vocabulary
