"""Break run folders at random and count what got lost: `python -m benchmarks.soak --minutes 20`.

Each round takes a command, does it harm (kill -9, SIGTERM, SIGINT, a limit on file sizes as on a full disk, a
second process in the same folder, a server that fails, a malformed file), lets it go on with --resume until
it is through, and compares the rows with those of a run that nobody disturbed. Counts per command and harm:
rounds, rows lost, doubled or wrong, hangs, tracebacks.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from steer_env.files import write_json

PATIENCE = 240.0  # seconds after which a command hangs
_RUN = [sys.executable, "-m", "steer_env.cli.main"]
EPISODES = 24


class Command:
    """One command, how it goes on, and where its rows are."""

    def __init__(self, name: str, start: list[str], files: dict[str, str], resume: bool = True) -> None:
        self.name, self.start, self.files, self.resume = name, start, files, resume

    def line(self, out: Path, again: bool) -> list[str]:
        """Return the command line."""
        return [*_RUN, *self.start, "--out", str(out), *(["--resume"] if again and self.resume else [])]


COMMANDS = (
    Command(
        "evaluate", ["evaluate", "constructive", "--episodes", str(EPISODES)], {"dialogues.jsonl": "seed"}
    ),
    Command(
        "data bootstrap", ["data", "bootstrap", "--count", "24", "--chunk", "8"],
        {"sft/steer_sft.jsonl": "question_id", "rejected.jsonl": "number"},
    ),
    Command(
        "data seeds", ["data", "seeds", "--count", "24", "--batch-size", "4"],
        {"benign.jsonl": "id", "obfuscated.jsonl": "id", "red_team.jsonl": "id", "rejected.jsonl": "row"},
    ),
    Command(
        "data build", ["data", "build", "--sft", "24", "--rl", "12", "--bench", "24", "--ood", "12"],
        {"sft/steer_sft.jsonl": "question_id", "rl/steer_rl.jsonl": ""}, resume=False,
    ),
)  # fmt: skip
HARMS = ("kill", "term", "interrupt", "full disk", "two processes", "torn file")


class _Faulty(BaseHTTPRequestHandler):
    """A server that answers well or badly, as it likes."""

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        how = random.random()
        said = "I can't help with that, but I can describe the picture."
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


def rows_of(command: Command, out: Path) -> tuple[Counter[str], int]:
    """Return the identities of all rows below a folder, and how many lines are unreadable."""
    found: Counter[str] = Counter()
    bad = 0
    for name, key in command.files.items():
        path = out / name
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            try:
                row = json.loads(line)
            except ValueError:
                bad += 1
                continue
            identity = row.get(key) if key else row["metadata"]["question_id"]
            found[f"{name} {identity}"] += 1
    return found, bad


def content_of(command: Command, out: Path) -> list[str]:
    """Return all lines, sorted: dialogues may end in another order."""
    lines: list[str] = []
    for name in command.files:
        path = out / name
        lines += [f"{name} {line}" for line in path.read_text().splitlines()] if path.is_file() else []
    return sorted(lines)


def limited() -> None:
    """Let the next program write files of at most a few kilobytes, as on a disk that is nearly full."""
    most = random.randrange(2_000, 60_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def launch(line: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a command."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env, **options
    )


def through(process: subprocess.Popen[str], counts: Counter[str]) -> int:
    """Wait for a command and count what must not be: a hang, a traceback."""
    try:
        _, said = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        counts["hangs"] += 1
        return -1
    counts["tracebacks"] += "Traceback" in said
    return process.returncode


def harm(command: Command, how: str, out: Path, seconds: float, counts: Counter[str]) -> None:
    """Start a command and disturb it once."""
    again = (out / "run.json").exists()
    options = {"preexec_fn": limited} if how == "full disk" else {}
    process = launch(command.line(out, again), **options)
    if how == "two processes":
        other = launch(command.line(out, True))
        codes = sorted((through(process, counts), through(other, counts)))
        counts["both went on"] += codes == [0, 0] and not again
        return
    if how in ("kill", "term", "interrupt"):
        time.sleep(random.random() * seconds)
        process.send_signal({"kill": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}[how])
    code = through(process, counts)
    counts["ended well"] += code == 0
    if how == "torn file":
        for name in command.files:
            for path in (out / name, out / f"{name}.part"):
                # Only where the command went on to read it; a finished build is not read again.
                if path.is_file() and path.stat().st_size > 40 and command.resume:
                    with path.open("rb+") as file:
                        file.truncate(path.stat().st_size - random.randrange(1, 40))


def finish(command: Command, out: Path, counts: Counter[str]) -> None:
    """Let a command go on until it is through."""
    for _ in range(4):
        if through(launch(command.line(out, (out / "run.json").exists())), counts) == 0:
            return
    counts["stuck"] += 1


def soak(minutes: float, seed: int = 0) -> dict[str, Any]:
    """Return the counts of as many rounds as fit into some minutes."""
    random.seed(seed)
    started = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="soak-"))
    totals: dict[str, Counter[str]] = {}
    truth: dict[str, tuple[list[str], float]] = {}
    try:
        while time.monotonic() - started < 60 * minutes:
            command, how = random.choice(COMMANDS), random.choice(HARMS)
            counts = totals.setdefault(f"{command.name}, {how}", Counter())
            if command.name not in truth:
                began = time.monotonic()
                through(launch(command.line(home / "truth" / command.name, False)), counts)
                truth[command.name] = (
                    content_of(command, home / "truth" / command.name),
                    time.monotonic() - began,
                )
            expected, seconds = truth[command.name]
            out = home / "run"
            shutil.rmtree(out, ignore_errors=True)
            for _ in range(random.randint(1, 2)):
                harm(command, how, out, seconds, counts)
            finish(command, out, counts)
            found, bad = rows_of(command, out)
            content = content_of(command, out)
            counts["rounds"] += 1
            counts["rows"] += found.total()
            counts["doubled"] += sum(n - 1 for n in found.values())
            counts["unreadable"] += bad
            counts["lost"] += len(Counter(expected) - Counter(content))
            counts["wrong"] += len(Counter(content) - Counter(expected))
        totals["server, faulty"] = _server(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return {"minutes": round((time.monotonic() - started) / 60, 1), "seed": seed, "counts": totals}


def _server(home: Path) -> Counter[str]:
    """Evaluate a model behind a server that fails at random, and go on until every dialogue has its row."""
    counts: Counter[str] = Counter()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Faulty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = f"openai:m@http://127.0.0.1:{server.server_port}/v1?image_check=no&retries=1&backoff=0.01"
    command = Command(
        "server",
        ["evaluate", name, "--episodes", str(EPISODES), "--unscored-limit", "1"],
        {"dialogues.jsonl": "seed"},
    )
    out = home / "server"
    for again in (False, True):
        through(launch(command.line(out, again)), counts)
    path = out / "dialogues.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    good = Counter(row["seed"] for row in rows if row["stop"] != "failed")
    counts["rounds"], counts["rows"] = 1, len(rows)
    counts["lost"] = EPISODES - len({row["seed"] for row in rows})
    counts["doubled"] = sum(n - 1 for n in good.values())
    server.shutdown()
    return counts


def main() -> None:
    """Soak and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the counts there, JSON")
    args = parser.parse_args()
    result = soak(args.minutes, args.seed)
    keys = ("rounds", "rows", "lost", "doubled", "wrong", "unreadable", "hangs", "tracebacks", "stuck")
    print("  ".join([f"{'command, harm':32}", *(f"{key:>10}" for key in keys)]))
    for name, counts in sorted(result["counts"].items()):
        print("  ".join([f"{name:32}", *(f"{counts[key]:>10}" for key in keys)]))
    total = Counter({key: sum(counts[key] for counts in result["counts"].values()) for key in keys})
    print("  ".join([f"{'all':32}", *(f"{total[key]:>10}" for key in keys)]))
    if args.out is not None:
        write_json(args.out, {**result, "total": dict(total)})


if __name__ == "__main__":
    main()
