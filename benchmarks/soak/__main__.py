"""Break run folders at random and count what got lost: `python -m benchmarks.soak --minutes 20 --out FILE`.

Each round takes a command, does it harm (kill -9, SIGTERM, SIGINT, a limit on file sizes as on a full disk, a
second process in the same folder, a torn last line or checkpoint, a malformed input, a server that fails),
lets it go on until it is through, and compares what it wrote with what an undisturbed run wrote. Every
command has its turn before one has its second. Counts per command and harm: rounds, rows, rows lost, doubled
or wrong, hangs, tracebacks.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steer_env.cli.main import COMMANDS
from steer_env.files import write_json

from .commands import Command, commands
from .inputs import prepare
from .rounds import Round, compare
from .server import serve

KEYS = ("rounds", "rows", "lost", "doubled", "wrong", "unreadable", "hangs", "tracebacks", "stuck")


def turns(every: list[Command], order: random.Random) -> Iterator[tuple[Command, str]]:
    """Yield a command and a harm without end: each command once in a pass, its harms in turn."""
    waiting: dict[str, list[str]] = {}
    while True:
        for command in order.sample(every, len(every)):
            harms = waiting.setdefault(command.name, [])
            if not harms:
                possible = [how for how in command.harms if how != "malformed input" or command.uses]
                harms += order.sample(possible, len(possible))
            yield command, harms.pop()


def soak(minutes: float, seed: int = 0, only: str = "", log: Path | None = None) -> dict[str, Any]:
    """Return the counts of as many rounds as fit into some minutes; each is appended to `log` at its end."""
    # What commands import when they run.
    import steer_env.algorithms.selfplay
    import steer_env.algorithms.sft
    import steer_env.algorithms.trainer
    import steer_env.report.outputs  # noqa: F401

    for name in COMMANDS:
        importlib.import_module(f"steer_env.cli.{name}")
    random.seed(seed)
    started = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="soak-"))
    totals: dict[str, Counter[str]] = {}
    truth: dict[str, tuple[Counter[str], Counter[str], float]] = {}
    url, server = serve()
    try:
        prepare(home, Counter())
        every = [command for command in commands(url) if only in command.name]
        for command, how in turns(every, random.Random(seed)):
            if time.monotonic() - started > 60 * minutes:
                break
            one = Round(command, home)
            shutil.rmtree(one.out, ignore_errors=True)
            if command.name not in truth:
                began = time.monotonic()
                one.finish()
                truth[command.name] = one.content(), one.identities(), time.monotonic() - began
                shutil.rmtree(one.out, ignore_errors=True)
            expected, ids, one.seconds = truth[command.name]
            for _ in range(random.randint(1, 2)):
                one.harm(how)
            one.finish()
            compare(one, expected, ids)
            totals.setdefault(f"{command.name}: {how}", Counter()).update(one.counts)
            row = {"command": command.name, "harm": how, "seconds": round(time.monotonic() - started, 1)}
            row |= {key: one.counts[key] for key in KEYS}
            print(json.dumps(row), flush=True)
            if log is not None:
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        shutil.rmtree(home, ignore_errors=True)
    total = sum(totals.values(), Counter())
    return {
        "minutes": round((time.monotonic() - started) / 60, 1),
        "seed": seed,
        "total": {key: total[key] for key in KEYS} | {"commands": len(truth)},
        "counts": {name: {key: counts[key] for key in KEYS} for name, counts in sorted(totals.items())},
    }


def main() -> None:
    """Soak and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="commands whose name holds this")
    parser.add_argument("--out", type=Path, help="where the counts go (JSON); each round goes beside it")
    args = parser.parse_args()
    log = None if args.out is None else args.out.with_suffix(".jsonl")
    if log is not None:
        log.unlink(missing_ok=True)
    result = soak(args.minutes, args.seed, args.only, log)
    print("  ".join([f"{'command: harm':40}", *(f"{key:>10}" for key in KEYS)]))
    for name, counts in (result["counts"] | {"all": result["total"]}).items():
        print("  ".join([f"{name:40}", *(f"{counts[key]:>10}" for key in KEYS)]))
    if args.out is not None:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
