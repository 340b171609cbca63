"""Outcomes of finished cells: a row each in one compressed file, which is checked in and outlives machines.

What is there is not run again. The file is written whole or not at all.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_env.arrays import Floats
from steer_env.cli.stages import stage_key
from steer_env.evaluation import metrics, scales
from steer_env.evaluation.crossed import Effect, difference, hierarchical, level
from steer_env.evaluation.replications import COLUMNS, outcomes
from steer_env.evaluation.tabulate import from_rows
from steer_env.files import write_bytes

CELLS = "cells.jsonl.gz"
Row = dict[str, Any]


def read(folder: Path) -> list[Row]:
    """Return the rows of a results folder; none if there is no such file."""
    path = folder / CELLS
    if not path.exists():
        return []
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def add(folder: Path, row: Row) -> None:
    """Add a row; one of the same evaluation gives way to it."""
    rows = [other for other in read(folder) if other["evaluation"] != row["evaluation"]] + [row]
    text = "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in rows)
    write_bytes(folder / CELLS, gzip.compress(text.encode(), mtime=0))


def measured(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Return what is kept of one part's dialogues: measures as in the demo, and the turns of first harm.

    A rate is a character per dialogue ("0", "1", "?" where unscored turns decide), in order; "groups" are the
    sizes of the scenario groups, which follow one another.
    """
    ordered = sorted(rows, key=lambda row: row["seed"])
    d = from_rows(ordered)
    turn, harmed = metrics.first_failure(d.safety, d.scored, d.played, below=scales.HARM)
    kept = {}
    for name, found in outcomes(ordered).items():
        sizes = "".join(str(len(list(same))) for _, same in itertools.groupby(found.group))
        texts = ["?" if math.isnan(v) else f"{v:g}" for v in found.values]
        known = [None if math.isnan(v) else round(v, 3) for v in found.values]
        kept[name] = {"groups": sizes, "values": "".join(texts) if COLUMNS[name].rate else known}
    return {
        "scenarios": stage_key({"scenarios": [row["scenario"] for row in ordered]}),
        "measures": kept,
        "harm": {"turn": turn.tolist(), "seen": harmed.astype(int).tolist()},
    }


class Table:
    """Rows as arrays: lines by dialogues. A row of a base stands for all lines that start from it.

    Raises:
        ValueError: If models played different dialogues of a part.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self._cell = {(row["arm"], row["seed"]): row for row in self.rows}
        played: dict[str, str] = {}
        for row in self.rows:
            for part, of in row["parts"].items():
                if played.setdefault(part, of["scenarios"]) != of["scenarios"]:
                    raise ValueError(
                        f"{row['arm']}, seed {row['seed']}, was evaluated on other dialogues of {part}, "
                        "expected the same for all"
                    )

    def lines(self, arm: str, part: str) -> list[tuple[int, int]]:
        """Return (seed, base) of an arm's rows that have the part."""
        mine = (row for row in self.rows if row["arm"] == arm and part in row["parts"])
        return sorted((row["seed"], row["base"]) for row in mine)

    def level(self, arm: str, part: str, measure: str, **options: Any) -> Effect | None:
        """Return an arm's mean, with an interval over bases and scenario groups; None without results."""
        lines = self.lines(arm, part)
        values, group = self._values(arm, part, measure, lines)
        if not values.size:
            return None
        options |= {"clusters": [base for _, base in lines]}
        if COLUMNS[measure].rate:
            return level(values, group, **options)
        known = np.isfinite(values).all(axis=0)
        return hierarchical(values[:, known], group[known], **options)

    def compare(self, arm: str, reference: str, part: str, measure: str, **options: Any) -> Effect | None:
        """Return arm minus reference, paired by line and dialogue; None if no line has both."""
        theirs = {one[reference == "base"] for one in self.lines(reference, part)}
        lines = [one for one in self.lines(arm, part) if one[reference == "base"] in theirs]
        (first, group), (second, _) = (self._values(a, part, measure, lines) for a in (arm, reference))
        if not first.size:
            return None
        options |= {"clusters": [base for _, base in lines]}
        if COLUMNS[measure].rate:
            return difference(first, second, group, **options)
        known = np.isfinite(first).all(axis=0) & np.isfinite(second).all(axis=0)
        return hierarchical((first - second)[:, known], group[known], **options)

    def harm(self, arm: str, part: str) -> dict[int, tuple[list[int], list[int]]]:
        """Return by base the turns up to which dialogues were watched, and whether they ended in harm."""
        found: dict[int, tuple[list[int], list[int]]] = {}
        for seed, base in self.lines(arm, part):
            of = self._cell[arm, seed]["parts"][part]["harm"]
            turn, seen = found.setdefault(base, ([], []))
            turn += of["turn"]
            seen += of["seen"]
        return found

    def _values(
        self, arm: str, part: str, measure: str, lines: Sequence[tuple[int, int]]
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Return (S, N) values, NaN where unknown, and (N,) numbers of the groups."""
        rows = [self._cell[arm, base if arm == "base" else seed] for seed, base in lines]
        kept = [row["parts"][part]["measures"][measure] for row in rows]
        if not kept:
            return np.zeros((0, 0)), np.zeros(0, np.int64)
        values = [[math.nan if v in ("?", None) else float(v) for v in of["values"]] for of in kept]
        sizes = [int(size) for size in kept[0]["groups"]]
        return np.array(values), np.repeat(np.arange(len(sizes)), sizes)
