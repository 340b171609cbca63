"""`steer-env evaluate --watch`: the table and the curves in the terminal while dialogues are played."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steer_env.evaluation.measures import Measures, measure
from steer_env.evaluation.tables import table
from steer_env.extras import need
from steer_env.play.evaluate import without_retried
from steer_env.records import Row, read_jsonl

_BARS = " ▁▂▃▄▅▆▇█"
_REPLICATES = 200  # intervals that are redrawn every few seconds may be rough
#: Drawing takes at most this share of the time, however many dialogues there are.
_SHARE = 0.1


class Watch:
    """A live view of a run folder; use it as a context manager and call `update`, as `Bar`.

    Args:
        label: Name of the policy.
        dialogues: The file of rows that the evaluation appends to.
        console: A `rich.console.Console`; stderr by default.

    Raises:
        ImportError: If rich is not installed.
    """

    def __init__(self, label: str, dialogues: Path, console: Any = None) -> None:
        self.label, self.dialogues = label, dialogues
        self.console = console or need("rich.console", "cli").Console(stderr=True)
        self._live = need("rich.live", "cli").Live(console=self.console, auto_refresh=False)
        self._next = 0.0

    def __enter__(self) -> Watch:
        self._live.start()
        return self

    def update(self, done: int, total: int, note: str = "") -> None:
        """Redraw, unless that was done a moment ago; always when all are finished."""
        now = time.monotonic()
        if now < self._next and done < total:
            return
        rows = without_retried(read_jsonl(self.dialogues)) if self.dialogues.exists() else []
        self._live.update(view(self.label, rows, done, total), refresh=True)
        spent = time.monotonic() - now
        self._next = now + max(1.0, spent / _SHARE)

    def __exit__(self, *exc: object) -> None:
        self._live.stop()


def view(label: str, rows: Sequence[Row], done: int, total: int) -> Any:
    """Return what is shown: progress, the table, and shares by turn as bars."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(f"{label}: {done} of {total} dialogues")]
    if rows:
        found = measure(rows, replicates=_REPLICATES)
        parts.append(table({label: found}, "rich"))
        parts += [Text(line) for line in curves(found)]
    return Group(*parts)


def curves(m: Measures) -> list[str]:
    """Return the curves of a run as lines of text, turn 1 on the left; a dot where nothing is known."""
    harm = m.harm_incidence.incidence["harm"][1:]
    lines = [
        ("harm so far", harm.tolist()),
        ("failures at a turn", [h.value for h in m.failure_hazard]),
        ("harm at a turn", [h.value for h in m.harm_hazard]),
        ("unscored turns", [turn[-1] for turn in m.turn_events]),
    ]
    return [f"{name:20}{bars(values)}  last {_last(values)}" for name, values in lines]


def bars(values: Sequence[float | None]) -> str:
    """Return shares as one character each, a dot for None.

    >>> bars([0.0, 0.5, 1.0, None])
    ' ▄█·'
    """
    top = len(_BARS) - 1
    return "".join("·" if v is None else _BARS[min(top, max(0, round(v * top)))] for v in values)


def _last(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{known[-1]:.0%}" if known else "unknown"
