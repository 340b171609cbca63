"""Files written whole or not at all, and files of strangers read with limits.

A file appears under its name when all of it is on disk: it is written beside its place under a name of its
own, synchronised, and renamed. A link that stands at its place is replaced and never followed, so a folder
somebody sent cannot have files elsewhere overwritten.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

#: Most bytes of a JSON file, and of a line of a JSON-lines file.
MAX_JSON: Final = 64 << 20

#: Flags of `os.open` for a file of ours: links are refused, programs we start do not inherit it.
OWN_FILE: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)

_REMEDIES: Final = {
    errno.ENOSPC: "free space there, then go on with --resume",
    errno.EDQUOT: "free space there, then go on with --resume",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), then go on with --resume",
    errno.EROFS: "choose a folder that may be written to",
    errno.EACCES: "choose a folder that may be written to",
    errno.EPERM: "choose a folder that may be written to",
    errno.ELOOP: "it is a symbolic link; remove it",
}


class CannotWrite(OSError):
    """A file could not be written; one line with its path, the reason and what to do."""

    def __init__(self, path: str | Path, error: BaseException) -> None:
        number = error.errno if isinstance(error, OSError) else None
        reason = error.strerror if isinstance(error, OSError) else None
        super().__init__(number or errno.EIO, reason or _reason(error), str(path))

    def __str__(self) -> str:
        remedy = _REMEDIES.get(self.errno or 0, "is the disk full, or may it not be written to?")
        return f"{self.filename!s} cannot be written ({self.strerror}); {remedy}"


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Give an error of the disk in the block the name of the file that could not be written.

    Libraries in other languages raise errors of their own on a full disk, without a path.

    Raises:
        CannotWrite: In place of such an error.
    """
    try:
        yield
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(path, error) from error
    except Exception as error:
        if not any(clue in str(error) for clue in ("os error", "I/O error", "inline_container", "Errno")):
            raise
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise CannotWrite(path, full if _is_full(Path(path)) else error) from error


def _is_full(path: Path) -> bool:
    with suppress(OSError):
        there = next(p for p in (path, *path.parents) if p.exists())
        return shutil.disk_usage(there).free < (1 << 20)
    return False


@contextmanager
def replacing(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield the name of a new file beside `path` to write to; it takes its place when the block is through.

    Args:
        path: The final name; its folder is made.
        durable: Force it to disk before it appears, so that a power cut leaves the old file or the new one.
            Without, only a killed process does.

    Raises:
        CannotWrite: If the disk is full or must not be written to; nothing is left behind.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.part")
        try:
            yield part
            if durable:
                _sync(part)
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        if durable:
            _sync(path.parent)


def write_bytes(path: str | Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file; arguments and errors as `replacing`."""
    with replacing(path, durable=durable) as part:
        part.write_bytes(data)


def write_text(path: str | Path, text: str, *, durable: bool = True) -> None:
    """Write a file in UTF-8; a lone surrogate, which no file can hold, becomes a question mark."""
    write_bytes(path, text.encode("utf-8", "replace"), durable=durable)


def write_json(path: str | Path, body: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        CannotWrite: See `replacing`.
        ValueError: If a number is not finite.
    """
    write_text(path, json.dumps(body, indent=2, allow_nan=False) + "\n")


@contextmanager
def replacing_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a new folder beside `folder` to fill; it takes its place, on disk, when the block is through.

    Raises:
        CannotWrite: See `replacing`. The old folder is still there then.
    """
    folder = Path(folder)
    part, old = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "old"))
    with writing(folder):
        remove_tree(part)
        part.mkdir(parents=True)
        try:
            yield part
            for file in part.rglob("*"):
                _sync(file)
            _sync(part)
        except BaseException:
            with suppress(OSError):
                remove_tree(part)
            raise
        remove_tree(old)
        if folder.exists() or folder.is_symlink():
            folder.rename(old)
        part.rename(folder)
        _sync(folder.parent)
        remove_tree(old)


def cell(value: Any) -> Any:
    """Return a value for a cell of a sheet: text that a spreadsheet would run as a formula gets a quote mark.

    Source: OWASP, CSV Injection.
    """
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return "'" + value
    return value


def remove_torn(folder: Path) -> None:
    """Remove what killed writers left below a folder; whoever calls it holds the folder alone."""
    for torn in folder.rglob(".*.part"):
        torn.unlink()


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, a file, or a link (not what it points to)."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # a folder on Windows
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # not every file system can
            raise
    finally:
        os.close(handle)


def open_append(path: str | Path) -> int:
    """Open a file for appending and return its descriptor; a symbolic link is refused.

    Raises:
        CannotWrite: If it cannot be opened.
    """
    with writing(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | OWN_FILE, 0o666)


def read_text(path: str | Path, limit: int = MAX_JSON) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        ValueError: If it is larger than `limit` bytes or not UTF-8, with its path.
        OSError: If it cannot be read.
    """
    data = read_bytes(path, limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


def read_bytes(path: str | Path, limit: int) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        ValueError: If it is larger than `limit`, or no regular file.
        OSError: If it cannot be read.
    """
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):  # opening a pipe would wait for a writer
        raise ValueError(f"{path} is no ordinary file, expected one")
    with Path(path).open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is larger than {limit >> 20} MiB, expected a smaller file")
    return data


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: If it is no JSON object, with its path.
        OSError: If it cannot be read.
    """
    text = read_text(path)
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "empty" if not text.strip() else f"no JSON ({error})"
        raise ValueError(f"{path} is {what}; restore it, or choose another folder") from error
    if not isinstance(body, dict):
        raise ValueError(f"{path} holds a {type(body).__name__}, expected a JSON object")
    return body


def read_sheet(path: str | Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the lines of a table as spreadsheets save it, each with its number, cells by column.

    UTF-8 with or without a byte order mark, UTF-16 and Windows' code page are read, with commas, semicolons
    or tabs. The first line is yielded, too: every column as its own cell. Cells a line lacks are empty.

    Raises:
        ValueError: If it is no such text, a column is there twice, or a line has more cells than there are
            columns.
    """
    raw = Path(path).read_bytes()
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252"):
        try:
            text = raw.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise ValueError(
            f"{path} is neither UTF-8, UTF-16 nor Windows-1252, expected a text file; save it as UTF-8"
        )
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    columns: list[str] = []
    try:
        for cells in reader:
            if not columns:
                columns = cells
                twice = [name for name in columns if columns.count(name) > 1]
                if twice:
                    raise ValueError(f"{path} has the column {twice[0]!r} twice, expected it once")
            if len(cells) > len(columns):
                raise ValueError(
                    f"{path}:{reader.line_num} has {len(cells)} cells, expected {len(columns)} as line 1"
                )
            if cells:
                yield reader.line_num, dict(zip_longest(columns, cells, fillvalue=""))
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}, expected a table of cells") from None
