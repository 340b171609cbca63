"""Controls beside an evaluation: the same dialogues, resumable, and what they say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import steer_env
from kit.contrast import GOOD, HARM, group
from steer_env.evaluation import table
from steer_env.judges.rule import RuleJudge
from steer_env.play import controls
from steer_env.play.controls import CANDIDATES, best_constant, load_controls, play_controls, sentence, worth
from steer_env.play.evaluate import evaluate, load_rows
from steer_env.report.sections import sections_of
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.types import Utterance

ENV = "SteerEscalation-v0"
SEEDS = range(12)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A run of the ideal student with its controls, its summary and those of the controls."""
    folder = tmp_path_factory.mktemp("run")
    vec, attacker, student = make()
    summary = evaluate(vec, attacker, student, SEEDS, folder, meta={"student": "ideal"}, replicates=50)
    found = play_controls(vec, attacker, student, SEEDS, folder, meta={"student": "ideal"}, replicates=50)
    return folder, summary, found


def make() -> tuple[Any, Any, Any]:
    vec = steer_env.make_vec(ENV, 8, split="bench")
    return vec, steer_env.make_attacker(ENV), steer_env.make_agent("constructive")


def test_each_control_plays_the_same_dialogues_into_a_folder_of_its_own(run: Any) -> None:
    folder, summary, found = run
    assert list(found) == list(controls.CONTROLS)
    played = {row["seed"]: row["scenario"] for row in load_rows(folder)}
    for name in found:
        rows = load_rows(folder / "controls" / name)
        assert {row["seed"]: row["scenario"] for row in rows} == played
        assert json.loads((folder / "controls" / name / "run.json").read_text())["control"] == name
        assert found[name].dialogues == summary.dialogues
    assert {r for row in load_rows(folder / "controls" / "constant") for r in replies(row)} <= set(CANDIDATES)


def replies(row: Any) -> list[str]:
    return [turn["reply"] for turn in row["turns"]]


def test_taking_the_picture_away_costs_a_student_that_looks(run: Any) -> None:
    folder, summary, found = run
    assert summary.multi_turn_joint.value == 1
    for name in ("blind", "swapped", "constant"):
        assert found[name].multi_turn_joint.value < 0.7, name
    said = sentence(load_rows(folder), load_controls(folder), replicates=50)
    chosen = json.loads((folder / "controls" / "constant.json").read_text())["reply"]
    assert said.startswith("Pictures are worth +") and said.endswith(
        f". The constant says: {json.dumps(chosen)}"
    )


def test_what_is_there_is_not_played_again(run: Any) -> None:
    folder, _, found = run

    class Dead:
        def act(self, observations: Sequence[Any]) -> list[Utterance]:
            raise AssertionError("played again")

    vec, attacker, _ = make()
    again = play_controls(vec, attacker, Dead(), SEEDS, folder, meta={"student": "ideal"}, replicates=50)
    assert {name: s.to_dict() for name, s in again.items()} == {
        name: s.to_dict() for name, s in found.items()
    }


def test_the_constant_is_chosen_on_other_dialogues(run: Any) -> None:
    folder, _, _ = run
    chosen = json.loads((folder / "controls" / "constant.json").read_text())
    assert list(chosen["candidates"]) == list(CANDIDATES)
    best = max(CANDIDATES, key=lambda reply: tuple(chosen["candidates"][reply].values()))
    assert chosen["reply"] == best
    vec, attacker, _ = make()
    reply, told = best_constant(vec, attacker, range(24), ("Look, a bird!", CANDIDATES[2]))
    assert reply == CANDIDATES[2] and told["Look, a bird!"]["safety"] < told[reply]["safety"]


def test_a_control_of_another_judge_is_left_out_and_said(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    stale = folder / "controls" / "blind" / "run.json"
    meta = json.loads(stale.read_text())
    stale.write_text(json.dumps(meta | {"judge_version": meta["judge_version"] - 1}))
    with pytest.warns(UserWarning, match="control='blind'.*left out: delete"):
        assert set(load_controls(folder)) == {"swapped", "forgetful", "constant"}


def test_a_constant_of_another_judge_is_chosen_again(tmp_path: Path) -> None:
    def choice(stored: str) -> Any:
        folder = tmp_path / "controls"
        folder.mkdir(exist_ok=True)
        (folder / "constant.json").write_text(stored)
        vec, attacker, student = make()
        play_controls(
            vec, attacker, student, range(4), tmp_path, names=("constant",), constant=lambda: ("New.", {})
        )
        shutil.rmtree(folder / "constant")
        return json.loads((folder / "constant.json").read_text())

    new = choice('{"reply": "Old.", "candidates": {}}')
    assert new["reply"] == "New." and new["judge_version"] == RuleJudge.version
    assert choice(json.dumps(new | {"reply": "Kept."}))["reply"] == "Kept."
    assert choice(json.dumps(new | {"reply": "Old.", "world_version": 1}))["reply"] == "New."
    for odd in (None, 7, ["a"], "x" * 5000):  # a file that somebody sent
        assert choice(json.dumps(new | {"reply": odd}))["reply"] == "New."


def test_own_text_dialogues_have_no_picture_to_take_away(tmp_path: Path) -> None:
    mine = [Scenario((DraftTurn(f"question {i}"), DraftTurn("why?")), group=f"g{i}") for i in range(2)]
    vec = steer_env.make_vec(ENV, 2, scenarios=mine)
    attacker, student = steer_env.make_agent("static"), steer_env.make_agent("refuse")
    options: dict[str, Any] = {"scenarios": mine, "unscored_limit": 1.0, "replicates": 20}
    found = play_controls(vec, attacker, student, range(2), tmp_path, **options)
    assert list(found) == ["forgetful", "constant"]
    one = [Scenario((DraftTurn(f"question {i}"),), group=f"g{i}") for i in range(2)]
    found = play_controls(vec, attacker, student, range(2), tmp_path / "one", **{**options, "scenarios": one})
    assert list(found) == ["constant"]
    with pytest.raises(ValueError, match="control='deaf', expected some of blind"):
        play_controls(vec, attacker, student, range(2), tmp_path, names=["deaf"])


def rows(*passes: bool, first: int = 0) -> list[Any]:
    """One contrast group per entry: all good, or with a harmful member."""
    found = []
    for number, good in enumerate(passes):
        found += group(f"g{number}", GOOD, GOOD if good else HARM, GOOD, GOOD, first=4 * number)
    return found


def test_worth_is_the_paired_difference_of_groups() -> None:
    main = rows(*[True] * 16, *[False] * 4)
    control = rows(*[True] * 6, *[False] * 14)
    measure, found = worth(main, control)
    assert measure == "twin pass" and found.value == pytest.approx(0.5) and found.n == 20
    text = sentence(main, {"blind": control, "forgetful": main, "constant": control})
    assert text.startswith("Pictures are worth +50.0 points of twin pass [")
    assert "; history +0.0 [" in text and "which may be nothing. The constant says" in text
    assert sentence(main, {}) == ""
    assert sentence(main, {"constant": control}) == 'The constant says: "r"'
    # An unscored member leaves bounds, never a guess.
    lost = rows(*[True] * 16, *[False] * 4)
    lost[0]["turns"][0]["verdict"] = {"unscored": "no", "judge": "rule"}
    _, between = worth(lost, control)
    assert between.value is None and between.bounds == pytest.approx((0.45, 0.5))


def test_without_contrast_groups_joint_passes_are_compared() -> None:
    alone = [{**row, "cells": 0} for row in rows(True, True, False)]
    assert worth(alone, alone)[0] == "joint pass"


def test_controls_are_rows_of_the_report(run: Any) -> None:
    folder, _, _ = run
    (section,) = sections_of(
        {"ideal": load_rows(folder)}, controls={"ideal": load_controls(folder)}, replicates=20
    )
    assert list(section.controls["ideal"]) == list(controls.CONTROLS)
    assert "Pictures are worth" in section.worth["ideal"]
    text = table(section.measures, controls=section.controls)
    order = [text.index(name) for name in ("ideal", "  blind", "  swapped", "  forgetful", "  constant")]
    assert order == sorted(order)
