"""Scores in the files of other programs: samples of lm-eval, traces of verifiers, memories of PyRIT.

Each reader yields (sample, epoch, measure, score or None, cluster). Read as lm-eval 0.4's `samples_*.jsonl`
(`--log_samples`), verifiers 0.4's `traces.jsonl` and PyRIT 1's SQLite memory say them.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

#: Sample, epoch, measure, score (None where unscored), cluster.
Found = tuple[str, int, str, Any, str]
#: Ends of names of memories of PyRIT.
DATABASES: Final = (".db", ".sqlite", ".sqlite3")
_OUTCOMES: Final = {"success": 1.0, "failure": 0.0}


def of_lines(path: Path) -> Iterator[Found]:
    """Yield the scores of a JSON Lines file, of lm-eval or of verifiers.

    Raises:
        ValueError: If a line is of neither.
    """
    epochs: Counter[str] = Counter()
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: is no JSON: {error}") from None
            if isinstance(row, Mapping) and "doc_id" in row and "metrics" in row:
                yield from _of_lm_eval(row)
            elif isinstance(row, Mapping) and isinstance(row.get("traces"), list):
                yield from _of_verifiers(row, epochs)
            else:
                raise ValueError(f"{path}:{number}: is no sample of lm-eval and no episode of verifiers")


def _of_lm_eval(row: Mapping[str, Any]) -> Iterator[Found]:
    # Samples of one document under several filters differ in what was read off the answer.
    answer = row.get("filter", "none")
    for name in row["metrics"]:
        label = name if answer == "none" else f"{name}/{answer}"
        if isinstance(row.get(name), int | float | str | None):  # lists are parts of a corpus' score
            yield str(row["doc_id"]), 1, label, row.get(name), str(row["doc_id"])


def _of_verifiers(row: Mapping[str, Any], epochs: Counter[str]) -> Iterator[Found]:
    """Yield the rewards and metrics of an episode; tasks come again in the order of the file, as epochs."""
    task = row["task"]
    data = task.get("data") or {}
    sample = str(next(x for x in (task.get("key"), data.get("name"), data.get("idx")) if x is not None))
    epochs[sample] += 1
    for trace in row["traces"]:
        seat = str((trace.get("agent") or {}).get("name") or "agent")
        for name, reward in (trace.get("rewards") or {}).items():
            value = None if reward is None or not row.get("ok", True) else reward["score"]
            yield sample, epochs[sample], f"{seat}/{name}", value, sample
        for name, value in (trace.get("metrics") or {}).items():
            yield sample, epochs[sample], f"{seat}/{name}", value, sample


def of_pyrit(path: Path) -> Iterator[Found]:
    """Yield the outcome of each attack of a memory: 1 where it succeeded, None where it is undetermined.

    A sample is an objective; attacks on it again are its epochs, in order of time.

    Raises:
        ValueError: If the file is no memory of PyRIT.
    """
    asked = "SELECT objective, outcome, executed_turns FROM AttackResultEntries ORDER BY timestamp, rowid"
    try:
        with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as memory:
            rows = memory.execute(asked).fetchall()
    except sqlite3.Error as error:
        raise ValueError(f"file={str(path)!r} is no memory of PyRIT that can be read: {error}") from None
    epochs: Counter[str] = Counter()
    for objective, outcome, turns in rows:
        epochs[objective] += 1
        yield objective, epochs[objective], "attack_success", _OUTCOMES.get(outcome), objective
        yield objective, epochs[objective], "executed_turns", turns, objective
