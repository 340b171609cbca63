"""Stages of a longer job, each in a folder of its own, built once.

A stage is identified by a hash of its settings and of the stage before it. A finished stage is reused, an
interrupted one goes on. A folder built with other settings is refused: nothing is removed or built over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steer_env.files import write_json
from steer_env.runs import holds_more

MARK = "stage.json"
State = Literal["new", "begun", "done"]


@dataclass(frozen=True)
class Built:
    """A stage that is there.

    Attributes:
        folder: Where it is.
        key: Hash of its settings and of all stages before it.
        reused: Whether it was there already.
    """

    folder: Path
    key: str
    reused: bool


def stage_key(settings: Mapping[str, Any], before: str = "") -> str:
    """Return a hash of settings (JSON values) and of the stage before, the same in every process."""
    body = json.dumps({"settings": settings, "before": before}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def build_stage(
    folder: Path, settings: Mapping[str, Any], build: Callable[[Path, bool], None], before: str = ""
) -> Built:
    """Make sure that a stage is built.

    Args:
        folder: Its folder.
        settings: What it depends on, JSON values.
        build: Called with (folder, resume) if there is something to do; resume is True when an interrupted
            build with the same settings left something there.
        before: Key of the stage it builds on.

    Raises:
        FileExistsError: If the folder exists and is no stage, or one built with other settings or on another
            stage; nothing is removed.
    """
    key = stage_key(settings, before)
    state = look(folder, settings, before)
    if state == "done":
        return Built(folder, key, reused=True)
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / MARK
    body = {"key": key, "before": before, "settings": dict(settings)}
    write_json(mark, {**body, "done": False})
    build(folder, state == "begun")
    write_json(mark, {**body, "done": True})
    return Built(folder, key, reused=False)


def look(folder: Path, settings: Mapping[str, Any], before: str = "") -> State:
    """Return what there is of a stage: nothing ("new"), a part of it ("begun"), or all of it ("done").

    Raises:
        FileExistsError: As `build_stage`.
    """
    key = stage_key(settings, before)
    mark = folder / MARK
    if folder.exists():
        if not mark.exists() and holds_more(folder):
            raise FileExistsError(
                f"folder={str(folder)!r} exists and was not made by this command, expected none; move it "
                "away or choose another folder with --out"
            )
        begun = mark.exists()
        stored = _read(mark) if begun else {}
        if begun and stored.get("key") != key:
            what = "a finished" if stored.get("done") else "an unfinished"
            raise FileExistsError(
                f"folder={str(folder)!r} holds {what} stage built otherwise "
                f"({_difference(stored, settings, before)}), expected the same; choose another folder with "
                "--out, or remove this one"
            )
        if begun:
            return "done" if stored.get("done") else "begun"
    return "new"


def _difference(stored: Mapping[str, Any], settings: Mapping[str, Any], before: str) -> str:
    if "key" not in stored:
        return f"its {MARK} cannot be read"
    then, now = stored.get("settings", {}), json.loads(json.dumps(dict(settings)))
    parts = [
        f"{name}: {then.get(name)!r} there, {now.get(name)!r} now"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    if stored.get("before", "") != before:
        parts.append("the stage before it is another one")
    return ", ".join(parts)


def _read(mark: Path) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return body
