from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import steer_env
from steer_env.cli.main import COMMANDS


def test_help_lists_every_command_and_each_has_an_example(cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    for name in COMMANDS:
        assert name in out
        code, text, _ = cli(name, "--help")
        assert code == 0 and f"steer-env {name}" in text.split("example")[1]


def test_wrong_commands_and_options_exit_with_2(cli) -> None:
    assert cli("nonsense").code == 2
    assert cli().code == 2
    assert cli("evaluate", "refuse", "--episodes", "0").code == 2
    assert cli("evaluate", "refuse", "--seed", "-1").code == 2


def test_envs(cli) -> None:
    _, out, _ = cli("envs")
    ids, students = out.split("\n\n")
    assert [line.split()[0] for line in ids.splitlines()] == [*steer_env.env_ids(), "SteerActs-v0"]
    assert [line.split()[0] for line in students.splitlines()[1:]] == [
        "hf:tiny",
        "hf:tiny-sft",
        "hf:tiny-grpo",
    ]
    rows = json.loads(cli("envs", "--json").out)
    assert {row["id"] for row in rows} == {*steer_env.env_ids(), "SteerActs-v0"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("evaluate", "nobody"), "student='nobody' is no folder and no known name"),
        (("evaluate", "."), "is a folder without a whole model"),
        (("evaluate", "refuse", "--env", "SteerX-v0"), "known ids: SteerEscalation-v0"),
        (("evaluate", "refuse", "--split", "tset"), "bench"),
        (("evaluate", "refuse", "--scenarios", "gone.jsonl"), "gone.jsonl"),
        (("train", "--student", "refuse"), "cannot learn"),
        (("train", "--student", "nowhere"), "is no folder and no known name"),
        (("play", "--env", "x"), "known ids"),
    ],
)
def test_bad_input_is_one_clear_message(cli, words: tuple[str, ...], says: str) -> None:
    code, _, err = cli(*words)
    assert code == 2
    assert says in err and "Traceback" not in err
    assert not Path("runs").exists(), "nothing is left behind"


def test_a_library_of_an_extra_that_is_missing_is_named_with_its_remedy(
    cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    code, _, err = cli("evaluate", "hf:tiny", "--episodes", "4")
    assert code == 2 and "torch" in err and "pip install 'steer-env[train]'" in err


def test_debugging_shows_the_traceback(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEER_ENV_DEBUG", "1")
    assert "Traceback" in cli("evaluate", "nobody").err


def test_listing_needs_no_heavy_imports_and_survives_a_closed_pipe() -> None:
    code = (
        "import sys; from steer_env.cli.main import main; main(['envs']); "
        "print([m for m in ('torch', 'rich', 'matplotlib', 'pydantic') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert out.stdout.splitlines()[-1] == "[]"
    pipe = f"{sys.executable} -m steer_env.cli.main envs | true"
    closed = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, cwd="/", check=False)
    assert closed.stderr == ""


def test_a_run_whose_reader_went_away_is_whole(tmp_path: Path) -> None:
    run = f"{sys.executable} -m steer_env.cli.main evaluate refuse --episodes 4 --out r --format html,md"
    closed = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {run} | true"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert closed.returncode == 0, closed.stderr
    assert {p.name for p in (tmp_path / "r").iterdir()} >= {"summary.json", "report.html", "report.md"}
