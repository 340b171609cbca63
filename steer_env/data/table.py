"""The Parquet form of a built row: one table for all splits, pictures inside, readable by `datasets`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from steer_env.data.schemas import EXTRA
from steer_env.extras import need
from steer_env.files import replacing

_TEXTS: Final = (
    "id", "split", "subset", "kind", "goal", "strategy", "technique", "category", "mechanism", "group",
    "cell", "provenance", "licence", "canary",
)  # fmt: skip
_MESSAGE: Final = ("role", "content")
#: Rows of a row group: what is in memory at a time.
_BATCH: Final = 64


def schema() -> Any:
    """Return the Arrow schema, with the features `datasets` reads from its metadata."""
    pa = need("pyarrow")
    text = pa.string()
    fields = [(name, text) for name in _TEXTS]
    fields += [
        ("cells", pa.int8()),
        ("risks", pa.list_(pa.int8())),
        ("messages", pa.list_(pa.struct([(name, text) for name in _MESSAGE]))),
        ("image", pa.struct([("bytes", pa.binary()), ("path", text)])),
    ]
    value = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = dict.fromkeys(_TEXTS, value)
    features["cells"] = {"dtype": "int8", "_type": "Value"}
    features["risks"] = {"feature": {"dtype": "int8", "_type": "Value"}, "_type": "List"}
    features["messages"] = {"feature": dict.fromkeys(_MESSAGE, value), "_type": "List"}
    features["image"] = {"_type": "Image"}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def fields() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return column -> its type as Croissant has it, "[]" behind it for a list, and the parts of a struct."""
    texts: dict[str, tuple[str, tuple[str, ...]]] = {name: ("sc:Text", ()) for name in _TEXTS}
    numbers = {"cells": ("sc:Integer", ()), "risks": ("sc:Integer[]", ())}
    return {**texts, **numbers, "messages": ("sc:Text[]", _MESSAGE), "image": ("sc:ImageObject", ())}


def record(row: Mapping[str, Any], root: Path, subset: str) -> dict[str, Any]:
    """Return a row of either schema as a record of the table, its picture read from `root`."""
    if "messages_fixed" in row:
        messages, path, name, more = row["messages_fixed"], row["image"], row["question_id"], row[EXTRA]
        more = {"category": row["category"], **more}
        risks = row["risk_trajectory"]
    else:
        metadata = row["metadata"]
        messages = [*row["question"], *metadata["rest_messages"]]
        path, name, more = metadata["image"], metadata["question_id"], metadata[EXTRA]
        more = {"kind": row["label"], **more}
        risks = more["risks"]
    known = {"id": name, "split": row["split"], "subset": subset, "canary": row["canary"]}
    return {
        **{key: known.get(key, more.get(key, "")) for key in _TEXTS},
        "cells": int(more.get("cells", 0)),
        "risks": [int(risk) for risk in risks],
        "messages": [{key: message[key] for key in _MESSAGE} for message in messages],
        "image": {"bytes": (root / path).read_bytes(), "path": path},
    }


def write(records: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write records to a Parquet file, all of it or nothing, a few records in memory at a time."""
    pa, parquet = need("pyarrow"), need("pyarrow.parquet")
    # Pictures are compressed already and differ from row to row: statistics and dictionaries would cost more.
    options: dict[str, Any] = {"use_dictionary": list(_TEXTS), "write_statistics": False}
    with (
        replacing(path) as part,
        parquet.ParquetWriter(part, schema(), compression="zstd", **options) as file,
    ):
        for batch in _batches(records):
            file.write_table(pa.Table.from_pylist(batch, schema=schema()))


def _batches(records: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    batch: list[Mapping[str, Any]] = []
    for one in records:
        batch.append(one)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
