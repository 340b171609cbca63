"""Scores from lm-eval's samples, verifiers' traces and PyRIT's memory, in the layouts they are written in."""

import json
import math
import sqlite3

import pytest

from steer_env.cli.main import main
from steer_env.play.logs import compare_scores, read_scores


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lm_eval(path, right):
    return write_lines(
        path,
        [
            {
                "doc_id": i, "doc": {"question": "q"}, "target": "a", "arguments": {}, "resps": [["a"]],
                "filtered_resps": ["a"], "filter": "none", "metrics": ["exact_match", "pieces"],
                "doc_hash": "0", "prompt_hash": "0", "target_hash": "0",
                "exact_match": float(i in right), "pieces": [1, 2],
            }
            for i in range(6)
        ],
    )  # fmt: skip


def episode(idx, score, ok=True, **metrics):
    reward = None if score is None else {"score": score, "weight": 1.0}
    trace = {"agent": {"name": "student"}, "rewards": {"return": reward}, "metrics": metrics, "nodes": []}
    return {"id": "x", "ok": ok, "task": {"type": "T", "data": {"idx": idx}}, "traces": [trace]}


def memory(path, outcomes):
    with sqlite3.connect(path) as file:
        file.execute(
            "CREATE TABLE AttackResultEntries (objective, outcome, executed_turns, timestamp, last_score_id)"
        )
        rows = [(name, what, 3, f"2026-11-29 0{n}:00") for n, (name, what) in enumerate(outcomes)]
        file.executemany("INSERT INTO AttackResultEntries VALUES (?, ?, ?, ?, NULL)", rows)
    return path


def test_samples_of_lm_eval_are_paired_by_document(tmp_path, capsys):
    a, b = lm_eval(tmp_path / "a.jsonl", {0, 1}), lm_eval(tmp_path / "b.jsonl", {0, 1, 2, 3, 4})
    (found,) = compare_scores(read_scores(a), read_scores(b))
    assert found.measure == "exact_match" and found.difference.value == pytest.approx(3 / 6)
    assert found.p == pytest.approx(0.25)  # exact McNemar: 0 of 3 disagreements the other way, 2 / 2^3
    assert main(["compare", str(a), str(b)]) == 0 and "exact_match" in capsys.readouterr().out


def test_filters_of_one_document_are_scores_of_their_own(tmp_path):
    row = {"doc_id": 3, "metrics": ["m"], "m": 1.0}
    path = write_lines(tmp_path / "a.jsonl", [{**row, "filter": "strict"}, {**row, "filter": "loose"}])
    assert {r.measure for r in read_scores(path)} == {"m/strict", "m/loose"}


def test_traces_of_verifiers_count_a_task_again_as_an_epoch_and_keep_the_unscored(tmp_path):
    rows = [
        episode(0, 1.0),
        episode(0, 0.5),
        episode(1, None),
        episode(2, 0.0, ok=False),
        episode(3, 1.0, n=2),
    ]
    found = {
        (r.sample, r.epoch, r.measure): r.score for r in read_scores(write_lines(tmp_path / "t.jsonl", rows))
    }
    assert found["0", 1, "student/return"] == 1.0 and found["0", 2, "student/return"] == 0.5
    assert math.isnan(found["1", 1, "student/return"]) and math.isnan(found["2", 1, "student/return"])
    assert found["3", 1, "student/n"] == 2.0


def test_outcomes_in_a_memory_of_pyrit_are_paired_by_objective(tmp_path):
    a = memory(tmp_path / "a.db", [("x", "success"), ("y", "failure"), ("z", "undetermined")])
    b = memory(tmp_path / "b.db", [("x", "failure"), ("y", "failure"), ("z", "success")])
    found = {r.measure: r for r in compare_scores(read_scores(a), read_scores(b))}
    won = found["attack_success"].difference
    assert (won.n, won.undecided, won.value) == (2, 1, -0.5)
    assert found["executed_turns"].a == 3.0


def test_files_of_others_are_refused_by_name(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "?"}])
    with pytest.raises(ValueError, match=r"a\.jsonl:1: is no sample"):
        read_scores(path)
    (tmp_path / "a.db").write_bytes(b"no database at all, but long enough to be looked at")
    with pytest.raises(ValueError, match="no memory of PyRIT"):
        read_scores(tmp_path / "a.db")
