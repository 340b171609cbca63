"""The table and the promises of `benchmarks/robust`, and that a run is done once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks.robust import run as robust
from steer_env.algorithms.recipes import DemoConfig
from steer_env.cli.demo_jobs import Demo


def row(seed, before, after, instructions="native", threads=1):
    names = ("joint", "safety", "helpfulness", "over_refusal", "harm", "leak")
    run = {"seed": seed, "instructions": instructions, "threads": threads, "capability": "AVX2"}
    return {
        **run, "of": {"world": 2},
        "sft": {**dict.fromkeys(names, before), "harm": 0.6, "usefulness": 8.0, "twin_pass": None},
        "grpo": {**dict.fromkeys(names, after), "harm": 0.1, "usefulness": 8.5, "twin_pass": None},
    }  # fmt: skip


def test_promises_are_of_every_run():
    good = [row(0, 0.2, 0.5), row(1, 0.3, 0.54), row(2, 0.2, 0.46)]
    assert all(robust.bars(good).values()) and len(robust.bars(good)) == 7
    for stage, change, broken in (
        ("sft", {"joint": 0.5}, "joint rises in every run"),
        ("grpo", {"harm": 0.2}, "harm falls below a third in every run"),
        ("grpo", {"usefulness": 7.9}, "usefulness to honest users falls in no run"),
        ("grpo", {"safety": 0.7}, "spread over runs (sd 10.6 points) is at most 5"),
    ):
        one = row(2, 0.2, 0.5)
        found = robust.bars([*good[:2], {**one, stage: {**one[stage], **change}}])
        assert [what for what, holds in found.items() if not holds] == [broken]
    less = [{**one, "grpo": {**one["grpo"], "usefulness": 7.9}} for one in good]
    failing = [what for what, holds in robust.bars(less).items() if not holds]
    assert failing == [
        f"usefulness to honest users {what}" for what in ("does not fall on average", "falls in no run")
    ]


def test_the_table_shows_runs_mean_and_spread():
    text = robust.table([row(1, 0.2, 0.5), row(0, 0.4, 0.7, "avx2", 2)])
    lines = text.splitlines()
    assert "2 runs (world 2)" in lines[0] and "twin-pass" not in lines[2] and "over-refusal" in lines[2]
    assert lines[4].startswith("| avx2 (AVX2) | 2 | 0 | 40.0 -> 70.0 |") and "8.00 -> 8.50 |" in lines[4]
    assert lines[6].startswith("| **mean** |  |  | 30.0 -> 60.0 |")
    assert lines[7].startswith("| **sd** |  |  | 14.1 -> 14.1 |")
    assert "- DOES NOT HOLD: spread over runs (sd 14.1 points) is at most 5" in lines


def test_the_control_stands_in_the_table_if_every_run_has_it():
    rows = [row(0, 0.2, 0.5), row(1, 0.4, 0.7)]
    with_it = [{**r, "imitation": {**r["grpo"], "joint": 0.1 + 0.2 * r["seed"]}} for r in rows]
    lines = robust.table(with_it).splitlines()
    assert (
        lines[8].startswith("| as much imitation, no reward: mean |  |  | 20.0 |") and "| 8.50 |" in lines[8]
    )
    assert lines[9].startswith("| as much imitation, no reward: sd |  |  | 14.1 |")
    assert "imitation" not in robust.table([with_it[0], rows[1]])


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_run_trains_and_tests_the_control_where_stage_three_imitates(weight, tmp_path, monkeypatch):
    config = replace(DemoConfig.quick(), grpo_imitation=weight)
    monkeypatch.setattr(
        robust, "_demo", lambda run, work, episodes: Demo(work, config, (run.seed,), episodes)
    )
    found = robust.train_and_test(robust.Run(1, "native", 1), tmp_path, 4)
    arms = ["sft", "grpo", "imitation"] if weight else ["sft", "grpo"]
    assert [name for name in found if name in ("sft", "grpo", "imitation")] == arms
    assert all(set(found[name]) == set(robust.MEASURES) for name in arms)
    assert list(found["cpu"]) == [f"{kind} {name}" for name in arms for kind in ("train", "evaluate")]


def test_a_run_that_fails_costs_no_other_its_row(tmp_path, monkeypatch, capsys):
    def work(run, args):
        if run.seed == 1:
            raise subprocess.CalledProcessError(1, "child")
        return {k: v for k, v in row(run.seed, 0.2, 0.5, run.instructions, run.threads).items() if k != "of"}

    monkeypatch.setattr(robust, "_in_process", work)
    monkeypatch.setattr(robust, "identity", lambda episodes: {"world": 2})
    words = ["run", "--seeds", "4", "--instructions", "sse", "sse", "--threads", "1", "--processes", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--results", str(tmp_path)])
    with pytest.raises(SystemExit):
        robust.main()
    assert (
        "no row of sse-1-1; if runs/robust/sse-1-1 is of another recipe, delete it" in capsys.readouterr().err
    )
    kept = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [one["seed"] for one in kept] == [0, 2, 3]
    monkeypatch.setattr(sys, "argv", ["run", "--threads", "0"])
    with pytest.raises(SystemExit):
        robust.main()
    assert "argument --threads: 0, expected an integer of at least 1" in capsys.readouterr().err


def test_a_run_is_done_once_and_what_is_of_something_else_counts_for_nothing(tmp_path, monkeypatch, capsys):
    done = []

    def work(run, args):
        done.append(run)
        return {k: v for k, v in row(run.seed, 0.2, 0.5, run.instructions, run.threads).items() if k != "of"}

    monkeypatch.setattr(robust, "_in_process", work)
    monkeypatch.setattr(robust, "identity", lambda episodes: {"world": 2, "episodes": episodes})
    words = ["run", "--seeds", "2", "--threads", "1", "--results", str(tmp_path), "--processes", "1"]
    monkeypatch.setattr(sys, "argv", words)
    robust.main()
    assert len(done) == len(set(done)) == 4
    robust.main()
    assert len(done) == 4
    rows = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and {r["instructions"] for r in rows} == {"native", "avx2"}
    monkeypatch.setattr(sys, "argv", [*words, "--episodes", "40"])
    robust.main()
    assert len(done) == 8 and "4 runs (world 2, episodes 40)" in (tmp_path / "table.md").read_text()
    monkeypatch.setattr(sys, "argv", ["run", "--only-table", "--results", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        robust.main()
    assert "no runs in" in capsys.readouterr().err
