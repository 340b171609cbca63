"""What judges, agents and back ends are made of, and what of it identifies them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

#: Where they keep what they are made of.
_PARTS: Final = ("backend", "inner", "cheap", "expensive", "helpfulness")


def parts(whole: Any) -> Iterator[Any]:
    """Yield an object and everything it is made of, back ends included."""
    if whole is None:
        return
    yield whole
    for name in _PARTS:
        yield from parts(getattr(whole, name, None))
    for inner in getattr(whole, "judges", None) or ():
        yield from parts(inner)


def weights_of(whole: Any) -> list[str]:
    """Return the identities of all weights behind an object; none for a script."""
    found = (getattr(part, "weights", None) for part in parts(whole))
    return [identity for identity in found if isinstance(identity, str) and identity]


def prompt_hash_of(judge: Any) -> str:
    """Return the hashes of all prompts a judge asks with, joined by "+"; "" for one without prompts."""
    found = (getattr(part, "prompt_hash", "") for part in parts(judge))
    hashes = (one for text in found if isinstance(text, str) for one in text.split("+") if one)
    return "+".join(dict.fromkeys(hashes))
