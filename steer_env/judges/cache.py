"""A verdict cache on disk: judged once, by any process, never again.

SQLite in WAL mode, so that several processes may read and write one file. The key covers everything a
judge may look at (the scenario's content and the transcript), the judge's name, and what else decides its
verdicts: prompts, weights, settings, versions. Only `Scored` verdicts are kept: a failure is tried again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from steer_env.judges.base import AsyncJudge, Judge, JudgeRequest
from steer_env.judges.combine import asked, later, settled, submitted, when_done
from steer_env.judges.independence import judge_identity, prompt_hash_of
from steer_env.records import verdict_from_row, verdict_row
from steer_env.scenarios import content_id
from steer_env.types import Scored, Verdict

#: Seconds a writer waits for another one.
BUSY: Final = 60.0
#: Most keys per query (SQLite's oldest limit on variables is 999).
CHUNK: Final = 500


def verdict_key(judge: str, identity: str, request: JudgeRequest) -> str:
    """Return the cache key of a reply, 64 hexadecimal digits, the same in every process.

    Args:
        judge: Its name.
        identity: What else decides its verdicts, see `judge_identity`.
        request: The reply.
    """
    truth = request.scenario.truth
    body = {
        "judge": judge,
        "identity": identity,
        "scenario": content_id(request.scenario),
        "truth": "" if truth is None else repr(truth),
        "transcript": [[m.role, str(m.content), m.images] for m in request.transcript],
    }
    text = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _check_tables(connection: sqlite3.Connection) -> None:
    """Refuse somebody else's database.

    Raises:
        sqlite3.DatabaseError: If it holds tables, and not that of verdicts alone.
    """
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    others = sorted({str(name) for (name,) in rows} - {"verdicts"})
    if others:
        raise sqlite3.DatabaseError(f"it holds other tables: {', '.join(others)[:100]}")


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Turn write-ahead logging on; SQLite itself does not wait for another process that does so just now."""
    end = time.monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.02)


class CachedJudge:
    """Looks a verdict up before it asks.

    A tutor that judges and attacks in one call must not be wrapped: a verdict from the cache would leave it
    without its next question.

    Args:
        judge: Asked for what the cache lacks.
        path: The SQLite file, made if missing; its folder must exist.

    Attributes:
        hits: Verdicts that came from the cache.
        misses: Verdicts the judge was asked for.
        broken: Why the cache is no longer used, "" while it works. The run goes on without it.

    Raises:
        ValueError: If the file is no verdict cache.
    """

    def __init__(self, judge: Judge, path: str | Path) -> None:
        self.inner, self.path, self.name = judge, Path(path), judge.name
        self.prompt_hash = prompt_hash_of(judge)
        self.identity = judge_identity(judge)
        self.hits, self.misses, self.broken = 0, 0, ""
        self._local = threading.local()
        self._connect()
        if isinstance(judge, AsyncJudge):
            self.submit = self._submit

    def children(self) -> tuple[Any, ...]:
        """Return what it asks."""
        return (self.inner,)

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """Return one verdict per request, in order; equal requests are asked once."""
        keys = [verdict_key(self.name, self.identity, request) for request in requests]
        known = self._get(keys)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in known}
        fresh: dict[str, Verdict] = {}
        if missing:
            fresh = dict(zip(missing, asked(self.inner, list(missing.values())), strict=True))
            self._put(fresh)
        self.misses += len(missing)
        self.hits += len(requests) - len(missing)
        return [known[key] if key in known else fresh[key] for key in keys]

    def _submit(self, request: JudgeRequest) -> Future[Verdict]:
        key = verdict_key(self.name, self.identity, request)
        known = self._get([key])
        if known:
            self.hits += 1
            return later(known[key])
        self.misses += 1
        asking = submitted(self.inner, request)

        def keep() -> Verdict:
            verdict = settled(self.inner, asking)
            self._put({key: verdict})
            return verdict

        return when_done([asking], self.name, keep)

    def close(self) -> None:
        """Close this thread's connection; the file stays."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _connect(self) -> sqlite3.Connection:
        """Return this thread's connection; a forked child gets one of its own."""
        if getattr(self._local, "connection", None) is None or self._local.pid != os.getpid():
            if not self.path.parent.is_dir():
                raise ValueError(f"cache={str(self.path)!r}, expected a file in an existing folder")
            try:
                connection = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)
                _check_tables(connection)
                _log_ahead(connection)
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, judge TEXT NOT NULL, "
                    "prompt TEXT NOT NULL, verdict TEXT NOT NULL) WITHOUT ROWID"
                )
                connection.execute("SELECT key, judge, prompt, verdict FROM verdicts LIMIT 1")
            except sqlite3.OperationalError as error:  # locked, a full disk, a file that may not be read
                raise ValueError(
                    f"cache={str(self.path)!r} cannot be opened ({error}); name another file"
                ) from error
            except sqlite3.DatabaseError as error:
                raise ValueError(
                    f"cache={str(self.path)!r} is no verdict cache ({error}); name another file"
                ) from error
            self._local.connection, self._local.pid = connection, os.getpid()
        connection = self._local.connection
        assert isinstance(connection, sqlite3.Connection)
        return connection

    def _get(self, keys: Sequence[str]) -> dict[str, Verdict]:
        """Return what is known; a cache that cannot be read knows nothing."""
        try:
            return {} if self.broken else self._read(keys)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._give_up("read", error)
            return {}

    def _read(self, keys: Sequence[str]) -> dict[str, Verdict]:
        found: dict[str, Verdict] = {}
        for start in range(0, len(keys), CHUNK):
            part = list(dict.fromkeys(keys[start : start + CHUNK]))
            marks = ",".join("?" * len(part))
            rows = self._connect().execute(f"SELECT key, verdict FROM verdicts WHERE key IN ({marks})", part)
            for key, text in rows:
                try:
                    verdict = verdict_from_row(json.loads(text))
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue  # a damaged row is asked for again
                if isinstance(verdict, Scored):
                    found[key] = replace(verdict, cached=True)
        return found

    def _put(self, verdicts: dict[str, Verdict]) -> None:
        rows = [
            (key, self.name, self.prompt_hash, json.dumps(verdict_row(verdict)))
            for key, verdict in verdicts.items()
            if isinstance(verdict, Scored)
        ]
        if not rows or self.broken:
            return
        try:
            connection = self._connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", rows)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError, ValueError) as error:
            self._give_up("written", error)

    def _give_up(self, what: str, error: Exception) -> None:
        """Go on without a cache that does not work: it saves work and is no part of any result."""
        if not self.broken:
            self.broken = f"{type(error).__name__}: {error}"
            text = f"cache={str(self.path)!r} cannot be {what} ({self.broken}); going on without it"
            warnings.warn(text, RuntimeWarning, stacklevel=4)
