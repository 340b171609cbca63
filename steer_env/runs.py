"""Run folders: one process at a time writes to one, and nothing is written outside it.

The lock is `.lock` in the folder, held with the operating system's own lock, which ends with its process
however it ends. Where a file system has none, the process named in the file counts: on this machine one that
is gone holds nothing.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from steer_env.files import OWN_FILE, read_json, write_json, writing

P = ParamSpec("P")
R = TypeVar("R")

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: File of a run folder that says what was run.
RUN: Final = "run.json"
LOCK: Final = ".lock"
#: Errors of file systems without locks.
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
#: (process, folder) -> thread that holds it, and how often.
_held: dict[tuple[int, str], list[int]] = {}
_guard = threading.Lock()


class RunExists(FileExistsError):
    """A run folder holds something already, or something else than is asked for."""


class RunBusy(RunExists):
    """Another process writes to the run folder."""


class RunFolder:
    """A run folder: what its run was started with, whether it may go on, and who holds it.

    Attributes:
        path: The folder; it need not be there.
        file: Where its settings are.

    Args:
        path: The folder.
        file: Name of the file with its settings, a JSON object.
    """

    def __init__(self, path: str | Path, file: str = RUN) -> None:
        self.path = Path(path)
        self.file = self.path / file

    def stored(self) -> dict[str, Any]:
        """Return what its run was started with, {} if there is none.

        Raises:
            ValueError: If the file cannot be read, with its path.
        """
        return read_json(self.file) if self.file.exists() else {}

    def check(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        resume: bool,
        free: Collection[str] = (),
        stored: Mapping[str, Any] | None = None,
        marks: Collection[str] = (),
        exact: bool = False,
        alone: bool = False,
    ) -> bool:
        """Refuse to write over a run, or to go on with another one; returns whether there is one.

        Args:
            settings: What is asked for now, JSON values.
            resume: Whether a run that is there may go on.
            free: Settings that may change.
            stored: What the run was started with, if the settings' file does not say it plainly.
            marks: Files that a run has, one of which tells that there is one; default: that of its settings.
            exact: Settings that only the run has count, too.
            alone: Nothing else may be in the folder.

        Raises:
            RunExists: If it may not go on, or the folder is a file or holds something else.
        """
        name = f"out={str(self.path)!r}"
        if self.path.exists() and not self.path.is_dir():
            raise RunExists(f"{name} is a file, expected a folder; choose another name with --out")
        if not any((self.path / mark).exists() for mark in marks or (self.file.name,)):
            if alone and self.path.exists() and holds_more(self.path):
                raise RunExists(f"{name} holds other files, expected a new folder; choose another one")
            return False
        if not resume:
            raise RunExists(
                f"{name} already holds a run, expected a new folder; continue it with --resume (resume=True) "
                "or choose another one with --out"
            )
        then = self.stored() if stored is None else stored
        now: dict[str, Any] = json.loads(json.dumps(dict(settings or {})))
        keys = sorted({*now, *(then if exact else ())} - {*free})
        pairs = [(key, then.get(key), now.get(key)) for key in keys]
        differs = [f"{key}: {old!r} there, {new!r} now" for key, old, new in pairs if old != new]
        if differs:
            raise RunExists(
                f"{name} holds another run ({'; '.join(differs)}), expected the same; repeat its settings "
                "or choose another folder with --out"
            )
        return True

    def write(self, settings: Mapping[str, Any]) -> None:
        """Write down what the run is started with, holding the folder.

        Raises:
            RunBusy: If somebody else holds it.
            CannotWrite: If the disk is full or may not be written to.
        """
        with self.lock():
            write_json(self.file, settings)

    @contextmanager
    def starting(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Write down what the run is started with; if the block fails before it wrote anything, take it back.

        What was refused can then be asked for again in another way, by the same folder.

        Raises:
            RunBusy, CannotWrite: As `write`.
        """
        new = not self.file.exists()
        self.write(settings)
        try:
            yield
        except Exception:
            if new and {path.name for path in self.path.iterdir()} <= {self.file.name, LOCK}:
                self.file.unlink()
            raise

    def lock(self) -> AbstractContextManager[Path]:
        """Hold the folder, see `run_lock`."""
        return run_lock(self.path)


@contextmanager
def run_lock(folder: str | Path) -> Iterator[Path]:
    """Hold a run folder for the time of the block; it is made if missing.

    The thread that holds it may take it again. Of several processes that one launcher started (`WORLD_SIZE`)
    only the first one locks: they are one run.

    Args:
        folder: The run folder.

    Raises:
        RunBusy: If another process, or another thread of this one, holds it.
        CannotWrite: If the lock cannot be written.
        RunExists: If `folder` is a file.
    """
    folder = Path(folder)
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 and os.environ.get("RANK", "0") != "0":
        yield folder
        return
    made = _make(folder)
    key = (os.getpid(), os.path.realpath(folder))  # a forked child holds nothing
    with ExitStack() as undo:
        with _guard:
            mine = _held.get(key)
            if mine is not None and mine[0] != threading.get_ident():
                raise RunBusy(_busy(folder, {"pid": os.getpid(), "host": socket.gethostname()}))
            if mine is None:
                handle = _take(folder)
                undo.callback(_clear, made)
                undo.callback(_release, folder, handle)
                mine = _held[key] = [threading.get_ident(), 0]
            mine[1] += 1
        try:
            yield folder
        finally:
            with _guard:
                mine[1] -= 1
                if not mine[1]:
                    del _held[key]


def locked(argument: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that writes a run folder: it holds the folder, see `run_lock`, until it returns.

    Args:
        argument: Name of the argument that gives the folder; without a folder (None) nothing is held.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        takes = signature(function)

        @wraps(function)
        def holding(*args: P.args, **kwargs: P.kwargs) -> R:
            folder = takes.bind(*args, **kwargs).arguments.get(argument)
            if folder is None:
                return function(*args, **kwargs)
            with run_lock(folder):
                return function(*args, **kwargs)

        return holding

    return decorate


def _make(folder: Path) -> list[Path]:
    """Make the folder; returns those that were made, the innermost first."""
    if folder.exists() and not folder.is_dir():
        raise RunExists(f"out={str(folder)!r} is a file, expected a folder; choose another name with --out")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return missing


def _clear(made: list[Path]) -> None:
    for path in made:  # a command that failed at once leaves no empty folder behind
        try:
            path.rmdir()
        except OSError:
            return


def _take(folder: Path) -> int:
    """Lock the folder's file and write down who holds it."""
    path = folder / LOCK
    while True:
        with writing(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | OWN_FILE, 0o666)
        try:
            if not _lock(handle, folder) and _alive(_holder(handle)):
                raise RunBusy(_busy(folder, _holder(handle)))
            if not _same(handle, path):  # the last holder removed it after we had opened it
                os.close(handle)
                continue
            _sign(handle, path)
            return handle
        except BaseException:
            with suppress(OSError):
                os.close(handle)
            raise


def _lock(handle: int, folder: Path) -> bool:
    """Take the system's lock; False where there is none, and the file's content has to do.

    Raises:
        RunBusy: If somebody else has it.
    """
    if fcntl is None:
        return False
    for _ in range(5):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        if _holder(handle):
            break
        time.sleep(0.05)  # the holder is about to sign
    raise RunBusy(_busy(folder, _holder(handle)))


def _sign(handle: int, path: Path) -> None:
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with writing(path):
        os.ftruncate(handle, 0)
        os.pwrite(handle, (json.dumps(who) + "\n").encode(), 0)


def _holder(handle: int) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        body = json.loads(os.pread(handle, 4096, 0))
        if isinstance(body, dict):
            return body
    return {}


def _alive(holder: dict[str, Any]) -> bool:
    """Whether a holder may still run; of one on another machine that cannot be told."""
    pid, host = holder.get("pid"), holder.get("host")
    if not isinstance(pid, int) or pid == os.getpid():
        return False
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False


def _release(folder: Path, handle: int) -> None:
    with suppress(OSError):
        (folder / LOCK).unlink()
    with suppress(OSError):
        os.close(handle)


def _busy(folder: Path, holder: dict[str, Any]) -> str:
    pid, host = holder.get("pid", "unknown"), holder.get("host", "unknown")
    since = f" since {holder['since']}" if "since" in holder else ""
    return (
        f"out={str(folder)!r} is in use by process {pid} on host {host}{since}, expected one process per run "
        f"folder; wait for it, end it, or choose another folder with --out (if that process is gone, remove "
        f"{str(folder / LOCK)!r})"
    )


def holds_more(folder: str | Path) -> bool:
    """Whether a folder holds anything beside its lock and what killed writers left."""
    return any(p.name != LOCK and not p.name.endswith(".part") for p in Path(folder).iterdir())


def outward_links(folder: str | Path, depth: int = 2) -> list[Path]:
    """Return symbolic links in a folder that lead out of it, at most `depth` levels down."""
    root = Path(folder)
    home, found, level = Path(os.path.realpath(root)), [], [root]
    for _ in range(depth):
        level, entries = [], [e for path in level for e in _entries(path)]
        for entry in entries:
            path = Path(entry.path)
            if entry.is_symlink():
                if not Path(os.path.realpath(path)).is_relative_to(home):
                    found.append(path)
            elif entry.is_dir(follow_symlinks=False):
                level.append(path)
    return sorted(found)


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []
