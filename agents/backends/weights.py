"""Whose weights a model has: what tells a student from a retrained one, and a judge from its student."""

from __future__ import annotations

import hashlib
from pathlib import Path

from steer_env.agents.shipped import local_path

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


def weights_id(model: str | Path) -> str:
    """Return the identity of a model's weights: the hash of its folder, else the model's name as it is.

    So a folder and its copy are the same model, and so are a hub id opened in process and the same id behind
    a server. A server that runs a folder under another name cannot be recognised.
    """
    path = local_path(model)
    return folder_hash(path) if path.is_dir() else str(model)
