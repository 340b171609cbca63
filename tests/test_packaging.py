"""The built distributions add exactly one top-level package and work without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = (".py", ".json", ".html", ".css", ".js", ".txt", ".safetensors", ".jinja")

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs the source tree")


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from that sdist, as an index would get them."""
    out = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    assert list(out.glob("*.tar.gz"))
    return built


@pytest.mark.slow
def test_wheel_adds_only_steer_env_at_top_level(wheel: Path) -> None:
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {t for t in top if not t.endswith(".dist-info")} == {"steer_env"}


@pytest.mark.slow
def test_wheel_holds_every_module_of_the_source_tree(wheel: Path) -> None:
    names = [n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("steer_env/")]
    packed = {n for n in names if n.endswith(("py.typed", *DATA))}
    expected = {str(p.relative_to(ROOT)) for p in (ROOT / "steer_env").rglob("*") if p.suffix in DATA}
    for folder in ("agents", "wrappers", "algorithms"):
        found = [p for p in (ROOT / folder).rglob("*") if p.suffix in DATA]  # shipped students, too
        expected |= {f"steer_env/{p.relative_to(ROOT)}" for p in found}
    assert packed == expected | {"steer_env/py.typed"}


@pytest.mark.slow
def test_clean_install_runs_and_leaves_other_peoples_names_alone(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    _run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel, cwd=tmp_path)
    assert {p.name for p in site.iterdir() if not p.name.endswith(".dist-info")} <= {"steer_env", "bin"}
    # -S -E keep the editable install out; the dependencies come from the test environment's site-packages.
    probe = (
        "import sys; sys.path[:0] = [sys.argv[1]]; sys.path.append(sys.argv[2]);"
        "import steer_env, importlib.util as u;"
        "assert steer_env.__file__.startswith(sys.argv[1]), steer_env.__file__;"
        "env = steer_env.make('SteerEscalation-v0'); env.reset(seed=0); env.step('hello'); env.step('no');"
        "import steer_env.agents, steer_env.wrappers;"
        "print([n for n in ('agents', 'wrappers', 'algorithms') if u.find_spec(n)])"
    )
    dependencies = next(p for p in sys.path if p.endswith("site-packages"))
    assert _run(sys.executable, "-S", "-E", "-c", probe, site, dependencies, cwd=tmp_path).strip() == "[]"


@pytest.mark.parametrize("folder", ["agents", "wrappers", "algorithms"])
def test_mapped_folders_refuse_to_be_imported_as_a_second_copy(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {folder}"],
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
    )
    assert done.returncode == 1 and f"import steer_env.{folder}" in done.stderr


def test_an_editable_install_is_a_path_that_type_checkers_follow(tmp_path: Path) -> None:
    """In a project that uses the checkout, in an environment of its own."""
    source = tmp_path / "checkout"
    source.mkdir()
    for name in ("steer_env", "agents", "wrappers", "algorithms", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    build = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    _run(sys.executable, "-c", build, tmp_path, cwd=source)
    venv.create(tmp_path / "env", with_pip=False)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (tmp_path / "mine.py").write_text(
        "import steer_env.agents.hf.student, steer_env.wrappers.tcsr, steer_env.algorithms.trainer\n"
        "import steer_env.agents.nobody\n"
        "from steer_env import make\n"
        "env = make('SteerEscalation-v0', alpha=0.5)\n"
        "other = make('SteerEscalation-v0', aplha=0.5)\n"
    )
    python = tmp_path / "env" / "bin" / "python"
    words = ("--python-executable", python, "--follow-imports=skip", "--cache-dir", tmp_path / "cache")
    found = _errors("mypy", *words, "mine.py", cwd=tmp_path)
    assert len(found) == 1 and "steer_env.agents.nobody" in found[0], found
    found = _errors("basedpyright", "--pythonpath", python, "--level", "error", "mine.py", cwd=tmp_path)
    found = [line for line in found if "steer_env" in line or "aplha" in line]  # not what is not installed
    assert len(found) == 2 and "steer_env.agents.nobody" in found[0] and '"aplha"' in found[1], found


def _errors(checker: str, *words: object, cwd: Path) -> list[str]:
    """Run a type checker and return its lines with errors."""
    done = subprocess.run(
        [sys.executable, "-m", checker, *map(str, words)],
        cwd=cwd,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return [line for line in done.stdout.splitlines() if "error:" in line or "- error" in line]
