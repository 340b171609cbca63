from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from steer_env.play.evaluate import load_rows

CARD = {
    "judge": "rule",
    "event": "harm",
    "positives": 50,
    "true_positives": 45,
    "negatives": 100,
    "true_negatives": 95,
    "sampling": "random",
}


def data_of(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    return json.loads(text.split('id="data">')[1].split("</script>")[0])


def table_of(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))


def test_evaluate_writes_a_report_with_pictures(cli) -> None:
    code, out, err = cli("evaluate", "random", "--episodes", 12, "--out", "r")
    assert code == 0 and "report: r/report.html" in out, err
    data = data_of(Path("r/report.html"))
    assert len(data["dialogues"]) == 12
    digests = {digest for one in data["dialogues"] for digest in one["images"]}
    assert digests and set(data["images"]) == digests
    rows = table_of("r/results.csv")
    harm = next(r for r in rows if (r["measure"], r["subset"]) == ("harm", "kind: average"))
    assert 0 < float(harm["low"]) <= float(harm["value"]) <= float(harm["high"]) <= 1
    assert "| random |" in Path("r/report.md").read_text()


def test_report_of_several_runs_with_a_card(cli) -> None:
    for name in ("comply", "constructive"):
        cli("evaluate", name, "--episodes", 12, "--out", name)
    Path("card.json").write_text(json.dumps(CARD))
    code, out, err = cli(
        "report", "comply", "ours=constructive", "--card", "card.json", "--out", "both", "--no-images"
    )
    assert code == 0 and "both/report.html" in out, err
    text = Path("both/report.html").read_text()
    assert (
        "ours (12)" in text
        and "corrected (PPI)" in text
        and data_of(Path("both/report.html"))["images"] == {}
    )
    rows = {(r["policy"], r["measure"]): r for r in table_of("both/results.csv")}
    naive, fixed = (float(rows["comply", f"harm_{way}"]["value"]) for way in ("naive", "rogan_gladen"))
    assert abs(fixed - min(1, (naive + 0.95 - 1) / 0.85)) < 1e-9


def test_what_is_wrong_is_named_before_anything_is_played(cli) -> None:
    Path("card.json").write_text("{}")
    code, _, err = cli("evaluate", "refuse", "--episodes", 4, "--out", "r", "--card", "card.json")
    assert code == 2 and "lacks judge" in err and not Path("r").exists()
    Path("card.json").write_text(json.dumps({**CARD, "unit": "turn"}))
    code, _, err = cli("evaluate", "refuse", "--episodes", 4, "--out", "r", "--card", "card.json")
    assert code == 2 and "expected harm per dialogue" in err and not Path("r").exists()
    assert cli("evaluate", "refuse", "--episodes", 4, "--out", "r").code == 0
    code, _, err = cli("report", "r", "r")
    assert code == 2 and "given twice" in err


def test_a_moved_scenario_file_leaves_the_pictures_out(cli, scenario_file: Path) -> None:
    assert cli("evaluate", "refuse", "--scenarios", scenario_file, "--out", "r").code == 0
    assert len(data_of(Path("r/report.html"))["images"]) == 3
    scenario_file.unlink()
    assert cli("report", "r", "--out", "again").code == 0
    assert data_of(Path("again/report.html"))["images"] == {}


def test_single_turn_runs_give_the_gap(cli) -> None:
    cli("evaluate", "comply", "--episodes", 24, "--out", "many")
    cli("evaluate", "comply", "--episodes", 24, "--out", "one", "--env", "SteerSingleTurn-v0")
    code, _, err = cli("report", "x=many", "--single", "x=one", "--out", "both")
    assert code == 0, err
    rows = {(r["measure"], r["subset"]): r for r in table_of("both/results.csv")}
    single, multi, gap = (
        float(rows[name, "all"]["value"]) for name in ("single_turn_safety", "turn_mean_safety", "gap")
    )
    assert abs(gap - (single - multi)) < 1e-9 and rows["single_turn_safety", "all"]["n"] == "24"
    assert "Single- minus multi-turn safety" in Path("both/report.html").read_text()
    code, _, err = cli("report", "x=many", "--single", "y=one")
    assert code == 2 and "single='y=one'" in err


def test_formats_are_chosen_by_name_or_by_the_ending_of_one_file(cli) -> None:
    pytest.importorskip("inspect_ai")
    cli("evaluate", "random", "--episodes", 12, "--out", "r", "--format", "csv")
    assert not Path("r/report.html").exists() and not Path("r/survival.png").exists()
    code, _, err = cli("report", "r", "--out", "f", "--format", "parquet, inspect,svg")
    assert code == 0, err
    assert {p.name for p in Path("f").iterdir()} == {
        "results.parquet", "r.eval", "survival.svg", "incidence.svg", "hazard.svg", "tcsr.svg"
    }  # fmt: skip
    from inspect_ai.log import read_eval_log

    log = read_eval_log("f/r.eval")
    assert log.eval.model == "random" and len(log.samples or []) == 12
    assert cli("report", "r", "--out", "deep/one.md").code == 0
    assert [p.name for p in Path("deep").iterdir()] == ["one.md"]
    code, _, err = cli("report", "r", "--out", "one.md", "--format", "csv")
    assert code == 2 and "name a folder" in err


def test_results_by_leakage_and_distribution(cli) -> None:
    cli("evaluate", "comply", "--episodes", 12, "--out", "a", "--format", "csv")
    cli("evaluate", "constructive", "--episodes", 12, "--out", "b", "--format", "csv")
    rows = load_rows("a")
    assert {row["distribution"] for row in rows} == {"in"}
    scores = [{"id": row["scenario"], "score": 0.0 if row["seed"] % 2 else 0.9} for row in rows]
    Path("leakage.jsonl").write_text("".join(json.dumps(line) + "\n" for line in scores))
    code, _, err = cli("report", "a", "b", "--leakage", "leakage.jsonl", "--out", "both")
    assert code == 0, err
    found = {
        (r["policy"], r["subset"]): r["n"] for r in table_of("both/results.csv") if r["measure"] == "harm"
    }
    assert found["a", "leakage=below 0.05"] == found["b", "leakage=0.5 and more"] == "6"
    assert found["a", "distribution=in"] == "12"
    words = ("--leakage", "leakage.jsonl", "--by", "leakage", "--measure", "harm", "--replicates", 100)
    code, out, err = cli("compare", "a", "b", *words)
    assert code == 0 and "leakage=below 0.05" in out, err
    Path("leakage.jsonl").write_text('{"id": "other", "score": 0.1}\n')
    code, _, err = cli("report", "a", "--leakage", "leakage.jsonl")
    assert code == 2 and "none of the 12 dialogues" in err
