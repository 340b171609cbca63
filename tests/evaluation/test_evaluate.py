from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import steer_env
from steer_env.agents.base import Failed
from steer_env.evaluation.measures import measure
from steer_env.play.evaluate import evaluate, load_rows
from steer_env.runs import RunExists
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.types import Utterance
from steer_env.world import WorldSource


def run(out: Path, student: Any = "constructive", seeds: Sequence[int] = range(12), **options: Any) -> Any:
    vec = steer_env.make_vec("SteerEscalation-v0", 4)
    agent = steer_env.make_agent(student) if isinstance(student, str) else student
    options.setdefault("meta", {"student": "constructive"})
    return evaluate(vec, steer_env.make_agent("tutor"), agent, seeds, out, replicates=50, **options)


class Dying:
    """A student that is interrupted after some calls."""

    def __init__(self, calls: int) -> None:
        self.calls, self.inner = calls, steer_env.make_agent("constructive")

    def act(self, observations: Sequence[Any]) -> list[Utterance]:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return self.inner.act(observations)


def test_folder_holds_every_dialogue_once_and_the_summary(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    summary = run(tmp_path / "r", progress=lambda n, of: told.append((n, of)))
    rows = load_rows(tmp_path / "r")
    assert sorted(r["seed"] for r in rows) == list(range(12))
    assert summary.dialogues == 12 and summary.multi_turn_safety.value == 1
    assert told[-1] == (12, 12)
    stored = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert stored["multi_turn_safety"]["value"] == 1
    assert {r["policy"] for r in rows} == {"constructive"}


def test_killed_run_resumes_to_the_same_result_without_repeating(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "r", Dying(9))
    partial = load_rows(tmp_path / "r")
    assert 0 < len(partial) < 12
    with (tmp_path / "r" / "dialogues.jsonl").open("a") as file:
        file.write('{"torn')  # as a killed process may leave it
    resumed = run(tmp_path / "r", resume=True)
    rows = load_rows(tmp_path / "r")
    assert rows[: len(partial)] == partial
    assert sorted(r["seed"] for r in rows) == list(range(12))
    whole = run(tmp_path / "whole")
    assert resumed.to_dict() == whole.to_dict()
    by_seed = [sorted(load_rows(tmp_path / name), key=lambda r: r["seed"]) for name in ("r", "whole")]
    assert by_seed[0] == by_seed[1]


def test_resuming_a_finished_run_plays_nothing(tmp_path: Path) -> None:
    run(tmp_path / "r")
    assert run(tmp_path / "r", Dying(0), resume=True).dialogues == 12
    members = WorldSource().members
    fewer = run(tmp_path / "r", Dying(0), range(members + 1), resume=True)
    assert fewer.dialogues == 2 * members, "seeds are rounded up to whole groups"


class Unplugged(Dying):
    """A student whose server is lost after some calls and comes back never."""

    def act(self, observations: Sequence[Any]) -> list[Any]:
        self.calls -= 1
        if self.calls < 0:
            return [Failed("connection refused") for _ in observations]
        return self.inner.act(observations)


def test_failed_dialogues_are_undecided_rows_and_played_again_on_resume(tmp_path: Path) -> None:
    summary = run(tmp_path / "r", Unplugged(9))
    rows = load_rows(tmp_path / "r")
    failed = [row for row in rows if row["stop"] == "failed"]
    assert sorted(row["seed"] for row in rows) == list(range(12))
    assert 0 < len(failed) < 12 and any(not row["turns"] for row in failed)
    assert {row["error"] for row in failed} == {"student_0: connection refused"}
    assert all(row["planned"] > len(row["turns"]) for row in failed)
    assert summary.broken == len(failed)
    # Neither safe nor unsafe: the rate is a range from "all of them failed" to "all of them passed".
    assert summary.multi_turn_safety.undecided == sum(row["planned"] > 1 for row in failed)
    assert summary.multi_turn_safety.value is None
    assert summary.single_turn.n == sum(row.get("planned", len(row["turns"])) == 1 for row in rows)
    resumed = run(tmp_path / "r", resume=True)
    assert resumed.to_dict() == run(tmp_path / "whole").to_dict()
    assert sorted(row["seed"] for row in load_rows(tmp_path / "r")) == list(range(12))
    kept = (tmp_path / "r" / "dialogues.jsonl").read_text()
    assert kept.count('"stop": "failed"') == len(failed), "what was written stays"


def test_a_run_in_which_every_dialogue_fails_says_so(tmp_path: Path) -> None:
    summary = run(tmp_path / "r", Unplugged(0))
    assert (summary.broken, summary.turns) == (12, 0)
    assert summary.multi_turn_safety.value is None and summary.harm_rate.value is None
    assert measure(load_rows(tmp_path / "r"), replicates=50).success_by_turn[0].value is None


def test_existing_and_foreign_folders_are_refused_and_kept(tmp_path: Path) -> None:
    run(tmp_path / "r")
    before = (tmp_path / "r" / "dialogues.jsonl").read_bytes()
    with pytest.raises(RunExists, match=r"--resume .* or choose another"):
        run(tmp_path / "r")
    with pytest.raises(RunExists, match="student: 'constructive' there, 'random' now"):
        run(tmp_path / "r", "random", resume=True, meta={"student": "random"})
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunExists, match="is a file"):
        run(tmp_path / "file")
    assert (tmp_path / "r" / "dialogues.jsonl").read_bytes() == before


def test_repeated_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="each seed once"):
        run(tmp_path / "r", seeds=[1, 1])
    assert not (tmp_path / "r").exists()


def test_given_scenarios_are_played_in_order_and_each_equally_often(tmp_path: Path) -> None:
    mine = [Scenario((DraftTurn(f"question {i}"), DraftTurn("why?")), group=f"g{i}") for i in range(3)]
    vec = steer_env.make_vec("SteerStatic-v0", 2, scenarios=mine)
    attacker, student = steer_env.make_agent("static"), steer_env.make_agent("refuse")
    summary = evaluate(vec, attacker, student, range(6), tmp_path, scenarios=mine)
    played = {r["seed"]: r["group"] for r in load_rows(tmp_path)}
    assert played == {seed: f"g{seed % 3}" for seed in range(6)}
    assert summary.unscored_turns == summary.turns == 12
    assert "all 6" in summary.multi_turn_safety.text()


def test_rows_of_two_processes_are_refused_by_every_reader(tmp_path: Path) -> None:
    vec = steer_env.make_vec("SteerEscalation-v0", 2)
    attacker, student = steer_env.make_attacker("SteerEscalation-v0"), steer_env.make_agent("refuse")
    evaluate(vec, attacker, student, range(4), tmp_path / "run")
    path = tmp_path / "run" / "dialogues.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[0]]))
    with pytest.raises(ValueError, match=r"holds 1 seeds more than once \(\d\), expected each once"):
        load_rows(tmp_path / "run")
    failed = json.dumps({**json.loads(lines[0]), "stop": "failed", "turns": []}) + "\n"
    path.write_text("".join([failed, *lines]))  # played again later: no repetition
    assert len(load_rows(tmp_path / "run")) == len(lines)


class Sampler:
    """A student whose random streams are named by what it is told, as a sampling model's are."""

    def act(self, observations: Sequence[Any]) -> list[str]:
        """Say something that depends on the stream."""
        return [f"I say {one.stream}." for one in observations]


def test_a_resumed_run_that_samples_repeats_no_dialogue(tmp_path: Path) -> None:
    scenario = Scenario((DraftTurn("What is it?"), DraftTurn("Is it safe?")), ())
    attacker = steer_env.make_agent("static")

    def play(folder: Path, count: int, resume: bool = False) -> list[str]:
        vec = steer_env.make_vec("SteerEscalation-v0", 2)
        evaluate(vec, attacker, Sampler(), range(count), folder, scenarios=[scenario], resume=resume)
        rows = sorted(load_rows(folder), key=lambda row: int(row["seed"]))
        return [row["turns"][0]["reply"] for row in rows]

    whole = play(tmp_path / "whole", 6)
    play(tmp_path / "parts", 3)
    assert len(set(whole)) == 6 and play(tmp_path / "parts", 6, resume=True) == whole
