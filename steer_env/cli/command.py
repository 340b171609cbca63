"""How a command line becomes a config: flags from its fields, `--config FILE`, and the run of `--resume`.

A command is a config class with a docstring, and `run(config) -> int`. What is typed goes before the file,
the file before the defaults. With `--resume` the stored run gives the defaults, and what contradicts it is
refused.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from inspect import cleandoc
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from steer_env.checks import SettingError
from steer_env.extras import need
from steer_env.runs import RUN, RunExists, RunFolder

try:
    import tyro
    from tyro.conf import Positional, arg
except ImportError as error:
    raise ImportError(
        "tyro is not installed and the command line needs it; run: pip install 'steer-env[cli]'"
    ) from error

__all__ = ["FORMAT", "HELD", "Command", "Positional", "Usage", "arg", "read", "settings"]

#: Of what `run.json` holds; folders of 0.1.0, whose options had other names, have none.
FORMAT = 2
#: Folders that this process holds, until the command ends.
HELD = ExitStack()
#: Say where a run is and how to go about it, not what it is.
_HOW = ("out", "resume", "trust")


@dataclass(frozen=True)
class Command:
    """A command of `steer-env`.

    Attributes:
        config: Class of its config, or what gives the class for the words of a command line.
        run: Runs it and returns the exit code.
        examples: Shown under its help.
    """

    config: Any
    run: Callable[[Any], int]
    examples: str

    @property
    def summary(self) -> str:
        """The first line of what the config says of itself."""
        return str(self.config.__doc__).partition("\n")[0]


@runtime_checkable
class Resumable(Protocol):
    """The config of a command that writes a run folder; see `steer_env.cli.common.RunConfig`."""

    resume: bool
    trust: bool

    def folder(self) -> Path:
        """Return the run folder."""

    def free(self) -> tuple[str, ...]:
        """Return the names of what may change when a run goes on."""


class Usage(ValueError):
    """A command line that cannot be read."""


def read(command: Command, words: Sequence[str], name: str) -> Any:
    """Return the config that a command line asks for.

    Raises:
        Usage: If it cannot be read.
        RunExists: If it contradicts the run that it resumes.
        SystemExit: With 0, after the help was printed.
    """
    words, file = _config_file(words)
    kind = command.config if isinstance(command.config, type) else command.config(words, file)
    given = _parse(kind, words, name, command.examples, file)
    if not (isinstance(given, Resumable) and given.resume):
        return given
    from steer_env.configs.base import flat, names

    run = RunFolder(given.folder())
    stored = _stored(run)
    if not stored:
        return given
    if not isinstance(command.config, type):
        kind = command.config(words, {**stored, **file})
    known = set(names(kind)) - set(_HOW)
    stored = {key: value for key, value in stored.items() if key in known}
    made = _parse(kind, words, name, command.examples, {**stored, **file})
    run.check({k: v for k, v in flat(made).items() if k in stored}, resume=True, free=made.free())
    _check_trusted(stored, file, words, made)
    return made


def settings(config: Any, *, free: bool = True) -> dict[str, Any]:
    """Return what a run folder keeps of a config, by flat names; without `free` only what may not change."""
    from steer_env.configs.base import flat

    out = (*_HOW, *(() if free else config.free()))
    return {"config_format": FORMAT, **{key: value for key, value in flat(config).items() if key not in out}}


def _parse(kind: Any, words: Sequence[str], name: str, examples: str, values: Mapping[str, Any]) -> Any:
    conf = tyro.conf
    more = {}
    # What is typed of a list replaces the list; tyro would add to it.
    typed = {word.partition("=")[0] for word in words}
    lists = [k for k, v in values.items() if isinstance(v, list) and f"--{k.replace('_', '-')}" in typed]
    values = {key: value for key, value in values.items() if key not in lists}
    if values:
        from steer_env.configs.base import build

        more["default"] = build(kind, values)
    said = cleandoc(kind.__doc__).split("\n\nAttributes:")[0]
    errors = io.StringIO()
    try:
        with redirect_stderr(errors):
            return tyro.cli(
                kind,
                args=list(words),
                prog=f"steer-env {name}",
                description=f"{said}\n\nexamples:\n{examples}",
                config=(conf.OmitArgPrefixes, conf.UseAppendAction, conf.FlagCreatePairsOff),
                **more,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        cause: BaseException | None = stop
        while cause is not None and not isinstance(cause, SettingError):
            cause = cause.__context__
        raise Usage(str(cause) if cause is not None else _one_line(errors.getvalue(), name)) from None


def _one_line(box: str, name: str) -> str:
    """Return an error that is drawn in a box as one line."""
    box = box.partition("Got errors")[0]  # of each type that the value might have had
    lines = [line.strip(" │|╭╮╰╯+") for line in box.splitlines()[1:]]  # the first is the title
    parts = [" ".join(part) for rule, part in groupby(lines, lambda line: not line.strip("─-")) if not rule]
    told = [part.rstrip(".") for part in parts if not part.startswith("For full helptext")]
    return f"{'; '.join(told)}; steer-env {name} --help lists the options"


def _config_file(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Split `--config FILE` off a command line and read the file: flat names and values, YAML or JSON."""
    left, path = list(words), None
    for at, word in enumerate(words):
        if word == "--config" and at + 1 < len(words):
            path, left = words[at + 1], [*words[:at], *words[at + 2 :]]
        elif word.startswith("--config="):
            path, left = word.partition("=")[2], [*words[:at], *words[at + 1 :]]
    if path is None:
        return left, {}
    yaml = need("yaml", "cli")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise Usage(f"config={path!r} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise Usage(f"config={path!r}, expected a file of lines such as 'alpha: 0.3'")
    return left, {key.replace("-", "_"): value for key, value in values.items()}


def _stored(run: RunFolder) -> dict[str, Any]:
    found = run.stored()
    if found and found.get("config_format") != FORMAT:
        raise RunExists(
            f"out={str(run.path)!r} holds a run of steer-env 0.1.0, whose options had other names, expected "
            "one of this version; reports read it, but to go on choose another folder with --out"
        )
    return found


def _check_trusted(
    stored: Mapping[str, Any], file: Mapping[str, Any], words: Sequence[str], config: Any
) -> None:
    """Refuse to contact a server, with our key, or to run code, because a folder says so.

    Raises:
        Usage: If a stored name would, and it was neither given again nor `--trust`.
    """
    for key, name in stored.items():
        if not config.trust:
            check_trusted(key, name, words, file)


def check_trusted(key: str, name: Any, words: Sequence[str], file: Mapping[str, Any]) -> None:
    """Refuse to open a name because a folder says so; see `reaches_out` for what opening may do.

    Raises:
        Usage: If it was not given again, on the command line or in the file of --config.
    """
    from steer_env.play.places import reaches_out

    typed = {*words, *(word.partition("=")[2] for word in words)}
    names = name if isinstance(name, list) else [name]
    runs = key == "env" and ":" in str(name)  # loads what registers the id
    if (runs or reaches_out(name, key)) and not typed.issuperset(names) and file.get(key) != name:
        again = f"--{key.replace('_', '-')}"
        raise Usage(
            f"{key}={name!r} comes from {RUN} of the run folder, and opening it would run code, send this "
            f"run's data and a key of yours there, fetch a model, or write a file; repeat {again} to "
            "confirm, or accept what the folder says with --trust"
        )
