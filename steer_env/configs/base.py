"""What a config is: a frozen dataclass whose fields pydantic checks, with the messages of `checks`.

Fields of a config and of its parts have names of their own, so a tree of configs is written flat: what is
`config.env.alpha` in Python is `--alpha` on the command line and `alpha: 0.3` in a file or a stored run.
"""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import pydantic
from pydantic import BeforeValidator, ConfigDict, ValidationError, ValidationInfo

from steer_env import checks

__all__ = [
    "AboveZero",
    "Amount",
    "Natural",
    "Positive",
    "Share",
    "Switch",
    "build",
    "config",
    "explain",
    "flat",
    "names",
    "real",
    "whole",
]

T = TypeVar("T")


def whole(least: int = 0, why: str = "") -> BeforeValidator:
    """Return the check of an integer field, see `checks.integer`."""
    return BeforeValidator(lambda value, info: checks.integer(_name(info), value, least, why=why))


def real(
    least: float = 0.0, most: float = math.inf, *, above: bool = False, why: str = ""
) -> BeforeValidator:
    """Return the check of a number, see `checks.number`."""

    def check(value: Any, info: ValidationInfo) -> float:
        return checks.number(_name(info), value, least, most, above=above, why=why)

    return BeforeValidator(check)


def _name(info: ValidationInfo) -> str:
    return str(info.field_name)


Positive = Annotated[int, whole(1)]
Natural = Annotated[int, whole(0)]
Share = Annotated[float, real(0, 1)]
Amount = Annotated[float, real()]
AboveZero = Annotated[float, real(above=True)]
Switch = Annotated[bool, BeforeValidator(lambda value, info: checks.switch(_name(info), value))]

if TYPE_CHECKING:
    from dataclasses import dataclass as config
else:

    def config(*args, **options):
        """Make a class a config, as `dataclasses.dataclass` does, frozen; options as there."""
        if not args:
            return functools.partial(config, **options)
        options.setdefault("frozen", True)
        made = pydantic.dataclasses.dataclass(
            args[0], **options, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True)
        )
        validate = made.__init__

        @functools.wraps(validate)
        def init(self, *args, **given):
            try:
                validate(self, *args, **given)
            except ValidationError as error:
                raise checks.SettingError(explain(error, [field.name for field in fields(made)])) from None

        made.__init__ = init
        return made


def explain(error: ValidationError, known: typing.Sequence[str]) -> str:
    """Return the first problem of a validation in the words of `checks`.

    Args:
        error: What pydantic found.
        known: Names of the fields there are.
    """
    first = error.errors(include_url=False)[0]
    where = [known[at] if isinstance(at, int) and not i else str(at) for i, at in enumerate(first["loc"])]
    name, value, kind = ".".join(where), first.get("input"), first["type"]  # a number: given by position
    name = name or error.title
    if kind == "value_error":
        return str(first["ctx"]["error"])
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        near = checks.suggestion(name, known)
        return f"{name}={value!r} is no option of {error.title}{near}; known: {', '.join(known)}"
    if kind in ("missing", "missing_argument"):
        return f"{name} is missing, expected a value"
    if kind == "literal_error":
        allowed = first["ctx"]["expected"].replace(" or ", ", ")
        near = checks.suggestion(value, allowed.replace("'", "").split(", "))
        return f"{name}={value!r}, expected one of {allowed}{near}"
    what = {"string_type": "a string", "tuple_type": "a sequence of names, such as ('a', 'b')"}.get(kind)
    return f"{name}={value!r}, expected {what or first['msg'][0].lower() + first['msg'][1:]}"


# -- a tree of configs as flat names ------------------------------------------------------------------------


def parts(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a config that are configs themselves, with their classes."""
    hints = typing.get_type_hints(kind)
    for field in fields(kind):
        if isinstance(hints[field.name], type) and is_dataclass(hints[field.name]):
            yield field.name, hints[field.name]


def names(kind: type) -> list[str]:
    """Return the flat names of a config and of its parts."""
    inner = dict(parts(kind))
    found: list[str] = []
    for field in fields(kind):
        found += names(inner[field.name]) if field.name in inner else [field.name]
    return found


def flat(made: Any) -> dict[str, Any]:
    """Return the fields of a config and of its parts by their flat names, as JSON values."""
    inner = dict(parts(type(made)))
    found: dict[str, Any] = {}
    for field in fields(made):
        value = getattr(made, field.name)
        found |= flat(value) if field.name in inner else {field.name: _plain(value)}
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return a config from flat names; what is not named has its default.

    Raises:
        ValueError: If a name is unknown or a value is out of its range.

    """
    known = names(kind)
    for name, value in values.items():
        if name not in known:
            raise ValueError(
                f"{name}={value!r} is no option of {kind.__name__}{checks.suggestion(name, known)}; "
                f"known: {', '.join(known)}"
            )
    return _build(kind, values)


def _build(kind: type[T], values: Mapping[str, Any]) -> T:
    inner = dict(parts(kind))
    given = _given(kind, values)
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in inner and field.default_factory is not MISSING:
            given[field.name] = _changed(field.default_factory(), values)
        elif field.name in inner:
            given[field.name] = _build(inner[field.name], values)
    return kind(**given)


def _changed(part: Any, values: Mapping[str, Any]) -> Any:
    """Return a part of a config, which has defaults of its own there, with what is named."""
    changes = {name: _changed(getattr(part, name), values) for name, _ in parts(type(part))}
    return replace(part, **changes, **_given(type(part), values))


def _given(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    own = {field.name for field in fields(kind)} & set(values)
    return {k: tuple(v) if isinstance(v := values[k], list) else v for k in own - dict(parts(kind)).keys()}
