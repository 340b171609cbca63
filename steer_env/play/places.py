"""Where a model is that a command names, and what opening a name does."""

from __future__ import annotations

import re
from typing import Any

from steer_env.data.loaders import dataset_of
from steer_env.models import is_backend
from steer_env.models.shipped import local_path
from steer_env.naming import is_reference, read_name


def in_process(name: str) -> tuple[str, str]:
    """Split the name of a model in this process into scheme ("" for a plain folder) and path."""
    for scheme in ("hf", "vllm"):
        if name.startswith(f"{scheme}:"):
            return scheme, read_name(name)[0].removeprefix(f"{scheme}:")
    return "", name


def is_here(name: str) -> bool:
    """Whether a model is on this machine, so that opening it asks nobody."""
    scheme, model = in_process(name)
    if not scheme:
        return False
    if local_path(model).exists():
        return True
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    except ValueError:  # no name of the hub: opening it is an error and nothing else
        return True


def is_own(name: str) -> bool:
    """Whether opening a name runs somebody's own code: `module:Object`, `file.py:Object`."""
    return is_reference(name) and not is_backend(name)


def reaches_out(name: Any, key: str = "") -> bool:
    """Whether opening a name runs code, contacts a server, the hub's included, or writes a file.

    Those are one's own objects, back ends and caches, also as the judge of a judge or the model of an
    attacker ("pair?model=openai:..."), and datasets of the hub.

    Args:
        name: The name, or several.
        key: The option it is given for: only where scenarios are taken is "cosafe:folder" a dataset.
    """
    if isinstance(name, list):
        return any(reaches_out(one, key) for one in name)
    dataset = dataset_of(name) if key == "scenarios" else None
    if dataset is not None:
        return dataset.from_hub
    text = name if isinstance(name, str) else ""
    words = [text, *re.split(r"[\s(),]+", text)]
    asked = (not is_here(word) for word in words if is_backend(word))
    options = [value for word in words for value in read_name(word)[1].values()]
    return "cached(" in text or any(map(is_own, words)) or any(asked) or any(map(reaches_out, options))
