"""What is to be seen of a run while it trains: metrics, recorded dialogues, evaluations.

Metrics go to `metrics.jsonl` always, to trackers if asked for. `record_rollouts` writes what a step played,
for the report. `Validation` plays the same dialogues every so many steps: their seeds depend on nothing,
replies are greedy, and the attacker plays as it was before the first step, whatever it has learnt since. They
are other dialogues than those of the training, but choosing the best step by them uses them up: report a
student on seeds of their own.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from steer_env.agents.base import Agent
from steer_env.agents.hf.student import HFStudent, sampling
from steer_env.algorithms.advantages import trajectory_return
from steer_env.algorithms.parallel import Parallel
from steer_env.extras import need
from steer_env.files import replacing_folder
from steer_env.records import ROLLOUTS, JsonlWriter, Row, read_jsonl, token_pieces, trajectory_row
from steer_env.trajectory import Trajectory
from steer_env.unscored import dialogue_metrics
from steer_env.vector import VectorDialogueEnv

#: File of a run folder with a row per step.
METRICS: Final = "metrics.jsonl"


class _TensorBoard:
    """Event files in `run_dir/tensorboard`; look at them with `tensorboard --logdir runs`."""

    def __init__(self, run_dir: Path, finished: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What was logged beyond the finished steps goes.
        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=finished or None)

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()


#: Hosted trackers, which share one interface.
_HOSTED: Final = ("wandb", "trackio")


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed, before a run writes anything.

    Raises:
        ValueError: On an unknown name.
        ImportError: If a library is not installed.
    """
    known = ("tensorboard", *_HOSTED)
    for name in names:
        if name not in known:
            raise ValueError(f"tracker={name!r}, expected one of {', '.join(map(repr, known))}")
        need(name, "metrics" if name == "tensorboard" else None)


def _tracker(name: str, run_dir: Path, finished: int, settings: Mapping[str, Any]) -> Any:
    if name == "tensorboard":
        return _TensorBoard(run_dir, finished)
    module = need(name, None)
    module.init(project="steer_env", name=run_dir.resolve().name, config=dict(settings), resume="allow")
    return module


class MetricsLogger:
    """The rows of a run's steps: in memory, in `metrics.jsonl`, and with trackers if asked for.

    What is undefined (None) is left out of a tracker's step: it never becomes a number.

    Attributes:
        rows: One per step, also those from before a resumption.

    Args:
        run_dir: Folder of the run, in which rows of steps to be done again are dropped already; None has no
            files.
        trackers: "tensorboard", "wandb", "trackio".
        finished: Steps done already.
        settings: The run's settings, shown beside the curves.
        write: Whether this process writes.

    Raises:
        ValueError: On an unknown tracker.
        ImportError: If a tracker's library is not installed.
    """

    def __init__(
        self,
        run_dir: Path | None,
        trackers: Sequence[str] = (),
        finished: int = 0,
        settings: Mapping[str, Any] | None = None,
        *,
        write: bool = True,
    ) -> None:
        check_trackers(trackers)
        self.rows: list[Row] = []
        self._trackers: list[Any] = []
        self._file: JsonlWriter | None = None
        if run_dir is None:
            return
        path = run_dir / METRICS
        if path.exists():
            self.rows = list(read_jsonl(path))
        if write:
            self._trackers = [_tracker(name, run_dir, finished, settings or {}) for name in trackers]
            self._file = JsonlWriter(path)

    def write(self, row: Row) -> None:
        """Append a row; its "step" numbers it."""
        self.rows.append(row)
        if self._file is not None:
            self._file.write(row)
        numbers = {
            name: float(value)
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        for tracker in self._trackers:
            tracker.log(numbers, step=int(row["step"]))

    def sync(self) -> None:
        """Force the rows to disk, before a checkpoint that counts them."""
        if self._file is not None:
            self._file.sync()

    def __enter__(self) -> MetricsLogger:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
        for tracker in self._trackers:
            tracker.finish()


#: (mask, advantages) of a dialogue's tokens, both (L,).
Credit = tuple[NDArray[np.bool_], NDArray[np.floating[Any]]]


def record_rollouts(
    run_dir: Path,
    step: int,
    trajectories: Sequence[Trajectory],
    credits: Mapping[int, Credit],
    text_of: Callable[[Sequence[int]], str],
) -> None:
    """Append the dialogues of a step to `rollouts.jsonl`, which `steer-env report` reads.

    Args:
        run_dir: Folder of the training run.
        step: The step; resuming drops rows of steps that are played again.
        trajectories: What was played.
        credits: Index of a trajectory -> mask and advantages of its tokens; the loss leaves others out.
        text_of: Turns token ids into text.
    """
    with JsonlWriter(run_dir / ROLLOUTS) as writer:
        for index, trajectory in enumerate(trajectories):
            extra: dict[str, Any] = {"step": step, "advantage": None}
            mask_L, advantages_L = credits.get(index, (None, None))
            if mask_L is not None and advantages_L is not None:
                extra["advantage"] = round(float(advantages_L[mask_L].mean()), 6)
            if trajectory.trace is not None:
                extra["tokens"] = token_pieces(trajectory.trace, text_of, mask_L, advantages_L)
            writer.write(trajectory_row(trajectory, **extra))


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
        """Evaluate the weights that the model carries after so many steps; keep them if they are the best."""
        started = time.perf_counter()
        with self._as_before(), sampling(self.student, temperature=0.0):
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
