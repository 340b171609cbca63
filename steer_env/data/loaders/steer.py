"""STEER-Bench and STEER-RL in the paper's two schemas; also what `steer-env data build` writes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from steer_env.data import schemas
from steer_env.data.loaders.base import At, Source, Spec
from steer_env.data.loaders.table import each_row
from steer_env.images import Image
from steer_env.scenarios import Scenario
from steer_env.world.draw import SOURCE

SUBSETS: Final = ("beavertails", "mmsafety", "vlsbench", "spa", "dys")
#: All subsets in one file, as the authors' code has it beside the five.
_WHOLE: Final = "bench"
_BENCH_KEYS: Final = ("question_id", "messages_fixed")
_FOLDERS: Final = ("", "bench/", "data/")


def bench(source: Source, paths: Mapping[str, str] | None = None) -> Iterator[Scenario]:
    """Yield STEER-Bench, all five subsets or one; no `image`, or an empty one, means that there is none.

    What is read is what the authors' code reads (Ed-Bg/SaFeR-Steer-full at 9166c5c, `evaluation/multi_turn`),
    but for a picture that is named and not there, and a turn without text: the code plays on, this raises.

    Args:
        source: The dataset.
        paths: Beginnings of picture paths and what to put in their place, as the authors' code takes them.
    """
    whole = any((source.root / folder / f"steer_{_WHOLE}.jsonl").is_file() for folder in _FOLDERS)
    subsets = ((_WHOLE,) if whole else SUBSETS) if source.split == "all" else (source.split,)
    for subset in subsets:
        for path in source.files(*(f"{folder}steer_{subset}.jsonl" for folder in _FOLDERS)):
            for at, row in source.rows(path):
                yield bench_row(source, at.where, row, "" if subset == _WHOLE else subset, paths)


def sft(source: Source, row: Any, at: At) -> Iterator[Scenario]:
    """Yield a row of STEER-SFT: as in the bench; a scenario has none of the answers."""
    yield bench_row(source, at.where, row)


def rl(source: Source, row: Any, at: At) -> Iterator[Scenario]:
    """Yield a row of STEER-RL: `question` and `metadata.rest_messages` make the user's turns."""
    yield rl_row(source, at.where, row)


def bench_row(
    source: Source, where: str, row: Any, subset: str = "", paths: Mapping[str, str] | None = None
) -> Scenario:
    """Return the scenario of one bench row with its pictures opened; `paths` as `bench` takes it."""
    source.need(row, _BENCH_KEYS, where)
    try:
        images = [_moved(path, paths or {}) for path in schemas.bench_images(row)]
    except ValueError as error:
        raise source.error(where, str(error)) from error
    return _build(source, where, row, images, schemas.from_bench_row, subset)


def _moved(path: str, paths: Mapping[str, str]) -> str:
    """Return a path with the first beginning that fits replaced."""
    for old, new in paths.items():
        if path.startswith(old):
            return new + path.removeprefix(old)
    return path


def rl_row(source: Source, where: str, row: Any) -> Scenario:
    """Return the scenario of one RL row with its pictures opened."""
    source.need(row, ("question", "metadata"), where)
    source.need(row["metadata"], ("rest_messages", "question_id"), f"{where}.metadata")
    return _build(source, where, row, schemas.rl_images(row), schemas.from_rl_row)


def _build(
    source: Source,
    where: str,
    row: Mapping[str, Any],
    paths: list[str],
    parse: Callable[..., Scenario],
    subset: str = "",
) -> Scenario:
    folder = where.rpartition(":")[0].rpartition("/")[0] or "."
    images: list[Image] = [source.image(path, where, folder, ".") for path in paths]
    unit = images[0].digest[:16] if images else where
    more = (row.get("metadata") or row).get(schemas.EXTRA) or {}
    if "recipe" in more and len(images) == 1:  # a picture of the built-in world goes by its recipe
        digest = hashlib.sha256(more["recipe"].encode()).hexdigest()
        images = [Image(images[0].decode, digest, SOURCE, recipe=more["recipe"])]
    try:
        return parse(
            row,
            images,
            group=f"{source.spec.name}:{unit}",
            mechanism=subset,
            provenance=f"{source.spec.name}: {where}",
            licence=source.spec.licence,
        )
    except ValueError as error:
        raise source.error(where, str(error)) from error


SPECS: Final = (
    Spec(
        "steer-bench",
        "STEER-Bench",
        "not stated (unpublished when this was written)",
        ("all", *SUBSETS),
        bench,
        default="all",
        layout="steer_{beavertails,mmsafety,vlsbench,spa,dys}.jsonl (or steer_bench.jsonl) and the pictures "
        "they name",
    ),
    Spec(
        "steer-sft",
        "STEER-SFT",
        "not stated (unpublished when this was written)",
        ("train",),
        each_row(("sft/*.jsonl", "steer_sft*.jsonl"), (), sft),
        layout="sft/steer_sft.jsonl and the pictures it names",
    ),
    Spec(
        "steer-rl",
        "STEER-RL",
        "not stated (unpublished when this was written)",
        ("train",),
        each_row(("steer_rl*.jsonl", "rl/*.jsonl", "*.jsonl"), (), rl),
        layout="steer_rl.jsonl (or one other .jsonl) and the pictures it names",
    ),
)
