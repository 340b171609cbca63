"""Objects of your own by name: `module:Object` or `file.py:Object`, wherever a name is taken.

A student, an attacker, a judge, a wrapper, an algorithm and a source of scenarios may all be named so. Naming
one runs its code, so a name that a received file says is not loaded unless the user types it as well.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from steer_env.checks import suggestion

_FILE: Final = r".*\.py"
_MODULE: Final = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_REFERENCE: Final = re.compile(rf"(?P<home>{_FILE}|{_MODULE}):(?P<object>[^\W\d]\w*(?:\.[^\W\d]\w*)*)", re.S)
#: How the names are explained in messages.
EXPECTED: Final = "module:Object or file.py:Object"


def read_name(name: str) -> tuple[str, dict[str, Any]]:
    """Split "NAME?option=value&..." into what stands before the options, and the options.

    Numbers and yes, no, true, false are read as such; everything else stays text.
    """
    bare, _, query = name.partition("?")
    return bare, {key: _value(text) for key, text in parse_qsl(query, keep_blank_values=True)}


def _value(text: str) -> Any:
    if text in ("yes", "true", "no", "false"):
        return text in ("yes", "true")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def is_reference(name: Any) -> bool:
    """Whether a name is written `module:Object` or `file.py:Object`, options behind it or not.

    A back end such as "hf:tiny" is written so as well: ask `steer_env.models.is_backend` first.

    >>> is_reference("my_package.judges:Strict?level=2"), is_reference("rule")
    (True, False)
    """
    return isinstance(name, str) and _REFERENCE.fullmatch(name.partition("?")[0]) is not None


def load(name: str) -> Any:
    """Return the object of a name; its module or file is run when it is loaded for the first time.

    Args:
        name: `module:Object` or `file.py:Object`; it may be an attribute, as in `m:Class.make`.

    Raises:
        ValueError: If there is no such module, file or object.
    """
    found = _REFERENCE.fullmatch(name)
    if found is None:
        raise ValueError(f"name={name!r}, expected {EXPECTED}")
    value: Any = load_home(found["home"])
    for part in found["object"].split("."):
        if not hasattr(value, part):
            near = suggestion(part, [n for n in vars(value) if not n.startswith("_")])
            raise ValueError(f"name={name!r}: {found['home']} has no {part!r}{near}")
        value = getattr(value, part)
    return value


def make(name: str, **options: Any) -> Any:
    """Return what a name stands for: a class or a function is called with the options, others are used as is.

    Args:
        name: See `load`; options may stand in it, as in `judges.py:Strict?level=2`.
        **options: Go before those in the name.

    Raises:
        ValueError: If there is no such object, or it takes no options.
    """
    bare, named = read_name(name)
    value, given = load(bare), {**named, **options}
    if inspect.isclass(value) or inspect.isroutine(value):
        return value(**given)
    if given:
        raise ValueError(
            f"name={name!r} names an object that is made already, expected a class or a function where "
            f"options are given: {', '.join(given)}"
        )
    return value


def load_home(home: str) -> Any:
    """Return a module by its name, or the file `home` run as one.

    Raises:
        ValueError: If there is none.
    """
    if home.endswith(".py"):
        return _load_file(Path(home))
    try:
        return importlib.import_module(home)
    except ModuleNotFoundError as error:
        if error.name and (home == error.name or home.startswith(f"{error.name}.")):
            raise ValueError(
                f"module={home!r} cannot be imported, expected an installed module; name a file as "
                "path/to/file.py:Object"
            ) from error
        raise


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"file={str(path)!r} is not there, expected {EXPECTED}")
    whole = path.resolve()
    name = f"steer_env_own_{path.stem}_{hashlib.sha256(str(whole).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, whole)
        if spec is None or spec.loader is None:
            raise ValueError(f"file={str(path)!r} cannot be run as Python, expected {EXPECTED}")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]  # the next attempt runs it again
            if isinstance(error, SystemExit):  # it would end ours without a word
                raise ValueError(
                    f"file={str(path)!r} ends the program when it is loaded (sys.exit), expected {EXPECTED}"
                ) from error
            raise
    return sys.modules[name]


def source_hash(name: str) -> str:
    """Return a hash of the file that a name is written in, "" where there is none."""
    home = getattr(load_home(read_name(name)[0].rpartition(":")[0]), "__file__", None)
    return hashlib.sha256(Path(home).read_bytes()).hexdigest()[:16] if home else ""
