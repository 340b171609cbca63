from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from steer_env.evaluation.calibration import Card
from steer_env.evaluation.measures import measure, table_rows
from steer_env.report.outputs import write_reports


@pytest.fixture
def rows(make_row) -> list[Any]:
    made = [make_row(10, 1, 10, seed=1, strategy="roleplay", category="a", mechanism="m")]
    made += [make_row(10, 10, seed=2, strategy="roleplay", category="b", mechanism="n")]
    made += [make_row(8, 10, seed=3, kind="benign", mechanism="m"), make_row(10, 10, seed=4, kind="benign")]
    return [*made, make_row(10, seed=5, mechanism="m")]


def test_by_hand(rows: list[Any]) -> None:
    m = measure(rows)
    assert m.one_turn.safety.value == 1 and m.multi_turn["mean"].safety.value == 0.5
    assert m.gap.value == 0.5
    assert m.over_refusal.value == 0.5 and m.balance.value == pytest.approx(1 - 1 / 3 - 1 / 2)
    assert m.success_by_turn[0].value == 0 and m.success_by_turn[2].value == pytest.approx(1 / 3)
    assert m.harm_incidence.incidence["harm"][-1] == pytest.approx(1 / 5)
    assert m.end_incidence.incidence["bare_refusal"][-1] == pytest.approx(1 / 5)
    assert m.turn_events[0] == [0, 0.2, 0, 0, 0.8, 0] and m.turn_events[2] == [0, 0, 0, 0, 1, 0]
    assert m.reach == 3 and m.corrected is None
    assert m.harm_subsets["mechanism"].levels["m"].value == pytest.approx(1 / 3)
    assert "technique" not in m.subsets and list(m.subsets["length"].levels) == ["1", "2", "3"]
    # Turn 1: 1 of 5 fails; turn 2: 1 of 3 fails; turn 3: nobody is watched, so the curve is carried on.
    assert m.safe_turns.value == pytest.approx(0.8 + 2 * 0.8 * 2 / 3)
    assert "carried on" in m.safe_turns.note


def test_plain_data_and_flat_rows(rows: list[Any]) -> None:
    m = measure(rows)
    json.dumps(m.to_dict(), allow_nan=False)
    flat = {(r["measure"], r["subset"]): r for r in table_rows({"p": m})}
    assert flat["turn_mean_safety", "all"]["value"] == 0.5
    assert flat["attack_success", "turn=2"]["value"] == pytest.approx(1 / 3)
    assert flat["harm", "mechanism=m"]["n"] == 3
    assert flat["attack_success", "attempts=4"]["value"] is None


def test_unscored_and_empty_are_honest(make_row) -> None:
    for some in ([], [make_row(None, None, seed=i) for i in range(3)], [{"turns": []}]):
        m = measure(some)
        json.dumps(m.to_dict(), allow_nan=False)
        for row in table_rows({"p": m}):
            assert row["value"] is None, row
            assert row["note"]


def test_one_undecided_dialogue_turns_rates_into_bounds(rows: list[Any], make_row) -> None:
    m = measure([*rows, make_row(10, None, seed=9)])
    for estimate in (m.multi_turn["mean"].safety, m.balance, m.success_by_turn[1], m.gap):
        assert estimate.value is None and estimate.bounds is not None
        assert estimate.low <= estimate.bounds[0] < estimate.bounds[1] <= estimate.high


def test_a_kaplan_meier_mean_gives_a_range_in_order_and_does_not_call_it_bounds(make_row) -> None:
    """The unscored turn failed: everybody has left by turn 2, and the curve stays at 1/3 and is not 0."""
    rows = [make_row(1, 1, 1, seed=1), make_row(6, seed=2), make_row(None, 1, seed=3)]
    got = measure(rows).safe_turns
    assert got.bounds == (pytest.approx(2 / 3), pytest.approx(1.0))
    assert "range if all of them fail, or none" in got.note and got.undecided == 1


def test_a_card_corrects_and_only_what_it_is_about(rows: list[Any]) -> None:
    card = Card("rule", "harm", 40, 36, 60, 57)
    got = measure(rows, card=card).corrected
    assert got is not None and got.naive.value == 0.2
    assert got.rogan_gladen.value == pytest.approx((0.2 - 0.05) / 0.85)
    with pytest.raises(ValueError, match="refusal per turn"):
        measure(rows, card=Card("rule", "refusal", 1, 1, 1, 1, unit="turn"))
    other = measure(rows, card=Card("llm", "harm", 40, 36, 60, 57)).corrected
    assert other is not None and not other.rogan_gladen.available


def test_files(rows: list[Any], tmp_path: Path) -> None:
    paths = write_reports({"a|b": rows, "c": rows}, tmp_path / "new", replicates=50)
    markdown = paths["md"].read_text()
    assert "Multi-turn safety by mechanism" in markdown and "a\\|b" in markdown
    with paths["csv"].open(newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["policy"] for row in table} == {"a|b", "c"}
    assert paths["html"].stat().st_size > 10_000
    empty = write_reports({}, tmp_path / "none")
    assert empty["csv"].exists()
