"""One round: a command is harmed, goes on until it is through, and is compared with an undisturbed run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .children import Child
from .commands import EPISODES, Command
from .inputs import spoil

_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}


@dataclass
class Round:
    """One command, harmed and brought to its end."""

    command: Command
    home: Path
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def out(self) -> Path:
        """Where it writes."""
        return self.home / "run"

    def start(
        self, inputs: Path | None = None, out: Path | None = None, name: str = "log",
        before: Callable[[], None] = lambda: None, again: bool | None = None,
    ) -> Child:  # fmt: skip
        """Start the command."""
        out = out or self.out
        again = (out / "run.json").exists() if again is None else again
        return Child(self.command.line(out, inputs or self.home / "in", again), self.home / name, before)

    def harm(self, how: str) -> None:
        """Start the command and disturb it once."""
        if how == "malformed input":
            bad = self.home / "bad"
            shutil.rmtree(bad, ignore_errors=True)
            shutil.copytree(self.home / "in", bad)
            files = [path for use in self.command.uses for path in sorted(bad.glob(use))]
            if files:
                spoil(random.choice(files))
                self.start(bad, self.home / "spoilt").wait(self.counts)
                shutil.rmtree(self.home / "spoilt", ignore_errors=True)
            return
        child = self.start(before=limited if how == "full disk" else lambda: None)
        if how == "two processes":
            other = self.start(name="log2", again=True)
            child.wait(self.counts)
            other.wait(self.counts)
            return
        if how in _SIGNALS:
            time.sleep(random.random() * self.seconds)
            os.kill(child.pid, _SIGNALS[how])
        child.wait(self.counts)
        if how == "torn file":
            # A row of metrics is on disk before its checkpoint: there the newest checkpoint is damaged.
            states = [*self.out.rglob("training_state.pt"), *self.out.rglob("sft_state.pt")]
            for path in (max(states, key=lambda p: p.stat().st_mtime),) if states else self.found():
                if states:
                    path.write_bytes(path.read_bytes()[: random.randrange(path.stat().st_size)])
                if not self.command.resume:
                    continue
                if path.suffix == ".jsonl" and path.stat().st_size > 40:
                    with path.open("rb+") as file:
                        file.truncate(path.stat().st_size - random.randrange(1, 40))

    def finish(self) -> None:
        """Let the command go on until it is through."""
        for _ in range(4):
            child = self.start()
            if child.wait(self.counts) == 0:
                return
        self.counts["stuck"] += 1
        print(f"--- stuck: {self.command.name}\n{child.log.read_text(errors='replace')[-2000:]}", flush=True)

    def found(self) -> list[Path]:
        """Return the files that are compared."""
        return [path for name in self.command.files for path in sorted(self.out.glob(name))]

    def content(self) -> Counter[str]:
        """Return all rows of its files, and how many lines are unreadable."""
        lines: Counter[str] = Counter()
        for path in self.found():
            name = path.relative_to(self.out).as_posix()
            if path.suffix != ".jsonl":
                lines[f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}"] += 1
                continue
            for line in path.read_bytes().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    self.counts["unreadable"] += 1
                    continue
                if row.get("stop") == "failed" and not self.command.exact:
                    continue  # played again, beside the row of the failure
                same = {key: value for key, value in row.items() if not key.startswith("seconds")}
                lines[f"{name} {json.dumps(same, sort_keys=True)}"] += 1
        return lines

    def identities(self) -> Counter[str]:
        """Return the identities of all rows."""
        found: Counter[str] = Counter()
        for name, key in self.command.files.items():
            for path in sorted(self.out.glob(name)):
                for line in path.read_bytes().splitlines() if key else ():
                    row = json.loads(line)
                    if row.get("stop") == "failed":
                        continue
                    for part in key.split("."):
                        row = row[part]
                    # A suite has attempts at the same seed in one file.
                    found[f"{path.relative_to(self.out)} {row}"] += 1
        return found


def limited() -> None:
    """Let this process write small files only, as on a disk that is nearly full."""
    most = int(math.exp(random.uniform(math.log(1_000), math.log(2_000_000))))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def compare(one: Round, expected: Counter[str], ids: Counter[str]) -> None:
    """Compare what a harmed run wrote with what an undisturbed one did."""
    counts, content, found = one.counts, one.content(), one.identities()
    counts["rounds"] += 1
    counts["rows"] += content.total()
    counts["doubled"] += sum((found - Counter(set(found))).values()) if one.command.name != "suite" else 0
    if one.command.exact:
        lost, wrong = expected - content, content - expected
    else:  # dialogues that failed are no rows yet; of the others each is there once
        lost, wrong = (
            Counter(),
            Counter(set(found)) - Counter({f"dialogues.jsonl {n}": 1 for n in range(10**4)}),
        )
        counts["failed"] += EPISODES - len(found)
    counts["lost"] += lost.total()
    counts["wrong"] += wrong.total()
    if lost or wrong:
        print(f"--- {one.command.name}: lost {lost.total()}, wrong {wrong.total()}", flush=True)
        for line in (*list(lost)[:2], *list(wrong)[:2]):
            print("   ", line[:400], flush=True)
