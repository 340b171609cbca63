"""How a value is refused, everywhere in the same words: `name=value, expected X; do Y`.

Each function returns the value in its plain type (NumPy's integers and floats become Python's) or raises
ValueError. A bool does not count as a number, nor NaN and infinity as settings, and a string is one
name, not a sequence.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Real
from operator import index
from typing import Any

#: Larger integers do not fit what they are used for.
_MOST = 2**62 - 1
#: What to do about a weight that is out of its range.
OFF = "; use 0 to switch it off"


class SettingError(ValueError):
    """A setting of a config is out of its range; the message says which and what to do."""


def integer(name: str, value: Any, least: int = 0, most: int | None = None, *, why: str = "") -> int:
    """Return `value` as an integer in [least, most]; `why` is added to the message.

    Raises:
        ValueError: If it is not one.

    >>> integer("steps", 3, 1)
    3
    """
    try:
        whole = index(value)
        if not isinstance(value, bool) and least <= whole <= (_MOST if most is None else most):
            return whole
        if most is None and whole > _MOST:
            why = " and below 2**62"
    except TypeError:
        pass
    high = "" if most is None else f" and at most {most}"
    raise ValueError(f"{name}={value!r}, expected an integer of at least {least}{high}{why}")


def number(
    name: str, value: Any, least: float = 0.0, most: float = math.inf, *, above: bool = False, why: str = ""
) -> float:
    """Return `value` as a finite number in [least, most], or (least, most] with `above`.

    Raises:
        ValueError: If it is not one.

    >>> number("alpha", 0.3, 0, 1)
    0.3
    """
    # NumPy's float32 and float64 are Real as well; an int stays one, so that it is stored as it was given.
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        plain = value if isinstance(value, int) else float(value)
        if least <= plain <= most and not (above and plain == least):
            return plain
    low = f"above {least:g}" if above else f"of at least {least:g}"
    high = "" if math.isinf(most) else f" and at most {most:g}"
    raise ValueError(f"{name}={value!r}, expected a finite number {low}{high}{why}")


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return `value`, one of some names.

    Raises:
        ValueError: If it is not among them; the message suggests the nearest.
    """
    known = tuple(choices)
    if isinstance(value, str) and value in known:
        return value
    raise ValueError(
        f"{name}={value!r}, expected one of {', '.join(map(repr, known))}{suggestion(value, known)}"
    )


def choices(name: str, values: Any, known: Sequence[str]) -> tuple[str, ...]:
    """Return `values`, one or more of some names; a single string is one name, not a row of letters.

    Raises:
        ValueError: If it is empty or not a sequence, or one of them is unknown.

    >>> choices("kinds", "benign", ("benign", "red_team"))
    ('benign',)
    """
    given = (values,) if isinstance(values, str) else tuple(values) if isinstance(values, Iterable) else ()
    wrong = [value for value in given if value not in known]
    if wrong or not given:
        near = suggestion(wrong[0], known) if wrong else ""
        shown = list(given) if given else values
        raise ValueError(f"{name}={shown!r}, expected at least one of {', '.join(known)}{near}")
    return given


def switch(name: str, value: Any) -> bool:
    """Return `value`, True or False.

    Raises:
        ValueError: If it is anything else, "no" and 0 included.
    """
    if isinstance(value, bool):
        return value
    raise ValueError(f"{name}={value!r}, expected True or False")


def suggestion(word: Any, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for a name that is nearly a known one, else "".

    >>> suggestion("aplha", ("alpha", "weights"))
    "; did you mean 'alpha'?"
    """
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


# -- several fields of an object at once ------------------------------------------------------------------


def check_integers(config: Any, names: Sequence[str], least: int, why: str = "") -> None:
    """Check that fields of an object are integers, see `integer`.

    Raises:
        ValueError: If one is not.
    """
    for name in names:
        integer(name, getattr(config, name), least, why=why)


def check_numbers(
    config: Any,
    names: Sequence[str],
    least: float = 0.0,
    most: float = math.inf,
    *,
    above: bool = False,
    why: str = "",
) -> None:
    """Check that fields of an object are finite numbers in a range, see `number`.

    Raises:
        ValueError: If one is not.
    """
    for name in names:
        number(name, getattr(config, name), least, most, above=above, why=why)


def check_choice(config: Any, name: str, choices: Sequence[str]) -> None:
    """Check that a field of an object is one of some names, see `choice`.

    Raises:
        ValueError: If it is not.
    """
    choice(name, getattr(config, name), choices)


def check_switches(config: Any, names: Sequence[str]) -> None:
    """Check that fields of an object are True or False, see `switch`.

    Raises:
        ValueError: If one is not.
    """
    for name in names:
        switch(name, getattr(config, name))
