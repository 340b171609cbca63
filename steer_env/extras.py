"""Optional libraries, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any


def need(module: str, extra: str = "data") -> Any:
    """Import a library of an optional extra.

    Raises:
        ImportError: If it is not installed, naming the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is not installed and this command needs it; run: pip install 'steer-env[{extra}]'"
        ) from error
