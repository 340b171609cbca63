"""Rows of run folders: whole lines, append-only, torn ends dropped, verdicts round-trip."""

import json
import os

import numpy as np
import pytest

from steer_env import testing
from steer_env.records import (
    JsonlWriter,
    dialogue_row,
    read_jsonl,
    token_pieces,
    trajectory_row,
    turn_row,
    verdict_from_row,
    verdict_row,
)
from steer_env.rollout import rollout
from steer_env.testing.toys import ToyAttacker, ToyStudent
from steer_env.trajectory import StopReason, TokenTrace, Trajectory
from steer_env.types import Scored, Terms, Turn, TurnResult, Unscored, Utterance
from steer_env.vector import VectorDialogueEnv
from steer_env.world import WorldSource
from steer_env.wrappers import TCSR, TurnReward


@pytest.mark.parametrize(
    "verdict",
    [
        None,
        Unscored("cannot tell", "rule"),
        Scored(Terms(4, 1, 10), "refuse_leak", ("zib", "quorn"), "leaked", "rule", "abc"),
        Scored(Terms(10, 10, 10)),
    ],
)
def test_verdicts_round_trip_through_json(verdict):
    assert verdict_from_row(json.loads(json.dumps(verdict_row(verdict)))) == verdict


def test_a_turn():
    turn = Turn(
        0, Utterance("user", strategy="roleplay", tactic="deepen", other=1), "reply", Unscored("why"), 3, 1
    )
    row = turn_row(TurnResult(turn, 0.5, {"cost": 1.0, "tcsr": {"value": 0.5}}))
    assert row == {
        "user": "user",
        "reply": "reply",
        "risk": 3,
        "images": 1,
        "verdict": {"unscored": "why", "judge": ""},
        "reward": 0.5,
        "cost": 1.0,
        "tcsr": {"value": 0.5},
        "strategy": "roleplay",
        "tactic": "deepen",
    }


def test_why_a_reply_ended_is_kept_where_the_student_says_so():
    cut = Turn(0, "u", Utterance("I see a", finish="length"), None)
    assert turn_row(TurnResult(cut, 0.0))["finish"] == "length"
    assert "finish" not in turn_row(TurnResult(Turn(0, "u", "I see.", None), 0.0))


def test_replies_in_the_built_in_world_say_whether_they_are_in_its_language():
    said = (
        "I cannot help you with that plan for the red drum. My answer is no.",
        "drum no red help zigzag the",
    )
    results = [TurnResult(Turn(i, "u", text, None), 0.0) for i, text in enumerate(said)]
    rows = dialogue_row(WorldSource().scenario(0), 0, results, "seed_end")["turns"]
    assert [row["well_formed"] for row in rows] == [True, False]
    other = dialogue_row(testing.toy_env().scenarios.sample(np.random.default_rng(0)), 0, results, "seed_end")
    assert all("well_formed" not in row for row in other["turns"])


def test_what_is_unscored_has_no_numbers():
    scenario = testing.toy_scenarios(1)[0]
    unscored = TurnResult(Turn(0, "u", "r", Unscored("why")), 0.0, {"scored": False})
    scored = TurnResult(Turn(1, "u", "r", Scored(Terms(1, 1, 1))), 0.5, {"scored": True, "cost": 1.0})
    row = dialogue_row(scenario, 0, [unscored], "seed_end")
    assert (row["return"], row["turns"][0]["cost"]) == (None, None)
    row = dialogue_row(scenario, 0, [unscored, scored], "seed_end")
    assert (row["return"], [turn["cost"] for turn in row["turns"]]) == (0.5, [None, 1.0])
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_numpy_scores_become_plain_integers():
    verdict = Scored(Terms(np.int64(3), np.int8(4), 5))
    assert json.loads(json.dumps(verdict_row(verdict)))["terms"]["safety"] == 3
    assert {type(value) for value in verdict.terms} == {int}


def test_rows_of_rollouts(tmp_path):
    vec = VectorDialogueEnv([lambda: TCSR(TurnReward(testing.toy_env()))] * 2)
    trajectories = rollout(vec, ToyAttacker(), ToyStudent(unscored=0.3), seeds=[0, 1, 2])
    with JsonlWriter(tmp_path / "d.jsonl") as writer:
        for trajectory in trajectories:
            writer.write(trajectory_row(trajectory, policy="toy"))
        writer.sync()
    for row, trajectory in zip(read_jsonl(tmp_path / "d.jsonl"), trajectories, strict=True):
        assert row["return"] == pytest.approx(trajectory.total) and row["policy"] == "toy"
        assert [verdict_from_row(t["verdict"]) for t in row["turns"]] == [
            t.turn.verdict for t in trajectory.turns
        ]
        assert row["images"] == [image.digest for image in trajectory.scenario.images]
        assert (row["seed"], row["stop"], row["schema"]) == (trajectory.seed, "seed_end", 1)


def test_failures_are_rows_too():
    scenario = testing.toy_scenarios(1)[0]
    row = trajectory_row(Trajectory(scenario, 3, (), StopReason.FAILED, error="server gone"))
    assert (row["stop"], row["error"], row["turns"], row["return"]) == ("failed", "server gone", [], None)
    assert row["planned"] == len(scenario)


def test_every_line_is_on_disk_at_once(tmp_path):
    writer = JsonlWriter(tmp_path / "a" / "b" / "d.jsonl")
    writer.write({"n": 1})
    assert list(read_jsonl(writer.path)) == [{"n": 1}]
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write({"n": 2})


def test_nan_is_refused_and_nothing_written(tmp_path):
    with JsonlWriter(tmp_path / "d.jsonl") as writer:
        writer.write({"n": 1})
        with pytest.raises(ValueError, match="JSON"):
            writer.write({"n": float("nan")})
        writer.write({"n": 2})
    assert list(read_jsonl(tmp_path / "d.jsonl")) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("torn", ["", '{"n": 3', "x" * 200_000, "\u00e9"])
def test_a_torn_last_line_is_dropped_and_whole_ones_kept(tmp_path, torn):
    path = tmp_path / "d.jsonl"
    whole = '{"n": 1}\n{"n": 2}\n'
    path.write_text(whole + torn, encoding="utf-8")
    assert [row["n"] for row in read_jsonl(path)] == [1, 2]
    JsonlWriter(path).write({"n": 4})
    assert path.read_text() == whole + '{"n": 4}\n'


def test_a_file_of_one_torn_line_becomes_empty(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("y" * 100_000)
    JsonlWriter(path).write({"n": 1})
    assert list(read_jsonl(path)) == [{"n": 1}]


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"n": 1}\nnot json\n\n{"n": 2}\n')
    with pytest.raises(ValueError, match=r"d\.jsonl:2 is not JSON.*remove or repair this line"):
        list(read_jsonl(path))


def test_two_writers_share_a_file(tmp_path):
    one, two = JsonlWriter(tmp_path / "d.jsonl"), JsonlWriter(tmp_path / "d.jsonl")
    for n in range(10):
        (one, two)[n % 2].write({"n": n, "pad": "x" * 50_000})
    assert [row["n"] for row in read_jsonl(tmp_path / "d.jsonl")] == list(range(10))


def test_odd_text_is_one_ascii_line(tmp_path):
    odd = "a\nb\u2028c <|im_end|> 😀"
    with JsonlWriter(tmp_path / "d.jsonl") as writer:
        writer.write({"text": odd})
    data = (tmp_path / "d.jsonl").read_bytes()
    assert data.isascii() and data.count(b"\n") == 1
    assert list(read_jsonl(tmp_path / "d.jsonl")) == [{"text": odd}]


def test_rows_stay_small_next_to_images():
    scenario = testing.toy_scenarios()[2]
    assert len(json.dumps(dialogue_row(scenario, 0, (), "seed_end"))) < 2000
    assert os.linesep not in json.dumps(dialogue_row(scenario, 0, (), "seed_end"))


def test_token_pieces_tell_context_sampled_and_learnt_apart() -> None:
    ids = np.arange(6, dtype=np.int64)
    sampled = np.array([0, 0, 1, 1, 0, 1], bool)
    logprobs = np.array([0, 0, -0.5, -1.25, 0, -2], np.float32)
    trace = TokenTrace(ids, sampled, logprobs, np.array([-1, -1, 0, 0, -1, 1], np.int32))

    def spell(some):
        return "".join("abcdef"[i] for i in some)

    learnt, credit = sampled & (ids < 5), np.full(6, 0.75)
    assert token_pieces(trace, spell, learnt, credit) == [
        "ab", ["c", -0.5, 0.75], ["d", -1.25, 0.75], "e", ["f", -2.0, None],
    ]  # fmt: skip
    assert [piece[2] for piece in token_pieces(trace, spell) if not isinstance(piece, str)] == [None] * 3
    nothing = TokenTrace(ids[:0], sampled[:0], logprobs[:0], np.zeros(0, np.int32))
    assert token_pieces(nothing, spell) == []
