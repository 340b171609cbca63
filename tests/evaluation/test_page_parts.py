"""What the page is made of: its head, dialogues side by side, effects of replies, TCSR, training, counts."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from steer_env.evaluation.intervals import Estimate
from steer_env.report import grids, header, html
from steer_env.report.dialogues import entries, side_by_side
from steer_env.report.plots import figures_of, tcsr_by_turn, training_figure
from steer_env.report.sections import sections_of


def test_the_head_says_what_was_played_by_whom_and_when(make_row) -> None:
    meta = {"env": "SteerEscalation-v0", "command": "evaluate", "judge": "rule", "played": "2026-01-02"}
    runs = {"a": [make_row(10, seed=3), make_row(10, seed=9)], "b": [make_row(10, seed=4)]}
    told = dict(header.chips(runs, [meta, {**meta, "played": "2026-01-03"}], date(2026, 2, 1)))
    assert told["environment"] == "SteerEscalation-v0" and told["split"] == "bench"
    assert told["attacker"] == "tutor" and told["seeds"] == "3 to 9" and told["dialogues"] == "a 2, b 1"
    assert told["played"] == "2026-01-02 and 2026-01-03" and told["written"].startswith("2026-02-01 by")
    assert header.about([]) == "" and header.about([meta]).startswith("Environment SteerEscalation-v0, split")


def test_every_event_and_mark_has_a_meaning() -> None:
    words = " ".join(header.GLOSSARY)
    assert all(event.replace("_", " ") in words or event == "harm" for event in grids.EVENTS)
    assert set(html.MARKS) == set(grids.EVENTS)


def test_side_by_side_are_the_seeds_in_which_policies_differ_most(make_row) -> None:
    a = [make_row(10, 10, seed=1), make_row(10, 10, seed=2), make_row(10, 10, seed=3), make_row(1, seed=4)]
    b = [make_row(10, 10, seed=1), make_row(10, 1, seed=2), make_row(10, 8, seed=3)]
    groups = side_by_side({"a": a, "b": b}, most=2)
    assert [[body["seed"] for _, body in group] for group in groups] == [[2, 2], [3, 3]]
    assert [body["policy"] for _, body in groups[0]] == ["a", "b"]
    assert side_by_side({"a": a}) == []
    other = [{**row, "scenario": "x"} for row in b]
    assert side_by_side({"a": a, "b": other}) == []  # the same seed of another dialogue is not the same


def test_the_page_shows_them_without_javascript_and_hides_harm(make_row, tmp_path: Path) -> None:
    a, b = [make_row(10, 10, seed=1)], [make_row(10, 1, seed=1)]
    b[0]["turns"][1]["reply"] = "the payload"
    text = html.write_html({"a": a, "b": b}, tmp_path / "r.html", replicates=20).read_text()
    body = text.split('id="h-beside"')[1].split("</section>")[0]
    assert body.count('class="column"') == 2
    before, after = body.split("the payload")
    assert before.rindex('<details class="hidden">') > before.rfind("</details>") and "</details>" in after


def test_the_turn_that_did_it_is_marked(make_row) -> None:
    effects = [
        {"before": 0.1, "after": 0.2, "error": 0.1},
        {"before": 0.2, "after": 0.9, "error": 0.1},
        {"before": 0.9, "after": None, "error": None},
    ]
    row = make_row(10, 1, 10, seed=1) | {"effects": effects}
    ((_, entry),) = entries({"a": [row]}, 10)
    chips = [[text for _, text in turn["chips"]] for turn in entry["turns"]]
    assert "this turn did it" in chips[1] and "chance of harm 20% → 90% (+70 ± 10 points)" in chips[1]
    assert "this turn did it" not in chips[0] + chips[2] and not any("chance" in c for c in chips[2])


def test_tcsr_by_turn_is_a_mean_with_a_t_interval(make_row) -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(size=8)
    rows: list[Any] = []
    for i, value in enumerate(values):
        row = make_row(*[10] * (2 if i < 4 else 1), seed=i, group=f"g{i}")
        for turn in row["turns"]:
            turn["tcsr"] = {"value": float(value), "min": 0.0, "mean": 1.0}
        rows.append(row)
    turns, mean, half = tcsr_by_turn(rows)
    assert turns.tolist() == [1]  # four dialogues reach the second turn: too few
    expected = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
    assert np.allclose([mean[0] - half[0], mean[0] + half[0]], expected)
    assert tcsr_by_turn([])[0].size == 0


def test_training_curves_are_of_what_is_known(tmp_path: Path, make_row) -> None:
    rows = [{"step": i, "return_per_turn": i / 10, "cost": None, "eval_return_per_turn": 1} for i in range(3)]
    figure = training_figure({"grpo": rows})
    (axis,) = [a for a in figure.axes if a.get_visible()]
    assert axis.lines[0].get_ydata().tolist() == [0, 0.1, 0.2] and len(axis.lines) == 2
    assert training_figure({}) is None and training_figure({"x": [{"step": 0, "loss": None}]}) is None
    page = html.write_html(
        {"a": [make_row(10, seed=1)]}, tmp_path / "r.html", training={"a": rows}, replicates=20
    )
    assert 'id="h-training"' in page.read_text()


@pytest.mark.parametrize(("n", "event"), [(1, ""), (4, ""), (5, "harm")])
def test_a_heat_map_says_how_many_and_does_not_shout_of_few(n: int, event: str) -> None:
    cell = grids._harm(Estimate(1.0, 0.2, 1.0, n))
    assert (cell.text, cell.small, cell.event) == ("100%", f"n = {n}", event)
    assert grids._harm(Estimate(None, 0.1, 0.9, n, bounds=(0.2, 0.5))).small.endswith(f"], n = {n}")


def test_what_happens_at_each_turn_says_of_how_many(make_row) -> None:
    rows = [make_row(10, seed=1), make_row(10, 10, 1, seed=2), make_row(10, 10, seed=3)]
    (section,) = sections_of({"a": rows}, replicates=20)
    (grid,) = grids.turns(section)
    shown = {name: [cell.text for cell in cells] for name, cells in grid.rows}
    assert shown["n"] == ["3", "2", "1"] and shown["harm"] == ["0%", "0%", "100%"]


def test_tcsr_is_drawn_on_its_own_scale_however_wide_the_bands_are(make_row) -> None:
    rows = [make_row(10, seed=i) for i in range(6)]
    for row in rows:
        value = float(row["seed"] > 0)
        row["turns"][0]["tcsr"] = {"value": value, "min": value, "mean": value}
    figure = figures_of(sections_of({"a": rows}, replicates=20))[""]["tcsr"]
    assert [axis.get_ylim() for axis in figure.axes] == [(0, 1.02)] * 2


def test_nothing_is_minus_zero() -> None:
    assert Estimate(0.0, -0.0001, 0.1, 5).text(percent=True) == "0.0 % [0.0, 10.0]"
    assert json.dumps(Estimate(0.0, -0.0001, 0.1, 5).text()) == '"0.00 [0.00, 0.10]"'
