"""Exact copies of running dialogues: what would have happened with another reply."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pettingzoo.utils.wrappers import BaseWrapper

T = TypeVar("T")


def fork(env: Any) -> Any:
    """Return an exact copy of an environment with its running dialogue; see `DialogueEnv.fork`.

    PettingZoo's wrappers, which have no `fork` and would pass a call of it on to what they wrap, are copied
    with all their attributes.

    Raises:
        TypeError: If a layer is neither a wrapper nor has a `fork`.
    """
    method = getattr(type(env), "fork", None)
    if method is not None:
        return method(env)
    if not isinstance(env, BaseWrapper):
        raise TypeError(
            f"{type(env).__name__} has no fork(), expected a DialogueEnv and wrappers of steer_env or "
            "PettingZoo around it; give it a fork() that copies the running dialogue"
        )
    inner = fork(env.env)
    return copied(env, swapped={id(env.env): inner, id(env.unwrapped): inner.unwrapped})


def copied(owner: T, shared: Iterable[Any] = (), swapped: Mapping[int, Any] | None = None) -> T:
    """Return a copy of an object whose attributes are deep copies.

    Args:
        owner: An object with a `__dict__`.
        shared: Objects that stay the same wherever they are met: immutable ones, models, judges.
        swapped: id of an object -> what takes its place.
    """
    memo: dict[int, Any] = {id(value): value for value in shared} | dict(swapped or {})
    twin = copy.copy(owner)
    for name, value in vars(owner).items():
        vars(twin)[name] = copy.deepcopy(value, memo)
    return twin
