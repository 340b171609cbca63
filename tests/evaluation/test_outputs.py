"""Report files: each format once, and what is missing is named before work starts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from steer_env.evaluation.calibration import Card
from steer_env.report import outputs
from steer_env.report.outputs import FORMATS, check_formats, file_name, write_reports


@pytest.fixture
def rows(make_row) -> list[Any]:
    return [make_row(10, 1, seed=1, group="a", mechanism="m"), make_row(10, 10, seed=2, group="b")]


def test_parquet_holds_what_csv_holds(rows: list[Any], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    paths = write_reports({"p": rows}, tmp_path, formats=["csv", "parquet"], replicates=50)
    with paths["csv"].open(newline="") as file:
        text = list(csv.DictReader(file))
    table = pq.read_table(paths["parquet"])
    assert table.column_names == list(text[0])
    for there, here in zip(table.to_pylist(), text, strict=True):
        assert {k: "" if v is None else str(v) for k, v in there.items()} == here
    assert str(table.schema.field("value").type) == "double"


def test_markdown_has_what_a_card_corrects(rows: list[Any], tmp_path: Path) -> None:
    card = Card("rule", "harm", 20, 20, 180, 180)
    paths = write_reports({"p": rows}, tmp_path / "with", formats=["md"], card=card, replicates=50)
    text = paths["md"].read_text()
    assert "Calibration: " in text and "corrected (Rogan-Gladen)" in text and "| p | " in text
    bare = write_reports({"p": rows}, tmp_path / "without", formats=["md"], replicates=50)["md"].read_text()
    assert "orrected (" not in bare and "Calibration" not in bare


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plots(rows: list[Any], tmp_path: Path, ending: str, start: bytes) -> None:
    paths = write_reports({"p": rows, r"$\frac{$ $": rows}, tmp_path, formats=[ending], replicates=50)
    assert sorted(paths) == [f"{ending} {what}" for what in ("hazard", "incidence", "survival")]
    assert all(path.read_bytes().startswith(start) for path in paths.values())


ALL = [name for name in FORMATS if name != "png"]  # as svg, and slow


def test_every_format_stands_without_dialogues(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    paths = write_reports({"p": []}, tmp_path, formats=ALL, replicates=50)
    assert all(path.stat().st_size > 0 for path in paths.values())
    assert "0.0 %" not in paths["md"].read_text() and "not available" in paths["md"].read_text()


def test_every_format_stands_with_nothing_scored(make_row, tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    unscored = [make_row(None, None, seed=i, group=f"g{i}", suite="bench") for i in range(3)]
    paths = write_reports({"p": unscored}, tmp_path, formats=ALL, replicates=50)
    assert "not available" in paths["md"].read_text() or "0.0..100.0" in paths["md"].read_text()


def test_suites_have_plots_of_their_own_and_logs_never_overwrite_each_other(make_row, tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    rows = [make_row(10, 10, seed=i, suite=s) for i, s in enumerate(("bench", "ood"))]
    paths = write_reports({"a b": rows, "a/b": rows}, tmp_path, formats=["inspect"], replicates=50)
    assert len(set(paths.values())) == len(paths) == 4
    paths = write_reports({"a b": rows, "a/b": rows}, tmp_path, formats=["hf"], replicates=50)
    assert len(set(paths.values())) == 2  # a card has all suites of a policy
    paths = write_reports({"p": rows}, tmp_path, formats=["svg"], replicates=50)
    assert {"survival-ood.svg", "hazard-bench.svg"} < {path.name for path in paths.values()}


def test_what_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_formats(["csv", "md", "csv"]) == ("csv", "md")
    with pytest.raises(ValueError, match="format='docx', expected some of html, md"):
        check_formats(["docx"])
    monkeypatch.setattr(outputs, "find_spec", lambda name: None)
    assert check_formats(None) == ("md", "csv")
    for name, extra in (
        ("html", "cli"),
        ("png", "eval"),
        ("parquet", "data"),
        ("inspect", "inspect"),
        ("hf", "data"),
    ):
        with pytest.raises(ImportError, match=rf"steer-env\[{extra}\]"):
            check_formats([name])


def test_file_names_are_plain() -> None:
    assert file_name("../a b/c") == "a-b-c" and file_name("///") == "run"
