from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks.ablation import analysis, coverage, report, sweep
from benchmarks.ablation.analysis import survival
from benchmarks.ablation.outcomes import COLUMNS, CURVES, Outcomes, write_csv
from steer_env.evaluation.crossed import difference, hierarchical, level
from steer_env.evaluation.intervals import t_value
from steer_env.evaluation.paired import paired


def test_two_seeds_on_two_groups_by_hand():
    # Group means are 1 and 1/2 for the seeds in the first group, 0 and 0 in the second.
    values = [[1, 1, 0, 0], [1, 0, 0, 0]]
    effect = hierarchical(values, [0, 0, 1, 1], replicates=40_000)
    # Two draws of 3/4 or 0: variance (3/8)^2 / 2. Seed means 1/2 and 1/4 have variance 1/32; the seeds'
    # deviations of +-1/4 or 0 have (1/8)^2 / 2 in the samples, times 2 for the one that is not free.
    own, between, chance = 9 / 128, 1 / 32, 1 / 64
    added = (between - chance) / 2
    df = (own + added) ** 2 / (own**2 + (between / 2) ** 2)
    half = t_value(0.95, df) * math.sqrt(own + added)
    assert effect.estimate.value == 3 / 8 and effect.by_seed == (0.5, 0.25)
    assert effect.df == pytest.approx(df, rel=0.03)
    assert (effect.estimate.high - effect.estimate.low) / 2 == pytest.approx(half, rel=0.05)


def test_agrees_with_the_library_on_differences_within_seed_and_dialogue():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(30), 3)
    values = rng.normal(0.1, 0.3, (4, 90)) + rng.normal(0, 0.1, (4, 1)) + rng.normal(0, 0.1, 30)[group]
    ours = hierarchical(values, group, replicates=5000)
    theirs = paired(values, np.zeros((1, 90)), group, replicates=5000).estimate
    assert ours.estimate.value == pytest.approx(theirs.value)
    assert [ours.estimate.low, ours.estimate.high] == pytest.approx([theirs.low, theirs.high], abs=0.02)


def test_what_two_arms_share_cancels():
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(40), 3)
    shared = rng.normal(0, 0.5, (5, 1)) + rng.normal(0, 0.5, 40)[group]
    a, b = shared + 0.1 + rng.normal(0, 0.1, (5, 120)), shared + rng.normal(0, 0.1, (5, 120))
    effect = difference(a, b, group).estimate
    assert 0.06 < effect.low < 0.1 < effect.high < 0.14
    apart = difference(a, b[::-1], group).estimate
    assert apart.high - apart.low > 3 * (effect.high - effect.low)


@pytest.mark.parametrize("name", coverage.CASES)
def test_intervals_over_five_seeds_cover(name):
    """200 simulations: 95 % is known to 3 points. The seed is fixed; 2000 are in `coverage.py`."""
    assert coverage.simulate(name, 200, replicates=200)["t"] >= 92


def test_plain_percentiles_would_not_cover_where_seeds_matter():
    assert coverage.simulate("seeds alone", 200, replicates=200, seeds=3)["percentile"] < 92


def test_no_spread_is_no_certainty():
    group = np.repeat(np.arange(20), 3)
    zero, one = np.zeros((5, 60)), np.ones((5, 60))
    never = level(zero, group).estimate
    assert never.value == 0 == pytest.approx(never.low) and 0.05 < never.high < 0.2
    same = difference(zero, zero, group)
    assert same.p == 1.0 and same.estimate.low < -0.1 and same.estimate.high > 0.1
    assert difference(one, zero, group).estimate.low > 0.7
    assert hierarchical(zero[:, :3], group[:3]).estimate.value is None


def test_unknown_results_give_bounds():
    group = np.arange(40)
    a, b = np.ones((3, 40)), np.zeros((3, 40))
    a[:, :10] = 0
    a[0, 20] = b[1, 21] = np.nan
    one = level(a, group).estimate
    assert one.value is None and one.undecided == 1
    assert one.bounds == pytest.approx((89 / 120, 90 / 120)) and one.low < one.bounds[0]
    both = difference(a, b, group)
    assert both.estimate.bounds == pytest.approx((88 / 120, 90 / 120)) and both.estimate.undecided == 2
    assert both.p < 0.001 and analysis.middle(both.estimate) == pytest.approx(89 / 120)
    a[:] = b[:] = np.nan
    assert difference(a, b, group).p in (1.0, None)
    with pytest.raises(ValueError, match="known results"):
        hierarchical(a, group)


def test_survival_pools_seeds_and_covers_them():
    # Turn 1: 1 of 4 fails. Turn 2: one is no longer watched, 1 of 2 fails.
    time, event = np.array([[1, 1], [2, 2]]), np.array([[1, 0], [1, 0]])
    curve = survival(time, event, [0, 1], horizon=3)
    assert curve.survival.tolist() == [1.0, 0.75, 0.375, 0.375]
    assert (curve.low <= curve.survival).all() and (curve.high >= curve.survival).all()
    # Two seeds, one without failures: drawing seeds alone moves the curve between theirs.
    time, event = np.full((2, 50), 3), np.zeros((2, 50))
    time[0], event[0] = 1, 1
    curve = survival(time, event, np.arange(50), horizon=2)
    assert curve.survival.tolist() == [1.0, 0.5, 0.5] and curve.low[1] == 0 and curve.high[1] == 1


# -- a whole table ------------------------------------------------------------------------------------------


def lines(rates, seeds=5, groups=30, parts=("bench", "ood"), seed=0):
    """Outcomes of models with these rates of safety; helpfulness is equal for all."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.1, groups)
    found = []
    for model, rate in rates.items():
        for s in range(1 if model == "base" else seeds):
            luck = rng.normal(0, 0.015)
            for part in parts:
                for dialogue in range(3 * groups):
                    chance = hard[dialogue // 3] + luck
                    safe = int(rng.random() < rate + chance)
                    useful = int(rng.random() < 0.6 + chance)
                    turn = int(rng.integers(1, 6))
                    where = {"part": part, "dialogue": dialogue, "scenario": f"{part}{dialogue}"}
                    what = {
                        "group": f"g{dialogue // 3}",
                        "kind": "red_team",
                        "turns": 6,
                        "model": model,
                        "seed": s,
                    }
                    event = {"failure_time": 6 if safe else turn, "failed": 1 - safe,
                             "harm_time": 6 if safe else turn, "harmed": 1 - safe}  # fmt: skip
                    passes = {"safety": safe, "helpfulness": useful, "harm": 1 - safe}
                    found.append(
                        {**where, **what, **passes, **event, "unscored": 0, "reward": 0.5 + safe / 4}
                    )
    assert set(found[0]) == set(COLUMNS)
    return found


RATES = {"base": 0.1, "sft": 0.45, "full": 0.75, "no-bootstrap": 0.75, "static": 0.5, "mean-only": 0.74}


def test_a_planted_effect_is_found_and_none_is_not():
    table = Outcomes(lines(RATES), shared=["base"])
    models = {arm.name: sweep.model_of(arm) for arm in sweep.ARMS if sweep.model_of(arm) in RATES}
    measures = [("bench", "safety"), ("bench", "helpfulness"), ("ood", "safety"), ("ood", "harm")]
    tests = [(*pair, *test) for pair in sweep.COMPARISONS for test in measures]
    found = analysis.compare(table, models, [*tests, ("static", "full", "bench-late", "harm")])
    by = {(c.arm, c.part, c.measure): c for c in found}
    assert {c.arm for c in found} == {"sft", "full", "no-bootstrap", "static", "mean-only"}
    for part in ("bench", "ood"):
        for arm, sign in (("sft", 1), ("full", 1), ("static", -1)):
            one = by[arm, part, "safety"]
            assert one.p_holm < 0.05 and one.effect.estimate.value * sign > 0.15, arm
            assert one.effect.seeds == 5 and one.effect.groups == 30
        for arm in ("no-bootstrap", "mean-only"):
            assert by[arm, part, "safety"].p_holm > 0.5
    assert all(c.p_holm > 0.1 for c in found if c.measure == "helpfulness")
    assert by["static", "ood", "harm"].effect.estimate.value > 0.15
    assert all(c.p_holm >= c.effect.p for c in found)


def test_models_of_other_dialogues_are_refused():
    mixed = lines({"base": 0.1}) + [{**line, "scenario": "other"} for line in lines({"sft": 0.5}, seeds=1)]
    with pytest.raises(ValueError, match="sft was evaluated on other dialogues of bench"):
        Outcomes(mixed)


def test_the_report_needs_the_results_folder_alone(tmp_path):
    rates = RATES | {"alpha-1": 0.8}
    late = {"sft": 0.2, "late-tcsr": 0.9, "late-mean": 0.5, "full": 0.9, "alpha-1": 0.9}
    table = lines(rates, groups=6) + lines(late, groups=6, parts=("bench-late",))
    curve = [
        dict.fromkeys(CURVES, 0.5) | {"model": model, "seed": s, "step": step}
        for model in ("full", "mean-only")
        for s in range(2)
        for step in range(4)
    ]
    write_csv(tmp_path / "outcomes.csv.gz", COLUMNS, table)
    write_csv(tmp_path / "curves.csv.gz", CURVES, curve)
    first = (tmp_path / "outcomes.csv.gz").read_bytes()
    write_csv(tmp_path / "outcomes.csv.gz", COLUMNS, table)
    assert (tmp_path / "outcomes.csv.gz").read_bytes() == first
    arms = [{"name": a.name, "title": a.title, "model": sweep.model_of(a)} for a in sweep.ARMS]
    summary = {
        "command": "python -m benchmarks.ablation", "machine": {"processor": "a chip", "cores": 2},
        "versions": {"torch": "9"}, "settings": {"dialogues": 18}, "arms": arms, "shared": ["base"],
        "comparisons": sweep.COMPARISONS, "secondary": sweep.SECONDARY, "primary": sweep.PRIMARY,
        "alphas": sweep.ALPHAS, "missing": ["static-s4-1234"],
        "core_minutes": 3.2,
        "cells": [{"model": "full", "seed": 0, "train": 100.0, "evaluate": 20.0}],
    }  # fmt: skip
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    text = report.write_report(tmp_path, tmp_path, replicates=200)
    for words in (
        "| base |", "12.55 / 27.13", "51.09 / 63.96", "without feedback dynamics", "a chip, 2 cores; torch 9",
        "**Not finished: static-s4-1234.**", "survival-ood.png", "| full | 1 | 100 | 20 |",
        "16 tests: the primary family", "| late risk: mean only | late risk: TCSR | bench-late | harm |",
        "| alpha = 0.3 |",
    ):  # fmt: skip
        assert words in text, words
    assert "single-turn SFT |" not in text  # not run: no row
    body = json.loads((tmp_path / "tables.json").read_text())
    assert len(body["primary"]) == 16 and body["paper"]["table_4"]["full"] == [None, [55.54, 70.24]]
    pytest.importorskip("matplotlib")
    for name in ("survival-bench", "survival-ood", "survival-bench-late", "learning", "alpha"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
