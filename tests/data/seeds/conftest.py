from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from steer_env.data.seeds import (
    AgentTarget,
    FixedTarget,
    RuleGenerator,
    RuleGrader,
    SeedsConfig,
    make_seeds,
    open_source,
)
from steer_env.judges.prompting import read_records
from steer_env.models import ChatRequest


def data_of(request: ChatRequest) -> dict[str, Any]:
    """What stands between the marker lines of a request."""
    first, *dialogue = read_records(next(m.content for m in request.messages if m.role == "user"))
    return {**first, "dialogue": dialogue}


@pytest.fixture
def data() -> Callable[[ChatRequest], dict[str, Any]]:
    return data_of


@pytest.fixture
def rule() -> RuleGenerator:
    return RuleGenerator(AgentTarget(FixedTarget(), "fixed"), RuleGrader())


@pytest.fixture
def make_world(tmp_path: Path, rule: RuleGenerator) -> Callable[..., Path]:
    """Make seeds from the built-in world by rule in a folder of that name."""

    def make(name: str, count: int, **options: Any) -> Path:
        resume, progress = options.pop("resume", False), options.pop("progress", None)
        config = SeedsConfig(**options)
        source = open_source("world", count, config.kinds, config.seed)
        make_seeds(tmp_path / name, source, rule, config, resume=resume, progress=progress)
        return tmp_path / name

    return make


@pytest.fixture
def own_rows(tmp_path: Path) -> Callable[[Sequence[dict[str, Any]]], Path]:
    """Write single-turn rows to a scenario file; `picture` makes one of that grey level."""

    def write(rows: Sequence[dict[str, Any]]) -> Path:
        lines = []
        for row in rows:
            row = dict(row)
            if (level := row.pop("picture", None)) is not None:
                array = np.full((60, 90, 3), level, dtype=np.uint8)
                PILImage.fromarray(array).save(tmp_path / f"grey{level}.png")
                row["images"] = [f"grey{level}.png"]
            lines.append(json.dumps(row) + "\n")
        path = tmp_path / "own.jsonl"
        path.write_text("".join(lines))
        return path

    return write


def contents(folder: Path) -> dict[str, bytes]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture
def bytes_of() -> Callable[[Path], dict[str, bytes]]:
    return contents
