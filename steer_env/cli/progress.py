"""Progress on stderr: a live bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

_EVERY = 15.0  # seconds between lines where there is no terminal


class Bar:
    """A progress bar; use it as a context manager and call `update`.

    Needs rich for the live bar; without it, or when stderr is a file, prints lines.

    Args:
        label: What is going on.
        total: Number of units, unknown until the first `update` if 0.
    """

    def __init__(self, label: str, total: int = 0) -> None:
        self.label, self.total = label, total
        self._progress: Any = None
        self._task: Any = None
        self._said = 0.0
        self._started = 0.0
        self._first: tuple[float, int] | None = None  # a resumed job starts in the middle

    def __enter__(self) -> Bar:
        self._started = self._said = time.monotonic()
        if sys.stderr.isatty():
            self._progress = _rich_bar()
        if self._progress is not None:
            self._progress.start()
            self._task = self._progress.add_task(self.label, total=self.total or None, note="")
        else:
            print(f"{self.label} ...", file=sys.stderr, flush=True)
        return self

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` units are finished."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total, note=note)
        elif now - self._said >= _EVERY:
            self._said = now
            began, before = self._first
            seconds = (total - done) * (now - began) / (done - before) if done > before else 0.0
            # Without a rate yet, time that passes tells that it is not stuck.
            time_told = f"{seconds:.0f} s left" if seconds else f"after {now - self._started:.0f} s"
            told = ", ".join(part for part in (f"{done}/{total} {time_told}", note) if part)
            print(f"{self.label}: {told}", file=sys.stderr, flush=True)

    def __exit__(self, kind: Any, *exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        elif kind is None:
            seconds = time.monotonic() - self._started
            print(f"{self.label}: done in {seconds:.1f} s", file=sys.stderr, flush=True)


class Bars:
    """A progress bar for every label it is told of, with rate and remaining time.

    Needs rich for live bars; without it, or when stderr is a file, prints lines.
    """

    def __init__(self) -> None:
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}
        self._began: dict[str, tuple[float, int]] = {}
        self._said = 0.0

    def __enter__(self) -> Bars:
        self._said = time.monotonic()
        if sys.stderr.isatty():
            self._progress = _rich_bar()
        if self._progress is not None:
            self._progress.start()
        return self

    def update(self, label: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of `label` are finished."""
        now = time.monotonic()
        if label not in self._began:
            # A resumed job starts in the middle: what was there before says nothing about the rate.
            self._began[label] = now, done - 1
            if self._progress is not None:
                self._tasks[label] = self._progress.add_task(label, total=total, note="", completed=done - 1)
        began, before = self._began[label]
        rate = (done - before) / (now - began) if now > began else 0.0
        note = f"{rate:.0f}/s" if rate else ""
        if self._progress is not None:
            self._progress.update(self._tasks[label], completed=done, note=note)
        elif done == total or now - self._said >= _EVERY:
            self._said = now
            left = f", {(total - done) / rate:.0f} s left" if done < total and rate else ""
            told = f" ({note}{left})" if note else ""
            print(f"{label}: {done}/{total}{told}", file=sys.stderr, flush=True)

    def __exit__(self, *exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def _rich_bar() -> Any:
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        return None
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return Progress(*columns, console=Console(stderr=True))


def show_table(summaries: Any, title: str, **beside: Any) -> None:
    """Print the evaluation table, `beside` it controls: drawn in a terminal, aligned text elsewhere."""
    from steer_env.evaluation.tables import table

    if sys.stdout.isatty():
        try:
            from rich.console import Console
        except ImportError:
            pass
        else:
            Console().print(table(summaries, "rich", title, **beside))
            return
    print(table(summaries, "text", title, **beside))
