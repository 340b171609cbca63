"""Evaluation while a run trains: the same dialogues every so many steps, and the weights that did best.

The dialogues are fixed: their seeds depend on nothing, replies are greedy, and the attacker plays as it was
before the first step, whatever it has learnt since. They are other dialogues than those of the training, but
choosing the best step by them uses them up: report a student on seeds of their own.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from steer_env.agents.base import Agent
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.advantages import trajectory_return
from steer_env.algorithms.parallel import Parallel
from steer_env.files import replacing_folder
from steer_env.records import Row
from steer_env.trajectory import Trajectory
from steer_env.unscored import dialogue_metrics
from steer_env.vector import VectorDialogueEnv

#: Folder of the weights that did best, in a run's folder.
BEST: Final = "best"
#: Metrics of an evaluation, under names that begin with "eval_".
_METRICS = ("return_per_turn", "safety", "usefulness", "faithfulness", "cost", "unscored", "failed")

#: Plays dialogues of an environment with an attacker, one per seed.
Play = Callable[[VectorDialogueEnv, Agent, Sequence[int]], list[Trajectory]]


class Validation:
    """Plays the fixed dialogues and remembers which step did best by the return per turn.

    Attributes:
        best: The highest `eval_return_per_turn` so far, None before any.
        best_step: Number of finished steps then.

    Args:
        env: Where the dialogues are played.
        attacker: Plays them as it is now; its memory is put back after each evaluation.
        student: The policy.
        parallel: The processes.
        folder: Gets `best`.
        dialogues: How many.
    """

    def __init__(
        self,
        env: VectorDialogueEnv,
        attacker: Agent,
        student: HFStudent,
        parallel: Parallel,
        folder: Path,
        dialogues: int,
    ) -> None:
        self.env, self.attacker, self.student, self.parallel = env, attacker, student, parallel
        self.folder = folder
        self.seeds = [int(seed) for seed in np.random.SeedSequence([0xE7A1]).generate_state(dialogues)]
        self.best: float | None = None
        self.best_step = 0
        self._memory = copy.deepcopy(attacker.state_dict())

    def run(self, play: Play, finished: int) -> Row:
        """Evaluate the weights that the model carries, and keep them if they are the best so far.

        Args:
            play: Plays dialogues.
            finished: Number of finished steps.
        """
        started = time.perf_counter()
        with self._as_before(), _greedy(self.student):
            played = play(self.env, self.attacker, self.seeds)
        metrics = dialogue_metrics(played, np.array([[trajectory_return(t)] for t in played]))
        value = metrics["return_per_turn"]
        if value is not None and (self.best is None or value > self.best):
            self.best, self.best_step = value, finished
            self._keep()
        row: Row = {f"eval_{name}": metrics[name] for name in _METRICS}
        return row | {"best_step": self.best_step, "seconds_eval": time.perf_counter() - started}

    def state_dict(self) -> dict[str, Any]:
        """Return what the best was, and the attacker's memory before the first step."""
        return {"best": self.best, "best_step": self.best_step, "memory": self._memory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put that back."""
        self.best, self.best_step = state["best"], int(state["best_step"])
        self._memory = state["memory"]

    def _keep(self) -> None:
        """Write the weights so that the folder is whole or the one before."""
        if self.parallel.main:
            with replacing_folder(self.folder / BEST) as partial:
                self.student.save(partial)

    @contextmanager
    def _as_before(self) -> Iterator[None]:
        """Have the attacker as it was before the first step, and then as it is now."""
        now = copy.deepcopy(self.attacker.state_dict())
        self.attacker.load_state_dict(copy.deepcopy(self._memory))
        try:
            yield
        finally:
            self.attacker.load_state_dict(now)


@contextmanager
def _greedy(student: HFStudent) -> Iterator[None]:
    temperature, student.temperature = student.temperature, 0.0
    try:
        yield
    finally:
        student.temperature = temperature
