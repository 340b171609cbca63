"""What the audit reads: a set of dialogues with their user turns, pictures and groups."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from steer_env.data import schemas
from steer_env.data.loaders import EXPECTED, DatasetError, dataset_of
from steer_env.data.loaders.base import Source, Spec
from steer_env.data.loaders.steer import bench_row, rl_row
from steer_env.images import Image
from steer_env.records import REJECTED
from steer_env.scenarios import Scenario

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Item:
    """One dialogue, reduced to what the audit compares.

    Attributes:
        id: Its name.
        turns: The user's turns.
        images: Its pictures, not decoded.
        group: What it may resemble without being a leak; its own id if the set has no groups.
        labels: kind, strategy, technique, mechanism and category.
        risks: Risk level of every turn.
    """

    id: str
    turns: tuple[str, ...]
    images: tuple[Image, ...]
    group: str
    labels: dict[str, str]
    risks: tuple[int, ...]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All words of the user, in lower case."""
        return tuple(_WORD.findall(" ".join(self.turns).lower()))


def items(scenarios: Iterable[Scenario]) -> list[Item]:
    """Return the items of scenarios."""
    labels = ("kind", "strategy", "technique", "mechanism", "category")
    return [
        Item(
            scenario.id,
            tuple(turn.text for turn in scenario.turns),
            scenario.images,
            scenario.group or scenario.id,
            {name: getattr(scenario, name) for name in labels},
            tuple(turn.risk for turn in scenario.turns),
        )
        for scenario in scenarios
    ]


def open_corpus(name: str) -> list[Scenario]:
    """Open a set of dialogues for the audit.

    Args:
        name: `DATASET:[SPLIT:]ROOT` for a dataset of `steer_env.data.DATASETS`; else a
            JSON-lines file of scenarios or of either of the paper's schemas, or a folder of such files, of
            which `rejected.jsonl` (what a command left out) is not read.

    Raises:
        DatasetError: If there is nothing of the kind.
    """
    dataset = dataset_of(name)
    if dataset is not None:
        return list(dataset.scenarios())
    path = Path(name)
    if path.is_file():
        files = [path]
    else:  # nothing, where there is no such folder
        files = sorted(file for file in path.glob("*.jsonl") if file.name != REJECTED)
    if not files:
        raise DatasetError(f"{name!r} is no JSON-lines file, no folder of such files and no {EXPECTED}")
    return [scenario for file in files for scenario in _read(file)]


def _read(path: Path) -> Iterator[Scenario]:
    """Yield the scenarios of a file, whichever of the three formats it has."""
    with path.open(encoding="utf-8") as file:
        first: Any = json.loads(file.readline() or "null")
    if not isinstance(first, dict):
        raise DatasetError(f"{path} does not begin with a JSON object, expected one a line")
    if "turns" in first:
        from steer_env.scenario_files import load_scenarios

        yield from load_scenarios(path)
        return
    parse = bench_row if "messages_fixed" in first else rl_row if "question" in first else None
    if parse is None:
        raise DatasetError(f"{path} has rows with {list(first)}, expected turns, messages_fixed or question")
    # Pictures lie beside the file or in the folder that holds the split's folder.
    root = path.parent
    paths = schemas.bench_images(first) if "messages_fixed" in first else schemas.rl_images(first)
    if paths and not (root / paths[0]).is_file():
        root = root.parent
    spec = Spec(path.stem, path.stem, "", ("",), lambda source: iter(()))
    source = Source(spec, root, "")
    for at, row in source.rows(path):
        yield parse(source, at.where, row)
    source.check_pictures()
