from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.ablation import sweep
from benchmarks.ablation.sweep import ARMS, Settings, StageThree, arm_named, cells, model_of, parent_of


def test_every_arm_of_the_paper_is_there():
    stages = {arm.name: arm.stages for arm in ARMS}
    assert len(stages) == len(ARMS)
    assert stages["base"] == ("none", None) and stages["sft"] == ("multi", None)
    assert stages["full"] == ("multi", StageThree(0.3, "final", "learning", "multi"))
    assert stages["no-bootstrap"] == ("none", stages["full"][1])
    assert stages["mean-only"][1] == replace(stages["full"][1], alpha=0.0)
    assert stages["last-turn"][1] == replace(stages["full"][1], returns="last")
    assert stages["static"][1] == replace(stages["full"][1], attacker="static")
    assert stages["tutor"][1] == replace(stages["full"][1], attacker="tutor")
    assert stages["single-sft"] == ("single", None)
    assert stages["single-grpo"][0] == "single" and stages["single-grpo"][1].turns == "single"
    assert [alpha for alpha, _ in sweep.ALPHAS] == [0.0, 0.3, 0.6, 1.0]
    assert stages["sum"][1] == replace(stages["full"][1], returns="sum")
    assert all(arm_named(name).stage_three == StageThree(alpha=alpha) for alpha, name in sweep.ALPHAS)
    assert stages["late-mean"][1] == replace(stages["late-tcsr"][1], alpha=0.0)


def test_equal_stages_are_one_model():
    assert model_of(arm_named("alpha-0")) == "mean-only" and model_of(arm_named("alpha-0.3")) == "full"
    assert [parent_of(arm_named(n)) and parent_of(arm_named(n)).name for n in
            ("base", "sft", "full", "no-bootstrap", "single-sft", "single-grpo")] == [
        None, "base", "sft", "base", "base", "single-sft",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="arm='fool', expected one of base, sft"):
        arm_named("fool")


def test_five_seeds_share_their_ancestors_and_come_one_after_the_other():
    settings = Settings()
    plan = cells(settings)
    parts = {"bench", "bench-single", "ood", "ood-single", "bench-late", "bench-trained"}
    assert len(settings.seeds) >= 5 and set(settings.parts) == parts == set(sweep.part_names())
    assert len({cell.name for cell in plan}) == len(plan)
    counted = Counter(cell.model for cell in plan)
    assert counted.pop("base") == 1 and set(counted) == {model_of(arm) for arm in ARMS} - {"base"}
    assert set(counted.values()) == {len(settings.seeds)}
    place = {cell.name: i for i, cell in enumerate(plan)}
    by_name = {cell.name: cell for cell in plan}
    for cell in plan:
        if cell.parent is not None:
            assert place[cell.parent] < place[cell.name]
            parent = by_name[cell.parent]
            assert parent.model == parent_of(cell.arm).name and parent.seed in (cell.seed, settings.seeds[0])
    seeds = [cell.seed for cell in plan]
    assert seeds == sorted(seeds)
    assert len(cells(replace(settings, shared_base=False))) == len(plan) + len(settings.seeds) - 1


def test_a_cell_is_another_one_when_what_it_depends_on_changes():
    settings = Settings()
    before = {(c.model, c.seed): c for c in cells(settings)}
    assert json.loads(json.dumps(before["full", 0].settings)) == before["full", 0].settings
    recipe = settings.recipe
    longer = replace(settings, recipe=replace(recipe, grpo=replace(recipe.grpo, steps=99)))
    after = {(c.model, c.seed): c for c in cells(longer)}
    changed = {model for (model, seed), cell in after.items() if cell.name != before[model, seed].name}
    assert changed == {model_of(arm) for arm in ARMS if arm.stage_three}
    fewer = {c.model for c in cells(replace(settings, single_sft_times=1))
             if c.name != before[c.model, c.seed].name}  # fmt: skip
    assert fewer == {"single-sft", "single-grpo"}
    full, late = arm_named("full"), arm_named("late-tcsr")
    fewer, weaker = replace(settings, dialogues=9), replace(settings, response_steps=1)
    assert sweep.evaluation_settings(settings, full) != sweep.evaluation_settings(fewer, full)
    assert sweep.evaluation_settings(settings, full) != sweep.evaluation_settings(weaker, full)
    assert sweep.evaluation_settings(settings, late) == sweep.evaluation_settings(weaker, late)
    pytest.importorskip("torch")
    from benchmarks.ablation.cells import evaluation_folder

    cell = before["full", 0]
    assert evaluation_folder(Path("o"), cell, settings) != evaluation_folder(Path("o"), cell, weaker)


def test_the_penalty_weighs_less_where_the_return_is_small():
    settings = Settings()
    betas = {c.model: c.settings["grpo"]["beta"] for c in cells(settings, seeds=[0]) if c.stage == "grpo"}
    assert betas.pop("sum") == settings.sum_beta
    assert set(betas.values()) == {settings.short_beta}


def test_parts():
    assert sweep.part_of("bench-late").env == "SteerLateRisk-v0" and sweep.part_of("ood").split == "ood"
    assert sweep.parts_of(arm_named("late-mean"), Settings()) == ("bench", "bench-late")
    with pytest.raises(ValueError, match="part='bunch', expected one of bench, bench-single"):
        sweep.part_of("bunch")


def test_some_arms_bring_their_ancestors():
    assert [(c.model, c.seed) for c in cells(Settings(), ["single-grpo"], [3])] == [
        ("base", 0), ("single-sft", 3), ("single-grpo", 3),
    ]  # fmt: skip


def test_comparisons_are_between_arms_and_the_primary_family_is_small():
    for arm, reference in (*sweep.COMPARISONS, *sweep.SECONDARY):
        assert arm_named(arm).stages != arm_named(reference).stages
    assert len(sweep.PRIMARY) <= 40
    for arm, reference, part, _ in sweep.PRIMARY:
        assert all(part in sweep.parts_of(arm_named(name), Settings()) for name in (arm, reference))
