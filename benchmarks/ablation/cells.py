"""What a worker does with a cell: train its model, evaluate it, keep the outcomes and nothing large."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import steer_env
from benchmarks.ablation.outcomes import write_outcomes
from benchmarks.ablation.sweep import TRAINED, Cell, Settings, beta_of, evaluation_settings, part_of, parts_of
from steer_env.agents.attackers import StaticAttacker
from steer_env.agents.base import Agent
from steer_env.agents.hf.student import HFStudent
from steer_env.agents.scripted import Constructive
from steer_env.algorithms import recipes, sft, trainer
from steer_env.algorithms.bootstrap import exchanges, keep
from steer_env.algorithms.exploit import best_response
from steer_env.algorithms.trainer import TrainConfig
from steer_env.cli.stages import build_stage, stage_key
from steer_env.files import write_json
from steer_env.play.evaluate import evaluate, load_rows
from steer_env.play.suites import WholeGroups, groups_for
from steer_env.rollout import rollout
from steer_env.scenarios import RISKY
from steer_env.types import ATTACKER, Turn
from steer_env.wrappers import TurnReward
from steer_env.wrappers.base import RewardWrapper

SINGLE = "SteerSingleTurn-v0"
#: Environment of Stage III by `sweep.StageThree.turns`.
ENVS = {"multi": recipes.ENV, "single": SINGLE, "late": "SteerLateRisk-v0"}
#: Added to the training seed, for the dialogues on which an attacker of the evaluation is trained.
RESPONSE_SEED = 10_000
OUTCOMES = "outcomes.csv"
SECONDS = "seconds.json"
#: Slots of an evaluation's vector environment.
SLOTS = 64

#: Called with what happened ("progress", "trained") and more about it.
Tell = Callable[[str, Any], None]


class LastTurn(RewardWrapper):
    """Makes the reward of the last turn the whole return, as increments that sum to it.

    A turn emits its reward minus that of the scored turn before it, so that no emitted value depends on a
    later turn; unscored turns emit nothing. `TCSR` with `returns="final"` is something else: there the last
    value still holds the minimum and the mean of all turns.
    """

    def begin(self) -> None:
        """Start without a reward."""
        self._last, self._known = 0.0, False

    def turn_reward(self, turn: Turn, reward: float, info: dict[str, Any]) -> float:
        """Return the increment of the last scored turn's reward."""
        before = self._last
        if info["scored"]:
            self._last, self._known = reward, True
        info["return"], info["return_defined"] = self._last, self._known
        return self._last - before


def folder_of(out: Path, name: str) -> Path:
    """Return the folder of a cell."""
    return out / "cells" / name


def is_trained(out: Path, cell: Cell) -> bool:
    """Say whether a cell's model is there."""
    return _done(folder_of(out, cell.name))


def is_evaluated(out: Path, cell: Cell, settings: Settings) -> bool:
    """Say whether a cell is finished."""
    return is_trained(out, cell) and _done(evaluation_folder(out, cell, settings))


def evaluation_folder(out: Path, cell: Cell, settings: Settings) -> Path:
    """Return the folder of a cell's evaluation: another one for other evaluation settings."""
    chosen = evaluation_settings(settings, cell.arm)
    return folder_of(out, cell.name) / f"evaluation-{stage_key(chosen, cell.key)[:8]}"


def _done(folder: Path) -> bool:
    mark = folder / "stage.json"
    return mark.exists() and '"done": true' in mark.read_text(encoding="utf-8")


def run_cell(settings: Settings, out: Path, cell: Cell, tell: Tell) -> dict[str, Any]:
    """Train and evaluate a cell, or what of it is not done.

    Args:
        settings: Of the sweep.
        out: Run folder.
        cell: Which.
        tell: Called with ("progress", (what, done, total)) and, once the model is there, ("trained", None).

    Returns:
        Seconds of training and evaluation, None for what was there already.
    """
    folder = folder_of(out, cell.name)
    before = None if cell.parent is None else folder_of(out, cell.parent) / "model"
    progress = lambda done, total, row: tell("progress", ("train", done, total))  # noqa: E731
    seconds: dict[str, Any] = {}
    build = partial(_timed, seconds, "train", partial(_train, settings, cell, before, progress))
    build_stage(folder, cell.settings, build, "" if before is None else str(cell.parent))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    tell("trained", None)
    play_all = partial(_evaluate, settings, cell, folder / "model", tell)
    target, chosen = evaluation_folder(out, cell, settings), evaluation_settings(settings, cell.arm)
    build_stage(target, chosen, partial(_timed, seconds, "evaluate", play_all), cell.key)
    return {name: seconds.get(name) for name in ("train", "evaluate")}


def _timed(
    seconds: dict[str, Any], name: str, build: Callable[[Path, bool], None], folder: Path, resume: bool
) -> None:
    """Build and write down for how long, with a word when it is the rest of an interrupted build."""
    start, cpu = time.monotonic(), time.process_time()
    build(folder, resume)
    seconds[name] = time.monotonic() - start
    # Processor time, too: it says what a cell costs where other work shares the machine.
    took = {"seconds": round(seconds[name], 2), "cpu": round(time.process_time() - cpu, 2)}
    write_json(folder / SECONDS, {**took, "resumed": resume})


# -- training -----------------------------------------------------------------------------------------------


def _train(
    settings: Settings, cell: Cell, before: Path | None, progress: Any, folder: Path, resume: bool
) -> None:
    config = replace(settings.recipe, seed=cell.seed)
    if cell.stage == "grpo":
        student = train_grpo(settings, config, cell, before, folder, resume, progress)
    elif cell.arm.stage_two == "single":
        student = train_single_sft(settings, config, before, progress)
    else:
        recipes.build(config, cell.stage, folder, before=before, progress=progress)
        return
    student.save(folder / "model")


def train_single_sft(settings: Settings, config: recipes.DemoConfig, before: Any, progress: Any) -> HFStudent:
    """Stage II on dialogues of one turn: as `recipes.train_sft`, with as many replies and no dialogue."""
    student = HFStudent.from_pretrained(before, name="single-sft")
    times = settings.single_sft_times
    env = steer_env.make_vec(SINGLE, SLOTS, split="sft", wrappers=(), strategies=config.sft_strategies)
    seeds = recipes.data_seeds(config.seed, 3, times * config.sft_dialogues)  # the recipe's Stage II and on
    played = rollout(env, StaticAttacker(), Constructive(seed=config.seed), seeds)
    data = [exchanges(trajectory) for trajectory in played if keep(trajectory)]
    chosen = replace(config.sft, seed=config.seed, batch_size=times * config.sft.batch_size)
    sft.train(student, data, chosen, progress=progress)
    return student


def train_grpo(
    settings: Settings,
    config: recipes.DemoConfig,
    cell: Cell,
    before: Any,
    folder: Path,
    resume: bool,
    progress: Any,
) -> HFStudent:
    """Stage III as `recipes.train_grpo`, with the arm's reward, attacker and length."""
    stage = cell.arm.stage_three
    assert stage is not None
    student = HFStudent.from_pretrained(before, name=cell.model)
    chosen = replace(config.grpo, seed=config.seed, beta=beta_of(stage, settings), credit=settings.credit)
    if stage.returns == "last":
        reward: dict[str, Any] = {"wrappers": (TurnReward, LastTurn)}
    else:
        reward = {"alpha": stage.alpha, "returns": stage.returns}
    if stage.turns == "single":
        times = settings.single_grpo_times
        chosen = replace(
            chosen,
            seeds_per_step=times * chosen.seeds_per_step,
            minibatch_size=times * chosen.minibatch_size,
        )
    length = {"max_turns": config.grpo_turns} if stage.turns == "multi" else {}
    slots = chosen.seeds_per_step * chosen.group_size
    env = steer_env.make_vec(ENVS[stage.turns], slots, split="train", **length, **reward)
    seeded = {} if stage.attacker == "static" else {"seed": config.seed}
    red = steer_env.make_agent(stage.attacker, seat=ATTACKER, **seeded)
    trainer.train(env, red, student, chosen.algorithm(), chosen, folder, resume=resume, progress=progress)
    return student


# -- evaluation ---------------------------------------------------------------------------------------------


def _evaluate(settings: Settings, cell: Cell, model: Path, tell: Tell, folder: Path, resume: bool) -> None:
    """Play every part's dialogues greedily and write one line of outcomes for each."""
    student = HFStudent.from_pretrained(
        model, name=cell.model, temperature=0.0, max_new_tokens=settings.reply_tokens
    )
    rows, names = {}, parts_of(cell.arm, settings)
    for number, name in enumerate(names):
        part = part_of(name)
        groups = groups_for(part.env, part.split, settings.dialogues)
        scenarios = WholeGroups(part.env, part.split, groups, settings.evaluation_seed)
        count = len(scenarios)
        told = partial(_told, tell, number * count, len(names) * count)
        attacker = (
            trained_attacker(settings, cell, student)
            if name == TRAINED
            else steer_env.make_attacker(part.env)
        )
        evaluate(
            steer_env.make_vec(part.env, min(SLOTS, count), split=part.split),
            attacker,
            student,
            range(count),
            folder / name,
            resume=resume,
            scenarios=scenarios,
            meta={
                "command": "ablation",
                "student": cell.name,
                "suite": name,
                "env": part.env,
                "split": part.split,
            },
            progress=told,
            unscored_limit=1.0,  # a model that babbles is a result, too
        )
        rows[name] = load_rows(folder / name)
    write_outcomes(folder / OUTCOMES, rows, cell.model, cell.seed)


def trained_attacker(settings: Settings, cell: Cell, student: HFStudent) -> Agent:
    """Train an attacker from scratch against this very model, on training dialogues, and freeze it.

    Every model meets one of its own, found with the same budget: what it gets bounds from below how far a
    model can be exploited, and no model's training has seen it.
    """
    config = TrainConfig(
        steps=settings.response_steps,
        seeds_per_step=settings.response_groups,
        group_size=settings.response_siblings,
        # Dialogues apart from those of Stage III, which start at its own seed.
        seed=RESPONSE_SEED + cell.seed,
        unscored_limit=1.0,
    )
    slots = config.seeds_per_step * config.group_size
    risky = steer_env.make_vec(recipes.ENV, slots, split="train", kinds=RISKY, wrappers=())
    return best_response(student, risky, config)  # the student is greedy, as in all of the evaluation


def _told(tell: Tell, before: int, total: int, done: int, _: int) -> None:
    tell("progress", ("evaluate", before + done, total))
