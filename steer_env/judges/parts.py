"""What judges, agents and back ends are made of, and what of it identifies them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, Protocol, runtime_checkable

#: What of a part decides its verdicts.
_DECIDING: Final = (
    "weights", "prompt_hash", "version", "settings", "rule", "least", "most", "guard", "dtype",
)  # fmt: skip


@runtime_checkable
class Composite(Protocol):
    """Something made of judges, agents or back ends, whose weights and prompts are its own as well."""

    def children(self) -> tuple[Any, ...]:
        """Return what it asks, always in the same order."""
        ...


def parts(whole: Any) -> Iterator[Any]:
    """Yield an object and everything it is made of: its `children`, or without that method its `backend`."""
    if whole is None:
        return
    yield whole
    children = whole.children() if isinstance(whole, Composite) else (getattr(whole, "backend", None),)
    for part in children:
        yield from parts(part)


def weights_of(whole: Any) -> list[str]:
    """Return the identities of all weights behind an object; none for a script."""
    found = (getattr(part, "weights", None) for part in parts(whole))
    return [identity for identity in found if isinstance(identity, str) and identity]


def prompt_hash_of(judge: Any) -> str:
    """Return the hashes of all prompts a judge asks with, joined by "+"; "" for one without prompts."""
    found = (getattr(part, "prompt_hash", "") for part in parts(judge))
    hashes = (one for text in found if isinstance(text, str) for one in text.split("+") if one)
    return "+".join(dict.fromkeys(hashes))


def judge_identity(judge: Any) -> str:
    """Return what decides a judge's verdicts beside its name: prompts, weights, settings and versions.

    JSON of all its parts, the same in every process. Who changes a judge in another way gives it another
    `version`.
    """
    described = []
    for part in parts(judge):
        one = {name: getattr(part, name, None) for name in _DECIDING}
        found = {name: str(value) for name, value in one.items() if value is not None and not callable(value)}
        described.append([type(part).__name__, found])
    return json.dumps(described, sort_keys=True)
