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
from steer_env.types import Unscored  # noqa: E402

BEGIN, END = "<!-- carried: begin, from tests_interop/carried.json -->\n", "<!-- carried: end -->"
COLUMNS = {
    "pictures": "pictures",
    "rewards": "rewards by turn",
    "unscored": "unscored is no zero",
    "masked": "unscored tokens masked",
    "seats": "seats of its models",
    "tokens": "token ids",
    "credits": "the same advantages in credit",
}
WHOLE = ("all", "exact", "student and attacker")


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
    turns = [r for t in PLAYED for r in t.turns]
    lost = [r for t in PLAYED for r, ok in zip(t.turns, t.scored, strict=True) if not ok]
    masks = {
        "TRL": [row["mask"] for row in rows],
        "ours": [recorded.loss_mask(t.trace, t.scored) for t in PLAYED],
    }
    for engine, credits in (("ours", recorded.CREDITS), ("TRL", equal)):
        masked = 0
        for mask, t in zip(masks[engine], PLAYED, strict=True):
            masked += sum(not mask[t.trace.turn_L == n].any() for n, ok in enumerate(t.scored) if not ok)
        recorded.check_carried(
            engine,
            pictures=(sum(t.trace.images for t in PLAYED), sum(map(recorded.pictures, PLAYED))),
            rewards=(sum(len(t.rewards) for t in PLAYED), len(turns)),
            unscored=(sum(isinstance(r.turn.verdict, Unscored) for r in lost), len(lost)),
            masked=(masked, len(lost)),
            seats=("student", "attacker") if engine == "ours" else ("student",),
            tokens=all(
                row["ids"].tolist() == t.trace.ids_L.tolist() for row, t in zip(rows, PLAYED, strict=True)
            ),
            credits=credits,
        )


def test_the_docs_show_the_table():
    told = json.loads((ROOT / "tests_interop" / "carried.json").read_text())
    names = [*COLUMNS.values(), "what it drops"]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for engine, row in told.items():
        cells = [", ".join(row[key]) or "-" if key == "credits" else row[key] for key in COLUMNS]
        partly = [key for key in COLUMNS if key != "credits" and row[key] not in WHOLE]
        if row["tokens"] == "-" and row["masked"] == "-":
            partly.remove("masked")
        drops = ["the attacker's seat" if key == "seats" else COLUMNS[key] for key in partly]
        missing = [c for c in recorded.CREDITS if c not in row["credits"]]
        drops += ["credit of turns" if not row["credits"] else ", ".join(missing)] if missing else []
        lines.append(f"| {engine} | " + " | ".join([*cells, "; ".join(drops) or "nothing"]) + " |")
    page = (ROOT / "docs" / "interop.md").read_text()
    shown = page.split(BEGIN)[1].split(END)[0]
    assert shown == "\n".join(lines) + "\n", "copy this table into docs/interop.md:\n" + "\n".join(lines)
