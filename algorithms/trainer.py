"""The training loop of all algorithms, to be read top to bottom: play, compare, update, save.

A step plays `group_size` dialogues for each of several seeds against a live environment, lets the algorithm
say how much better each turn went than expected, and takes the optimiser steps of its loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np

from steer_env.agents.base import Acts, Agent, Failed, Observation, as_agent
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.advantages import share_cut, trajectory_return
from steer_env.algorithms.base import Algorithm, Example, Progress, make_algorithm, print_step
from steer_env.algorithms.checkpoints import (
    AVERAGE,
    CONFIG,
    Average,
    Stateful,
    attacker_state,
    check_run,
    checkpoints,
    drop_rows_from,
    load_newest,
    load_weights,
    save_checkpoint,
    settings_of,
    uninterrupted,
)
from steer_env.algorithms.curriculum import Curriculum
from steer_env.algorithms.demonstrations import Demonstrations
from steer_env.algorithms.forward import Forward, prepare
from steer_env.algorithms.monitor import (
    BEST,
    METRICS,
    MetricsLogger,
    Validation,
    check_trackers,
    record_rollouts,
)
from steer_env.algorithms.parallel import Parallel
from steer_env.algorithms.update import make_optimizer, treat_cut, update
from steer_env.configs.train import Scaling, TrainConfig
from steer_env.files import write_json
from steer_env.judges.independence import check_env
from steer_env.records import ROLLOUTS, Row
from steer_env.rollout import rollout, rollout_from
from steer_env.runs import locked
from steer_env.trajectory import Trajectory, TrajectoryGroup, group_by_seed
from steer_env.types import Utterance
from steer_env.unscored import UnscoredGuard, dialogue_metrics
from steer_env.vector import VectorDialogueEnv

__all__ = ["Progress", "TrainConfig", "final_folder", "step_seeds", "train"]


@locked("run_dir")
def train(
    env: VectorDialogueEnv | Curriculum,
    attacker: Acts,
    student: HFStudent,
    algorithm: Algorithm | str,
    config: TrainConfig,
    run_dir: str | Path,
    *,
    scaling: Scaling | None = None,
    parallel: Parallel | None = None,
    trackers: Sequence[str] = (),
    resume: bool = False,
    progress: Progress | None = print_step,
    record_every: int = 0,
    eval_env: VectorDialogueEnv | None = None,
    demonstrations: Demonstrations | None = None,
    allow_self_judging: Collection[str] = (),
) -> list[Row]:
    """Train `student` in place and write metrics and checkpoints to `run_dir`.

    Args:
        env: A vector environment whose wrappers emit the reward to maximise, or a curriculum of such.
        attacker: Plays `attacker_0`; its `learn` sees the dialogues after each step, and its memory
            (`state_dict`), made of plain values and tensors, is part of the checkpoints.
        student: The policy, as it is before the first step (also when resuming: it is the KL reference).
        algorithm: An algorithm, see `base.make_algorithm`, or the name of one with its defaults.
        config: Settings of the loop.
        run_dir: Gets `config.json`, `metrics.jsonl` and `checkpoints/`.
        scaling: Precision, gradient checkpointing, LoRA; the default changes nothing.
        parallel: The processes that train together, see `parallel.launched`; the default is this one alone.
        trackers: Where metrics also go: "tensorboard", "wandb", "trackio".
        resume: Go on after the last checkpoint; metrics rows beyond it are dropped.
        progress: Called after every step; the default prints a line, None is silent.
        record_every: Write the dialogues of every so many steps, with tokens, masks and advantages, to
            `rollouts.jsonl`; 0 writes none.
        eval_env: Where `config.eval_every` plays its dialogues; `env` by default.
        demonstrations: Dialogues to imitate beside, a batch of them with every update.
        allow_self_judging: Roles ("student", "attacker") whose weights the judge may share.

    Returns:
        One row of metrics per step, also those from before a resumption.

    Raises:
        RunExists: If `run_dir` holds a run and `resume` is False, or one with other settings.
        ValueError: If the weights to train are not float32, the groups are too small for the algorithm, or a
            curriculum has no `eval_env` although `config.eval_every` is set: its own dialogues change.
        SelfJudging: If the judge is the student's or the attacker's model and that was not allowed.
        TypeError: If the attacker's memory could not be read back from a checkpoint.
        TooManyUnscored: If the judge fails too often; a checkpoint of the last finished step is written
            first.
    """
    run_dir, scaling, parallel = Path(run_dir), scaling or Scaling(), parallel or Parallel()
    attacker = as_agent(attacker)
    algorithm = make_algorithm(algorithm) if isinstance(algorithm, str) else algorithm
    algorithm.check(config.group_size)
    now = env.env if isinstance(env, Curriculum) else env
    check_env(now, student, attacker, allow=allow_self_judging)
    check_trackers(trackers)
    attacker_state(attacker)  # refused now rather than at the first checkpoint
    if config.eval_every and eval_env is None and isinstance(env, Curriculum):
        raise ValueError(f"eval_every={config.eval_every!r} with a curriculum, expected an eval_env as well")
    settings = settings_of(algorithm, config, scaling, env)
    shown = demonstrations.encoded(student) if demonstrations else []
    settings["demonstrations"] = demonstrations.settings(shown) if demonstrations else None
    check_run(run_dir, settings, resume)
    parallel.wait()  # until all have looked, before the first one writes
    undo = prepare(student, scaling, config.seed)
    try:
        student.check_trainable()
    except BaseException:
        undo()  # so that other settings can be tried on the same student
        raise
    student.temperature, student.max_new_tokens = config.temperature, config.max_new_tokens
    forward = Forward(
        student,
        scaling,
        temperature=config.temperature,
        microbatch_size=config.microbatch_size,
        microbatch_tokens=config.microbatch_tokens,
        reference=algorithm.beta > 0,
        parallel=parallel,
    )
    algorithm.setup(forward)
    guard = UnscoredGuard(config.unscored_limit, config.unscored_window)
    supervise = partial(demonstrations.imitate, forward, shown, config.seed) if demonstrations else None
    run = _Run(env, attacker, forward, algorithm, config, run_dir, guard, eval_env, supervise)
    saved = finished = run.open(settings)
    between = True  # whether the run is between two steps
    with MetricsLogger(run_dir, trackers, finished, settings, write=parallel.main) as log:
        try:
            for step in range(finished, config.steps):
                started = time.perf_counter()
                trajectories = run.play(step)
                guard.see(trajectories)
                played = time.perf_counter()
                groups, examples = run.compare(trajectories)
                if record_every and step % record_every == 0:
                    run.record(trajectories, examples, step)
                with uninterrupted():
                    between = False
                    row = run.update(groups, examples, step)
                    row |= {"seconds_play": played - started, "seconds_update": time.perf_counter() - played}
                    log.write({"step": step, **row, **run.look(step)})
                    guard.commit()
                    finished, between = step + 1, True
                    if finished % config.checkpoint_every == 0 or finished == config.steps:
                        run.save(finished, log)
                        saved = finished
                if progress is not None:
                    progress(finished, config.steps, log.rows[-1])
        except BaseException:
            # Weights and memory change only in the guarded block above. An error inside it leaves them
            # between two steps: the last checkpoint stays, and resuming plays the steps after it again.
            if between and saved < finished:
                with uninterrupted():
                    run.save(finished, log)
            raise
    run.end()
    return log.rows


class _Run:
    """The parts of a run, and what happens to them in a step."""

    def __init__(
        self,
        env: VectorDialogueEnv | Curriculum,
        attacker: Agent,
        forward: Forward,
        algorithm: Algorithm,
        config: TrainConfig,
        run_dir: Path,
        guard: UnscoredGuard,
        eval_env: VectorDialogueEnv | None = None,
        supervise: Callable[[int, int], float] | None = None,
    ) -> None:
        self.supervise = supervise
        self.env, self.attacker, self.forward, self.algorithm = env, attacker, forward, algorithm
        self.config, self.run_dir = config, run_dir
        self.student, self.parallel = forward.student, forward.parallel
        self.optimizer = make_optimizer(forward, algorithm, config)
        self.parts: dict[str, Stateful] = {"algorithm": algorithm, "guard": guard}
        if isinstance(env, Curriculum):
            self.parts["curriculum"] = env
        self.average: Average | None = None
        if config.average != "none":
            self.average = Average(self.student.model, config.average, config.average_decay, config.steps)
            self.parts["average"] = self.average
        self.validation: Validation | None = None
        if config.eval_every:
            where = eval_env or self._env
            self.validation = Validation(
                where, attacker, self.student, self.parallel, run_dir, config.eval_dialogues
            )
            self.parts["validation"] = self.validation

    def open(self, settings: Row) -> int:
        """Prepare the run folder; returns the number of steps that are done already."""
        parts = (self.student, self.optimizer, self.attacker, self.parts, self.average)
        finished = load_newest(self.run_dir, *parts)
        if self.parallel.main:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            write_json(self.run_dir / CONFIG, settings)
            for name in (METRICS, ROLLOUTS):
                drop_rows_from(self.run_dir / name, finished)
        self.parallel.wait()
        return finished

    def play(self, step: int) -> list[Trajectory]:
        """Play the dialogues of a step; its number and the settings alone decide the random streams.

        Each process plays some groups and gets the dialogues of all.
        """
        self.student.reseed(int(np.random.SeedSequence([self.config.seed, step, 1]).generate_state(1)[0]))
        seeds = step_seeds(self.config, step)
        return self._play(self._env, self.attacker, seeds, self.config.group_size, self.algorithm)

    @property
    def _env(self) -> VectorDialogueEnv:
        return self.env.env if isinstance(self.env, Curriculum) else self.env

    def _play(
        self,
        env: VectorDialogueEnv,
        attacker: Agent,
        seeds: Sequence[int],
        size: int = 1,
        algorithm: Algorithm | None = None,
    ) -> list[Trajectory]:
        self.student.weights_changed()
        student: Agent = self.student
        if self.forward.scaling.precision != "float32":
            student = _InPrecision(self.forward)
        mine = [seed for seed in self.parallel.share(seeds[::size]) for _ in range(size)]
        played = rollout(env, attacker, student, mine)
        if algorithm is not None:
            play_on = partial(rollout_from, env, attacker, student)
            algorithm.look_ahead(group_by_seed(played, size), play_on)
        self.student.weights_changed()  # the update needs the memory of the cached keys and values
        groups = [played[start : start + size] for start in range(0, len(played), size)]
        return [trajectory for group in self.parallel.gather(groups) for trajectory in group]

    def compare(self, trajectories: Sequence[Trajectory]) -> tuple[list[TrajectoryGroup], list[Example]]:
        """Return the groups of siblings, and how much better than expected each of their tokens went."""
        groups = group_by_seed(trajectories, self.config.group_size)
        examples = self.algorithm.examples(groups)
        how, penalty = self.config.overlong, self.config.overlong_penalty
        return groups, treat_cut(examples, how, penalty, self.student.codec.close_id)

    def record(self, trajectories: Sequence[Trajectory], examples: Sequence[Example], step: int) -> None:
        """Write a step's dialogues with the advantages of their tokens."""
        if self.parallel.main:
            of = {id(e.dialogue.trace): (e.mask_L, e.advantages_L) for e in examples}
            credits = {i: of[id(t.trace)] for i, t in enumerate(trajectories) if id(t.trace) in of}
            record_rollouts(self.run_dir, step, trajectories, credits, self.student.codec.tokenizer.decode)

    def update(self, groups: Sequence[TrajectoryGroup], examples: Sequence[Example], step: int) -> Row:
        """Update policy, algorithm, attacker and curriculum from a step's dialogues; returns metrics."""
        trajectories = [trajectory for group in groups for trajectory in group.trajectories]
        returns_GK = np.array([[trajectory_return(t) for t in group.trajectories] for group in groups])
        row: Row = dialogue_metrics(trajectories, returns_GK)
        row["truncated"] = share_cut(trajectories, self.student.codec.close_id)
        beside = partial(self.supervise, step) if self.supervise else None
        row |= update(self.forward, self.algorithm, self.optimizer, examples, self.config, step, beside)
        row |= {"trained_dialogues": len(examples)} | self.algorithm.finish(groups)
        self.attacker.learn(trajectories)
        if isinstance(self.env, Curriculum):
            row |= self.env.finish(row)
        return row

    def look(self, step: int) -> Row:
        """Take the weights after a step into their mean, and evaluate them if it is time; returns metrics."""
        if self.average is not None:
            self.average.take(step)
        config, done = self.config, step + 1
        if self.validation is None or (done % config.eval_every and done != config.steps):
            return {}
        averaged = self.average is not None and config.final_weights == "average"
        with self.average.applied() if averaged and self.average else nullcontext():
            row = self.validation.run(self._play, done)
        return row

    def end(self) -> None:
        """Give the student the weights that the settings ask for."""
        if self.config.final_weights == "last":
            return
        self.parallel.wait()
        load_weights(final_folder(self.run_dir, self.config), self.student.model)
        self.student.weights_changed()

    def save(self, finished: int, log: MetricsLogger) -> None:
        """Write a checkpoint."""
        if self.parallel.main:
            log.sync()  # the rows that it counts
            parts = (self.student, self.optimizer, self.attacker)
            save_checkpoint(self.run_dir, finished, *parts, parts=self.parts, average=self.average)


class _InPrecision(Agent):
    """The student, sampling in the precision that its log-probabilities are recomputed in."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def act(self, observations: Sequence[Observation]) -> list[Utterance | Failed]:
        with self._forward.precision():
            return self._forward.student.act(observations)


def final_folder(run_dir: Path, config: TrainConfig) -> Path:
    """Return the folder that holds the weights of a finished run's student, as `final_weights` asks."""
    last = checkpoints(run_dir)[-1]
    of = {"last": last, "average": last / AVERAGE, "best": run_dir / BEST}[config.final_weights]
    return of if of.exists() else last


def step_seeds(config: TrainConfig, step: int) -> list[int]:
    """Return the reset seeds of a step, each repeated `group_size` times; settings alone decide them."""
    state = np.random.SeedSequence([config.seed, step]).generate_state(config.seeds_per_step)
    return [int(seed) for seed in state for _ in range(config.group_size)]
