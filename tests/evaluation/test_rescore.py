from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import steer_env
from steer_env.configs.env import EnvConfig
from steer_env.judges.base import JudgeRequest
from steer_env.judges.rule import RuleJudge
from steer_env.play.controls import load_controls
from steer_env.play.evaluate import evaluate, load_rows
from steer_env.play.rescore import CannotRescore, Scenes, rescore
from steer_env.runs import RunExists
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.types import Scored, Terms, Unscored, Verdict

ENV = "SteerEscalation-v0"
SCENES = Scenes(EnvConfig(ENV, "bench"))


class Counting:
    """Gives every reply the same verdict, counts, and may die."""

    name = "counting"

    def __init__(self, dies_at: int = 10**9) -> None:
        self.seen: list[str] = []
        self.calls, self.dies_at = 0, dies_at

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        self.calls += 1
        if self.calls > self.dies_at:
            raise KeyboardInterrupt
        self.seen += [repr((r.scenario.id, len(r.transcript))) for r in requests]
        return [Scored(Terms(4, 1, 10), judge=self.name) for _ in requests]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    vec = steer_env.make_vec(ENV, 8, split="bench")
    attacker, student = steer_env.make_agent("tutor"), steer_env.make_agent("random")
    evaluate(vec, attacker, student, range(24), tmp_path / "run", meta={"env": ENV}, replicates=50)
    return tmp_path / "run"


def test_the_same_judge_gives_the_same_verdicts_without_generating(run: Path, tmp_path: Path) -> None:
    summary = rescore(run, RuleJudge(), SCENES, tmp_path / "again", replicates=50)
    assert summary.to_dict() == json.loads((run / "summary.json").read_text())
    for old, new in zip(load_rows(run), load_rows(tmp_path / "again"), strict=True):
        assert [t["verdict"] for t in old["turns"]] == [t["verdict"] for t in new["turns"]]
        assert [t["cost"] for t in old["turns"]] == [t["cost"] for t in new["turns"]]
        assert [t["reply"] for t in old["turns"]] == [t["reply"] for t in new["turns"]]
        assert "return" not in new and "reward" not in new["turns"][0] and "tcsr" not in new["turns"][0]


def test_another_judge_replaces_every_verdict_and_is_named(run: Path, tmp_path: Path) -> None:
    summary = rescore(run, Counting(), SCENES, tmp_path / "other", replicates=50)
    assert summary.judges == ("counting",) and summary.harm_rate.value == 1
    meta = json.loads((tmp_path / "other" / "run.json").read_text())
    assert meta["judge"] == "counting" and meta["rescored_from"] == str(run)
    assert all(t["cost"] == 1 for row in load_rows(tmp_path / "other") for t in row["turns"])


def test_what_is_unscored_has_no_cost(run: Path, tmp_path: Path) -> None:
    class Silent(Counting):
        def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
            return [Unscored("nothing to say", self.name)] * len(requests)

    rescore(run, Silent(), SCENES, tmp_path / "silent", replicates=50)
    turns = [t for row in load_rows(tmp_path / "silent") for t in row["turns"]]
    assert turns and all(t["cost"] is None and "unscored" in t["verdict"] for t in turns)


def test_controls_are_judged_again_too(run: Path, tmp_path: Path) -> None:
    for name in ("blind", "constant"):  # played by the same student: only what is judged matters here
        shutil.copytree(run, run / "controls" / name, ignore=lambda *_: {"controls"})
    (run / "controls" / "constant.json").write_text('{"reply": "no"}')
    told: list[tuple[int, int]] = []
    out = tmp_path / "again"
    rescore(run, Counting(), SCENES, out, replicates=50, progress=lambda n, of: told.append((n, of)))
    assert told == [(n, 72) for n in range(1, 73)]
    assert {name: len(rows) for name, rows in load_controls(out).items()} == {"blind": 24, "constant": 24}
    meta = json.loads((out / "controls/blind/run.json").read_text())
    assert meta["judge"] == "counting" and meta["rescored_from"] == str(run / "controls/blind")
    assert json.loads((out / "controls/blind/summary.json").read_text())["harm_rate"]["value"] == 1
    assert json.loads((out / "controls/constant.json").read_text()) == {"reply": "no"}


def test_killed_rescoring_goes_on_and_judges_nothing_on_disk_twice(run: Path, tmp_path: Path) -> None:
    out, first, second = tmp_path / "out", Counting(dies_at=2), Counting()
    with pytest.raises(KeyboardInterrupt):
        rescore(run, first, SCENES, out, batch=4)
    assert len(load_rows(out)) == 8
    with pytest.raises(RunExists, match="--resume"):
        rescore(run, second, SCENES, out)
    told: list[tuple[int, int]] = []
    rescore(run, second, SCENES, out, batch=4, resume=True, progress=lambda n, of: told.append((n, of)))
    turns = sum(len(row["turns"]) for row in load_rows(run))
    assert len(first.seen) + len(second.seen) == turns
    assert sorted(r["seed"] for r in load_rows(out)) == list(range(24))
    assert told == [(n, 24) for n in range(9, 25)]  # a row as soon as it is judged
    third = Counting()
    rescore(run, third, SCENES, out, resume=True)
    assert third.calls == 0


def test_a_failing_judge_leaves_turns_unscored(run: Path, tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def judge(self, requests: Any) -> Any:
            raise OSError("no route")

    with pytest.warns(RuntimeWarning, match="no route"):
        summary = rescore(run, Broken(), SCENES, tmp_path / "out")
    assert summary.unscored_turns == summary.turns and not summary.harm_rate.available


def test_own_scenarios(tmp_path: Path) -> None:
    mine = [Scenario((DraftTurn(f"question {i}"), DraftTurn("why?"))) for i in range(3)]
    vec = steer_env.make_vec("SteerStatic-v0", 2, scenarios=mine)
    players = steer_env.make_agent("static"), steer_env.make_agent("refuse")
    evaluate(vec, *players, range(5), tmp_path / "run", scenarios=mine)
    judge = Counting()
    rescore(tmp_path / "run", judge, Scenes(EnvConfig("SteerStatic-v0"), mine), tmp_path / "out")
    assert len(judge.seen) == 10
    with pytest.raises(CannotRescore, match="seed 0 makes scenario"):
        rescore(tmp_path / "run", judge, Scenes(EnvConfig("SteerStatic-v0"), mine[1:]), tmp_path / "out2")


def _edit(run: Path, change: Any) -> None:
    rows = load_rows(run)
    change(rows[3])
    (run / "dialogues.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: row["turns"][0].pop("reply"), "turn 1 has no reply, expected the texts"),
        (lambda row: row["turns"][1].update(user=None), "turn 2 has no user"),
        (lambda row: row.update(scenario="x"), "the stored dialogue has 'x'"),
        (lambda row: row.update(seed=-1), "seed=-1"),
        (lambda row: row.pop("seed"), "without a seed"),
        (lambda row: row["turns"].extend(row["turns"] * 5), "in the scenario"),
    ],
)
def test_rows_that_lack_what_the_judge_needs_are_named(run: Path, tmp_path: Path, change, says: str) -> None:
    _edit(run, change)
    with pytest.raises(CannotRescore, match=says):
        rescore(run, Counting(), SCENES, tmp_path / "out", batch=1)


def test_bad_batch(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch=0"):
        rescore(run, Counting(), SCENES, tmp_path / "out", batch=0)
