"""Whose weights a model has: what tells a student from a retrained one, and a judge from its student."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from steer_env.models.shipped import local_path

#: Bytes hashed at each of 16 places of a weight file.
_SAMPLE = 1 << 16


def folder_hash(folder: Path) -> str:
    """Return a hash of the model in a folder, 16 hex digits.

    Covers the configuration, and of every weight file its name, its size and samples spread over it:
    gigabytes need not be read, and a copy of the folder has the same hash.
    """
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*config.json"), *folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            for start in sorted({max(0, size - _SAMPLE) * part // 15 for part in range(16)}):
                stream.seek(start)
                digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()[:16]


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a whole model, or whole adapters of one: configuration and every weight file.

    Only heads of files are read. A file that a killed process left half, or empty, is recognised.
    """
    if not any(_is_json(folder / name) for name in ("config.json", "adapter_config.json")):
        return False
    named: set[str] = set()
    for index in folder.glob("*.index.json"):
        if not _is_json(index):
            return False
        named |= set(json.loads(index.read_bytes()).get("weight_map", {}).values())
    files = [*folder.glob("*.safetensors")]
    if not files and not named:
        return any(file.stat().st_size for file in folder.glob("*.bin"))
    return all((folder / name).is_file() for name in named) and all(map(_is_whole, files))


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError, RecursionError):
        return False


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says (8 bytes of length, JSON, data)."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, size)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return bool(size == 8 + length + max(ends, default=0))


def weights_id(model: str | Path) -> str:
    """Return the identity of a model's weights: the hash of its folder, else the model's name as it is.

    So a folder and its copy are the same model, and so are a hub id opened in process and the same id behind
    a server. A server that runs a folder under another name cannot be recognised.
    """
    path = local_path(model)
    return folder_hash(path) if path.is_dir() else str(model)
