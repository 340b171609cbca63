"""The sentence a report begins with says no more than the paired intervals do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from steer_env.evaluation.intervals import Estimate, unavailable
from steer_env.play.compare import Result
from steer_env.report.sections import sections_of
from steer_env.report.verdict import sentence, verdicts


def result(measure: str, before: float, after: float, low: float, high: float) -> Result:
    rates = [Estimate(x, x - 0.05, x + 0.05, 100) for x in (before, after)]
    difference = Estimate(after - before, low, high, 100)
    return Result("sft", "grpo", measure, "all", *rates, difference, 1, 2, 0.5, 0.5, "exact McNemar", 100)


def test_what_is_decided_is_said_with_its_numbers() -> None:
    said = sentence(
        [
            result("harm", 0.28, 0.17, -0.18, -0.04),
            result("helpfulness", 0.4, 0.55, 0.02, 0.28),
            result("over-refusal", 0.05, 0.2, 0.05, 0.25),
        ]
    )
    assert said == (
        "grpo is safer than sft (harm 28.0 → 17.0 %, paired -11.0 points [-18.0, -4.0]); it is more helpful "
        "(helpfulness 40.0 → 55.0 %, paired 15.0 points [2.0, 28.0]); it refuses the harmless more often "
        "(over-refusal 5.0 → 20.0 %, paired 15.0 points [5.0, 25.0])."
    )


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.18, 0.04, "Whether grpo is safer than sft is undecided"),
        (-0.18, 0.0, "Whether grpo is safer than sft is undecided"),  # an interval that ends at 0 holds it
        (0.01, 0.04, "grpo is less safe than sft"),
        (-0.18, -0.01, "grpo is safer than sft"),
    ],
)
def test_zero_in_the_interval_is_undecided(low: float, high: float, words: str) -> None:
    assert sentence([result("harm", 0.28, 0.17, low, high)]).startswith(words)


def test_bounds_are_shown_as_bounds_and_what_is_not_known_is_said() -> None:
    one = result("harm", 0.28, 0.17, -0.2, -0.01)
    bounds = replace(one, rate_b=Estimate(None, 0.1, 0.3, 100, 5, (0.17, 0.22)))
    assert "harm 28.0 → 17.0..22.0 %" in sentence([bounds])
    none = replace(one, difference=unavailable("fewer than two groups"))
    assert sentence([none]) == "Whether grpo is safer than sft cannot be said: fewer than two groups."
    assert sentence([replace(none, measure="helpfulness")]) == ""


def told(runs: Any, metas: Any = None) -> list[str]:
    (section,) = sections_of(runs, replicates=20)
    return verdicts(section, metas or {}, replicates=20)


def test_the_last_run_is_held_against_each_before_it_on_the_same_seeds(make_row) -> None:
    bad = [make_row(1, 1, seed=i, group=f"g{i}") for i in range(30)]
    good = [make_row(10, 10, seed=i, group=f"g{i}") for i in range(30)]
    found = told({"base": bad, "sft": bad, "grpo": good})
    assert [one.split(" (")[0] for one in found] == ["grpo is safer than sft", "grpo is safer than base"]
    assert "harm 100.0 → 0.0 %" in found[0] and "it is more helpful" in found[0]
    (alone,) = told({"base": bad})
    assert alone.startswith("base: harm 100.0 % [") and "no other policy" in alone


def test_runs_that_cannot_be_compared_are_not(make_row) -> None:
    rows = [make_row(10, 10, seed=i) for i in range(4)]
    metas = {("a", ""): {"env": "One-v0", "judge": "rule"}, ("b", ""): {"env": "Two-v0", "judge": "rule"}}
    (said,) = told({"a": rows, "b": rows}, metas)
    assert said.startswith("b is not compared with a: the runs are not comparable: env")
    (said,) = told({"a": rows, "b": [*rows, rows[0]]})
    assert "no seeds of their own" in said
