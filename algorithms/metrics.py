"""Where a step's metrics go: `metrics.jsonl` always, trackers if asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from steer_env.extras import need
from steer_env.records import JsonlWriter

Row = Mapping[str, Any]


class Tracker(Protocol):
    """Somewhere to send numbers to."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Take the numbers of one step."""
        ...

    def close(self) -> None:
        """Make sure everything has arrived."""
        ...


class TensorBoard:
    """Event files in `run_dir/tensorboard`; look at them with `tensorboard --logdir runs`.

    Args:
        run_dir: Folder of the run.
        finished: Steps done already; what was logged beyond them is purged.
        settings: Of the run; not shown.
    """

    def __init__(self, run_dir: Path, finished: int, settings: Row) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=finished or None)

    def log(self, values: dict[str, float], step: int) -> None:
        """Write the numbers as scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the files."""
        self._writer.close()


class Hosted:
    """Weights & Biases, or Trackio, which has the same interface.

    Args:
        module: "wandb" or "trackio".
        run_dir: Its name is the run's.
        settings: Shown beside the curves.
    """

    def __init__(self, module: str, run_dir: Path, settings: Row) -> None:
        self._module = _hosted(module)
        self._module.init(
            project="steer_env", name=run_dir.resolve().name, config=dict(settings), resume="allow"
        )

    def log(self, values: dict[str, float], step: int) -> None:
        """Send the numbers."""
        self._module.log(values, step=step)

    def close(self) -> None:
        """End the run."""
        self._module.finish()


#: Name -> tracker from (run_dir, finished, settings).
TRACKERS: dict[str, Callable[[Path, int, Row], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": lambda run_dir, finished, settings: Hosted("wandb", run_dir, settings),
    "trackio": lambda run_dir, finished, settings: Hosted("trackio", run_dir, settings),
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed, before a run writes anything.

    Raises:
        ValueError: On an unknown name.
        ImportError: If a library is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"tracker={name!r}, expected one of {', '.join(map(repr, TRACKERS))}")
        if name == "tensorboard":
            need(name, "metrics")
        else:
            _hosted(name)


def _hosted(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is not installed; run: pip install {module}") from error


class MetricsLogger:
    """Appends rows to `metrics.jsonl` and sends their numbers to trackers.

    What is undefined (None) is left out of a tracker's step: it never becomes a number.

    Args:
        run_dir: Folder of the run.
        trackers: Names in `TRACKERS`.
        finished: Steps done already.
        settings: Of the run.

    Raises:
        ValueError: On an unknown tracker.
        ImportError: If a tracker's library is not installed.
    """

    def __init__(
        self, run_dir: Path, trackers: Sequence[str] = (), finished: int = 0, settings: Row | None = None
    ) -> None:
        check_trackers(trackers)
        self._trackers = [TRACKERS[name](run_dir, finished, settings or {}) for name in trackers]
        self._rows = JsonlWriter(run_dir / "metrics.jsonl")

    def write(self, row: Row) -> None:
        """Append a row; its "step" numbers it. It is on disk before the checkpoint that counts it."""
        self._rows.write(dict(row))
        self._rows.sync()
        numbers = {
            name: float(value)
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        for tracker in self._trackers:
            tracker.log(numbers, int(row["step"]))

    def __enter__(self) -> MetricsLogger:
        self._rows.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rows.__exit__(kind, error, trace)
        for tracker in self._trackers:
            tracker.close()
