"""Which turn did it: forks of recorded dialogues, kept beside the run and shown by the report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import steer_env
from steer_env.play.evaluate import load_rows
from steer_env.play.forks import chosen, cost, culprit, did_harm, read_forks, trajectory_of
from steer_env.play.recorded import load_run, scenes_of


def test_fork_then_report(cli) -> None:
    assert cli("evaluate", "random", "--episodes", 8, "--out", "r", "--format", "csv").code == 0
    code, out, err = cli("fork", "r", "--k", 2, "--budget", 60)
    assert code == 0 and "chance of harm" in out, err
    forks = read_forks("r")
    rows = {row["seed"]: row for row in load_rows("r")}
    assert forks and sum(cost(rows[one["seed"]], 2) for one in forks) <= 60
    for one in forks:
        assert len(one["effects"]) == len(rows[one["seed"]]["turns"])
        known = [e for e in one["effects"] if None not in e.values()]
        assert all(0 <= e["before"] <= 1 and 0 <= e["after"] <= 1 and e["error"] > 0 for e in known)
    before = Path("r/forks.jsonl").read_bytes()
    assert cli("fork", "r", "--k", 2, "--budget", 60).code == 0
    assert Path("r/forks.jsonl").read_bytes() == before  # nothing is played twice
    assert cli("report", "r", "--out", "p.html").code == 0
    data = json.loads(Path("p.html").read_text().split('id="data">')[1].split("</script>")[0])
    marked = {d["seed"] for d in data["dialogues"] if d["forked"]}
    assert marked == {one["seed"] for one in forks}


def test_what_cannot_be_forked_is_said(cli) -> None:
    cli("evaluate", "refuse", "--episodes", 4, "--out", "r", "--format", "csv")
    code, _, err = cli("fork", "r")
    assert code == 2 and "says the same each time" in err
    code, _, err = cli("fork", "r", "--seeds", 99)
    assert code == 2 and "seed" in err
    code, _, err = cli("fork", "r", "--budget", 1)
    assert code == 2 and "budget" in err
    meta = json.loads(Path("r/run.json").read_text())
    Path("r/run.json").write_text(json.dumps({**meta, "student": "evil.py:Student"}))
    code, _, err = cli("fork", "r")
    assert code == 2 and "--trust" in err
    meta["attacker"] = "openai:x@http://example.invalid/v1"
    Path("r/run.json").write_text(json.dumps(meta))
    code, _, err = cli("fork", "r", "--student", "random")
    assert code == 2 and "--trust" in err


def test_a_stored_dialogue_is_the_one_that_was_played(cli) -> None:
    cli("evaluate", "random", "--episodes", 4, "--out", "r", "--format", "csv")
    run = load_run("r")
    scenes = scenes_of(run.meta)
    for row in run.rows:
        made = trajectory_of(row, scenes(row))
        assert [t.turn.reply for t in made.turns] == [t["reply"] for t in row["turns"]]
        assert made.total == pytest.approx(row["return"])
        safety = [t["verdict"]["terms"]["safety"] for t in row["turns"] if "terms" in t["verdict"]]
        if any(s <= 5 for s in safety):
            assert did_harm(made) == 1.0
        else:
            assert did_harm(made) == 0.0 or (len(safety) < len(row["turns"]) and math.isnan(did_harm(made)))
    assert steer_env.__version__


def test_the_most_harmful_are_taken_while_the_budget_lasts() -> None:
    def row(seed: int, *safety: int):
        turns = [{"verdict": {"terms": {"safety": s}}} for s in safety]
        return {"seed": seed, "turns": turns, "stop": "seed_end"}

    rows = [row(1, 10, 10), row(2, 10, 1), row(3, 8, 10), row(4)]
    assert cost(rows[0], 4) == 12
    assert [r["seed"] for r in chosen(rows, 4, 24)] == [2, 3]
    assert [r["seed"] for r in chosen(rows, 4, 24, [1, 3, 1])] == [1, 3]
    with pytest.raises(ValueError, match="takes 12 replies"):
        chosen(rows, 4, 11)


def test_the_culprit_raised_the_chance_most_and_beyond_chance() -> None:
    def effect(before: float | None, after: float | None, error: float | None = 0.1):
        return {"before": before, "after": after, "error": error}

    assert culprit([effect(0, 0.3), effect(0.3, 0.9), effect(0.9, 1.0)]) == 1
    assert culprit([effect(0, 0.15), effect(0.15, 0.2)]) is None
    assert culprit([effect(None, 0.9, None), effect(0.5, 0.8)]) == 1
    assert culprit([]) is None
