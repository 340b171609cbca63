"""What all datasets share: finding files, reading rows, opening pictures, saying what was found instead."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image as PILImage

from steer_env.extras import need as need_library
from steer_env.images import Image, ImageError
from steer_env.scenarios import DraftTurn, Scenario

Entry = Mapping[str, Any]

_SHOWN = 12  # names an error message lists
_PICTURES = 100  # the same of missing pictures, whose rows one may want to skip
#: Rows in memory at a time when reading Parquet; every row may hold a photograph.
_BATCH = 16


#: Stands for a picture that is not there.
_NONE = Image(lambda: PILImage.new("RGB", (1, 1)), "missing")


class DatasetError(ValueError):
    """A dataset whose files are not what its loader expects; the message shows what was found."""


@dataclass(frozen=True)
class Spec:
    """A dataset the library can load.

    Attributes:
        name: How it is called in `load_dataset_scenarios`.
        title: Its own name, as in `Scenario.provenance`.
        licence: Licence of the release; "non-commercial", "no training" and "not stated" close gates.
        splits: Its splits.
        load: Yields the scenarios of a split.
        images: Whether its rows have pictures.
        default: Split taken when none is named, "" if one must be.
        layout: Files, relative to the root, for messages and documentation.
    """

    name: str
    title: str
    licence: str
    splits: tuple[str, ...]
    load: Callable[..., Iterator[Scenario]]
    images: bool = True
    default: str = ""
    layout: str = ""


class At(NamedTuple):
    """Where a row stands.

    Attributes:
        where: "file:row", for messages.
        file: Name of its file, without the ending.
        key: Its key in an object, else its number in the file.
    """

    where: str
    file: str
    key: str


class Source:
    """One dataset on disk.

    Args:
        spec: What it is.
        root: Its folder.
        split: The split that is read, for provenance.
        skip: Places of rows to leave out, as error messages name them; nothing else is ever left out.

    Raises:
        DatasetError: If the folder does not exist.
    """

    def __init__(self, spec: Spec, root: str | Path, split: str, skip: Iterable[str] = ()) -> None:
        self.spec, self.root, self.split = spec, Path(root), split
        self._images: dict[Path, Image] = {}
        self._seen: set[tuple[str, str]] = set()
        self.missing: list[str] = []  # pictures that are not there, with their rows
        self.unused = {skip} if isinstance(skip, str) else set(skip)
        if not self.root.is_dir():
            what = "a file" if self.root.exists() else "missing"
            raise DatasetError(
                f"root={str(root)!r} is {what}, expected the folder of {spec.title} with {spec.layout}"
            )

    def error(self, where: str, problem: str) -> DatasetError:
        """Return an error that names the dataset and the place."""
        return DatasetError(f"{self.spec.name}: {where}: {problem}")

    def skips(self, where: str) -> bool:
        """Return whether the row at a place is to be left out."""
        chosen = where in self.unused
        self.unused.discard(where)
        return chosen

    # Files -------------------------------------------------------------------------------------------------

    def files(self, *patterns: str) -> list[Path]:
        """Return what the first pattern that matches anything matches, sorted."""
        for pattern in patterns:
            found = sorted(p for p in self.root.glob(pattern) if p.is_file())
            if found:
                return found
        raise self.error(
            str(self.root),
            f"no {' or '.join(patterns)}; found {self._listing()}; expected {self.spec.layout}",
        )

    def _listing(self) -> str:
        names = sorted(
            str(p.relative_to(self.root)) + ("/" if p.is_dir() else "")
            for p in (*self.root.glob("*"), *self.root.glob("*/*"))
        )
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return ", ".join(names[:_SHOWN]) + more if names else "an empty folder"

    def place(self, path: Path, number: object = "") -> str:
        """Return `file:row` for messages."""
        name = os.path.relpath(path, self.root)
        return f"{name}:{number}" if number != "" else name

    # Rows --------------------------------------------------------------------------------------------------

    def rows(
        self, path: Path, columns: Sequence[str] = (), *, lines: bool = False
    ) -> Iterator[tuple[At, Any]]:
        """Yield (place, row) of a file of a table, of JSON lines, or of JSON: a list, or an object by key.

        Args:
            path: A file; `.parquet`, `.csv`, `.tsv`, `.json`, `.jsonl` or `.jsonl.gz` tells what it is.
            columns: What a table must have, or every row that is an object.
            lines: Whether it holds JSON lines whatever it is called.
        """
        tables = {".parquet": self._parquet, ".csv": self._csv, ".tsv": self._csv}
        read = {**tables, ".json": self._json}.get(path.suffix)
        for key, row in (self._lines if lines or read is None else read)(path, columns):
            at = At(self.place(path, key), path.stem, str(key))
            if columns and path.suffix not in tables:  # of a table the header was checked
                self.need(row, columns, at.where)
            yield at, row

    def _json(self, path: Path, columns: Sequence[str]) -> Iterator[tuple[object, Any]]:
        try:
            body = json.loads(path.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise self.error(
                self.place(path), f"is not JSON in UTF-8 ({error}); download it again"
            ) from error
        if not isinstance(body, list | dict):
            raise self.error(self.place(path), f"holds a {type(body).__name__}, expected a list or an object")
        for key, row in body.items() if isinstance(body, dict) else enumerate(body):
            if not self.skips(self.place(path, key)):
                yield key, row

    def _lines(self, path: Path, columns: Sequence[str] = ()) -> Iterator[tuple[object, Any]]:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip() or self.skips(self.place(path, number)):
                    continue
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    raise self.error(self.place(path, number), f"is not JSON ({error})") from error

    def _csv(self, path: Path, columns: Sequence[str]) -> Iterator[tuple[object, Entry]]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            self._columns(self.place(path), columns, reader.fieldnames or ())
            for number, row in enumerate(_wide(reader), 1):
                if self.skips(self.place(path, number)):
                    continue
                if None in row or None in row.values():
                    wide = "more" if None in row else "fewer"
                    raise self.error(self.place(path, number), f"has {wide} fields than the header")
                yield number, row

    def _parquet(self, path: Path, columns: Sequence[str]) -> Iterator[tuple[object, Entry]]:
        """Read Parquet, a few rows in memory at a time."""
        parquet = need_library("pyarrow.parquet")
        try:
            file = parquet.ParquetFile(path)
        except (OSError, ValueError) as error:
            raise self.error(
                self.place(path), f"is not a Parquet file ({error}); download it again"
            ) from error
        with file:
            self._columns(self.place(path), columns, file.schema_arrow.names)
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    if not self.skips(self.place(path, number)):
                        yield number, row
                    number += 1

    def _columns(self, where: str, columns: Sequence[str], found: Sequence[str]) -> None:
        missing = [c for c in columns if c not in found]
        if missing:
            raise self.error(
                where, f"missing columns {missing}; found {list(found)}; is this the right file and version?"
            )

    def need(self, row: Any, keys: Sequence[str], where: str) -> None:
        """Raise unless `row` is an object with all of `keys`."""
        if not isinstance(row, dict):
            raise self.error(where, f"is a {type(row).__name__}, expected an object with {list(keys)}")
        self._columns(where, keys, list(row))

    def text(self, row: Entry, key: str, where: str) -> str:
        """Return a text that must be there and not blank."""
        value = row.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(where, f"{key}={_short(value)}, expected text")
        return value

    def choice(self, value: Any, known: Sequence[Any], key: str, where: str) -> Any:
        """Return `value` if it is one of `known`."""
        if value not in known:
            raise self.error(where, f"{key}={_short(value)}, expected one of {list(known)}")
        return value

    def once(self, key: str, value: str, where: str) -> None:
        """Raise if a row with this value of `key` was there before."""
        if (key, value) in self._seen:
            raise self.error(where, f"{key}={value!r} occurs twice")
        self._seen.add((key, value))

    # Pictures ----------------------------------------------------------------------------------------------

    def image(self, value: Any, where: str, *folders: str) -> Image:
        """Open a picture: a path relative to one of `folders`, or what `datasets` stores in Parquet.

        Raises:
            DatasetError: If it is outside the dataset's folder, or cannot be decoded. A missing one is noted
                in `missing`, so that all of them are told at once; its row must not be used.
        """
        if isinstance(value, Mapping):  # {"bytes": ..., "path": ...}
            data = value.get("bytes")
            if data:
                return self._decode(bytes(data), where)
            value = value.get("path")
        if not isinstance(value, str) or not value:
            raise self.error(where, f"image={_short(value)}, expected a picture")
        tried = []
        for folder in folders or (".",):
            path = Path(os.path.normpath(self.root / folder / value))
            if not path.is_relative_to(os.path.normpath(self.root)):
                raise self.error(where, f"image={value!r} lies outside the dataset's folder")
            if path.is_file():
                return self._open(path, where)
            tried.append(self.place(path))
        self.missing.append(f"{where}: image={value!r} is missing; looked for {', '.join(tried)}")
        return _NONE

    def check_pictures(self) -> None:
        """Raise if pictures are missing, with all of them.

        Raises:
            DatasetError: With their rows, as `skip` takes them.
        """
        if self.missing:
            count = len(self.missing)
            told = "; ".join(self.missing[:_PICTURES]) + ("; ..." if count > _PICTURES else "")
            raise DatasetError(f"{self.spec.name}: {told} ({count} missing in all)")

    def _decode(self, data: bytes, where: str) -> Image:
        try:
            checked = Image.from_bytes(data, source=f"{self.spec.name}:{where}")
        except ImageError as error:
            raise self.error(where, str(error)) from error
        # Keep the encoded bytes only: thousands of decoded photographs would not fit in memory.
        return Image(lambda: Image.from_bytes(data).pil(), checked.digest, checked.source)

    def _open(self, path: Path, where: str) -> Image:
        if self.missing:  # nothing is used any more, the rest is only looked for
            return _NONE
        if path not in self._images:
            try:
                checked = Image.from_file(path)
            except ImageError as error:
                raise self.error(where, str(error)) from error
            digest = checked.digest
            self._images[path] = Image(lambda: _reopen(path, digest), digest, str(path))
        return self._images[path]

    # Scenarios ---------------------------------------------------------------------------------------------

    def scenario(
        self,
        turns: Sequence[str],
        where: str,
        images: Sequence[Image] = (),
        kind: str = "obfuscated",
        group: str = "",
        key: object = "",
        risks: Sequence[int] = (),
        shown: Sequence[int] = (),
        **texts: Any,
    ) -> Scenario:
        """Build a scenario.

        Args:
            turns: The user's turns.
            where: Place of the row, for messages.
            images: Pictures.
            kind: "benign", "obfuscated" or "red_team".
            group: What must not be torn apart by a split; default: the first picture, else the row.
            key: The row's own name, for provenance.
            risks: Risk levels of the turns, () if unknown.
            shown: How many pictures come with each turn; () if all come with the first.
            **texts: goal, category, mechanism, strategy, technique, id.
        """
        if not turns:
            raise self.error(where, "has no user turn, expected at least one")
        levels = risks or [0] * len(turns)
        counts = shown or [len(images)] + [0] * (len(turns) - 1)
        ends = list(accumulate(counts))
        seeds = tuple(
            DraftTurn(text, tuple(range(end - count, end)), level)
            for text, level, count, end in zip(turns, levels, counts, ends, strict=True)
        )
        unit = group or (images[0].digest[:16] if images else str(key or where))
        return Scenario(
            seeds,
            tuple(images),
            kind=kind,
            group=f"{self.spec.name}:{unit}",
            provenance=f"{self.spec.name}: {self.split} {key or where}",
            licence=self.spec.licence,
            **texts,
        )


def _reopen(path: Path, digest: str) -> Any:
    image = Image.from_file(path)
    if image.digest != digest:
        raise ImageError(f"image={str(path)!r} changed after it was loaded; load the dataset again")
    return image.pil()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


def _wide(reader: Iterator[Entry]) -> Iterator[Entry]:
    """Yield rows with cells up to 128 MiB; csv's limit, 128 KiB, is the whole process's and stays."""
    while True:
        usual = csv.field_size_limit(1 << 27)
        try:
            row = next(reader, None)
        finally:
            csv.field_size_limit(usual)
        if row is None:
            return
        yield row
