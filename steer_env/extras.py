"""Optional libraries, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any


def need(module: str, extra: str | None = "data") -> Any:
    """Import a library of an optional extra, or with None one that no extra brings.

    Raises:
        ImportError: If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        wanted = module if extra is None else f"'steer-env[{extra}]'"
        raise ImportError(
            f"{module} is not installed and this command needs it; run: pip install {wanted}"
        ) from error
