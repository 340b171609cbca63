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

from steer_env.runs import RunFolder

MARK = "stage.json"
#: How a difference in the stage before is named.
_BEFORE = "stage before"
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
        RunExists: If the folder exists and is not a stage, or one built with other settings or on another
            stage; nothing is removed.
    """
    key = stage_key(settings, before)
    state = look(folder, settings, before)
    if state == "done":
        return Built(folder, key, reused=True)
    run = RunFolder(folder, MARK)
    body = {"key": key, "before": before, "settings": dict(settings)}
    run.write({**body, "done": False})
    build(folder, state == "begun")
    run.write({**body, "done": True})
    return Built(folder, key, reused=False)


def look(folder: Path, settings: Mapping[str, Any], before: str = "") -> State:
    """Return what there is of a stage: nothing ("new"), a part of it ("begun"), or all of it ("done").

    Raises:
        RunExists: As `build_stage`.
    """
    run = RunFolder(folder, MARK)
    stored = run.stored()
    then = {_BEFORE: stored.get("before"), **stored.get("settings", {})}
    if not run.check({_BEFORE: before, **settings}, resume=True, stored=then, exact=True, alone=True):
        return "new"
    return "done" if stored.get("done") else "begun"
