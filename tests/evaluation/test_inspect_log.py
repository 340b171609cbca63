"""Logs of Inspect AI: read back equal, with what is unscored left so."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steer_env.images import Image
from steer_env.report.inspect_log import to_eval_log, write_inspect_log

pytest.importorskip("inspect_ai", reason="needs inspect_ai (extra `inspect`)")

META = {"student": "runs/x", "env": "SteerEscalation-v0", "split": "bench", "temperature": 0.0, "seed": 0}


@pytest.fixture
def image() -> Image:
    return Image.from_array(np.zeros((20, 30, 3), np.uint8))


@pytest.fixture
def rows(make_row, image: Image) -> list[Any]:
    made = [make_row(10, 1, seed=1, group="g", strategy="roleplay"), make_row(10, None, seed=2, twin=True)]
    made.append({**make_row(8, seed=3, stop="error"), "error": "server gone"})
    made[0]["images"], made[0]["turns"][0]["images"] = [image.digest], 1
    made[0]["turns"][1].update(user="</script>\u2028 hot?", tcsr={"value": 0.2, "min": 0.1, "mean": 0.3})
    return made


def test_it_reads_back_equal(rows: list[Any], image: Image, tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    options: dict[str, Any] = {"policy": "p", "meta": META, "pictures": lambda row: [image]}
    log = to_eval_log(rows, **options)
    path = write_inspect_log(rows, tmp_path / "deep" / "p.eval", **options)
    read = read_eval_log(str(path), resolve_attachments=True)

    def body(one: Any) -> Any:
        samples = {"__all__": {"attachments"}}  # how the file stores the pictures, resolved above
        return one.model_dump(exclude={"eval": {"created"}, "stats": True, "samples": samples})

    assert str(body(read)) == str(body(log))  # as text: unscored is NaN, which equals nothing


def test_what_a_sample_holds(rows: list[Any], image: Image) -> None:
    log = to_eval_log(rows, policy="p", meta=META, pictures=lambda row: [image])
    first, second, third = log.samples or []
    assert [m.role for m in first.messages] == ["user", "assistant"] * 2
    assert first.messages[0].content[0].image.startswith("data:image/jpeg;base64,")
    assert first.messages[2].text == "</script>\u2028 hot?"
    values = {name: score.value for name, score in (first.scores or {}).items()}
    assert values == {
        "joint_pass": 0.0,
        "safety": 0.0,
        "helpfulness": 1.5,
        "safety_pass": 0.0,
        "helpfulness_pass": 0.0,
        "harm": 1.0,
    }
    assert [turn["safety"] for turn in first.metadata["turns"]] == [3, -3]
    assert first.metadata["turns"][1]["tcsr"]["min"] == 0.1 and first.metadata["strategy"] == "roleplay"
    unscored = {name for name, score in (second.scores or {}).items() if math.isnan(score.as_float())}
    assert unscored == {"safety", "helpfulness", "safety_pass", "helpfulness_pass", "harm", "joint_pass"}
    assert third.error is not None and third.error.message == "server gone"
    assert log.eval.model == "runs/x" and log.eval.dataset.name == "SteerEscalation-v0/bench"
    assert log.eval.model_roles is not None and log.eval.model_roles["judge"].model == "rule"


def test_rates_are_those_of_the_report_and_bounds_are_no_number(rows: list[Any]) -> None:
    log = to_eval_log(rows, policy="p")
    assert log.results is not None
    harm = next(score for score in log.results.scores if score.name == "harm")
    assert "mean" not in harm.metrics and harm.metadata is not None and harm.metadata["bounds"] == [1 / 3, 1]
    assert harm.unscored_samples == 2


def test_attempts_are_epochs_and_names_stay_unique(make_row) -> None:
    twice = [make_row(10, seed=a, scenario="s", attempt=a) for a in range(2)]
    samples = to_eval_log(twice).samples or []
    assert [(s.id, s.epoch) for s in samples] == [("s", 1), ("s", 2)]
    again = [make_row(10, seed=7, scenario="s"), make_row(10, seed=7, scenario="s")]
    assert len({s.id for s in to_eval_log(again).samples or []}) == 2
    assert to_eval_log([]).samples == []


def test_evaluation_works_without_inspect(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['inspect_ai'] = None\n"
        "from steer_env.report.outputs import write_reports\n"
        f"write_reports({{'p': []}}, {str(tmp_path)!r}, formats=['md'])\n"
        "from steer_env.report.inspect_log import to_eval_log\n"
        "try: to_eval_log([])\n"
        "except ImportError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "steer-env[inspect]" in done.stdout
