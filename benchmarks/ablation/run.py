"""Run, resume and report the ablations with one command.

    python -m benchmarks.ablation                      # the sweep of sweep.py on two cores; again: goes on
    python -m benchmarks.ablation --only full static --seeds 0 1
    python -m benchmarks.ablation --quick              # two steps of everything: shows that it runs
    python -m benchmarks.ablation --report             # only the report, from the checked-in results

A cell is a model at a training seed: trained, evaluated, then its outcomes are added to the results. A
killed sweep goes on where it was (GRPO at its last checkpoint), a failed cell is recorded and the others go
on, and a cell whose settings were changed in sweep.py is run anew beside the old one. Changes of code are
not noticed: choose another --out after those.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
# One thread each: two workers with two threads slow each other down. Before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

RESULTS = Path(__file__).resolve().parent / "results"
EVENTS = "events.jsonl"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, write the results and the report; returns 1 if a cell failed."""
    args = _parser().parse_args(argv)
    results = args.results or args.out / "results"
    if args.report:  # of the sweep in the run folder, or else of the one that is checked in
        return _report(results if results.exists() else RESULTS, results)
    # All of it now: an edit of these files while the sweep runs must not change what it does at its end.
    from benchmarks.ablation import outcomes, report  # noqa: F401
    from benchmarks.ablation.sweep import Settings, cells

    settings = Settings.quick() if args.quick else Settings()
    plan = cells(settings, args.only or (), args.seeds)
    try:
        failed = sweep(settings, plan, args.out, args.workers)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where it was", flush=True)
        return 130
    publish(settings, plan, args.out, results, [*(argv if argv is not None else sys.argv[1:])])
    _report(results, results)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="run folder")
    parser.add_argument(
        "--results", type=Path, help="folder of results and report (default: `results` in the run folder)"
    )
    parser.add_argument("--only", nargs="+", metavar="ARM", help="these arms and their ancestors")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="these training seeds")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each (default: 2)")
    parser.add_argument("--quick", action="store_true", help="two steps of everything, trains nothing")
    parser.add_argument("--report", action="store_true", help="run nothing, report what the results hold")
    return parser


def _report(results: Path, to: Path) -> int:
    from benchmarks.ablation.report import write_report

    print(write_report(results, to))
    return 0


# -- running ------------------------------------------------------------------------------------------------


def sweep(settings: Any, plan: Sequence[Any], out: Path, workers: int = 2) -> list[str]:
    """Run every cell that is not finished; returns the names of those that could not be.

    Args:
        settings: Of the sweep.
        plan: Cells, each behind its parent.
        out: Run folder.
        workers: Processes.
    """
    from benchmarks.ablation.cells import is_evaluated, is_trained, run_cell
    from steer_env.cli.pool import Pool

    out.mkdir(parents=True, exist_ok=True)
    left = {cell.name: cell for cell in plan if not is_evaluated(out, cell, settings)}
    trained = [cell.name for cell in plan if is_trained(out, cell)]
    watch = Watch(settings, left, workers, len(plan))
    print(watch.head(), flush=True)
    failed = []
    pool = Pool(partial(run_cell, settings, out), workers)
    with (out / EVENTS).open("a", encoding="utf-8") as log:
        for event in pool.run(left, {name: cell.parent for name, cell in left.items()}, trained):
            if event.kind in ("done", "failed", "skipped"):
                row = {
                    "time": round(time.time(), 1),
                    "cell": event.job,
                    "state": event.kind,
                    "body": event.body,
                }
                log.write(json.dumps(row) + "\n")
                log.flush()
            if event.kind in ("failed", "skipped"):
                failed.append(event.job)
            if line := watch.see(event):
                print(line, flush=True)
    return failed


class Watch:
    """Progress and remaining time, from rough estimates corrected by what has been timed.

    Args:
        settings: Of the sweep.
        left: Cells to run.
        workers: Processes.
        total: Cells of the sweep, finished ones included.
    """

    def __init__(self, settings: Any, left: Mapping[str, Any], workers: int, total: int) -> None:
        from benchmarks.ablation.sweep import estimate

        self.work = {name: estimate(cell, settings) for name, cell in left.items()}
        self.training = {n: estimate(c, settings) / self.work[n] for n, c in left.items()}
        self.workers, self.total = workers, total
        self.share: dict[str, float] = {}
        self.over: set[str] = set()
        self.state: dict[str, str] = {}
        self.begun = self.spoken = time.monotonic()

    def head(self) -> str:
        """Return what is said at the start."""
        done = self.total - len(self.work)
        minutes = sum(self.work.values()) / self.workers / 60
        ready = f", {done} of {self.total} finished before" if done else ""
        what = f"{len(self.work)} models to train and evaluate{ready}"
        return f"{what}; roughly {minutes:.0f} min on {self.workers} cores"

    def see(self, event: Any) -> str | None:
        """Take an event in and return what is to be printed, if anything."""
        if event.kind == "progress":
            what, done, total = event.body
            training = self.training[event.job]
            part = (0.0, training) if what == "train" else (training, 1.0 - training)
            self.share[event.job] = part[0] + part[1] * done / max(total, 1)
            self.state[event.job] = f"{event.job} {what} {done}/{total}"
        elif event.kind in ("done", "failed", "skipped"):
            self.over.add(event.job)
            self.share[event.job] = 1.0
            self.state.pop(event.job, None)
            return self._line(event)
        if self.state and time.monotonic() - self.spoken > 60:
            return f"    {', '.join(self.state.values())}; {self._left()}" if self._speak() else None
        return None

    def _speak(self) -> bool:
        self.spoken = time.monotonic()
        return True

    def _line(self, event: Any) -> str:
        self._speak()
        count = self.total - len(self.work) + len(self.over)
        if event.kind == "done":
            seconds = ", ".join(f"{name} {s:.0f} s" for name, s in event.body.items() if s is not None)
            what = f"done ({seconds})"
        else:
            what = f"{event.kind}: {str(event.body).strip().splitlines()[-1]}"
        return f"[{count}/{self.total}] {event.job}: {what}; {self._left()}"

    def _left(self) -> str:
        done = sum(work * self.share.get(name, 0.0) for name, work in self.work.items())
        rest = sum(self.work.values()) - done
        elapsed = time.monotonic() - self.begun
        # Early on the estimate counts, later what was timed.
        known = done / (done + 100)
        pace = known * (elapsed * self.workers / done if done else 1.0) + (1 - known)
        return f"about {rest * pace / self.workers / 60:.0f} min left"


# -- results ------------------------------------------------------------------------------------------------


def publish(settings: Any, plan: Sequence[Any], out: Path, results: Path, argv: Sequence[str]) -> None:
    """Write the outcomes, curves and summary of all finished cells into the results folder."""
    from benchmarks.ablation import outcomes
    from benchmarks.ablation.cells import OUTCOMES, evaluation_folder, folder_of, is_evaluated, is_trained

    lines: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    timed, missing = [], []
    for cell in plan:
        folder = folder_of(out, cell.name)
        if not is_evaluated(out, cell, settings):
            missing.append(cell.name)
            continue
        evaluation = evaluation_folder(out, cell, settings)
        lines += outcomes.read_csv(evaluation / OUTCOMES)
        if cell.stage == "grpo" and is_trained(out, cell):
            curves += outcomes.curve_lines(folder / "metrics.jsonl", cell.model, cell.seed)
        timed.append(_seconds(cell, folder, evaluation))
    # Lines of one dialogue together: they compress to a fraction.
    lines.sort(key=lambda line: (line["part"], int(line["dialogue"]), line["model"], int(line["seed"])))
    results.mkdir(parents=True, exist_ok=True)
    outcomes.write_csv(results / "outcomes.csv.gz", outcomes.COLUMNS, lines)
    outcomes.write_csv(results / "curves.csv.gz", outcomes.CURVES, curves)
    from steer_env.files import write_json

    write_json(results / "summary.json", _summary(settings, plan, timed, missing, argv))


def _seconds(cell: Any, folder: Path, evaluation: Path) -> dict[str, Any]:
    from benchmarks.ablation.cells import SECONDS

    took = {}
    for name, where in (("train", folder), ("evaluate", evaluation)):
        body = json.loads((where / SECONDS).read_text(encoding="utf-8"))
        took[name] = body["seconds"]
        took[f"{name}_cpu"] = body.get("cpu")
        if body["resumed"]:
            took[f"{name}_resumed"] = True  # the seconds are those since then
    return {"model": cell.model, "seed": cell.seed, **took}


def _summary(
    settings: Any, plan: Sequence[Any], timed: list[dict[str, Any]], missing: list[str], argv: Sequence[str]
) -> dict[str, Any]:
    from dataclasses import asdict

    from benchmarks.ablation import sweep as declared

    planned = {cell.model for cell in plan}
    arms = [
        {**asdict(arm), "model": declared.model_of(arm)}
        for arm in declared.ARMS
        if declared.model_of(arm) in planned
    ]
    return {
        "command": " ".join(["python -m benchmarks.ablation", *argv]),
        "machine": machine(),
        "versions": versions(),
        "settings": json.loads(json.dumps(asdict(settings))),
        "arms": json.loads(json.dumps(arms)),
        "shared": ["base"] if settings.shared_base else [],
        "comparisons": [list(pair) for pair in declared.COMPARISONS],
        "secondary": [list(pair) for pair in declared.SECONDARY],
        "primary": [list(test) for test in declared.PRIMARY],
        "alphas": [list(pair) for pair in declared.ALPHAS],
        "missing": missing,
        "core_minutes": round(sum(row["train"] + row["evaluate"] for row in timed) / 60, 1),
        "cells": timed,
    }


def machine() -> dict[str, Any]:
    """Return what the sweep ran on."""
    import platform

    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in names if line.startswith("model name")), "")
    return {"system": platform.system(), "processor": model or platform.machine(), "cores": os.cpu_count()}


def versions() -> dict[str, str]:
    """Return the versions that decide the numbers."""
    import platform
    from importlib.metadata import version

    names = ("steer-env", "torch", "transformers", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


if __name__ == "__main__":
    # Workers import this module by its name in the package; as __main__ it would be another one.
    from benchmarks.ablation.run import main as packaged

    sys.exit(packaged())
