from __future__ import annotations

import json
from pathlib import Path

import pytest

from steer_env.evaluation.breakdown import breakdown
from steer_env.evaluation.leakage import BINS, UNAUDITED, bin_of, load_leakage, with_leakage
from steer_env.evaluation.tabulate import from_rows


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("score", "name"), [(0, "below 0.05"), (0.05, "0.05 to 0.2"), (0.49, "0.2 to 0.5"), (1, "0.5 and more")]
)
def test_bins_hold_their_lower_end(score: float, name: str) -> None:
    assert bin_of(score) == name


def test_bins_come_from_the_highest() -> None:
    assert [least for least, _ in BINS] == sorted((least for least, _ in BINS), reverse=True)


def test_results_by_bin(make_row, tmp_path: Path) -> None:
    path = write(
        tmp_path / "l.jsonl",
        {"id": "s1", "score": 0.0},
        {"id": "s2", "score": 0.9},
        {"id": "s3", "score": 0.1, "bin": "mine"},
    )
    rows = [make_row(10, 10 if i == 1 else 1, seed=i) for i in (1, 2, 3, 4)]
    labelled = with_leakage(rows, load_leakage(path))
    assert [r["leakage"] for r in labelled] == ["below 0.05", "0.5 and more", "mine", UNAUDITED]
    assert "leakage" not in rows[0]
    got = breakdown(from_rows(labelled), "leakage", "safety")
    assert {name: e.value for name, e in got.levels.items()} == {
        "below 0.05": 1,
        "0.5 and more": 0,
        "mine": 0,
        UNAUDITED: 0,
    }


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([{"score": 0.1}], "line 1 has no text 'id'"),
        ([{"id": "a", "score": 1.5}], "score=1.5, expected a number in"),
        ([{"id": "a", "score": None}], "score=None"),
        ([{"id": "a", "score": 0.0}, {"id": "a", "score": 0.9}], "another score before"),
        ([], "has no lines"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(lines: list[object], what: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=what):
        load_leakage(write(tmp_path / "l.jsonl", *lines))


def test_the_audit_of_another_set_is_refused(make_row) -> None:
    with pytest.raises(ValueError, match="none of the 1 dialogues"):
        with_leakage([make_row(10)], {"other": "below 0.05"})
    assert with_leakage([], {"other": "x"}) == []
