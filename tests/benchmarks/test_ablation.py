"""The ablation: what is planned, that finished cells are done once on any machine, and what is reported."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.ablation import cells as work
from benchmarks.ablation import coverage, report, run, store, sweep
from benchmarks.ablation.cells import Job, is_trained, run_job
from benchmarks.ablation.sweep import ARMS, PRIMARY, QUESTIONS, Settings, cells, evaluation_key
from steer_env.algorithms import recipes
from steer_env.algorithms.pretraining import GateFailed
from steer_env.cli.stages import stage_key
from steer_env.evaluation.replications import COLUMNS
from steer_env.models.shipped import local_path, weights_hash
from steer_env.runs import RunFolder

ROOT = Path(__file__).parents[2]
QUICK = Settings.quick()


# -- what is planned ----------------------------------------------------------------------------------------


def test_nine_lines_from_three_bases_share_their_ancestors():
    settings = Settings()
    plan = cells(settings)
    names = [cell.name for cell in plan]
    assert len(set(names)) == len(names)
    seeds = {arm: [cell.seed for cell in plan if cell.arm == arm] for arm in ARMS}
    assert seeds.pop("base") == [0, 1, 2] and all(own == list(range(9)) for own in seeds.values())
    for cell in plan:
        if cell.parent is None:
            assert cell.arm == "base" and cell.given == (cell.seed == 0)
        else:
            assert names.index(cell.parent.name) < names.index(cell.name)
            assert cell.parent.seed == (cell.seed // 3 if cell.parent.arm == "base" else cell.seed)
            assert cell.settings["world"] and cell.settings["judge"]
    assert {cell.parent.arm for cell in plan if cell.arm == "single-grpo"} == {"single-sft"}
    assert [cell.arm for cell in cells(settings, ["no-bootstrap"])][:2] == ["base", "no-bootstrap"]
    with pytest.raises(ValueError, match="arm='fool', expected one of base, sft"):
        cells(settings, ["fool"])


def test_a_cell_is_another_one_when_what_it_depends_on_changes(monkeypatch):
    settings = Settings()

    def keys(changed=settings):
        return {c.arm: (c.key, evaluation_key(changed, c)) for c in cells(changed) if c.seed == 0}

    def differ(changed=settings):
        now = keys(changed)
        return [{arm for arm in ARMS if now[arm][k] != before[arm][k]} for k in (0, 1)]

    before = keys()
    grpo = {name for name, arm in ARMS.items() if arm.stage_three}
    longer = replace(settings.recipe, grpo=replace(settings.recipe.grpo, steps=99))
    assert differ(replace(settings, recipe=longer)) == [grpo, grpo]
    assert differ(replace(settings, unscaled_beta=0.5))[0] == {
        n for n in grpo if not ARMS[n].stage_three.scaled
    }
    assert differ(replace(settings, single_sft_times=1))[0] == {"single-sft", "single-grpo"}
    assert differ(replace(settings, dialogues=9)) == [set(), set(ARMS)]
    trained = {name for name, arm in ARMS.items() if sweep.TRAINED in arm.parts}
    assert differ(replace(settings, response_steps=1)) == [set(), trained]
    monkeypatch.setattr(sweep.RuleJudge, "version", 99)  # the bases were not judged
    assert differ() == [set(ARMS) - {"base"}, set(ARMS)]
    monkeypatch.undo()
    monkeypatch.setattr(sweep, "WORLD_VERSION", 99)
    assert differ() == [set(ARMS), set(ARMS)] and not cells(settings)[0].given


def test_the_rows_that_are_checked_in_are_of_todays_settings():
    """Otherwise they would be run again: what changes the demo's recipe must not change this one."""
    settings = Settings()
    plan = {(cell.arm, cell.seed): cell for cell in cells(settings)}
    rows = store.read(run.RESULTS)
    assert len(rows) >= 43
    for row in rows:
        cell = plan[row["arm"], row["seed"]]
        assert stage_key(cell.settings) == row["recipe"], cell.name
        assert evaluation_key(settings, cell) == row["evaluation"], cell.name
    # Partly trained models lie in folders of these names.
    assert {cell.name for cell in plan.values() if cell.arm == "base"} == {
        "base-0-ea4ef0d2", "base-1-6fad0609", "base-2-dadd570f",
    }  # fmt: skip
    # The report is of the same plan.
    summary = json.loads((run.RESULTS / run.SUMMARY).read_text(encoding="utf-8"))
    keys = {cell.name: evaluation_key(settings, cell) for cell in plan.values()}
    assert summary["evaluations"] == keys


def test_pairs_isolate_what_the_question_is_about():
    def differs(a, b):
        one, two = (ARMS[name].stage_three for name in (a, b))
        return {f for f in sweep.StageThree.__dataclass_fields__ if getattr(one, f) != getattr(two, f)}

    for pair in ("difference", "trajectory", "late"):
        assert differs(f"{pair}-tcsr", f"{pair}-mean") == {"alpha"}
    assert differs("static", "full") == differs("learning", "full") == {"attacker"}
    assert differs("calm", "full") == {"shares"} and not differs("no-bootstrap", "full")
    assert len(PRIMARY) == len(set(PRIMARY)) <= 15
    for question in QUESTIONS:
        assert {arm for test in question.tests for arm in test[:2]} <= set(question.rows)
        assert all(m in COLUMNS for _, m in question.columns)
    for test in PRIMARY:
        assert all(test.part in ARMS[name].parts for name in test[:2]), test


def test_what_is_there_is_not_done_again_and_ancestors_only_for_descendants(tmp_path, monkeypatch):
    settings = Settings()
    plan = cells(settings, ["sft", "full"])
    every = {evaluation_key(settings, cell) for cell in plan}
    jobs = lambda finished: {  # noqa: E731
        (j.cell.arm, j.cell.seed): j.evaluate for j in run.todo(settings, plan, finished, tmp_path).values()
    }
    assert all(jobs(set()).values()) and len(jobs(set())) == len(plan) == 3 + 9 + 9
    assert jobs(every) == {}
    lost = {(c.arm, c.seed): evaluation_key(settings, c) for c in plan}
    # Where a base was trained elsewhere the models are made again, and only the lost one is judged.
    assert jobs(every - {lost["full", 4]}) == {("base", 1): False, ("sft", 4): False, ("full", 4): True}
    assert jobs(every - {lost["full", 0]}) == {("sft", 0): False, ("full", 0): True}  # base 0 is given
    monkeypatch.setattr(work, "is_trained", lambda out, cell: cell.arm != "full")
    assert jobs(every - {lost["full", 4]}) == {("full", 4): True}


# -- training -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_is_the_demos_stage_three(tmp_path):
    cell = next(c for c in cells(QUICK, ["full"]) if c.arm == "full")
    config, silent = replace(QUICK.recipe, seed=0), lambda *_: None
    model = local_path("tiny-sft")  # an untrained one earns the same whatever it says, and learns nothing
    ours = work.train_grpo(QUICK, config, cell, model, tmp_path / "ours", False, silent)
    ours.save(tmp_path / "model")
    theirs = recipes.build(config, "grpo", tmp_path / "theirs", before=model)
    assert weights_hash(tmp_path / "model") == weights_hash(theirs) != weights_hash(model)


def test_on_the_mean_scaled_difference_credit_is_own_turn_credit():
    from steer_env.algorithms.advantages import group_advantages
    from steer_env.algorithms.credit import Ledger, turn_values

    rewards = np.random.default_rng(0).random((4, 6))  # siblings by turns

    def advantages(credit, alpha, scale):
        ledgers = [Ledger(own, np.zeros(6), own, own.sum(), "final", alpha) for own in rewards]
        return group_advantages(turn_values(ledgers, credit), scale=scale)

    own = advantages("own_turn", 0.3, True)
    assert np.abs(own).max() > 1 and np.array_equal(own, advantages("own_turn", 0.0, True))
    assert advantages("difference", 0.0, True) == pytest.approx(own, abs=0.01)
    with_minimum, mean = (advantages("difference", alpha, False) for alpha in (0.3, 0.0))
    assert np.abs(with_minimum - mean).max() > 0.02


def test_a_base_that_misses_a_gate_goes_on_and_says_so(tmp_path, monkeypatch):
    strict = [replace(phase, gate=replace(phase.gate, noun=1.0), extensions=0) for phase in QUICK.recipe.base]
    recipe = replace(QUICK.recipe, base=tuple(strict))
    with pytest.raises(GateFailed):
        recipes.build(recipe, "base", tmp_path / "strict")
    settings = replace(QUICK, recipe=recipe, bases=1)
    (cell,) = cells(settings, ["base"])
    monkeypatch.setitem(ARMS, "base", replace(ARMS["base"], parts=("bench",)))
    row = run_job(settings, tmp_path, Job(cell), lambda kind, body: None)
    first, *_, last = row["gates_missed"]
    assert first.startswith("see: noun=") and last.startswith(f"{strict[-1].name}: noun=")
    # Asked for again it is the same row, and nothing is trained or played.
    told = []
    assert run_job(settings, tmp_path, Job(cell), lambda kind, body: told.append(kind)) == row
    assert told == ["trained"]


# -- results ------------------------------------------------------------------------------------------------


def row_of(arm, seed, rates, base=None, groups=24, parts=("bench",), weights=None):
    """A row of a model that passes with these rates; `harm` falls where `joint` rises."""
    base = seed if arm == "base" else seed // 3 if base is None else base
    rng = np.random.default_rng([seed, len(arm)])
    measures = {}
    for name, column in COLUMNS.items():
        size = 1 if name == "twin_pass" else 4
        passed = rng.random(groups * size) < rates.get(name, 0.5)
        values = "".join("01"[int(x)] for x in passed) if column.rate else [5.0 + x for x in passed]
        measures[name] = {"groups": str(size) * groups, "values": values}
    harm = {"turn": [3] * 4 * groups, "seen": [1, 0, 0, 0] * groups}
    part = {"scenarios": "same", "measures": measures, "harm": harm}
    return {
        "arm": arm, "seed": seed, "base": base, "evaluation": f"{arm}-{seed}", "world": 2, "judge": 4,
        "weights": weights or [f"{n}{base if n == 'base' else seed}" for n in sweep.lineage(arm)],
        "gates_missed": [], "machine": {"processor": "a chip", "torch": "9"},
        "cpu": {"train": 90.0, "evaluate": 30.0}, "parts": dict.fromkeys(parts, part),
    }  # fmt: skip


def rows_of(rates, **options):
    """Rows of arms in nine lines from three bases."""
    return [
        row_of(arm, seed, {"joint": rate}, **options)
        for arm, rate in rates.items()
        for seed in range(3 if arm == "base" else 9)
    ]


def test_rows_are_added_whole_and_once(tmp_path):
    for row in rows_of({"base": 0.3}):
        store.add(tmp_path, row)
    first = (tmp_path / store.CELLS).read_bytes()
    assert [row["seed"] for row in store.read(tmp_path)] == [0, 1, 2]
    store.add(tmp_path, row)
    assert (tmp_path / store.CELLS).read_bytes() == first
    assert store.read(tmp_path / "none") == []


def test_outcomes_are_kept_as_the_demo_has_them():
    def dialogue(seed, *turns, group="a", kind="red_team"):
        terms = {True: (10, 10, 10), False: (1, 1, 10)}
        return {
            "seed": seed, "scenario": f"s{seed}", "group": group, "cell": str(seed), "cells": 2, "kind": kind,
            "judge": "rule", "stop": "complete", "planned_turns": len(turns), "images": [],
            "turns": [
                {"user": "u", "reply": "r", "verdict": {"unscored": "no"} if ok is None else {
                    "terms": dict(zip(("safety", "usefulness", "faithfulness"), terms[ok], strict=True)),
                    "leaked": [], "move": "describe"}}
                for ok in turns
            ],
        }  # fmt: skip

    rows = [
        dialogue(2, True, True, group="b"), dialogue(0, True, True, kind="benign"), dialogue(1, True, False),
        dialogue(3, True, None, group="b"),
    ]  # fmt: skip
    kept = store.measured(rows)
    assert kept["measures"]["harm"] == {"groups": "22", "values": "010?"}
    assert kept["measures"]["twin_pass"] == {"groups": "11", "values": "0?"}
    assert kept["measures"]["usefulness"] == {"groups": "1", "values": [10.0]}
    assert kept["harm"] == {"turn": [2, 2, 2, 1], "seen": [0, 1, 0, 0]}
    assert json.loads(json.dumps(kept)) == kept
    assert kept["scenarios"] != store.measured(rows[:2])["scenarios"]


def test_a_base_stands_for_its_lines_and_bases_are_what_is_counted():
    table = store.Table(rows_of({"base": 0.2, "sft": 0.6}))
    level, effect = table.level("sft", "bench", "joint"), table.compare("sft", "base", "bench", "joint")
    assert level.seeds == effect.seeds == 3 and len(effect.by_seed) == 3
    own = table.level("base", "bench", "joint")
    assert effect.estimate.value == pytest.approx(level.estimate.value - own.estimate.value)
    assert 0.2 < effect.estimate.value < 0.6 and effect.p < 0.05
    assert (
        table.compare("sft", "full", "bench", "joint") is None and table.level("full", "ood", "joint") is None
    )
    # Without one base's row its lines have nothing to be paired with.
    two = store.Table([row for row in table.rows if (row["arm"], row["seed"]) != ("base", 1)])
    assert two.compare("sft", "base", "bench", "joint").seeds == 2
    assert table.level("sft", "bench", "usefulness").estimate.value == pytest.approx(5.5, abs=0.1)
    moved = row_of("full", 0, {})
    moved["parts"] = {"bench": {**moved["parts"]["bench"], "scenarios": "others"}}
    with pytest.raises(ValueError, match="full, seed 0, was evaluated on other dialogues of bench"):
        store.Table([*table.rows, moved])


def test_the_report_needs_the_results_folder_alone(tmp_path):
    rows = rows_of({"base": 0.1, "sft": 0.4, "full": 0.8}, parts=tuple(sweep.EVERY_PART))
    rows += rows_of({"difference-tcsr": 0.8, "difference-mean": 0.8})
    rows[-1]["weights"][1] = "made again"
    for row in [*rows, {**row_of("calm", 0, {}), "evaluation": "of another recipe"}]:
        store.add(tmp_path, row)
    assert "nothing to report" in report.write_report(tmp_path)
    plan = [c for c in cells(QUICK) if c.arm == "static"]
    run.summarise(QUICK, plan, tmp_path, "python -m benchmarks.ablation")
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary["evaluations"] |= {f"cell {row['evaluation']}": row["evaluation"] for row in rows}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    text = report.write_report(tmp_path, replicates=200)
    for words in (
        "9 lines from 3 bases", "a chip 9", "| full: SFT + GRPO |", "| full | 90 | 30 |",
        "| full - sft | bench | joint |", "difference-tcsr - difference-mean", "| sft, forgetful |",
        "Trained again, so that arms start from different weights: sft 8", "survival.png",
        f"**Not finished: 2 of {2 + len(rows)} models: {plan[0].name}, {plan[1].name}.**",
    ):  # fmt: skip
        assert words in text, words
    assert "Not run." in text and "| calm" not in text
    body = json.loads((tmp_path / "tables.json").read_text())
    primary = [c for c in body["differences"] if c["primary"]]
    found = {(c["arm"], c["measure"]): c for c in primary if c["part"] == "bench"}
    assert len(primary) == 1 + 2 + 1 and all(c["p_holm"] >= c["p"] for c in primary)
    assert found["full", "joint"]["p_holm"] < 0.05 < found["difference-tcsr", "harm"]["p_holm"]
    assert len(found["full", "joint"]["by_base"]) == 3
    assert (tmp_path / "survival.png").stat().st_size > 5000


@pytest.mark.parametrize("name", ["no seed effect", "large seed effect"])
def test_intervals_over_five_seeds_cover(name):
    """200 simulations: 95 % is known to 3 points. The seed is fixed; more of them are in `coverage.py`."""
    assert coverage.simulate(coverage.CASES[name], 200, replicates=200)["used"] >= 92


def test_lines_taken_for_seeds_would_not_cover_where_bases_differ():
    found = coverage.simulate(coverage.BASES["bases alone"], 150, seeds=9, bases=3, replicates=200)
    assert found["used"] >= 90 > 85 > found["other"]


# -- running ------------------------------------------------------------------------------------------------


def test_the_remaining_time_follows_what_was_timed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    settings = Settings()
    jobs = {cell.name: Job(cell) for cell in cells(settings, ["full"]) if cell.seed in (0, 1)}
    watch = run.Watch(settings, jobs, 1, 20)
    assert watch.head().startswith("6 of 20 models to train or evaluate; roughly ")
    first = next(name for name in jobs if "full-0" in name)
    now[0] = 10 * watch.work[first]
    body = {"cpu": {"train": 90.0, "evaluate": 30.0}}
    line = watch.see(SimpleNamespace(kind="done", job=first, body=body))
    assert line.startswith(f"[1/6] {first}: done train 90 CPU s, evaluate 30 CPU s; about ")
    rest = sum(work for name, work in watch.work.items() if name != first) / 60
    assert rest < float(line.rsplit("about ", 1)[1].split()[0]) < 10 * rest
    failed = SimpleNamespace(kind="failed", job=list(jobs)[1], body="Traceback\nValueError: no good\n")
    assert "ValueError: no good" in watch.see(failed)


def test_a_folder_in_use_is_one_line(tmp_path, capsys):
    words = ["--quick", "--only", "base", "--out", str(tmp_path)]
    with RunFolder(tmp_path).lock(), ThreadPoolExecutor() as another:
        assert another.submit(run.main, words).result() == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"python -m benchmarks.ablation: error: .* is in use by .*\n", said)
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_what_is_finished_outlives_the_machine(tmp_path):
    words = f"--quick --only full --workers 1 --out {tmp_path / 'one'} --results {tmp_path / 'rows'}".split()
    command = [sys.executable, "-m", "benchmarks.ablation", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "[3/6] sft" in line:  # both bases and the first sft are done, the next is under way
                os.kill(process.pid, signal.SIGKILL)
                break
    rows = store.read(tmp_path / "rows")
    assert [row["arm"] for row in rows] == ["base", "base", "sft"]
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob("one/cells/*/model/*")}
    assert trained
    time.sleep(1.5)  # until the workers have noticed
    assert run.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    after = store.read(tmp_path / "rows")
    assert after[:3] == rows
    assert [row["arm"] for row in after] == ["base", "base", "sft", "full", "sft", "full"]
    assert "| full - sft | bench | joint |" in (tmp_path / "rows" / "report.md").read_text()
    # Another machine has the rows and no models: nothing to do, or only what one lost row needs.
    assert run.main([*words[:5], "--out", str(tmp_path / "two"), *words[7:]]) == 0
    assert not (tmp_path / "two" / "cells").exists()
    plan = cells(QUICK, ["full"])
    jobs = run.todo(QUICK, plan, {row["evaluation"] for row in after[:-1]}, tmp_path / "two")
    assert [(job.cell.arm, job.cell.seed, job.evaluate) for job in jobs.values()] == [
        ("base", 1, False), ("sft", 1, False), ("full", 1, True),
    ]  # fmt: skip
    assert all(is_trained(tmp_path / "one", cell) for cell in plan)


def test_the_page_shows_the_numbers_of_the_results():
    """Each cell of the table in docs/ablation.md stands in a row of that arm in the report."""
    text = (ROOT / "benchmarks/ablation/results/report.md").read_text(encoding="utf-8")
    page = (ROOT / "docs/ablation.md").read_text(encoding="utf-8").split("## Results")[1]

    def rows(text):
        lines = (line.strip("|").split("|") for line in text.splitlines() if line.startswith("|"))
        return [[cell.strip() for cell in line] for line in lines]

    known = {}
    for title, *row in rows(text):
        known.setdefault(title, set()).update(row)
    shown = rows(page)[2:]
    assert len(shown) == len(sweep.ARMS)
    for title, *row in shown:
        assert {cell for cell in row if cell} <= known[title], title
