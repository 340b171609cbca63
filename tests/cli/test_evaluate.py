from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from PIL import Image

from steer_env.cli.evaluate import Evaluate
from steer_env.configs.env import EnvConfig
from steer_env.play.evaluate import load_rows
from steer_env.world import WorldSource


def test_a_scripted_student(cli) -> None:
    code, out, err = cli("evaluate", "constructive", "--episodes", 20, "--env", "SteerRedTeam-v0")
    assert code == 0, err
    assert "100.0 %" in out and "twin pass" in out
    run = Path("runs/evaluate/constructive-SteerRedTeam-v0")
    assert len(load_rows(run)) == 20
    assert json.loads((run / "run.json").read_text())["env"] == "SteerRedTeam-v0"
    assert json.loads((run / "summary.json").read_text())["dialogues"] == 20
    assert Image.open(run / "survival.png").size[0] > 1000


def test_other_dialogues_go_to_another_folder_by_default() -> None:
    def folder(**env: str) -> str:
        return str(Evaluate(student="hf:tiny", env=EnvConfig(**env)).folder())

    assert folder() == folder(split="bench") == "runs/evaluate/hf-tiny"
    assert folder(split="ood") == "runs/evaluate/hf-tiny-ood"
    assert folder(scenarios="a/my.jsonl") == "runs/evaluate/hf-tiny-my"
    assert folder(env="SteerBenign-v0") == "runs/evaluate/hf-tiny-SteerBenign-v0"


def test_the_type_of_weights_is_part_of_a_run(cli) -> None:
    run = ("evaluate", "refuse", "--episodes", 4, "--out", "r")
    assert cli(*run, "--dtype", "bfloat16").code == 0
    code, _, err = cli(*run, "--dtype", "float32", "--resume")
    assert code == 2 and "dtype: 'bfloat16' there, 'float32' now" in err


def test_numbers_without_end_are_refused(cli) -> None:
    for option, value in (("--seed", 10**20), ("--episodes", 10**20), ("--temperature", "nan")):
        code, _, err = cli("evaluate", "refuse", option, value)
        assert code == 2 and f"{option[2:]}={value}, expected" in err


def test_existing_run_resume_and_extension(cli) -> None:
    first = ("evaluate", "random", "--out", "r")
    members = WorldSource().members
    assert cli(*first, "--episodes", members + 1).code == 0
    code, _, err = cli(*first, "--episodes", 5)
    assert code == 2 and "--resume" in err and "--out" in err
    code, _, err = cli("evaluate", "refuse", "--out", "r", "--resume")
    assert code == 2 and "student: 'random' there, 'refuse' now" in err
    before = load_rows("r")
    assert len(before) == 2 * members, "groups are played whole"
    assert cli(*first, "--episodes", 2 * members + 1, "--resume").code == 0
    assert load_rows("r")[: 2 * members] == before and len(load_rows("r")) == 3 * members
    cells = Counter(row["group"] for row in load_rows("r"))
    assert set(cells.values()) == {members}
    assert cli(*first, "--out", "again", "--episodes", 2 * members).code == 0
    again = {row["seed"]: row for row in load_rows("again")}
    assert again == {row["seed"]: row for row in before}, "the same seeds are the same groups"


def test_own_photographs_are_all_played_and_unscored_not_guessed(cli, scenario_file: Path) -> None:
    code, out, err = cli("evaluate", "constructive", "--scenarios", scenario_file, "--out", "mine")
    assert code == 0, err
    assert sorted(row["scenario"] for row in load_rows("mine")) == ["one", "three", "two"]
    assert "of 7" in out and "not available, all 3 dialogues" in out
    assert "no ground truth" in out


def test_changed_scenarios_are_not_resumed(cli, scenario_file: Path) -> None:
    assert cli("evaluate", "refuse", "--scenarios", scenario_file, "--out", "mine").code == 0
    with scenario_file.open("a") as file:
        file.write('{"turns": ["new"]}\n')
    code, _, err = cli("evaluate", "refuse", "--out", "mine", "--resume")
    assert code == 2 and "scenario_hash" in err
    code, _, err = cli(
        "evaluate", "refuse", "--scenarios", scenario_file, "--split", "bench", "--out", "other"
    )
    assert code == 2 and "leave --split out" in err


def test_scenarios_changed_under_their_ids_are_not_resumed(cli, scenario_file: Path) -> None:
    assert cli("evaluate", "refuse", "--scenarios", scenario_file, "--out", "mine").code == 0
    assert cli("evaluate", "refuse", "--out", "mine", "--resume").code == 0
    scenario_file.write_text(scenario_file.read_text().replace("Is it hot?", "Is it cold?"))
    code, _, err = cli("evaluate", "refuse", "--out", "mine", "--resume")
    assert code == 2 and "scenario_hash" in err and "choose another folder with --out" in err


def test_ctrl_c_keeps_what_was_finished_and_exits_130(tmp_path: Path) -> None:
    words = ["evaluate", "random", "--episodes", "100000", "--num-envs", "4", "--out", "r"]
    process = subprocess.Popen(
        [sys.executable, "-m", "steer_env.cli.main", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background of a shell have Ctrl-C switched off, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    rows = tmp_path / "r" / "dialogues.jsonl"
    for _ in range(600):
        if rows.exists() and rows.stat().st_size > 20_000:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "--resume" in err and "Traceback" not in err
    kept = load_rows(tmp_path / "r")
    assert len(kept) >= 4 and len({row["seed"] for row in kept}) == len(kept)


def test_the_limit_on_unscored_turns_can_be_lowered_and_lifted(cli, tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(f'{{"turns": ["one {i}", "two", "three"]}}\n' for i in range(30)))
    args = ("evaluate", "refuse", "--scenarios", file, "--out", "mine")
    code, _, err = cli(*args, "--unscored-limit", 0.5)
    assert code == 2 and "expected at most 50.0%" in err and "x the scenario has no ground truth" in err
    played = len(load_rows("mine"))
    assert played > 0 and "What was played is kept: steer-env report mine" in err
    assert cli("report", "mine").code == 0
    assert cli(*args, "--resume").code == 0  # your own scenarios have no limit unless one is given
    assert len(load_rows("mine")) == 30
