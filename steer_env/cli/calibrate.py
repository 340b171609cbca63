"""`steer-env calibrate`: hold a judge against people's labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

from steer_env.cli.command import Command, Positional
from steer_env.configs.base import Natural, Positive, config
from steer_env.files import write_json
from steer_env.render import counted

_EXAMPLES = """  steer-env calibrate runs/mine --sheet labels.csv --count 200   draw dialogues to label
  steer-env calibrate runs/mine --labels labels.csv --event harm --out card.json
  steer-env calibrate runs/mine --labels own.csv --seed-column id --label-column harmful
  steer-env calibrate runs/mine --against runs/mine-rule          another judge as the truth
  steer-env report runs/mine --card card.json                     rates corrected by the card"""


@config(frozen=True, kw_only=True)
class Calibrate:
    """Estimate how often a run's judge is right.

    First draw a sheet: judged dialogues at random, as CSV with an empty column `label` (1 the event happened,
    0 it did not; one line per annotator). Then count: sensitivity and specificity over all and by stratum,
    each with its interval, and Krippendorff's alpha between annotators. The sheet holds the full text of the
    turns.

    Attributes:
        source: Run folder that evaluate wrote.
        sheet: Write a sheet to label, a new CSV file.
        labels: Read a filled sheet, or any label file.
        against: Run folder, as rescore writes it: take another judge's verdicts on the same dialogues for the
            truth.
        seed_column: Column of the label file that holds the seed; seed unless it is given.
        turn_column: The same of the turn.
        annotator_column: The same of the annotator.
        label_column: The same of the label.
        sampling: How the labelled units were chosen: random or by_class; random for a sheet of this run that
            is filled throughout, else by_class, unless it is given.
        count: Units in the sheet.
        unit: What is labelled: dialogue (as reports correct it) or turn.
        seed: Seed of the draw.
        event: What the labels are about: harm, failure, refusal or leak.
        by: Label whose levels are the strata.
        note: Who labelled what, kept in the card.
        out: File to write the calibration card to.
    """

    source: Positional[Path]
    sheet: Path | None = None
    labels: Path | None = None
    against: Path | None = None
    seed_column: str | None = None
    turn_column: str | None = None
    annotator_column: str | None = None
    label_column: str | None = None
    sampling: Literal["random", "by_class"] | None = None
    count: Positive = 200
    unit: str = "dialogue"
    seed: Natural = 0
    event: str = "harm"
    by: str = "kind"
    note: str = ""
    out: Path | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("sheet", "labels", "against")}
        if sum(value is not None for value in given.values()) != 1:
            told = ", ".join(f"{name}={value and str(value)!r}" for name, value in given.items())
            raise ValueError(f"{told}, expected one of them")


def run(config: Calibrate) -> int:
    """Draw a sheet, or count."""
    from steer_env.evaluation.labelling import calibrate, labels_of, load_labels, write_sheet
    from steer_env.evaluation.tabulate import run_of
    from steer_env.play.recorded import load_run

    rows = load_run(config.source).rows
    if config.sheet is not None:
        count = write_sheet(rows, config.sheet, config.count, unit=config.unit, seed=config.seed)
        print(f"{count} {config.unit}s to label: {config.sheet}")
        return 0
    source, sampling = config.note, config.sampling
    if config.against is not None:
        other = load_run(config.against).rows
        if run_of(other) != run_of(rows):
            raise ValueError(
                f"against={str(config.against)!r} holds other dialogues than {str(config.source)!r}, "
                "expected the same ones, judged again with `steer-env rescore`"
            )
        labels = labels_of(other, config.event)
        source = source or f"against the judge of {config.against.name}"
    else:
        keys = ("seed", "turn", "annotator", "label")
        columns = {key: name for key in keys if (name := getattr(config, f"{key}_column")) is not None}
        labels = load_labels(cast(Path, config.labels), columns or None)
    result = calibrate(
        rows, labels, config.event, unit=config.unit, by=config.by, source=source, sampling=sampling
    )
    print(
        f"{counted(result.labelled, 'labelled turn')}, {counted(result.ties, 'tie')}, "
        f"{result.unscored} without a verdict"
    )
    if result.unlabelled:
        print(f"{counted(result.unlabelled, 'dialogue')} left open: a turn has no label")
    print(f"agreement of annotators (Krippendorff's alpha): {result.alpha.text(digits=3)}")
    for card in (result.card, *result.strata.values()):
        if card is not None:
            print(card.text())
    for level, reason in result.missing.items():
        print(f"{level}: no card ({reason})")
    if config.out is not None:
        _write(config.out, result.card, result.missing)
    return 0


def _write(path: Path, card: Any, missing: Any) -> None:
    if card is None:
        raise ValueError(f"no card to write: {missing['all']}")
    from dataclasses import asdict

    write_json(path, asdict(card))
    print(f"card: {path}")


COMMAND = Command(Calibrate, run, _EXAMPLES)
