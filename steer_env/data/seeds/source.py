"""Where single-turn rows come from: the built-in world, a scenario file, a dataset the library loads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count as count_up
from itertools import islice
from pathlib import Path
from typing import Final

from steer_env.data.licences import check_training_allowed
from steer_env.data.loaders import DATASETS, DatasetError, iter_dataset_scenarios
from steer_env.scenario_files import load_scenarios
from steer_env.scenarios import KINDS, Scenario, content_id
from steer_env.world.source import WorldSource

#: Rows taken from the built-in world, which has no end, unless told otherwise.
WORLD_ROWS: Final = 300
#: Streams of the built-in world that seeds may come from; "bench" is behind a licence gate.
WORLD_SPLITS: Final = ("train", "sft", "bench")
#: Groups between the first groups of two seeds, as in `steer_env.data.build`.
_SEED_STRIDE: Final = 10_000_000


@dataclass(frozen=True)
class RowSource:
    """Single-turn rows that can be gone through again, always the same ones in the same order.

    Attributes:
        name: What was asked for.
        total: Number of rows.
        digest: Hash of the rows' ids and contents.
        world: Whether the rows have the built-in world's ground truth.
        open: Starts going through them.
    """

    name: str
    total: int
    digest: str
    world: bool
    open: Callable[[], Iterator[Scenario]]


def open_source(
    name: str,
    count: int | None = None,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    allow: Sequence[str] = (),
) -> RowSource:
    """Open a source and look at every row once, so that what is wrong with it shows before any work.

    Args:
        name: "world" or "world:SPLIT" for the built-in world, `NAME:ROOT` or `NAME:SPLIT:ROOT` for one of
            `steer_env.data.DATASETS`, else the path of a scenario file.
        count: Most rows to take; None for all, and `WORLD_ROWS` of the built-in world.
        kinds: Kinds of seeds wanted; the built-in world hands out rows of these kinds in turn.
        seed: Which groups of the built-in world; of no meaning elsewhere.
        allow: Licence gates or datasets to override, see `steer_env.data.check_training_allowed`.

    Raises:
        ValueError: If the name is none of these.
        DatasetError, ScenarioFileError: If the data is not what is expected.
        LicenceGate: If a licence keeps rows out of training data.
    """
    head, _, rest = name.partition(":")
    if head == "world":
        split = rest or "train"
        if split not in WORLD_SPLITS:
            raise ValueError(
                f"source={name!r}, expected world or world:SPLIT with one of {', '.join(WORLD_SPLITS)}"
            )
        size = WORLD_ROWS if count is None else count
        check_training_allowed(islice(_world(split, kinds, seed), 1), allow)
        digest = hashlib.sha256(f"{split} {seed} {size} {','.join(kinds)}".encode()).hexdigest()[:16]
        return RowSource(name, size, digest, True, lambda: islice(_world(split, kinds, seed), size))
    if rest and head in DATASETS:
        split, colon, root = rest.partition(":")
        if split == "hf" or not colon or split not in DATASETS[head].splits:
            split, root = "", rest

        def rows() -> Iterator[Scenario]:
            return islice(iter_dataset_scenarios(head, root, split or None), count)
    elif Path(name).is_file():
        scenarios = load_scenarios(name)[:count]

        def rows() -> Iterator[Scenario]:
            return iter(scenarios)
    else:
        raise ValueError(
            f"source={name!r} is neither world, nor an existing scenario file, nor NAME:ROOT with a NAME of "
            f"{', '.join(DATASETS)}"
        )
    total, digest = _look(rows, name, allow)
    return RowSource(name, total, digest, False, rows)


def _world(split: str, kinds: Sequence[str], seed: int) -> Iterator[Scenario]:
    """Yield one row of every group: the whole intent in one turn, of the kinds in turn."""
    sources = {kind: WorldSource((kind,), split=split, single_turn=True) for kind in kinds}
    first = seed * _SEED_STRIDE
    held_out = "; no training: held-out benchmark" if split == "bench" else ""
    for number in count_up():
        kind = kinds[number % len(kinds)]
        row = sources[kind].scenario(first + number)
        yield replace(row, licence=row.licence + held_out)


def _look(rows: Callable[[], Iterator[Scenario]], name: str, allow: Sequence[str]) -> tuple[int, str]:
    """Go through all rows once, past the licence gates; return their number and a hash of them."""
    digest, total = hashlib.sha256(), 0

    def counted() -> Iterator[Scenario]:
        nonlocal total
        for row in rows():
            digest.update(f"{row.id} {content_id(row)}\n".encode("utf-8", "surrogatepass"))
            total += 1
            yield row

    check_training_allowed(counted(), allow)
    if not total:
        raise DatasetError(f"source={name!r} has no rows, expected at least one")
    return total, digest.hexdigest()[:16]
