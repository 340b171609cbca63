"""One tree of settings: flags, a file and a stored run say the same thing under the same names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steer_env.cli.command import Command, Usage, read, settings
from steer_env.cli.evaluate import COMMAND, Evaluate
from steer_env.configs.base import build, flat
from steer_env.configs.env import EnvConfig


def parsed(*words: str) -> Evaluate:
    return read(COMMAND, words, "evaluate")


def test_a_flag_a_file_and_python_make_the_same_config(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("student: refuse\nalpha: 0.75\nkinds: [benign, red_team]\nepisodes: 7\nreturns: mean\n")
    flags = ("refuse", "--alpha", "0.75", "--kinds", "benign", "--kinds", "red_team", "--episodes", "7")
    env = EnvConfig(alpha=0.75, kinds=("benign", "red_team"), returns="mean")
    made = Evaluate(student="refuse", env=env, episodes=7)
    assert parsed(*flags, "--returns", "mean") == made == parsed("--config", str(file))
    assert build(Evaluate, flat(made)) == made
    assert build(Evaluate, json.loads(json.dumps(flat(made)))) == made


def test_what_is_typed_goes_before_the_file_and_replaces_its_lists(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("alpha: 0.75\nkinds: [benign]\nmax-new-tokens: 9\n")
    made = parsed("refuse", f"--config={file}", "--alpha", "0.5", "--kinds", "red_team")
    assert made.env.alpha == 0.5 and made.env.kinds == ("red_team",) and made.sampling.max_new_tokens == 9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alhpa: 0.3", "alhpa=0.3 is no option of Evaluate; did you mean 'alpha'?"),
        ("alpha: 2", "alpha=2, expected a finite number of at least 0 and at most 1"),
        ("alpha: yes", "alpha=True, expected a finite number"),
        ("episodes: 2.5", "episodes=2.5, expected an integer of at least 1"),
        ("watch: 'no'", "watch='no', expected True or False"),
        ("split: tran", "split='tran', expected one of 'train'"),
        ("- alpha", "expected a file of lines such as"),
        ("alpha: [", "is no YAML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(cli, text: str, says: str) -> None:
    Path("run.yaml").write_text(text)
    code, _, err = cli("evaluate", "refuse", "--config", "run.yaml", "--out", "never")
    assert code == 2 and says in err and err.count("\n") == 1 and not Path("never").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("evaluate", "refuse", "--alhpa", 1), "--alpha"),
        (("evaluate", "refuse", "--alpha", 2), "alpha=2.0, expected a finite number"),
        (("evaluate", "refuse", "--alpha", "nan"), "alpha=nan, expected a finite number"),
        (("evaluate", "refuse", "--alpha", "x"), "--alpha"),
        (("evaluate", "refuse", "--episodes"), "Missing value for argument '--episodes'"),
        (("evaluate", "refuse", "--episodes", 2.5), "--episodes"),
        (("evaluate", "refuse", "--attacker", "nobody"), "'nobody', expected one of"),
        (("evaluate", "refuse", "--env", "SteerX"), "known ids"),
        (("evaluate", "refuse", "--weights", 1, 1, 1), "expected three non-negative numbers that sum to 1"),
        (("evaluate", "refuse", "surplus"), "surplus"),
        (("evaluate",), "student is missing"),
        (("evaluate", "refuse", "--config", "gone.yaml"), "gone.yaml"),
        (("compare", "one"), "expected at least two run folders"),
        (("report",), "no run is given"),
        (("rescore", "gone"), "judge"),
        (("calibrate", "gone"), "expected one of them"),
        (("data", "bild"), "did you mean 'build'"),
        (("data", "audit", "a"), "Held-out set"),
        (("evalute",), "did you mean 'evaluate'"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(cli, words: tuple, says: str) -> None:
    code, out, err = cli(*words)
    assert code == 2 and says in err, err
    assert err.count("\n") == 1 and "Traceback" not in err and not out


def test_a_run_of_an_earlier_version_is_not_continued_but_said(cli) -> None:
    assert cli("evaluate", "refuse", "--episodes", 4, "--out", "r").code == 0
    run = json.loads(Path("r/run.json").read_text())
    del run["config_format"]
    Path("r/run.json").write_text(json.dumps({**run, "lr": None}))
    code, _, err = cli("evaluate", "refuse", "--episodes", 4, "--out", "r", "--resume")
    assert code == 2 and "holds a run of steer-env 0.1.0" in err and err.count("\n") == 1
    assert cli("report", "r", "--format", "csv").code == 0


def test_what_a_run_keeps_makes_its_config_again(cli) -> None:
    words = ("evaluate", "refuse", "--episodes", 4, "--out", "r", "--kinds", "benign", "--max-turns", 3)
    assert cli(*words).code == 0
    kept = json.loads(Path("r/run.json").read_text())
    made = Evaluate(student="refuse", env=EnvConfig(kinds=("benign",), max_turns=3))
    assert {key: kept[key] for key in settings(made, free=False)} == settings(made, free=False)
    code, _, err = cli("evaluate", "--out", "r", "--resume", "--episodes", 4, "--kinds", "benign")
    assert code == 0, err
    code, _, err = cli("evaluate", "--out", "r", "--resume", "--kinds", "red_team")
    assert code == 2 and "kinds: ['benign'] there, ['red_team'] now" in err
    # The pictures of the report are those of the dialogues that were played.
    assert cli("report", "r", "--out", "r.html").code == 0 and '"images":{}' not in Path("r.html").read_text()


def test_an_error_of_the_parser_names_the_help() -> None:
    with pytest.raises(Usage, match="steer-env evaluate --help lists the options"):
        parsed("refuse", "--nonsense")
    assert isinstance(COMMAND, Command)
