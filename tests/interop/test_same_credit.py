"""The recorded dialogues that every engine is tested with: they play again, and TRL gives the same credit."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests_interop"))
import recorded  # noqa: E402

PLAYED = recorded.load()
BEGIN, END = "<!-- carried: begin, from tests_interop/carried.json -->\n", "<!-- carried: end -->"
ROWS = {"pictures": "pictures", "seats": "seats", "rewards": "reward per turn",
        "unscored": "an unscored turn", "tokens": "tokens", "credits": "equal to 1e-5 in credit"}  # fmt: skip


def test_they_play_again():
    again = json.loads(json.dumps([recorded.row_of(t) for t in recorded.play()]))
    kept = json.loads((ROOT / "tests_interop" / "dialogues.json").read_text())
    for new, old in zip(again, kept, strict=True):
        assert new["trace"].pop("logprobs_L") == pytest.approx(old["trace"].pop("logprobs_L"), abs=1e-3)
        assert new["trace"] == old["trace"] and new["stop"] == old["stop"]
        assert [(t["user"], t["reply"], t["verdict"]) for t in new["turns"]] == [
            (t["user"], t["reply"], t["verdict"]) for t in old["turns"]
        ]
        assert [t["reward"] for t in new["turns"]] == pytest.approx([t["reward"] for t in old["turns"]])


def test_they_hold_what_makes_credit_hard():
    assert all(t.trace.images == 1 for t in PLAYED)
    assert len({len(t.turns) for t in PLAYED}) > 1
    assert any(not all(t.scored) for t in PLAYED) and all(any(t.scored) for t in PLAYED)


def test_the_credit_of_own_turns_is_what_one_writes_down_by_hand():
    for members in recorded.groups(PLAYED):
        own = [
            [r.info["turn_reward"] if ok else None for r, ok in zip(t.turns, t.scored, strict=True)]
            for t in members
        ]
        found = [recorded.turn_advantages(PLAYED, "own_turn")[PLAYED.index(t)] for t in members]
        for turn in range(len(own[0])):
            known = [rewards[turn] for rewards in own if rewards[turn] is not None]
            for rewards, got in zip(own, found, strict=True):
                mean = sum(known) / len(known) if known else 0
                lone = rewards[turn] is None or len(known) < 2
                assert got[turn] == pytest.approx(0 if lone else rewards[turn] - mean)


def test_trl_gives_the_same_tokens_the_same_advantages():
    pytest.importorskip("trl")
    import torch

    from steer_env.algorithms import trl_grpo, trl_settings

    equal = []
    for credit in trl_settings.CREDITS:
        trainer = object.__new__(trl_grpo.SteerGRPOTrainer)
        trainer.credit, trainer.discount = credit, recorded.DISCOUNT
        trainer.args = type("Args", (), {"scale_rewards": "none"})
        by_turn, _ = trainer._compare(PLAYED, recorded.SIZE)
        rows = [trl_grpo.columns(t, own, 0) for t, own in zip(PLAYED, by_turn, strict=True)]
        for row, want, t in zip(rows, recorded.advantages(PLAYED, credit), PLAYED, strict=True):
            np.testing.assert_allclose(torch.tensor(row["advantages"]), want, atol=1e-5)
            assert row["ids"].tolist() == t.trace.ids_L.tolist()
        equal.append(credit)
    recorded.check_carried("TRL", credits=equal)
    recorded.check_carried("ours", credits=list(recorded.CREDITS))


def test_the_docs_show_the_table():
    told = json.loads((ROOT / "tests_interop" / "carried.json").read_text())
    lines = ["| | " + " | ".join(ROWS.values()) + " |", "|---" * (len(ROWS) + 1) + "|"]
    for engine, column in told.items():
        cells = [
            ", ".join(column[key]) or "not compared" if key == "credits" else column[key] for key in ROWS
        ]
        lines.append(f"| {engine} | " + " | ".join(cells) + " |")
    page = (ROOT / "docs" / "interop.md").read_text()
    shown = page.split(BEGIN)[1].split(END)[0]
    assert shown == "\n".join(lines) + "\n", "copy this table into docs/interop.md:\n" + "\n".join(lines)
