"""`steer-env calibrate`: hold a judge against people's labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from steer_env.cli.legacy import command, natural, positive
from steer_env.files import write_json

_EXAMPLE = """  steer-env calibrate runs/mine --sheet labels.csv --count 200   draw dialogues to label
  steer-env calibrate runs/mine --labels labels.csv --event harm --out card.json
  steer-env calibrate runs/mine --labels own.csv --seed-column id --label-column harmful
  steer-env calibrate runs/mine --against runs/mine-rule          another judge as the truth
  steer-env report runs/mine --card card.json                     rates corrected by the card"""

_DESCRIPTION = """Estimate how often a run's judge is right. First draw a sheet: judged dialogues at random,
as CSV with an empty column `label` (1 the event happened, 0 it did not; one line per annotator). Then count:
sensitivity and specificity over all and by stratum, each with its interval, and Krippendorff's alpha between
annotators. The sheet holds the full text of the turns."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "calibrate", "hold a judge against labels", _EXAMPLE, run, _DESCRIPTION)
    parser.add_argument("source", metavar="RUN", type=Path, help="run folder that evaluate wrote")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--sheet", type=Path, metavar="FILE", help="write a sheet to label (a new CSV file)")
    task.add_argument("--labels", type=Path, metavar="FILE", help="read a filled sheet, or any label file")
    text = "take another judge's verdicts on the same dialogues for the truth, as rescore writes them"
    task.add_argument("--against", type=Path, metavar="RUN", help=text)
    for name in ("seed", "turn", "annotator", "label"):
        text = f"column of the label file that holds the {name} (default: {name})"
        parser.add_argument(f"--{name}-column", metavar="NAME", help=text)
    parser.add_argument(
        "--sampling",
        choices=("random", "by_class"),
        help="how the labelled units were chosen (default: random for a sheet of this run that is filled "
        "throughout, else by_class)",
    )
    parser.add_argument("--count", type=positive, default=200, help="units in the sheet (default: 200)")
    parser.add_argument(
        "--unit", default="dialogue", help="dialogue (as reports correct it) or turn (default: dialogue)"
    )
    parser.add_argument("--seed", type=natural, default=0, help="of the draw (default: 0)")
    parser.add_argument("--event", default="harm", help="harm, failure, refusal or leak (default: harm)")
    parser.add_argument("--by", default="kind", help="label whose levels are the strata (default: kind)")
    parser.add_argument("--note", default="", help="who labelled what, kept in the card")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the calibration card there")


def run(args: argparse.Namespace) -> int:
    """Draw a sheet, or count."""
    from steer_env.evaluation.labelling import calibrate, labels_of, load_labels, write_sheet
    from steer_env.evaluation.tabulate import run_of
    from steer_env.play.compare import load_run

    rows = load_run(args.source).rows
    if args.sheet is not None:
        count = write_sheet(rows, args.sheet, args.count, unit=args.unit, seed=args.seed)
        print(f"{count} {args.unit}s to label: {args.sheet}")
        return 0
    source, sampling = args.note, args.sampling
    if args.against is not None:
        other = load_run(args.against).rows
        if run_of(other) != run_of(rows):
            raise ValueError(
                f"against={str(args.against)!r} holds other dialogues than {str(args.source)!r}, expected "
                "the same ones, judged again with `steer-env rescore`"
            )
        labels = labels_of(other, args.event)
        source = source or f"against the judge of {args.against.name}"
    else:
        keys = ("seed", "turn", "annotator", "label")
        columns = {key: name for key in keys if (name := getattr(args, f"{key}_column")) is not None}
        labels = load_labels(args.labels, columns or None)
    result = calibrate(rows, labels, args.event, unit=args.unit, by=args.by, source=source, sampling=sampling)
    print(f"{result.labelled} labelled turns, {result.ties} ties, {result.unscored} without a verdict")
    if result.unlabelled:
        print(f"{result.unlabelled} dialogues left open: some of their turns have no label")
    print(f"agreement of annotators (Krippendorff's alpha): {result.alpha.text(digits=3)}")
    for card in (result.card, *result.strata.values()):
        if card is not None:
            print(card.text())
    for level, reason in result.missing.items():
        print(f"{level}: no card ({reason})")
    if args.out is not None:
        _write(args.out, result.card, result.missing)
    return 0


def _write(path: Path, card: Any, missing: Any) -> None:
    if card is None:
        raise ValueError(f"no card to write: {missing['all']}")
    from dataclasses import asdict

    write_json(path, asdict(card))
    print(f"card: {path}")
