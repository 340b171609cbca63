"""`evaluate --suite`: every part in a folder of its own, resumable; reports, comparisons, rescoring of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steer_env.play.evaluate import load_rows


def suite(cli, student: str, out: str, *words: object):
    return cli(
        "evaluate", student, "--suite", "bench", "--episodes", 10, "--out", out, "--format", "md,csv", *words
    )


def test_whole_groups_and_attempts_give_what_single_runs_cannot(cli) -> None:
    code, out, err = suite(cli, "comply", "r", "--attempts", 2)
    assert code == 0, err
    rows = load_rows("r/bench")
    assert len(rows) == 24 and [r["attempt"] for r in rows].count(1) == 12  # 10 rounded up to whole groups
    assert {(r["suite"], r["distribution"]) for r in rows} == {("bench", "in")}
    by_seed = {r["seed"]: r for r in rows}
    assert all(by_seed[s]["scenario"] == by_seed[s + 12]["scenario"] for s in range(12))
    assert any(by_seed[s]["turns"] != by_seed[s + 12]["turns"] for s in range(12))
    assert [r["twin"] for r in rows if r["kind"] == "benign"] != []
    assert "attack success within 2 attempts" in out and "J = 1 - ASR - ORR" in out
    markdown = Path("r/report.md").read_text()
    assert "| measure | policy | multi-turn, in-distribution |" in markdown
    assert "not available" not in markdown.split("In brackets")[0]


def test_the_first_attempt_is_the_run_with_one(cli) -> None:
    suite(cli, "random", "one")
    suite(cli, "random", "two", "--attempts", 2)
    one, two = (sorted(load_rows(f"{r}/bench"), key=lambda r: r["seed"]) for r in ("one", "two"))
    assert one == two[:12]


def test_a_killed_suite_goes_on_to_the_same_end(cli) -> None:
    suite(cli, "random", "whole", "--attempts", 2)
    suite(cli, "random", "cut", "--attempts", 2)
    path = Path("cut/bench/dialogues.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:15]) + lines[15][:40])
    code, _, err = suite(cli, "random", "cut", "--attempts", 2)
    assert code == 2 and "--resume" in err
    # The folder says that it is a suite.
    code, _, err = cli("evaluate", "random", "--out", "cut", "--resume", "--format", "csv")
    assert code == 0, err
    whole, cut = (sorted(load_rows(f"{r}/bench"), key=lambda r: r["seed"]) for r in ("whole", "cut"))
    assert cut == whole and path.read_text().splitlines(keepends=True)[:15] == lines[:15]
    assert Path("cut/results.csv").read_text() == Path("whole/results.csv").read_text()


def test_killed_hard_while_it_plays(tmp_path: Path) -> None:
    """SIGKILL in the middle: what is on disk stays, and every dialogue is there once in the end."""
    words = ["evaluate", "random", "--suite", "bench", "--episodes", "240", "--num-envs", "4", "--out", "r"]
    command = [sys.executable, "-m", "steer_env.cli.main", *words, "--format", "md"]
    path = tmp_path / "r/bench/dialogues.jsonl"
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ.copy()
    )
    until = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size > 50_000) and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = load_rows(path.parent)
    assert 0 < len(before) < 240
    done = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = load_rows(path.parent)
    assert after[: len(before)] == before and sorted(r["seed"] for r in after) == list(range(240))


def test_suites_are_compared_reported_and_rescored_part_by_part(cli) -> None:
    suite(cli, "comply", "a")
    suite(cli, "constructive", "b")
    code, out, err = cli("compare", "a", "b", "--measure", "harm", "--replicates", 100, "--out", "c.json")
    assert code == 0 and out.startswith("bench:"), err
    (result,) = json.loads(Path("c.json").read_text())["results"]
    assert result["suite"] == "bench" and result["difference"]["value"] < -0.3
    code, out, err = cli("report", "a", "b", "--out", "both.html")
    assert code == 0 and "report: both.html" in out and Path("both.html").exists(), err
    assert not Path("report.html").exists() and '"images":{}' not in Path("both.html").read_text()
    code, out, err = cli("rescore", "a", "--judge", "rule", "--out", "again")
    assert code == 0, err
    verdicts = [[t["verdict"] for t in row["turns"]] for row in load_rows("a/bench")]
    assert [[t["verdict"] for t in row["turns"]] for row in load_rows("again/bench")] == verdicts
    assert cli("compare", "a", "again", "--measure", "harm", "--replicates", 100).code == 0


def test_parts_that_differ_are_not_comparable(cli) -> None:
    suite(cli, "comply", "a")
    cli("evaluate", "comply", "--suite", "bench-single", "--episodes", 9, "--out", "s", "--format", "csv")
    cli("evaluate", "comply", "--episodes", 12, "--out", "plain", "--format", "csv")
    code, _, err = cli("compare", "a", "s")
    assert code == 2 and "a has bench, s has bench-single" in err
    code, _, err = cli("compare", "a", "plain")
    assert code == 2 and "plain has none" in err
    code, _, err = cli("compare", "a/bench", "plain")
    assert code == 2 and "suite: bench has 'bench', plain has ''" in err
    code, _, err = cli("rescore", "a/missing", "--judge", "rule")
    assert code == 2 and "holds no dialogues" in err


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--suite", "nope"), "suite='nope', expected one of bench"),
        (("--suite", "bench", "--split", "sft"), "leave --split or --suite out"),
        (("--attempts", 2), "expected --suite beside --attempts"),
        (("--suite", "bench-single", "--attempts", 2), "expected a sampling student"),
        (("--suite", "bench", "--format", "docx"), "format='docx', expected some of html"),
        (("--leakage", "none.jsonl"), "none.jsonl"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_played(cli, words: tuple[object, ...], what: str) -> None:
    code, _, err = cli("evaluate", "refuse", "--out", "r", *words)
    assert code == 2 and what in err and not Path("r").exists()
