"""The numbers of README and docs are those that were claimed and measured."""

import doctest
import importlib
import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks import claims
from steer_env.evaluation.intervals import Estimate

ROOT = Path(__file__).parents[2]
CLAIMS = claims.load()
NAMES = [f"{claim['file']}: {claim['context'][:40]}" for claim in CLAIMS]


def test_examples():
    assert doctest.testmod(claims).failed == 0


@pytest.mark.parametrize("claim", CLAIMS, ids=NAMES)
def test_a_claim_holds_and_says_where_it_is_from(claim):
    assert claims.faults(claim, quick=True) == []
    assert claim["command"] and re.fullmatch(r"20\d\d-\d\d-\d\d", claim["date"]) and claim["tolerance"] >= 0
    assert ("values" in claim) != ("copy" in claim) and len(claim.get("keys", [])) in (
        0,
        len(claim.get("values", [])),
    )


@pytest.mark.parametrize("claim", CLAIMS, ids=NAMES)
def test_another_number_on_the_page_is_noticed(claim, tmp_path):
    """One digit of the claimed line is another one: every claim fails by itself."""
    for name in {claim["file"], claim.get("copy", {}).get("file"), claim.get("result")} - {None}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert claims.faults(claim, tmp_path) == []
    page = tmp_path / claim["file"]
    text = page.read_text()
    after = claims.line_after(ROOT, claim["file"], claim["context"])
    value = claim["values"][0] if "values" in claim else re.search(r"\d", after)[0]
    place = text.index(claim["context"]) + len(claim["context"])
    place += (
        re.compile(rf"(?<![\d.,]){re.escape(value)}" if "values" in claim else value).search(after).start()
    )
    digit = str((int(text[place]) + 1) % 10)
    page.write_text(text[:place] + digit + text[place + 1 :])
    assert claims.faults(claim, tmp_path)


def test_a_claim_that_is_not_the_measured_number_is_noticed():
    claim = next(claim for claim in CLAIMS if "result" in claim)
    assert claims.measured(ROOT, claim)
    assert any("measured is" in fault for fault in claims.faults({**claim, "scale": 1.5}))


def test_every_row_with_a_percentage_in_the_readme_is_claimed():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and "%" in line]
    contexts = [claim["context"] for claim in CLAIMS if claim["file"] == "README.md"]
    assert rows and [row for row in rows if not any(context in row for context in contexts)] == []


def test_the_seeds_of_the_demo_are_those_that_were_run():
    measures = ("joint", "safety", "helpfulness", "harm", "usefulness", "over_refusal", "leak", "twin_pass")
    decimals = {"usefulness": 2, "twin_pass": 0}

    def shown(stage):
        scale = {name: 1 if name == "usefulness" else 100 for name in measures}
        return " / ".join(f"{stage[m] * scale[m]:.{decimals.get(m, 1)}f}" for m in measures)

    stored = json.loads((ROOT / "benchmarks/results/demo.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs/demo.md").read_text(encoding="utf-8")
    assert f"**{stored['seconds']} seconds**" in text
    for run in stored["seeds"]:
        assert f"| seed {run['seed']} | {shown(run['sft'])} | {shown(run['grpo'])} |" in text


@pytest.mark.parametrize("results", ["arena", "arena_real"])
def test_the_leaderboard_is_made_from_its_results(results):
    stored = json.loads((ROOT / f"benchmarks/results/{results}.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/leaderboard.md").read_text(encoding="utf-8")

    def shown(estimate):
        return Estimate(**{**estimate, "bounds": estimate["bounds"] and tuple(estimate["bounds"])}).text(
            percent=True
        )

    for student in stored["students"]:
        cells = [shown(stored[what][student]) for what in ("exploitability", "usefulness")]
        assert f"| {cells[0]} | {cells[1]} |" in page
    for attacker in stored["attackers"]:
        cells = [shown(stored["harm"][attacker][student]) for student in stored["students"]]
        assert f"| {attacker} | {' | '.join(cells)} |" in page


def _stored(name):
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))


def _script(name):
    return importlib.import_module(name)  # they import each other as scripts do


def _judge_search():
    for row in _stored("judge_red_team"):
        average = max(row["kinds"].values())
        yield f"| {row['id']} | {row['mutants']:,} | {row['best_of_each_turn']:.3f} | {average:.3f} |"


def _judge_injections():
    for family in _stored("judge_injection")["judges"]["rule"]["families"]:
        scored = family["pairs"] - family["unscored"]
        shares = rf"\s+{100 * family['moved'] / scored:.1f}% .*\s{100 * family['raised'] / scored:.1f}% "
        start = rf"{re.escape(family['family'])}\s+{family['pairs']}\s+{family['unscored']}"
        shift = re.escape(format(family["shift"], "+.2f"))
        yield re.compile(rf"^{start}{shares}.*\s{shift}$", re.M)


def _self_play():
    def interval(e, scale, digits, unit=""):
        value, low, high = (f"{scale * e[key]:.{digits}f}" for key in ("value", "low", "high"))
        return f"{value}{unit} [{low}, {high}]"

    for row in _stored("selfplay")["generations, 4 of 6 benign"]["table"]:
        searched = {name: f"{100 * value:.0f} %" for name, value in row["searched"].items()}
        yield " | ".join(
            (
                interval(row["exploitability"], 100, 1, " %"),
                f"{searched['static']}, {searched['tutor']}",
                searched["best response"],
                interval(row["usefulness"], 1, 2),
                interval(row["refusal"], 100, 1, " %"),
            )
        )


@pytest.mark.parametrize(
    ("page", "rows"),
    [
        ("algorithms", lambda: _script("credit_signal").show(_stored("credit_signal")).splitlines()[2:]),
        ("algorithms", _self_play),
        ("judges", _judge_search),
        ("judges", _judge_injections),
    ],
)
def test_a_table_is_made_from_its_results(page, rows, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    made = list(rows())
    missing = [row for row in made if not (row.search(text) if isinstance(row, re.Pattern) else row in text)]
    assert made and not missing
