"""The inputs of all commands, and how they are made malformed."""

from __future__ import annotations

import csv
import os
import random
from collections import Counter
from pathlib import Path

from .children import Child
from .commands import EPISODES


def prepare(home: Path, counts: Counter[str]) -> None:
    """Make the inputs of all commands."""
    from steer_env.models.tiny import TinyConfig, build, save

    inputs = home / "in"
    inputs.mkdir()

    def make(*words: str) -> None:
        if Child(list(words), home / "log").wait(counts):
            raise RuntimeError((home / "log").read_text())

    for name, student in (("eval", "constructive"), ("eval2", "refuse")):
        make("evaluate", student, "--episodes", str(EPISODES), "--out", str(inputs / name))
    make("data", "bootstrap", "--episodes", "8", "--out", str(inputs / "boot"))
    make("data", "seeds", "--count", "16", "--out", str(inputs / "seeds"))
    make("calibrate", str(inputs / "eval"), "--sheet", str(inputs / "labels.csv"), "--unit", "dialogue")
    label(inputs / "labels.csv")
    child = os.fork()  # torch computes in children only
    if not child:
        shape = TinyConfig(
            vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
        )
        save(*build(["what is this"], shape), inputs / "model")
        os._exit(0)
    os.waitpid(child, 0)


def label(path: Path) -> None:
    """Fill a sheet of labels."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": str(int(row["seed"]) % 2)} for row in rows)


def spoil(path: Path) -> None:
    """Make a file malformed."""
    data = bytearray(path.read_bytes())
    how = random.randrange(6)
    at = random.randrange(max(1, len(data)))
    if how == 0:
        data = data[:at]
    elif how == 1:
        for _ in range(20):
            data[random.randrange(len(data))] = random.randrange(256)
    elif how == 2:
        data[at:at] = random.choice(
            (b"\n", b'{"a": NaN}\n', b"[" * 50_000, b"\xff\xfe", b"\x1b]0;x\x07", b"9" * 5000)
        )
    elif how == 3:
        data = bytearray()
    elif how == 4:
        data = bytearray(data.decode("utf-8", "replace").encode("utf-16"))
    else:
        data = bytearray(random.randbytes(2_000))
    path.write_bytes(bytes(data))
