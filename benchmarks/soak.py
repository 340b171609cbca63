"""Break run folders at random and count what got lost: `python -m benchmarks.soak --minutes 20`.

Each round takes a command, does it harm (kill -9, SIGTERM, SIGINT, a limit on file sizes as on a full disk, a
second process in the same folder, a torn last line or checkpoint, a malformed input, a server that fails),
lets it go on until it is through, and compares what it wrote with what an undisturbed run wrote. Counts per
command and harm: rounds, rows lost, doubled or wrong, hangs, tracebacks. Commands run in
forked children of one process that has imported everything, so that harm meets work and not imports.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import math
import os
import random
import resource
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from steer_env.cli.main import COMMANDS
from steer_env.cli.main import main as steer
from steer_env.files import write_json

PATIENCE = 240.0  # seconds after which a command hangs
EPISODES = 24
KEYS = ("rounds", "rows", "lost", "doubled", "wrong", "unreadable", "hangs", "tracebacks", "stuck")
HARMS = ("kill", "term", "interrupt", "full disk", "two processes", "torn file", "malformed input")


@dataclass(frozen=True)
class Command:
    """A command and where its rows are.

    Attributes:
        name: What the table calls it.
        words: Its words, without `--out`; `{in}` is the folder of inputs.
        files: Files that are compared -> key of a row's identity, "" for files of another kind.
        uses: Inputs that may be malformed, below `{in}`.
        resume: Whether it goes on with `--resume`; else by being called again.
        out: Option that names the result.
        exact: Whether every undisturbed run writes the same.
        harms: What is done to it.
    """

    name: str
    words: Sequence[str]
    files: dict[str, str]
    uses: Sequence[str] = ()
    resume: bool = True
    out: str = "--out"
    exact: bool = True
    harms: Sequence[str] = field(default=HARMS)

    def line(self, out: Path, inputs: Path, again: bool) -> list[str]:
        """Return the command's words."""
        words = [word.replace("{in}", str(inputs)) for word in self.words]
        target = out if self.out == "--out" else out / "result"
        words += [self.out.partition(" ")[0], str(target / "card.json" if "card" in self.out else target)]
        return [*words, *(["--resume"] if again and self.resume else [])]


_RUN = {"dialogues.jsonl": "seed"}
_EVAL = ("eval/dialogues.jsonl", "eval/run.json")
_SHORT = ("--lr", "1e-3", "--steps", "4", "--checkpoint-every", "1")
_TRAIN = (
    *("--seeds-per-step", "1", "--group-size", "2", "--max-new-tokens", "6", "--unscored-limit", "1"),
    *_SHORT,
)
_WRONG_SERVER = ("kill", "interrupt", "two processes", "torn file")


def commands(url: str) -> list[Command]:
    """Return all commands; `url` is that of the faulty server."""
    server = f"openai:m@{url}/v1?image_check=no&retries=1&backoff=0.01"
    some = ("--episodes", str(EPISODES))
    return [
        Command("evaluate", ["evaluate", "constructive", *some], _RUN),
        Command(
            "evaluate, own file", ["evaluate", "constructive", "--scenarios", "{in}/seeds/benign.jsonl"],
            _RUN, ["seeds/benign.jsonl", "seeds/images/*.png"],
        ),
        Command(
            "evaluate, model", ["evaluate", "{in}/model", *some, "--temperature", "1", "--max-new-tokens=6"],
            _RUN, ["model/*.json", "model/*.safetensors"],
        ),
        Command(
            "evaluate, controls", ["evaluate", "constructive", "--controls", "--episodes", "8"],
            _RUN | {f"controls/{name}/dialogues.jsonl": "seed" for name in ("blind", "swapped", "forgetful")},
        ),
        Command(
            "suite", ["evaluate", "constructive", "--suite", "bench", "--episodes", "8"],
            {"*/dialogues.jsonl": "seed"},
        ),
        Command(
            "rescore", ["rescore", "{in}/eval", "--judge", "rule", "--batch", "2"], _RUN, _EVAL,
        ),
        Command(
            "compare", ["compare", "{in}/eval", "{in}/eval2", "--replicates", "200"],
            {"result/card.json": ""}, _EVAL, resume=False, out="--out card",
        ),
        Command(
            "report", ["report", "{in}/eval", "--replicates", "200"],
            {"report.md": "", "results.csv": "", "*.html": ""}, _EVAL, resume=False,
        ),
        Command(
            "calibrate", ["calibrate", "{in}/eval", "--labels", "{in}/labels.csv"], {"result/card.json": ""},
            ["labels.csv", *_EVAL], resume=False, out="--out card",
        ),
        Command(
            "data bootstrap", ["data", "bootstrap", "--episodes", "24", "--chunk", "8"],
            {"sft/steer_sft.jsonl": "question_id", "rejected.jsonl": "number"},
        ),
        Command(
            "data seeds", ["data", "seeds", "--count", "24", "--batch-size", "4"],
            {"benign.jsonl": "id", "obfuscated.jsonl": "id", "red_team.jsonl": "id", "rejected.jsonl": "row"},
        ),
        Command(
            "data build", ["data", "build", "--sft", "24", "--rl", "12", "--bench", "25", "--ood", "12"],
            {"sft/steer_sft.jsonl": "question_id", "rl/steer_rl.jsonl": "metadata.question_id",
             "bench/*.jsonl": "question_id", "data/*.parquet": ""}, resume=False,
        ),
        Command(
            "sft", ["sft", "--student", "{in}/model", "--data", "{in}/boot", "--batch-size", "2", *_SHORT],
            {"metrics.jsonl": "step", "model/*.safetensors": ""}, ["boot/sft/steer_sft.jsonl"],
        ),
        Command(
            "train", ["train", "--student", "{in}/model", *_TRAIN],
            {"metrics.jsonl": "step", "model/*.safetensors": ""}, ["model/*.json", "model/*.safetensors"],
        ),
        Command(
            "train, learning", ["train", "--student", "{in}/model", "--attacker", "learning", *_TRAIN],
            {"metrics.jsonl": "step", "model/*.safetensors": ""},
        ),
        Command(
            "demo", ["demo", "--quick", "--seeds", "1", "--processes", "1", "--episodes", "8"],
            {"eval/*/dialogues.jsonl": "seed", "*/*/metrics.jsonl": "step", "*/model/*.safetensors": ""},
            resume=False,
        ),
        Command(
            "evaluate, faulty server", ["evaluate", server, *some, "--unscored-limit", "1"], _RUN,
            exact=False, harms=_WRONG_SERVER,
        ),
        Command(
            "evaluate, faulty judge",
            ["evaluate", "constructive", "--judge", f"ensemble(rule,cached({server},{{in}}/v.db))", *some,
             "--unscored-limit", "1"], _RUN, exact=False, harms=_WRONG_SERVER,
        ),
        Command(
            "rescore, faulty judge",
            ["rescore", "{in}/eval", "--judge", f"cascade({server},rule)"], _RUN, exact=False,
            harms=_WRONG_SERVER,
        ),
    ]  # fmt: skip


class _Faulty(BaseHTTPRequestHandler):
    """A server that answers well or badly, as it likes."""

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        how = random.random()
        said = random.choice(
            ("I can't help with that, but I can describe the picture.",
             '{"rationale": "r", "safety": 9, "usefulness": 9, "faithfulness": 9, "leaked": []}')
        )  # fmt: skip
        body = json.dumps(
            {"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]}
        )
        status = 200
        if how < 0.1:
            status, body = random.choice((500, 503, 429, 400)), "{}"
        elif how < 0.2:
            body = random.choice(("[" * 100_000, "<html>", "", '{"choices": []}', "9" * 5000))
        elif how < 0.25:
            self.close_connection = True
            return
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def serve() -> tuple[str, int]:
    """Start the faulty server in a process of its own; returns its address and the process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Faulty)
    child = os.fork()
    if not child:
        server.serve_forever()
    server.socket.close()
    return f"http://127.0.0.1:{server.server_port}", child


class Child:
    """A command under way in a forked process, its output in a file."""

    def __init__(self, words: list[str], log: Path, before: Callable[[], None] = lambda: None) -> None:
        self.log = log
        self.pid = os.fork()
        if self.pid:
            return
        code = 70
        try:
            os.chdir(log.parent)
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(file, stream)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            before()
            code = steer(words)
        except SystemExit as error:  # of argparse
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def wait(self, counts: Counter[str]) -> int:
        """Wait, count what must not be (a hang, a traceback), and return the exit code, -1 if killed."""
        end = time.monotonic() + PATIENCE
        done, status = os.waitpid(self.pid, os.WNOHANG)
        while not done and time.monotonic() < end:
            time.sleep(0.02)
            done, status = os.waitpid(self.pid, os.WNOHANG)
        if not done:
            counts["hangs"] += 1
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            return -1
        said = self.log.read_text(errors="replace") if self.log.exists() else ""
        if "Traceback" in said:
            counts["tracebacks"] += 1
            print(f"--- traceback in {self.log}\n{said[-3000:]}", flush=True)
        return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else -1


@dataclass
class Round:
    """One command, harmed and brought to its end."""

    command: Command
    home: Path
    seconds: float
    counts: Counter[str]

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


_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}


def limited() -> None:
    """Let this process write small files only, as on a disk that is nearly full."""
    most = int(math.exp(random.uniform(math.log(1_000), math.log(2_000_000))))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


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
    import csv

    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": str(int(row["seed"]) % 2)} for row in rows)


def soak(minutes: float, seed: int = 0, only: str = "") -> dict[str, Any]:
    """Return the counts of as many rounds as fit into some minutes."""
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
    threading.current_thread().name = "soak"
    try:
        prepare(home, Counter())
        every = [c for c in commands(url) if only in c.name]
        pairs = [(c, how) for c in every for how in c.harms if how != "malformed input" or c.uses]
        while time.monotonic() - started < 60 * minutes:
            random.shuffle(pairs)
            for command, how in pairs:
                if time.monotonic() - started > 60 * minutes:
                    break
                one = Round(command, home, 0.0, totals.setdefault(f"{command.name}: {how}", Counter()))
                shutil.rmtree(one.out, ignore_errors=True)
                if command.name not in truth:
                    began = time.monotonic()
                    one.finish()
                    seconds = time.monotonic() - began
                    truth[command.name] = one.content(), one.identities(), seconds
                    print(f"{command.name}: {seconds:.1f} s, {one.identities().total()} rows", flush=True)
                    shutil.rmtree(one.out, ignore_errors=True)
                expected, ids, one.seconds = truth[command.name]
                for _ in range(random.randint(1, 2)):
                    one.harm(how)
                one.finish()
                judge(one, expected, ids)
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        shutil.rmtree(home, ignore_errors=True)
    return {"minutes": round((time.monotonic() - started) / 60, 1), "seed": seed, "counts": totals}


def judge(one: Round, expected: Counter[str], ids: Counter[str]) -> None:
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


def main() -> None:
    """Soak and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="commands whose name holds this")
    parser.add_argument("--out", type=Path, help="write the counts there, JSON")
    args = parser.parse_args()
    result = soak(args.minutes, args.seed, args.only)
    print("  ".join([f"{'command: harm':40}", *(f"{key:>10}" for key in KEYS)]))
    for name, counts in sorted(result["counts"].items()):
        print("  ".join([f"{name:40}", *(f"{counts[key]:>10}" for key in KEYS)]))
    total = Counter({key: sum(counts[key] for counts in result["counts"].values()) for key in KEYS})
    print("  ".join([f"{'all':40}", *(f"{total[key]:>10}" for key in KEYS)]))
    if args.out is not None:
        write_json(args.out, {**result, "total": dict(total)})


if __name__ == "__main__":
    main()
