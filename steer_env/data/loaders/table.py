"""What most datasets are: files with one row after the other, and a dialogue or a few in each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from steer_env.data.loaders.base import At, Entry, Source
from steer_env.scenarios import Scenario


def each_row(
    files: Sequence[str],
    columns: Sequence[str],
    rows: Callable[..., Iterator[Scenario]],
    names: Mapping[str, str] | None = None,
    *,
    lines: bool = False,
    one: bool = False,
) -> Callable[..., Iterator[Scenario]]:
    """Return a loader that makes the scenarios of one row after the other.

    Args:
        files: Patterns, relative to the root; the first that matches anything counts. "{split}" stands for
            the split, "{name}" for what `names` says of it.
        columns: What every row must have.
        rows: Called with (source, row, at) and the user's options.
        names: Split -> name in its files.
        lines: Whether the files hold JSON lines, whatever they are called.
        one: Whether there must be one file only.
    """

    def load(source: Source, **options: Any) -> Iterator[Scenario]:
        name = (names or {}).get(source.split, "")
        paths = source.files(*(pattern.format(split=source.split, name=name) for pattern in files))
        if one and len(paths) > 1:
            raise source.error(str(source.root), f"several files {[p.name for p in paths]}, expected one")
        for path in paths:
            for at, row in source.rows(path, columns, lines=lines):
                yield from rows(source, row, at, **options)

    return load


def one_turn(
    text: str,
    image: str,
    folders: Sequence[str] = (".",),
    kind: str = "obfuscated",
    group: str = "",
    key: str = "",
    goal: str = "",
    category: str = "",
    check: Callable[[Source, Entry, str], object] = lambda source, row, where: None,
) -> Callable[[Source, Entry, At], Iterator[Scenario]]:
    """Return `rows` for `each_row`: a dialogue of one turn each, with one picture.

    Args:
        text: Column of what the user says.
        image: Column of the picture.
        folders: Where it may lie, relative to the root.
        kind: Kind of the scenarios.
        group: What must not be torn apart by a split, at most 80 characters; filled from the row as
            `str.format` does, as are `key`, `goal` and `category`.
        key: The row's own name.
        goal: The hidden goal.
        category: The category.
        check: Raises if a row is not what the dataset's authors describe; called with (source, row, where).
    """

    def rows(source: Source, row: Entry, at: At) -> Iterator[Scenario]:
        check(source, row, at.where)
        known = {name: "" if value is None else value for name, value in row.items()}
        yield source.scenario(
            [source.text(row, text, at.where)],
            at.where,
            [source.image(row[image], at.where, *folders)],
            kind=kind,
            group=group.format_map(known)[:80],
            key=key.format_map(known),
            goal=goal.format_map(known),
            category=category.format_map(known),
        )

    return rows
