from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from steer_env.cli.stages import MARK, build_stage, stage_key
from steer_env.runs import RunExists


class Builder:
    def __init__(self, dies: bool = False) -> None:
        self.calls: list[bool] = []
        self.dies = dies

    def __call__(self, folder: Path, resume: bool) -> None:
        self.calls.append(resume)
        (folder / "half").write_text("x")
        if self.dies:
            raise KeyboardInterrupt
        (folder / "whole").write_text("x")


def test_a_finished_stage_is_reused(tmp_path: Path) -> None:
    build = Builder()
    first = build_stage(tmp_path / "s", {"lr": 0.1}, build)
    again = build_stage(tmp_path / "s", {"lr": 0.1}, build)
    assert build.calls == [False]
    assert (first.reused, again.reused) == (False, True) and first.key == again.key


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize(
    ("settings", "before", "says"),
    [
        ({"lr": 0.2, "n": 1}, "", r"\(lr: 0.1 there, 0.2 now\)"),
        ({"n": 1}, "", r"\(lr: 0.1 there, None now\)"),
        ({"lr": 0.1, "n": 1}, "other", r"\(stage before: '' there, 'other' now\)"),
    ],
)
def test_a_stage_built_otherwise_is_refused_and_left_alone(
    tmp_path: Path, settings: dict, before: str, says: str, dies: bool
) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        build_stage(tmp_path / "s", {"lr": 0.1, "n": 1}, Builder(dies))
    files = {path: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    build = Builder()
    with pytest.raises(RunExists, match=rf"/s' holds another run {says}.*--out"):
        build_stage(tmp_path / "s", settings, build, before)
    assert build.calls == [] and files == {path: path.read_bytes() for path in (tmp_path / "s").iterdir()}


def test_an_interrupted_stage_goes_on_and_is_not_taken_for_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_stage(tmp_path / "s", {}, Builder(dies=True))
    build = Builder()
    assert not build_stage(tmp_path / "s", {}, build).reused
    assert build.calls == [True] and (tmp_path / "s" / "half").exists()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("x")
    with pytest.raises(RunExists, match="holds other files"):
        build_stage(tmp_path / "s", {}, Builder())
    assert (tmp_path / "s" / "thesis.tex").exists()


def test_a_torn_mark_is_refused(tmp_path: Path) -> None:
    build_stage(tmp_path / "s", {}, Builder())
    (tmp_path / "s" / MARK).write_text("{")
    with pytest.raises(ValueError, match=r"stage\.json is no JSON"):
        build_stage(tmp_path / "s", {}, Builder())
    assert (tmp_path / "s" / "whole").exists()


def test_keys_are_stable() -> None:
    assert stage_key({"b": 1, "a": [2]}) == stage_key({"a": [2], "b": 1}) == "85ab67685d1b3583"
    assert stage_key({}, "x") != stage_key({})
