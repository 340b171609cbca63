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
_BENCH_KEYS: Final = ("question_id", "image", "messages_fixed")


def bench(source: Source) -> Iterator[Scenario]:
    """Yield STEER-Bench, all five subsets or one; an empty `image` means that there is none."""
    for subset in SUBSETS if source.split == "all" else (source.split,):
        for path in source.files(f"steer_{subset}.jsonl", f"bench/steer_{subset}.jsonl"):
            for at, row in source.rows(path):
                yield bench_row(source, at.where, row, subset)


def sft(source: Source, row: Any, at: At) -> Iterator[Scenario]:
    """Yield a row of STEER-SFT: as in the bench; a scenario has none of the answers."""
    yield bench_row(source, at.where, row)


def rl(source: Source, row: Any, at: At) -> Iterator[Scenario]:
    """Yield a row of STEER-RL: `question` and `metadata.rest_messages` make the user's turns."""
    yield rl_row(source, at.where, row)


def bench_row(source: Source, where: str, row: Any, subset: str = "") -> Scenario:
    """Return the scenario of one bench row with its pictures opened."""
    source.need(row, _BENCH_KEYS, where)
    return _build(source, where, row, schemas.bench_images(row), schemas.from_bench_row, subset)


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
        layout="steer_{beavertails,mmsafety,vlsbench,spa,dys}.jsonl and the pictures they name",
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
