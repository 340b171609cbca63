"""Wrappers by name: those of this package, and the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from steer_env import checks, naming, wrappers

_EXPECTED: Final = (
    "wrappers={!r}, expected a sequence of callables env -> env, such as (TurnReward, TCSR), or of their "
    "names; use functools.partial for options, in a name 'TCSR?alpha=0.5'"
)


def open_wrappers(given: Any) -> Sequence[Callable[[Any], Any]]:
    """Return wrappers, callables `env -> env`, some of them perhaps by name.

    A name is one of `steer_env.wrappers`, or your own as `module:Object` or `file.py:Object`; options may
    follow, as in "TCSR?alpha=0.5".

    Raises:
        TypeError: If `given` is no sequence of callables and names.
        ValueError: If a name is unknown.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(_EXPECTED.format(given))
    made = [_open(one) if isinstance(one, str) else one for one in given]
    if not all(callable(wrapper) for wrapper in made):
        raise TypeError(_EXPECTED.format(given))
    return made


def _open(name: str) -> Callable[[Any], Any]:
    bare, options = naming.read_name(name)
    if naming.is_reference(bare):
        found = naming.load(bare)
    else:
        found = getattr(wrappers, checks.choice("wrapper", bare, wrappers.__all__))
    return partial(found, **options) if options else found
