"""Loaders of real datasets from the user's own copy: `load_dataset_scenarios("vlsbench", "/data/vlsbench")`.

Nothing is shipped and nothing is downloaded unless a root names a hub id with a pinned revision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from steer_env.data.loaders import dialogues, single, steer
from steer_env.data.loaders.base import DatasetError, Source, Spec
from steer_env.extras import need
from steer_env.scenarios import Scenario

#: Name -> what the library knows about a dataset.
DATASETS: Final[dict[str, Spec]] = {
    spec.name: spec
    for spec in (
        *steer.SPECS,
        *single.PAIRS,
        *single.VISUAL,
        *single.JAILBREAKS,
        *dialogues.SPECS,
        *single.REFUSAL,
    )
}

#: How a dataset is named wherever scenarios are taken, for messages.
EXPECTED: Final = f"DATASET:[SPLIT:]ROOT with one of {', '.join(DATASETS)}"
_HUB = re.compile(r"hf:(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>.*))?")


class NamedDataset(NamedTuple):
    """What `DATASET:[SPLIT:]ROOT` stands for.

    Attributes:
        name: One of `DATASETS`.
        split: Its split, None for the usual one.
        root: See `iter_dataset_scenarios`.
    """

    name: str
    split: str | None
    root: str

    @property
    def from_hub(self) -> bool:
        """Whether opening it asks the hub."""
        return self.root.startswith("hf:")

    def scenarios(self) -> Iterator[Scenario]:
        """Yield its scenarios; errors as `iter_dataset_scenarios`."""
        return iter_dataset_scenarios(self.name, self.root, self.split)


def dataset_of(text: Any) -> NamedDataset | None:
    """Return what `DATASET:[SPLIT:]ROOT` stands for, None if `text` does not begin with a dataset's name.

    A root may hold colons. Where there are two, what stands between them is the split, unless it is none of
    the dataset's and all of it together is a folder.

    >>> dataset_of("spa-vl:test/harm:data/SPA-VL")
    NamedDataset(name='spa-vl', split='test/harm', root='data/SPA-VL')
    >>> dataset_of("vlsbench:data/vlsbench").split is None, dataset_of("my.jsonl") is None
    (True, True)
    """
    name, _, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    if name not in DATASETS or not rest:
        return None
    split, colon, root = rest.partition(":")
    if split in DATASETS[name].splits and root:
        return NamedDataset(name, split, root)
    if not colon or len(split) < 2 or split == "hf" or Path(rest).exists():  # one letter: a Windows drive
        return NamedDataset(name, None, rest)
    return NamedDataset(name, split, root)  # a split that there is not: opening says which there are


def load_dataset_scenarios(
    name: str, root: str | Path, split: str | None = None, **options: Any
) -> list[Scenario]:
    """Load a split of a dataset. Arguments and errors as `iter_dataset_scenarios`."""
    return list(iter_dataset_scenarios(name, root, split, **options))


def iter_dataset_scenarios(
    name: str, root: str | Path, split: str | None = None, *, skip: Sequence[str] = (), **options: Any
) -> Iterator[Scenario]:
    """Yield the scenarios of a split of a dataset, in the order of its files.

    Args:
        name: One of `DATASETS`.
        root: Folder of the user's own copy, or `hf:ORGANISATION/NAME@COMMIT` to have it fetched from the
            Hugging Face hub at a pinned revision (40 hex digits).
        split: One of the dataset's splits; may be left out if it has one or a default.
        skip: Places of rows to leave out, as error messages name them ("data.json:1685"), for releases with a
            broken row. No other row is ever left out.
        **options: Of the dataset's loader, see its function.

    Raises:
        DatasetError: On an unknown name or split, or files that are not what is expected: missing columns,
            missing or broken pictures, blank texts; or if there is no row at a place of `skip`.
        ImportError: If the dataset needs a library of the extra `data` that is not installed.
    """
    spec = DATASETS.get(name)
    if spec is None:
        raise DatasetError(f"dataset={name!r}, expected one of {', '.join(DATASETS)}")
    if split is None:
        split = spec.default or (spec.splits[0] if len(spec.splits) == 1 else "")
    if split not in spec.splits:
        what = f"split={split!r}" if split else "no split is named"
        raise DatasetError(f"{what}, expected one of {', '.join(spec.splits)} for {spec.title}")
    # The checks above run at the call; the rows come lazily.
    source = Source(spec, resolve(root), split, skip)
    return _not_empty(source, spec.load(source, **options))


def _not_empty(source: Source, scenarios: Iterator[Scenario]) -> Iterator[Scenario]:
    empty = True
    for scenario in scenarios:
        empty = False
        if not source.missing:
            yield scenario
    source.check_pictures()
    if source.unused:
        raise source.error(str(source.root), f"skip names {sorted(source.unused)}, but no row stands there")
    if empty:
        raise source.error(str(source.root), f"split {source.split!r} has no rows, expected at least one")


def resolve(root: str | Path) -> Path:
    """Return the folder of a root, fetching `hf:ORGANISATION/NAME@COMMIT` from the hub.

    Raises:
        DatasetError: If a hub id has no pinned revision.
    """
    text = str(root)
    if not text.startswith("hf:"):
        return Path(root)
    match = _HUB.fullmatch(text)
    if match is None or not re.fullmatch(r"[0-9a-f]{40}", match["revision"] or ""):
        raise DatasetError(
            f"root={text!r}, expected hf:ORGANISATION/NAME@COMMIT with a commit of 40 hex digits; a branch "
            "moves, and results with it"
        )
    hub = need("huggingface_hub")
    return Path(hub.snapshot_download(match["id"], repo_type="dataset", revision=match["revision"]))


__all__ = [
    "DATASETS",
    "EXPECTED",
    "DatasetError",
    "NamedDataset",
    "Source",
    "Spec",
    "dataset_of",
    "iter_dataset_scenarios",
    "load_dataset_scenarios",
    "resolve",
]
