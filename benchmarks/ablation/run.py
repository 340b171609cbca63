"""Run, resume and report the ablations with one command.

    python -m benchmarks.ablation                      # the sweep of sweep.py on two cores; again: goes on
    python -m benchmarks.ablation --only full static
    python -m benchmarks.ablation --quick              # two steps of everything: shows that it runs
    python -m benchmarks.ablation --report             # only the report, of the results that are there

A finished cell is a row in `results/cells.jsonl.gz`, which is checked in: it is not run again, on any
machine, and the models it came from are trained again only if something that starts from them is missing.
A killed sweep goes on where it was (base and GRPO at their last checkpoint, an evaluation at its last
dialogue). A failed cell is printed and the others go on. Other settings, another world or judge make other
cells; changes of code are not noticed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# One thread each: two workers with two threads slow each other down. Before torch is imported.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

if TYPE_CHECKING:
    from benchmarks.ablation.cells import Job
    from benchmarks.ablation.sweep import Cell, Settings

RESULTS = Path(__file__).resolve().parent / "results"
SUMMARY = "summary.json"
#: Seconds between two lines about what is under way.
SILENCE = 120.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, write the report; returns 1 if a cell failed, 2 if the run folder is in use."""
    args = _parser().parse_args(argv)
    results = args.results or (args.out / "results" if args.quick else RESULTS)
    # All of it now: an edit of these files while the sweep runs must not change what it does at its end.
    from benchmarks.ablation import report
    from benchmarks.ablation.sweep import Settings, cells
    from steer_env.cli.demo_jobs import KEEP_MEMORY
    from steer_env.runs import RunBusy, RunFolder

    if args.report:
        print(report.write_report(results))
        return 0
    for name, value in KEEP_MEMORY.items():
        os.environ.setdefault(name, value)
    settings = Settings.quick() if args.quick else Settings()
    plan = cells(settings, args.only or ())
    # Folders and number of workers change no result, and say something about the machine.
    told = [*(["--only", *args.only] if args.only else []), *(["--quick"] if args.quick else [])]
    words = " ".join(["python -m benchmarks.ablation", *told])
    try:
        with RunFolder(args.out).lock():
            summarise(settings, plan, results, words)
            failed = sweep(settings, plan, args.out, results, args.workers)
    except RunBusy as error:
        print(f"python -m benchmarks.ablation: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where it was", flush=True)
        return 130
    print(report.write_report(results))
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="models and dialogues")
    parser.add_argument(
        "--results", type=Path, help="rows and report (default: those checked in; with --quick in --out)"
    )
    parser.add_argument("--only", nargs="+", metavar="ARM", help="these arms and their ancestors")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each (default: 2)")
    parser.add_argument("--quick", action="store_true", help="two steps of everything, trains nothing")
    parser.add_argument("--report", action="store_true", help="run nothing, report what the results hold")
    return parser


def summarise(settings: Settings, plan: Sequence[Cell], results: Path, command: str) -> None:
    """Write what the report is about: the command, the settings, and the cells with their keys."""
    from benchmarks.ablation.sweep import evaluation_key
    from steer_env.files import write_json

    results.mkdir(parents=True, exist_ok=True)
    keys = {cell.name: evaluation_key(settings, cell) for cell in plan}
    body = {"command": command, "settings": json.loads(json.dumps(asdict(settings))), "evaluations": keys}
    write_json(results / SUMMARY, body)


def todo(settings: Settings, plan: Sequence[Cell], finished: Collection[str], out: Path) -> dict[str, Job]:
    """Return what is to be done, by name, in the order of the plan, bases first.

    Args:
        settings: Of the sweep.
        plan: Cells, each behind its parent.
        finished: Evaluation keys of the rows that are there.
        out: Run folder; what is trained there is not trained again.
    """
    from benchmarks.ablation.cells import Job, is_trained
    from benchmarks.ablation.sweep import evaluation_key

    wanted = {cell.name for cell in plan if evaluation_key(settings, cell) not in finished}
    needed = set(wanted)
    for cell in reversed(plan):  # children stand behind their parents
        if cell.name in needed and not is_trained(out, cell) and cell.parent is not None:
            needed |= set() if is_trained(out, cell.parent) else {cell.parent.name}
    # Bases first: they take longest, and everything else of theirs waits for them.
    order = sorted(plan, key=lambda cell: cell.parent is not None)
    return {cell.name: Job(cell, cell.name in wanted) for cell in order if cell.name in needed}


def sweep(settings: Settings, plan: Sequence[Cell], out: Path, results: Path, workers: int = 2) -> list[str]:
    """Run every cell that is not finished, and add its row as it comes; returns those that could not be.

    Args:
        settings: Of the sweep.
        plan: Cells, each behind its parent.
        out: Run folder.
        results: Folder of the rows.
        workers: Processes.
    """
    from benchmarks.ablation.cells import is_trained, run_job
    from benchmarks.ablation.store import add, read
    from steer_env.cli.pool import Pool

    jobs = todo(settings, plan, {row["evaluation"] for row in read(results)}, out)
    watch = Watch(settings, jobs, workers, len(plan))
    print(watch.head(), flush=True)
    needs = {name: job.cell.parent and job.cell.parent.name for name, job in jobs.items()}
    ready = [cell.name for cell in plan if is_trained(out, cell)]
    failed = []
    for event in Pool(partial(run_job, settings, out), workers).run(jobs, needs, ready):
        if event.kind == "done" and event.body is not None:
            add(results, event.body)
        if event.kind in ("failed", "skipped"):
            failed.append(event.job)
        if line := watch.see(event):
            print(line, flush=True)
    return failed


class Watch:
    """Progress and remaining time, from rough estimates corrected by what has been timed."""

    def __init__(self, settings: Settings, jobs: dict[str, Job], workers: int, total: int) -> None:
        from benchmarks.ablation.sweep import estimate

        self.work = {name: estimate(job.cell, settings, evaluate=job.evaluate) for name, job in jobs.items()}
        self.workers, self.total = workers, total
        self.done = 0.0
        self.over = 0
        self.state: dict[str, str] = {}
        self.begun = self.spoken = time.monotonic()

    def head(self) -> str:
        """Return what is said at the start."""
        hours, count = sum(self.work.values()) / 3600, len(self.work)
        return (
            f"{count} of {self.total} models to train or evaluate; roughly {hours:.1f} CPU hours, "
            f"{hours / self.workers:.1f} by the clock on {self.workers} free cores"
        )

    def see(self, event: Any) -> str | None:
        """Take an event in and return what is to be printed, if anything."""
        if event.kind == "progress":
            what, done, total = event.body
            self.state[event.job] = f"{event.job} {what} {done}/{total}"
        elif event.kind in ("done", "failed", "skipped"):
            self.state.pop(event.job, None)
            self.over += 1
            self.done += self.work[event.job]
            cpu = (event.body or {}).get("cpu", {}) if event.kind == "done" else {}
            what = ", ".join(f"{name} {s:.0f} CPU s" for name, s in cpu.items()) or str(event.body or "")
            return self._said(f"[{self.over}/{len(self.work)}] {event.job}: {event.kind} {what}".rstrip())
        if self.state and time.monotonic() - self.spoken > SILENCE:
            return self._said(f"    {', '.join(self.state.values())}")
        return None

    def _said(self, text: str) -> str:
        self.spoken = time.monotonic()
        rest, elapsed = sum(self.work.values()) - self.done, self.spoken - self.begun
        known = self.done / (self.done + 1000)  # early on the estimate counts, later what was timed
        pace = known * elapsed * self.workers / max(self.done, 1.0) + 1 - known
        return f"{text}; about {rest * pace / self.workers / 60:.0f} min left"


if __name__ == "__main__":
    # Workers import this module by its name in the package; as __main__ it would be another one.
    from benchmarks.ablation.run import main as packaged

    sys.exit(packaged())
