"""`steer-env new`: what it writes works as it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from steer_env.cli.main import main

ROOT = Path(__file__).parents[2]
#: A change of each part that its tests must notice.
WORSE = {
    "env": ('"MyEnv-v0"', '"Other-v0"'),
    "judge": ("Terms(9, 2, 5)", "Terms(2, 9, 5)"),
    "attacker": (".safety >= 8", ".safety >= 11"),
}


@pytest.mark.parametrize("kind", ["env", "judge", "attacker", "algorithm"])
def test_the_tests_of_a_new_package_pass_and_can_fail(kind, tmp_path, capsys):
    name = f"my_{kind}"
    assert main(["new", kind, name, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / name
    assert f"cd {folder}" in said and "of your own for `steer_env`" in (folder / "README.md").read_text()
    assert ("steer_env.plugins" in (folder / "pyproject.toml").read_text()) == (kind == "env")

    def tested():
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "error::SyntaxWarning",
        ]
        path = os.pathsep.join([str(folder), str(ROOT)])
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    code, log = tested()
    assert code == 0, log
    if kind in WORSE:
        module = folder / name / "__init__.py"
        module.write_text(module.read_text().replace(*WORSE[kind]))
        assert tested()[0] == 1


@pytest.mark.parametrize("name", ["my-judge", "class", "My", "1judge", "a/b"])
def test_a_name_that_python_cannot_import_is_refused(name, tmp_path, capsys):
    assert main(["new", "judge", name, "--out", str(tmp_path)]) == 2
    assert "expected a name of small letters" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_folder_is_not_written_over(tmp_path, capsys):
    (tmp_path / "my_env").mkdir()
    assert main(["new", "env", "my_env", "--out", str(tmp_path)]) == 2
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["json", "steer_env", "numpy"])
def test_a_name_that_would_hide_another_module_is_refused(name, tmp_path, capsys):
    assert main(["new", "judge", name, "--out", str(tmp_path)]) == 2
    assert "is a module that Python has already" in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_nothing_is_written_through_a_link(tmp_path, capsys):
    (tmp_path / "my_judge").symlink_to(tmp_path / "elsewhere")
    assert main(["new", "judge", "my_judge", "--out", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err and not (tmp_path / "elsewhere").exists()
