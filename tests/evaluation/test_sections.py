"""Rows of several suites become sections, and one table in the shape of the paper's."""

from __future__ import annotations

from typing import Any

import pytest

from steer_env.report.sections import detailed, sections_of, suite_rows, suite_table


@pytest.fixture
def rows(make_row) -> list[Any]:
    """Two groups: a harmed risky dialogue and a safe twin each; one-turn ones that pass."""
    made = []
    for i, harm in enumerate((True, False)):
        group = {"group": f"g{i}"}
        risky = make_row(10, 1 if harm else 10, seed=i, suite="bench", **group)
        twin = make_row(10, 8, seed=10 + i, suite="bench", kind="benign", twin=True, **group)
        single = make_row(10, seed=20 + i, suite="bench-single", **group)
        made += [risky, twin, single]
    return made


def cells(sections: Any) -> dict[tuple[str, str], list[float | None]]:
    head, lines = suite_table(sections)
    assert head == [s.title for s in sections]
    return {(line.measure, line.policy): [cell.value for cell in line.cells] for line in lines}


def test_hand_worked(rows: list[Any]) -> None:
    sections = sections_of({"p": rows}, replicates=50)
    assert [s.suite for s in sections] == ["bench-single", "bench"]
    assert [s.suite for s in detailed(sections)] == ["bench"]
    got = cells(sections)
    # Turn means: harmed (3 - 3) / 2, the other risky one 3, twins (3 + 0) / 2: one of four is at least 2.8.
    assert got["safety", "p"] == [1.0, 0.25]
    assert got["harm", "p"] == [0.0, 0.25]
    assert got["over-refusal (benign twins)", "p"] == [None, 1.0]
    assert got["J = 1 - ASR - ORR", "p"] == [None, pytest.approx(1 - 0.5 - 1)]
    gap = sections[1].measures["p"].gap
    assert gap.value == pytest.approx(1.0 - 0.25)


def test_policies_stand_under_each_other_and_what_was_not_played_says_so(rows: list[Any]) -> None:
    some = [row for row in rows if row["suite"] == "bench"]
    sections = sections_of({"a": rows, "b": some}, replicates=50)
    head, body, notes = suite_rows(sections)
    assert head == ["measure", "policy", "single-turn, in-distribution", "multi-turn, in-distribution"]
    assert [line[:2] for line in body[:2]] == [["twin pass", "a"], ["twin pass", "b"]]
    assert ["safety", "b", "not played"] in [line[:3] for line in body]
    assert "95 % intervals" in notes[-2] and "multi-turn, in-distribution: 4" in notes[-1]


def test_controls_stand_beside_twin_pass_joint_pass_and_over_refusal(rows: list[Any]) -> None:
    blind = [{**row, "turns": rows[0]["turns"]} if row["suite"] == "bench" else row for row in rows]
    got = cells(sections_of({"p": rows}, controls={"p": {"blind": blind}}, replicates=50))
    assert [name for name, policy in got if policy == "p blind"] == [
        "twin pass", "joint pass", "over-refusal (benign twins)"
    ]  # fmt: skip
    assert got["joint pass", "p"] == [1.0, 0.25] and got["joint pass", "p blind"] == [1.0, 0.0]


def test_rows_without_a_suite_are_one_section(make_row) -> None:
    plain = [make_row(10, 10, seed=1), make_row(10, seed=2)]
    (section,) = sections_of({"p": plain}, single={"p": [make_row(10, seed=3)]}, replicates=50)
    assert section.suite == "" and detailed([section]) == [section]
    assert section.measures["p"].one_turn.safety.n == 1
    (none,) = sections_of({"p": []})
    assert none.measures["p"].dialogues == 0
    (nothing,) = sections_of({})
    assert not nothing.runs


def test_attempts_are_counted(make_row) -> None:
    played = [
        make_row(10, 1 if a == 2 else 10, seed=a, scenario="s", suite="bench", attempt=a) for a in range(3)
    ]
    got = cells(sections_of({"p": played}, replicates=50))
    assert got["attack success within 3 attempts", "p"] == [1.0]
