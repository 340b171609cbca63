"""Checks of settings: everything is refused when a config is made, before anything is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def check_integers(config: Any, names: Sequence[str], least: int, why: str = "") -> None:
    """Check that fields of a config are integers of at least `least`.

    Raises:
        ValueError: If one is not; `why` is added to the message.
    """
    for name in names:
        value = getattr(config, name)
        # True is an int to Python, and 2.0 would fail only later, in the middle of a run.
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}={value!r}, expected an integer of at least {least}{why}")


def check_numbers(
    config: Any,
    names: Sequence[str],
    least: float = 0.0,
    most: float = math.inf,
    *,
    above: bool = False,
    why: str = "",
) -> None:
    """Check that fields of a config are finite numbers in [least, most], or (least, most] with `above`.

    Raises:
        ValueError: If one is not, NaN and infinity included; `why` is added to the message.
    """
    for name in names:
        value = getattr(config, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not least <= value <= most or (above and value == least):
            low = f"above {least:g}" if above else f"of at least {least:g}"
            high = "" if math.isinf(most) else f" and at most {most:g}"
            raise ValueError(f"{name}={value!r}, expected a finite number {low}{high}{why}")


def check_choice(config: Any, name: str, choices: Sequence[str]) -> None:
    """Check that a field of a config is one of some names.

    Raises:
        ValueError: If it is not.
    """
    value = getattr(config, name)
    if value not in choices:
        raise ValueError(f"{name}={value!r}, expected one of {', '.join(map(repr, choices))}")


def check_switches(config: Any, names: Sequence[str]) -> None:
    """Check that fields of a config are True or False.

    Raises:
        ValueError: If one is not.
    """
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, bool):
            raise ValueError(f"{name}={value!r}, expected True or False")
