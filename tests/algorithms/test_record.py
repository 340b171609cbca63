"""Dialogues of training on disk: every token with its mask and advantage, the same after a resumption."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from steer_env.algorithms import trainer
from steer_env.algorithms.grpo import GRPOConfig
from steer_env.play.recorded import load_run
from steer_env.records import ROLLOUTS
from steer_env.report import html

CONFIG = GRPOConfig(
    steps=3, seeds_per_step=2, group_size=2, lr=1e-3, beta=0.0, max_new_tokens=4, checkpoint_every=1, seed=3,
    credit="trajectory",
)  # fmt: skip


def train(env, attacker, student, config, run_dir, **options):
    """Train with GRPO as its settings ask for it."""
    return trainer.train(env, attacker, student, config.algorithm(), config, run_dir, **options)


def test_rollouts_are_recorded_and_resumed(make_vec, make_student, learner, tmp_path) -> None:
    student = make_student()
    train(make_vec(), learner, student, CONFIG, tmp_path / "whole", record_every=2)
    rows = load_run(tmp_path / "whole").rows
    assert [row["step"] for row in rows] == [0] * 4 + [2] * 4
    for row in rows:
        sampled = [piece for piece in row["tokens"] if not isinstance(piece, str)]
        learnt = {piece[2] for piece in sampled if piece[2] is not None}
        scored = any("terms" in turn["verdict"] for turn in row["turns"])
        # With this credit every token of a dialogue has the same advantage.
        assert len(learnt) == bool(scored) and (row["advantage"] is None) == (not scored)
        assert all(piece[2] == pytest.approx(row["advantage"], abs=1e-3) for piece in sampled if piece[2])
        assert all(piece[1] <= 0 for piece in sampled)
    groups = [[row["advantage"] for row in rows[i : i + 2]] for i in (0, 2, 4, 6)]
    assert all(sum(pair) == pytest.approx(0, abs=1e-5) for pair in groups if None not in pair)

    again = make_student()
    from kit.training import Learner

    train(make_vec(), Learner(), again, replace(CONFIG, steps=2), tmp_path / "part", record_every=2)
    with (tmp_path / "part" / ROLLOUTS).open("a") as file:
        file.write(json.dumps({"step": 2, "left": "by a killed process"}) + "\n")
    train(make_vec(), Learner(), make_student(), CONFIG, tmp_path / "part", resume=True, record_every=2)
    assert (tmp_path / "part" / ROLLOUTS).read_bytes() == (tmp_path / "whole" / ROLLOUTS).read_bytes()

    page = html.write_html({"grpo": rows}, tmp_path / "r.html", replicates=20).read_text()
    assert '"tokens":[' in page and "advantage" in page and "step 2" in page


def test_nothing_is_recorded_unless_asked(make_vec, make_student, learner, tmp_path) -> None:
    train(make_vec(), learner, make_student(), replace(CONFIG, steps=1), tmp_path / "r")
    assert not (tmp_path / "r" / ROLLOUTS).exists()
