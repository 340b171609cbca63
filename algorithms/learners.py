"""Attackers that learn from the dialogues they are shown.

They keep the interface of the tutor's memory: `act`, `learn(trajectories)` after a step, `state_dict`. The
student's loop (`trainer.train`) teaches its attacker after every step and keeps its state in the checkpoints,
so handing it a learner trains both seats on the same dialogues. `practise` is the loop for an attacker alone,
against students that stay as they are.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from steer_env.agents.base import Acts, Agent, Failed, Observation, as_agent
from steer_env.agents.hf.attacker import HFAttacker
from steer_env.agents.tactics import ASKS, LEADS, SITUATIONS, TacticAttacker
from steer_env.algorithms.attack import AttackReward, attack_metrics, attacker_groups
from steer_env.algorithms.base import Algorithm, Progress, make_algorithm
from steer_env.algorithms.checkpoints import (
    CONFIG,
    attacker_state,
    check_run,
    drop_rows_from,
    load_state,
    save_state,
    uninterrupted,
)
from steer_env.algorithms.forward import Forward
from steer_env.algorithms.monitor import METRICS, MetricsLogger
from steer_env.algorithms.trainer import step_seeds
from steer_env.algorithms.update import make_optimizer, update
from steer_env.configs.train import Scaling, TrainConfig
from steer_env.files import write_json
from steer_env.records import Row
from steer_env.rollout import rollout
from steer_env.runs import locked
from steer_env.trajectory import Trajectory, TrajectoryGroup, group_by_seed
from steer_env.types import Utterance
from steer_env.unscored import UnscoredGuard
from steer_env.vector import VectorDialogueEnv

#: An attacker that practises, as of its last checkpoint.
STATE: Final = "attacker.pt"


class Learner(Agent):
    """An attacker that learns by an algorithm.

    Attributes:
        agent: Speaks; it is changed in place.
        algorithm: Gives the advantages; an object of its own, never the student's.
        reward: What it is paid for.
        seed: Decides the random streams.
        steps: Updates so far.
    """

    def __init__(self, agent: Any, algorithm: Algorithm, reward: AttackReward | None, seed: int) -> None:
        self.agent, self.algorithm, self.reward = agent, algorithm, reward or AttackReward()
        self.seed, self.steps = seed, 0
        self._restart()

    @abstractmethod
    def update(self, groups: Sequence[TrajectoryGroup]) -> Row:
        """Change the agent by some dialogues as the attacker was paid for them; returns metrics."""

    @abstractmethod
    def member(self, state: Mapping[str, Any]) -> Agent:
        """Return an opponent that stays as `state`, a `state_dict`, has it."""

    @abstractmethod
    def settings(self) -> Row:
        """Return what decides its updates beside its algorithm; a run resumes with these."""

    def act(self, observations: Sequence[Observation]) -> list[Utterance | Failed]:
        """Return one user turn per observation."""
        said: list[Utterance | Failed] = self.agent.act(observations)
        return said

    @property
    def varies(self) -> bool:
        """It draws what it says."""
        return True

    def learn(self, trajectories: Sequence[Trajectory]) -> Row:
        """Take one update from a step's dialogues, siblings side by side; honest users' teach nothing."""
        groups = attacker_groups(as_groups(trajectories), self.reward)
        row = attack_metrics(groups)
        if groups:
            row |= self.update(groups)
            row |= self.algorithm.finish(groups)
        self.steps += 1
        self._restart()
        return row

    def reseed(self, seed: int) -> None:
        """Restart the random streams from `seed`; the next update restarts them from its own."""
        self.agent.reseed(seed)

    def _restart(self) -> None:
        self.agent.weights_changed()
        self.reseed(derive(self.seed, self.steps, 3))

    def state_dict(self) -> dict[str, Any]:
        """Return counters and baselines; with what the subclass adds, all that an update changes."""
        return {"steps": self.steps, "algorithm": self.algorithm.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self.steps = int(state["steps"])
        self.algorithm.load_state_dict(state["algorithm"])
        self._restart()


class ModelLearner(Learner):
    """Trains an `HFAttacker` with any algorithm of the registry, as the loop trains a student.

    In `practise` its siblings draw their own numbers. Where a student learns from the same dialogues they
    share them (`HFAttacker.common`): take an algorithm that compares with a running mean there, as "rae"
    does, and not with siblings.

    Args:
        agent: The attacker, as it is before its first update (also when resuming: it is the KL reference).
        config: Learning rate, mini-batches, sampling. Its numbers of steps, seeds and siblings do not matter.
        algorithm: "rae" by default.
        reward: What it is paid for.

    Raises:
        ValueError: If weights to train are not float32.
    """

    def __init__(
        self,
        agent: HFAttacker,
        config: TrainConfig | None = None,
        algorithm: Algorithm | None = None,
        reward: AttackReward | None = None,
    ) -> None:
        agent.check_trainable()
        self.config = config = config or TrainConfig()
        agent.temperature, agent.max_new_tokens = config.temperature, config.max_new_tokens
        algorithm = make_algorithm("rae") if algorithm is None else algorithm
        self._forward = Forward(
            agent,
            Scaling(),
            temperature=config.temperature,
            microbatch_size=config.microbatch_size,
            microbatch_tokens=config.microbatch_tokens,
            reference=algorithm.beta > 0,
        )
        algorithm.setup(self._forward)
        self._optimizer = make_optimizer(self._forward, algorithm, config)
        super().__init__(agent, algorithm, reward, config.seed)

    def update(self, groups: Sequence[TrajectoryGroup]) -> Row:
        """Take the optimiser steps of one training step."""
        examples = self.algorithm.examples(groups)
        row = update(self._forward, self.algorithm, self._optimizer, examples, self.config, self.steps)
        return {f"attacker_{key}": value for key, value in row.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimiser, baselines and counters."""
        weights = self.agent.model.state_dict()
        return super().state_dict() | {
            "model": {name: value.detach().clone() for name, value in weights.items()},
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self.agent.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        super().load_state_dict(state)

    def member(self, state: Mapping[str, Any]) -> HFAttacker:
        """Return an attacker with a model of its own that has the weights of `state`."""
        model = copy.deepcopy(self.agent.model).requires_grad_(False)
        model.load_state_dict(state["model"])
        names = ("honest", "instructions", "temperature", "max_new_tokens", "batch_size")
        return HFAttacker(model, self.agent.processor, **{name: getattr(self.agent, name) for name in names})

    def settings(self) -> Row:
        """Return the settings of its updates and of its reward."""
        return asdict(self.config) | {"reward": asdict(self.reward)}


class TacticLearner(Learner):
    r"""Trains a `TacticAttacker` by REINFORCE with the natural gradient of its table.

    With advantages $A$ from any algorithm's `turn_advantages`, a step adds $\eta \hat A(s, a)$ to each logit,
    the mean advantage of the turns that chose $a$ in situation $s$, shrunk by `prior` pseudo-turns: the
    Fisher inverse turns the softmax's policy gradient into just that (Kakade 2001, "A natural policy
    gradient"; Agarwal et al. 2021, "On the theory of policy gradient methods", lemma 5.1). `forget` pulls
    logits to 0 and keeps every choice alive.

    Args:
        agent: The attacker.
        algorithm: "rae" with reward to go by default.
        reward: What it is paid for.
        rate: $\eta$.
        forget: Share of every logit lost per step, in [0, 1].
        prior: Pseudo-turns of advantage 0 per choice.
        seed: Decides the random streams.
    """

    def __init__(
        self,
        agent: TacticAttacker | None = None,
        algorithm: Algorithm | None = None,
        reward: AttackReward | None = None,
        *,
        rate: float = 4.0,
        forget: float = 0.02,
        prior: float = 2.0,
        seed: int = 0,
    ) -> None:
        algorithm = make_algorithm("rae", credit="reward_to_go") if algorithm is None else algorithm
        self.rate, self.forget, self.prior = rate, forget, prior
        super().__init__(TacticAttacker(seed) if agent is None else agent, algorithm, reward, seed)

    def update(self, groups: Sequence[TrajectoryGroup]) -> Row:
        """Move the table by the advantages of a step's choices."""
        members = [t for group in groups for t in group.trajectories]
        advantages = self.algorithm.turn_advantages(groups)
        for table, column, width in ((self.agent.lead_SL, 1, len(LEADS)), (self.agent.ask_SA, 2, len(ASKS))):
            total, count = np.zeros((len(SITUATIONS), width)), np.zeros((len(SITUATIONS), width))
            for trajectory, advantage_T in zip(members, advantages, strict=True):
                if advantage_T is None:
                    continue
                for result, known, value in zip(
                    trajectory.turns, trajectory.scored, advantage_T, strict=True
                ):
                    choice = getattr(result.turn.user, "meta", {}).get("choice")
                    if known and choice is not None:
                        total[choice[0], choice[column]] += value
                        count[choice[0], choice[column]] += 1
            table *= 1.0 - self.forget
            table += self.rate * total / (count + self.prior)
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return table, baselines and counters."""
        return super().state_dict() | {"agent": self.agent.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self.agent.load_state_dict(state["agent"])
        super().load_state_dict(state)

    def member(self, state: Mapping[str, Any]) -> TacticAttacker:
        """Return an attacker with the table of `state`."""
        agent = TacticAttacker(self.agent.seed, self.agent.patient)
        agent.load_state_dict(state["agent"])
        return agent

    def settings(self) -> Row:
        """Return the settings of its updates and of its reward."""
        own = {name: getattr(self, name) for name in ("rate", "forget", "prior", "seed")}
        return own | {"patient": self.agent.patient, "reward": asdict(self.reward)}


def learning_tutor(seed: int = 0, patient: bool = True, **options: Any) -> TacticLearner:
    """Return a tutor that learns across dialogues from the loop it plays in; untaught it tries everything.

    `make_agent("learning")` and `--attacker learning` open it.
    """
    return TacticLearner(TacticAttacker(seed, patient), seed=seed, **options)


def as_groups(trajectories: Sequence[Trajectory]) -> list[TrajectoryGroup]:
    """Return siblings, trajectories in a row with one seed, as groups."""
    groups: list[TrajectoryGroup] = []
    start = 0
    for end in range(1, len(trajectories) + 1):
        if end == len(trajectories) or trajectories[end].seed != trajectories[start].seed:
            groups += group_by_seed(trajectories[start:end], end - start)
            start = end
    return groups


def derive(seed: int, *words: int) -> int:
    """Return a seed that depends on all of the numbers."""
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])


# -- practice: one seat learns, the other stays ----------------------------------------------------------


@locked("run_dir")
def practise(
    env: VectorDialogueEnv,
    attacker: Learner,
    student: Acts,
    config: TrainConfig,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[Row]:
    """Let an attacker learn against a student, or a league of students, that stays as it is.

    Its siblings draw their own numbers meanwhile (`common` is off): nobody but it learns from comparing them.

    Args:
        env: A vector environment; the attacker is paid by the verdicts, whatever its wrappers emit.
        attacker: Learns in place; as it was before its first step, also when resuming.
        student: Plays `student_0`; its `learn` sees the dialogues, so that a league counts wins.
        config: Steps, seeds per step, siblings, `seed`, `checkpoint_every` and the limit on unscored turns;
            the rest is the learner's.
        run_dir: Gets `config.json`, `metrics.jsonl` and `attacker.pt`; None writes nothing.
        resume: Go on after the last checkpoint; ends in the same state, bit for bit.
        progress: Called after every step.

    Returns:
        One row of metrics per step.

    Raises:
        RunExists: If `run_dir` holds a run and `resume` is False, or one with other settings.
        TooManyUnscored: If too many turns have no verdict, which an attacker that cannot be understood causes
            as well; the last checkpoint stays.
    """
    guard = UnscoredGuard(config.unscored_limit, config.unscored_window)
    student, folder = as_agent(student), None if run_dir is None else Path(run_dir)
    finished = 0 if folder is None else _open(folder, attacker, student, guard, config, resume)
    with MetricsLogger(folder) as log:
        for step in range(finished, config.steps):
            student.weights_changed()
            student.reseed(derive(config.seed, step, 1))
            with _siblings_apart(attacker):
                trajectories = rollout(env, attacker, student, step_seeds(config, step))
            guard.see(trajectories)
            with uninterrupted():
                row = {"step": step, **attacker.learn(trajectories)}
                student.learn(trajectories)
                guard.commit()
                log.write(row)
                if folder and ((step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps):
                    log.sync()
                    parts = {"attacker": attacker.state_dict(), "student": attacker_state(student)}
                    save_state({"step": step + 1, **parts, "guard": guard.state_dict()}, folder / STATE)
            if progress is not None:
                progress(step + 1, config.steps, row)
    return log.rows


@contextmanager
def _siblings_apart(attacker: Learner) -> Iterator[None]:
    agent = attacker.agent
    before, agent.common = getattr(agent, "common", False), False
    try:
        yield
    finally:
        agent.common = before


def _open(
    folder: Path, attacker: Learner, student: Agent, guard: UnscoredGuard, config: TrainConfig, resume: bool
) -> int:
    """Prepare a practice's folder and go to where it broke off; returns the number of finished steps."""
    settings = {name: getattr(config, name) for name in ("steps", "seeds_per_step", "group_size", "seed")}
    settings |= {"algorithm": attacker.algorithm.name, **attacker.algorithm.options()}
    settings["learner"] = attacker.settings()
    check_run(folder, settings, resume)
    write_json(folder / CONFIG, settings)
    finished = 0
    if (state := load_state(folder / STATE)) is not None:
        finished = int(state["step"])
        attacker.load_state_dict(state["attacker"])
        if state["student"]:
            student.load_state_dict(state["student"])
        if "guard" in state:  # states of earlier versions have none
            guard.load_state_dict(state["guard"])
    drop_rows_from(folder / METRICS, finished)
    return finished
