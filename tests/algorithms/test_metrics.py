import dataclasses
import json
import sys
import types

import pytest

from kit.training import SMALL
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.monitor import MetricsLogger
from steer_env.algorithms.trainer import train

ROWS = [{"step": 0, "return": 1.5, "kl": None}, {"step": 1, "return": 2.0, "kl": 0.25}]


def scalars(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def log(run_dir, rows, **options):
    run_dir.mkdir(exist_ok=True)
    with MetricsLogger(run_dir, **options) as logger:
        for row in rows:
            logger.write(row)


def test_rows_go_to_the_file_and_numbers_to_tensorboard(tmp_path):
    log(tmp_path / "run", ROWS, trackers=["tensorboard"])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    # What is undefined is left out, not 0.
    assert scalars(tmp_path / "run" / "tensorboard") == {"return": [(0, 1.5), (1, 2.0)], "kl": [(1, 0.25)]}


def test_a_resumed_run_purges_what_it_plays_again(tmp_path):
    log(tmp_path / "run", ROWS, trackers=["tensorboard"])
    log(tmp_path / "run", [{"step": 1, "return": 3.0}], trackers=["tensorboard"], finished=1)
    assert scalars(tmp_path / "run" / "tensorboard")["return"] == [(0, 1.5), (1, 3.0)]


def test_training_reports_what_a_run_is_watched_by(make_vec, make_student, learner, tmp_path):
    config = dataclasses.replace(SMALL, steps=1)
    train(
        make_vec(),
        learner,
        make_student(),
        make_algorithm("grpo"),
        config,
        tmp_path,
        trackers=["tensorboard"],
    )
    seen = scalars(tmp_path / "tensorboard")
    names = {
        "return", "safety", "usefulness", "faithfulness", "unscored", "cost", "kl", "entropy", "clipped",
        "turns", "reply_tokens", "logprob_gap", "logprob_gap_max", "flat_groups", "trained_dialogues",
    }  # fmt: skip
    assert names <= set(seen)


def test_hosted_trackers_get_the_numbers(tmp_path, monkeypatch):
    calls = []
    fake = types.ModuleType("wandb")
    fake.init = lambda **options: calls.append(("init", options["name"], options["config"]))
    fake.log = lambda values, step: calls.append((step, values))
    fake.finish = lambda: calls.append("finish")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    log(tmp_path / "mine", ROWS, trackers=["wandb"], settings={"lr": 1.0})
    assert calls == [
        ("init", "mine", {"lr": 1.0}), (0, {"return": 1.5}), (1, {"return": 2.0, "kl": 0.25}), "finish",
    ]  # fmt: skip


def test_unknown_and_missing_trackers_are_named(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match="tracker='mlflow', expected one of 'tensorboard', 'wandb', 'trackio'"
    ):
        MetricsLogger(tmp_path, ["mlflow"])
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ImportError, match=r"trackio is not installed.*pip install trackio"):
        MetricsLogger(tmp_path, ["trackio"])
