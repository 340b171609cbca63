"""Small trained students that come with the package: a base that answers everything, and two safe ones.

Each is an ordinary Hugging Face folder of less than 2 MB (weights in float16, opened in float32) with a
`card.json`: how it was trained, on which versions of world and judge, how accurate it is, and the hash of its
weights. They are opened by name wherever a student is named: `tiny` or `hf:tiny`.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any, Final

#: Where they are.
FOLDER: Final = Path(__file__).parent / "students"

#: Name -> what it is.
SHIPPED: Final = {
    "tiny": "sees, speaks and answers everything, so it leaks; replies it should not give begin with 'With'",
    "tiny-sft": "tiny after supervised fine-tuning on ideal replies (Stage II)",
    "tiny-grpo": "tiny-sft after GRPO against the tutor, with Stage II's dialogues to imitate (Stage III)",
}
CARD: Final = "card.json"
WEIGHTS: Final = "model.safetensors"


def shipped_folder(name: str | Path) -> Path | None:
    """Return the folder of a shipped student, None if there is none of that name."""
    return FOLDER / str(name) if str(name) in SHIPPED else None


def local_path(name: str | Path) -> Path:
    """Return where a model called `name` is on this machine: a folder of that name, or a shipped student.

    Where there are both, the folder is meant, and a `RuntimeWarning` says so.

    What is neither (such as a hub id) comes back as a path that does not exist.
    """
    path, own = Path(name).expanduser(), shipped_folder(name)
    if own and path.exists():
        warnings.warn(
            f"{str(name)!r} is a folder here and is opened, not the student of that name that comes with the "
            f"package ({own})",
            RuntimeWarning,
            stacklevel=2,
        )
    return path if path.exists() else own or path


def read_card(name: str | Path) -> dict[str, Any]:
    """Return the card of a shipped student, or of a folder that has one.

    Raises:
        FileNotFoundError: If there is none.
    """
    folder = local_path(name)
    path = folder / CARD
    if not path.is_file():
        raise FileNotFoundError(
            f"model={str(name)!r} has no card, expected one of {', '.join(SHIPPED)} or a folder with {CARD}"
        )
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return card


def weights_hash(folder: str | Path) -> str:
    """Return the SHA-256 of a folder's weights file, as cards have it."""
    return hashlib.sha256((Path(folder) / WEIGHTS).read_bytes()).hexdigest()
