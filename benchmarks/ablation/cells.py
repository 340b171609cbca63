"""What a worker does with a cell: train its model, evaluate it, return a row and keep nothing large."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import steer_env
from benchmarks.ablation.store import Row, measured
from benchmarks.ablation.sweep import (
    ARMS,
    BASE_0,
    EVERY_PART,
    TRAINED,
    Cell,
    Settings,
    evaluation_key,
    evaluation_settings,
)
from steer_env.agents.attackers import StaticAttacker
from steer_env.agents.base import Agent
from steer_env.agents.hf.student import HFStudent
from steer_env.agents.scripted import Constructive
from steer_env.algorithms import recipes, sft, trainer
from steer_env.algorithms.bootstrap import keep
from steer_env.algorithms.exploit import best_response
from steer_env.algorithms.pretraining import frozen_vision, missed
from steer_env.algorithms.recipe_data import Shares, data_seeds, told
from steer_env.algorithms.trainer import TrainConfig
from steer_env.cli.demo_jobs import CONSTANT, TOGETHER
from steer_env.cli.stages import MARK, build_stage, stage_key
from steer_env.files import read_json, write_json
from steer_env.ids import spec
from steer_env.models.shipped import weights_hash
from steer_env.play.controls import CONTROLS, controlled
from steer_env.play.evaluate import evaluate, load_rows
from steer_env.play.suites import WholeGroups, groups_for
from steer_env.rollout import rollout
from steer_env.scenarios import RISKY
from steer_env.types import ATTACKER
from steer_env.world import WorldSource

#: Environment of Stage III by `sweep.StageThree.dialogues`.
ENVS = {"multi": recipes.ENV, "single": "SteerSingleTurn-v0", "late": "SteerLateRisk-v0"}
#: Added to the training seed, for the dialogues on which an attacker of the evaluation is trained.
RESPONSE_SEED = 10_000
ROW = "row.json"
SECONDS = "seconds.json"

#: Called with what happened ("progress", "trained") and more about it.
Tell = Callable[[str, Any], None]


@dataclass(frozen=True)
class Job:
    """A cell, and whether it is to be evaluated or only trained, for its descendants."""

    cell: Cell
    evaluate: bool = True


def folder_of(out: Path, cell: Cell) -> Path:
    """Return the folder of a cell."""
    return out / "cells" / cell.name


def model_of(out: Path, cell: Cell) -> Path:
    """Return the folder of a cell's model."""
    return BASE_0 if cell.given else folder_of(out, cell) / "model"


def is_trained(out: Path, cell: Cell) -> bool:
    """Say whether a cell's model is there."""
    mark = folder_of(out, cell) / MARK
    return cell.given or (mark.exists() and read_json(mark)["done"])


def run_job(settings: Settings, out: Path, job: Job, tell: Tell) -> Row | None:
    """Train and evaluate a cell, or what of it is not done; returns its row of the results.

    Args:
        settings: Of the sweep.
        out: Run folder.
        job: Which cell.
        tell: Called with ("progress", (what, done, total)) and, once the model is there, ("trained", None).
    """
    torch.set_num_threads(1)
    cell, folder = job.cell, folder_of(out, job.cell)
    if not cell.given:
        train = partial(_timed, partial(_train, settings, out, cell, tell))
        build_stage(folder, cell.settings, train, cell.parent.key if cell.parent else "")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    tell("trained", None)
    if not job.evaluate:
        return None
    chosen, key = evaluation_settings(settings, cell), evaluation_key(settings, cell)
    target = folder / f"evaluation-{key[:8]}"
    build_stage(target, chosen, partial(_timed, partial(_evaluate, settings, out, cell, tell)), cell.key)
    return {
        **read_json(target / ROW),
        "cpu": {
            "train": 0.0 if cell.given else read_json(folder / SECONDS)["cpu"],
            "evaluate": read_json(target / SECONDS)["cpu"],
        },
    }


def _timed(build: Callable[[Path, bool], None], folder: Path, resume: bool) -> None:
    """Build, and write down the processor time; of an interrupted build it is that of the last part."""
    start = time.process_time()
    build(folder, resume)
    write_json(folder / SECONDS, {"cpu": round(time.process_time() - start, 1)})


# -- training -----------------------------------------------------------------------------------------------


def _train(settings: Settings, out: Path, cell: Cell, tell: Tell, folder: Path, resume: bool) -> None:
    config = replace(settings.recipe, seed=cell.seed)
    before = model_of(out, cell.parent) if cell.parent else None
    progress = lambda done, total, row: tell("progress", ("train", done, total))  # noqa: E731
    if cell.stage == "base":
        # The gates were set by what base 0 could do; a sweep over bases is about what they differ in.
        student = recipes.train_base(config, folder, progress, strict=False)
    elif cell.stage == "grpo":
        student = train_grpo(settings, config, cell, before, folder, resume, progress)
    elif ARMS[cell.arm].stage_two == "single":
        student = single_sft(settings, config, before, progress)
    else:
        student = recipes.train_sft(config, before or "", progress)
    student.save(folder / "model")


def single_sft(settings: Settings, config: recipes.DemoConfig, before: Any, progress: Any) -> HFStudent:
    """Stage II on dialogues of one turn: as `recipes.train_sft`, with as many replies and no dialogue."""
    student, times = HFStudent.from_pretrained(before, name="single-sft"), settings.single_sft_times
    source = WorldSource(split="sft", strategies=config.sft_strategies, single_turn=True)
    env = steer_env.make_vec(ENVS["single"], 64, split="sft", wrappers=())
    seeds = data_seeds(config.seed, 3, times * config.sft_dialogues)  # the recipe's Stage II and on
    played = rollout(env, StaticAttacker(), Constructive(config.seed), seeds, scenarios=source.scenario)
    data = [told(t, taken_back=config.sft_taken_back) for t in played if keep(t)]
    chosen = replace(config.sft, seed=config.seed, batch_size=times * config.sft.batch_size)
    with frozen_vision(student):
        sft.train(student, data, chosen, progress=progress)
    return student


def train_grpo(
    settings: Settings, config: recipes.DemoConfig, cell: Cell, before: Any, folder: Path, resume: bool,
    progress: Any,
) -> HFStudent:  # fmt: skip
    """Stage III as `recipes.train_grpo`, with the arm's attacker, credit, return and dialogues."""
    stage = ARMS[cell.arm].stage_three
    assert stage is not None
    student, chosen = HFStudent.from_pretrained(before, name="grpo"), replace(config.grpo, seed=config.seed)
    if stage.credit:
        chosen = replace(chosen, credit=stage.credit)
    if not stage.scaled:
        chosen = replace(chosen, scale=False, beta=settings.unscaled_beta)
    env_id, most = ENVS[stage.dialogues], config.grpo_turns
    world = dict(spec(env_id).world)
    if stage.dialogues == "single":
        seeds, batch = (
            settings.single_grpo_times * n for n in (chosen.seeds_per_step, chosen.minibatch_size)
        )
        chosen = replace(chosen, seeds_per_step=seeds, minibatch_size=batch)
    else:
        world["max_turns"] = max(most, world.get("min_turns", 2))
    source = Shares(WorldSource(split="train", **world), stage.shares or config.grpo_shares)
    env = steer_env.make_vec(
        env_id, chosen.seeds_per_step * chosen.group_size, scenarios=source, judge=config.grpo_judge,
        alpha=stage.alpha, returns="final",
    )  # fmt: skip
    seeded = {} if stage.attacker == "static" else {"seed": config.seed}
    red = steer_env.make_agent(stage.attacker, seat=ATTACKER, **seeded)
    with frozen_vision(student):
        trainer.train(env, red, student, chosen.algorithm(), chosen, folder, resume=resume, progress=progress)
    return student


# -- evaluation ---------------------------------------------------------------------------------------------


def _evaluate(settings: Settings, out: Path, cell: Cell, tell: Tell, folder: Path, resume: bool) -> None:
    """Play every part's dialogues greedily, and write the row."""
    model, names, parts = model_of(out, cell), ARMS[cell.arm].parts, {}
    student = HFStudent.from_pretrained(
        model, name=cell.arm, temperature=0.0, max_new_tokens=settings.recipe.grpo.max_new_tokens
    )
    for number, name in enumerate(names):
        part = EVERY_PART[name]
        groups = groups_for(part.env, part.split, settings.dialogues)
        scenarios = WholeGroups(part.env, part.split, groups, settings.evaluation_seed)
        count = len(scenarios)
        red = (
            trained_attacker(settings, cell, student)
            if name == TRAINED
            else steer_env.make_attacker(part.env)
        )
        evaluate(
            steer_env.make_vec(part.env, min(TOGETHER, count), split=part.split),
            red,
            controlled(name, student, list(scenarios), CONSTANT) if name in CONTROLS else student,
            range(count),
            folder / name,
            resume=resume,
            scenarios=scenarios,
            meta={"student": cell.name, "suite": name, "env": part.env, "split": part.split},
            progress=partial(_told, tell, number * count, len(names) * count),
            unscored_limit=1.0,  # a model that babbles is a result, too
        )
        parts[name] = measured(load_rows(folder / name))
    write_json(folder / ROW, {**_about(settings, out, cell), "parts": parts})


def _about(settings: Settings, out: Path, cell: Cell) -> Row:
    """Return what identifies a row: its key, and what the key stands for, weights included."""
    line = [cell]
    while line[-1].parent is not None:
        line.append(line[-1].parent)
    kinds = {"arm": cell.arm, "seed": cell.seed, "base": line[-1].seed}
    steps = {"steps": settings.recipe.grpo.steps} if cell.stage == "grpo" else {}
    return {
        **kinds, **steps,
        "evaluation": evaluation_key(settings, cell),
        "recipe": stage_key(cell.settings),
        "weights": [weights_hash(model_of(out, each))[:16] for each in line],
        **{name: evaluation_settings(settings, cell)[name] for name in ("world", "judge", "dialogues")},
        "gates_missed": missed(folder_of(out, line[-1])),
        "machine": {
            "processor": _processor(), "instructions": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__, "transformers": version("transformers"),
        },
    }  # fmt: skip


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def trained_attacker(settings: Settings, cell: Cell, student: HFStudent) -> Agent:
    """Train an attacker from scratch against this very model, on training dialogues, and freeze it.

    Every model meets one of its own, found with the same budget: what it gets bounds from below how far a
    model can be exploited, and no model's training has seen it.
    """
    config = TrainConfig(
        steps=settings.response_steps,
        seeds_per_step=settings.response_groups,
        group_size=settings.response_siblings,
        seed=RESPONSE_SEED
        + cell.seed,  # dialogues apart from those of Stage III, which start at its own seed
        unscored_limit=1.0,
    )
    slots = config.seeds_per_step * config.group_size
    risky = steer_env.make_vec(recipes.ENV, slots, split="train", kinds=RISKY, wrappers=())
    return best_response(student, risky, config)  # the student is greedy, as in all of the evaluation


def _told(tell: Tell, before: int, total: int, done: int, _: int) -> None:
    tell("progress", ("evaluate", before + done, total))
