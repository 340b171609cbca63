"""`steer-env compare`: test whether students differ on the same dialogues."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from steer_env.cli.legacy import command, positive
from steer_env.cli.report import add_leakage_option

_EXAMPLE = """  steer-env compare runs/base runs/sft runs/grpo
  steer-env compare runs/base runs/grpo --by mechanism --by strategy --out differences.json
  steer-env compare sft=runs/sft-0,runs/sft-1,runs/sft-2 grpo=runs/grpo-0,runs/grpo-1,runs/grpo-2"""

_DESCRIPTION = """Compare run folders of `evaluate`, the first with each other one, paired by seed: difference
with its interval, exact McNemar test where it holds, p-values adjusted by Holm, and how many dialogues the
difference needs. Runs of other dialogues, judges or versions of world and judge are refused. A method
trained with several seeds is given as its run folders with commas between them, optionally named. Of suites
each part is compared with its like."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "compare", "test whether students differ", _EXAMPLE, run, _DESCRIPTION)
    parser.add_argument(
        "methods", nargs="+", metavar="[NAME=]RUN[,RUN...]", help="at least two; the first is the reference"
    )
    parser.add_argument(
        "--by", action="append", default=[], metavar="LABEL",
        help="also compare within each level of kind, mechanism, strategy, technique, category, length, "
        "distribution or leakage",
    )  # fmt: skip
    parser.add_argument(
        "--measure", action="append", metavar="NAME",
        help="twin (pass, of whole contrast groups), joint, safety, helpfulness, harm or over-refusal "
        "(default: all; repeat for several)",
    )  # fmt: skip
    parser.add_argument("--common", action="store_true", help="compare on the seeds all runs share")
    add_leakage_option(parser)
    parser.add_argument("--replicates", type=positive, default=2000, help="bootstrap samples (default: 2000)")
    parser.add_argument("--out", type=Path, help="write the results there too, as JSON")


def run(args: argparse.Namespace) -> int:
    """Compare and print the table."""
    from steer_env.evaluation.leakage import load_leakage
    from steer_env.files import write_json
    from steer_env.play import compare

    parts = _arms(args.methods)
    if args.leakage is not None:
        bins = load_leakage(args.leakage)
        parts = {part: _with_leakage(arms, bins) for part, arms in parts.items()}
    measures = tuple(args.measure or compare.MEASURES)
    options = {"by": args.by, "common": args.common, "replicates": args.replicates}
    results = {part: compare.compare(arms, measures=measures, **options) for part, arms in parts.items()}
    adjusted = iter(compare.adjust([r for some in results.values() for r in some]))
    results = {part: [next(adjusted) for _ in some] for part, some in results.items()}
    for part, some in results.items():
        print("\n".join([*([f"{part}:"] if part else []), compare.table(some), *([""] if part else [])]))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        runs = {
            name: [dict(one.meta) for arms in parts.values() for one in arms[name]]
            for name in next(iter(parts.values()))
        }
        told = [{"suite": part, **r.to_dict()} for part, some in results.items() for r in some]
        write_json(args.out, {"runs": runs, "results": told})
        print(f"\nresults: {args.out}")
    return 0


def _arms(methods: list[str]) -> dict[str, dict[str, list[Any]]]:
    """Part of the suite ("" for plain runs) -> name of the method -> its runs.

    Raises:
        ValueError: If a method is given twice, or the methods have different parts.
    """
    from steer_env.play.compare import NotComparable, Run, load_parts

    arms: dict[str, list[dict[str, Run]]] = {}
    for text in methods:
        name, _, folders = text.rpartition("=") if not Path(text).is_dir() else ("", "", text)
        paths = [folders] if Path(folders).is_dir() else folders.split(",")
        label = name or (Path(paths[0]).name if len(paths) == 1 else folders)
        if label in arms:
            # Folders of one name, as runs/a/eval and runs/b/eval: the path tells them apart.
            label = folders
        if label in arms:
            raise ValueError(f"method {label!r} is given twice, expected different names; use NAME=RUN")
        arms[label] = [load_parts(path) for path in paths]
    played = {name: tuple(runs[0]) for name, runs in arms.items()}
    if any(tuple(run) != next(iter(played.values())) for runs in arms.values() for run in runs):
        what = ", ".join(
            f"{name} has {' and '.join(filter(None, p)) or 'none'}" for name, p in played.items()
        )
        raise NotComparable(f"the runs are not comparable: parts of a suite differ: {what}")
    parts = next(iter(played.values()))
    return {part: {name: [run[part] for run in runs] for name, runs in arms.items()} for part in parts}


def _with_leakage(arms: dict[str, list[Any]], bins: dict[str, str]) -> dict[str, list[Any]]:
    from steer_env.evaluation.leakage import with_leakage

    return {
        name: [replace(run, rows=with_leakage(run.rows, bins)) for run in runs] for name, runs in arms.items()
    }
