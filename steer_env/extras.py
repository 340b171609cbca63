"""Optional libraries, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any, Final

#: Library -> the extra that brings it, for commands that import it where they need it.
_BROUGHT_BY: Final = {
    "torch": "train",
    "transformers": "train",
    "safetensors": "train",
    "peft": "lora",
    "trl": "trl",
    "vllm": "vllm",
    "openai": "openai",
    "inspect_ai": "inspect",
    "matplotlib": "eval",
    "pyarrow": "data",
    "datasets": "data",
}


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


def with_remedy(error: Exception) -> str:
    """Return the text of an error; for a library that an extra brings, with the line to install it.

    >>> with_remedy(ModuleNotFoundError("No module named 'torch'", name="torch"))
    "No module named 'torch': pip install 'steer-env[train]'"
    """
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = _BROUGHT_BY.get(missing)
    return f"{error}: pip install 'steer-env[{extra}]'" if extra else str(error)
