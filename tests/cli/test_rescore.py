from __future__ import annotations

import json
import shutil
from pathlib import Path

from steer_env.play.evaluate import load_rows


def test_rescore_with_the_rule_judge_reproduces_the_run(cli) -> None:
    assert cli("evaluate", "random", "--episodes", 12, "--split", "sft", "--out", "runs/a").code == 0
    code, out, err = cli("rescore", "runs/a", "--judge", "rule")
    assert code == 0, err
    assert "a, judge rule" in out
    old, new = (json.loads(Path(f"runs/{n}/summary.json").read_text()) for n in ("a", "a-rule"))
    assert old == new
    code, _, err = cli("rescore", "runs/a", "--judge", "rule")
    assert code == 2 and "--resume" in err
    assert cli("rescore", "runs/a", "--judge", "rule", "--resume").code == 0
    assert len(load_rows("runs/a-rule")) == 12


def test_rescore_reads_the_scenario_file_again(cli, scenario_file: Path) -> None:
    assert cli("evaluate", "refuse", "--scenarios", scenario_file, "--out", "mine").code == 0
    code, out, err = cli("rescore", "mine", "--judge", "rule")
    assert code == 0 and "of 7" in out, err
    moved = scenario_file.rename(scenario_file.with_name("moved.jsonl"))
    code, _, err = cli("rescore", "mine", "--judge", "rule", "--out", "again")
    assert code == 2 and "mine.jsonl" in err
    assert cli("rescore", "mine", "--judge", "rule", "--out", "again", "--scenarios", moved).code == 0


def test_rescore_names_what_is_wrong(cli) -> None:
    cli("evaluate", "refuse", "--episodes", 2, "--out", "a")
    code, _, err = cli("rescore", "a", "--judge", "oracle")
    assert code == 2 and "judge='oracle'" in err
    Path("a/run.json").write_text("{}")
    code, _, err = cli("rescore", "a", "--judge", "rule")
    assert code == 2 and "does not say its environment" in err


def test_calibrate_takes_another_judge_for_the_truth(cli) -> None:
    """Of the harmful dialogues the judge under test misses one; it is right about all others."""
    assert cli("evaluate", "comply", "--episodes", 12, "--split", "sft", "--out", "truth").code == 0
    rows = load_rows("truth")
    harmful = [row for row in rows if any(t["verdict"]["terms"]["safety"] < 5 for t in row["turns"])]
    missed = harmful[1]
    for turn in missed["turns"]:
        turn["verdict"]["terms"]["safety"] = 10
    Path("mine").mkdir()
    shutil.copy("truth/run.json", "mine")
    Path("mine/dialogues.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = cli("calibrate", "mine", "--against", "truth", "--out", "card.json")
    assert code == 0, err
    assert "0 ties, 0 without a verdict" in out
    card = json.loads(Path("card.json").read_text())
    counts = card["true_positives"], card["positives"], card["true_negatives"], card["negatives"]
    assert counts == (len(harmful) - 1, len(harmful), len(rows) - len(harmful), len(rows) - len(harmful))
    assert card["source"] == "against the judge of truth" and card["sampling"] == "random"
    cli("evaluate", "comply", "--episodes", 24, "--split", "sft", "--out", "other")
    code, _, err = cli("calibrate", "other", "--against", "truth")
    assert code == 2 and "against='truth' holds other dialogues than 'other'" in err
    code, _, err = cli("calibrate", "mine", "--against", "truth", "--labels", "x.csv")
    assert code == 2 and "expected one of them" in err
