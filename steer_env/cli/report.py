"""`steer-env report`: report files of recorded runs."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from steer_env.cli.command import Command, Positional
from steer_env.cli.common import named
from steer_env.configs.base import Positive, Switch, config
from steer_env.evaluation.calibration import Card, load_card
from steer_env.evaluation.leakage import load_leakage, with_leakage
from steer_env.evaluation.measures import check_card
from steer_env.play.controls import load_controls
from steer_env.play.evaluate import DIALOGUES
from steer_env.play.forks import with_effects
from steer_env.play.recorded import Run, load_parts, load_run, pictures_of
from steer_env.records import ROLLOUTS, Row, read_jsonl
from steer_env.report.outputs import check_formats, write_reports
from steer_env.report.sections import sections_of, suite_text

_EXAMPLES = """  steer-env report runs/base runs/sft runs/grpo --out runs/report
  steer-env report runs/base runs/sft runs/grpo --out runs/report.html
  steer-env report ours=runs/grpo --card judge.json --format html,parquet,svg,inspect
  steer-env report runs/grpo --leakage leakage.jsonl
  steer-env report base=runs/base --single base=runs/base-single"""


@config(frozen=True, kw_only=True)
class Report:
    """Write report files of run folders of `evaluate`.

    These are report.html (one file that opens offline), report.md, results.csv or results.parquet, plots
    (png, svg), logs that Inspect AI's viewer opens, and cards with results for the Hugging Face hub (hf).
    Folders of a suite give the table of single- and multi-turn dialogues, in- and out-of-distribution.
    The page begins with a verdict on the last run against each one before it. A training run that
    recorded its dialogues shows their tokens by mask and advantage; where a run's student was trained
    here, the page shows the curves of that. `steer-env fork` adds which turn did it. Pictures are made
    again from the run's options; where that fails they are left out. With a calibration card of the
    judge, harm rates are given corrected beside the judge's own.

    Attributes:
        runs: Run folders, as [NAME=]RUN.
        single: As NAME=RUN: run of one-turn dialogues (--env SteerSingleTurn-v0) of the policy of that name.
        out: Folder of the files, or one file by its ending; the first run's folder unless it is given.
        format: Files to write, of html, md, csv, parquet, png, svg, inspect, hf, with commas between them;
            html,md,csv (and png with matplotlib) unless it is given.
        leakage: File leakage.jsonl of `steer-env data audit`: results by how much was in the training data.
        card: Calibration card of the judge, JSON.
        title: Heading.
        no_images: Embed no pictures.
        replicates: Bootstrap samples.
    """

    runs: Positional[tuple[str, ...]]
    single: tuple[str, ...] = ()
    out: Path | None = None
    format: str | None = None
    leakage: Path | None = None
    card: Path | None = None
    title: str = "steer_env: evaluation"
    no_images: Switch = False
    replicates: Positive = 2000

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("no run is given, expected run folders of evaluate, as [NAME=]RUN")


def formats_of(text: str | None) -> tuple[str, ...]:
    """Return the formats that `--format` asks for, checked."""
    return check_formats(None if text is None else [part.strip() for part in text.split(",") if part.strip()])


@dataclass(frozen=True)
class Reports:
    """Report files to write, and what they are corrected and split by; read before anything is played.

    Attributes:
        formats: See `check_formats`.
        card: Calibration of the judge.
        bins: Leakage of the dialogues, see `steer_env.evaluation.leakage`.
    """

    formats: tuple[str, ...]
    card: Card | None
    bins: Mapping[str, str] | None

    @classmethod
    def read(cls, formats: tuple[str, ...], card: str | Path | None, leakage: str | Path | None) -> Reports:
        """Read the files that `--card` and `--leakage` name."""
        found = None if card is None else check_card(load_card(card))
        return cls(formats, found, None if leakage is None else load_leakage(leakage))

    def write(
        self,
        runs: Mapping[str, str | Path],
        folder: Path,
        *,
        title: str,
        single: Mapping[str, Sequence[Row]] | None = None,
        images: bool = True,
        alone: Path | None = None,
        **options: Any,
    ) -> None:
        """Write the files and say where they are.

        Args:
            runs: Name of the policy -> its run folder, plain or of a suite.
            folder: Where to.
            title: Heading.
            single: Name of the policy -> rows of its one-turn dialogues.
            images: Embed the pictures.
            alone: The one file that is wanted, by a name of its own.
            **options: Options of `sections_of`.
        """
        parts = {name: load_parts(path) for name, path in runs.items()}
        rows = {
            name: [row for part, one in of.items() for row in with_effects(one.rows, Path(runs[name]) / part)]
            for name, of in parts.items()
        }
        if self.bins is not None:
            rows = {name: with_leakage(found, self.bins) for name, found in rows.items()}
        rows = {name: [{**row, "_run": name} for row in found] for name, found in rows.items()}
        metas = {
            (name, str(one.meta.get("suite") or part)): {
                **one.meta,
                "played": played(Path(runs[name]) / part),
            }
            for name, of in parts.items()
            for part, one in of.items()
        }
        makers = {key: pictures_of(meta) for key, meta in metas.items()} if images else {}
        training = {name: found for name, path in runs.items() if (found := training_of(path, parts[name]))}
        controls = {name: load_controls(path) for name, path in runs.items()}
        sections = sections_of(rows, card=self.card, single=single, controls=controls, **options)
        if any(section.suite for section in sections):
            print(suite_text(sections))
        paths = write_reports(
            rows,
            folder,
            title=title,
            card=self.card,
            pictures=(lambda row: makers[row["_run"], row.get("suite", "")](row)) if images else None,
            formats=self.formats,
            metas=metas,
            sections=sections,
            training=training,
            **options,
        )
        for what, path in paths.items():
            print(f"{'report' if what == 'html' else what}: {path.replace(alone) if alone else path}")


def played(folder: Path) -> str:
    """Return the day on which the last dialogue of a run folder was played, "" where it cannot be told."""
    files = [folder / name for name in (DIALOGUES, ROLLOUTS)]
    ends = [path.stat().st_mtime for path in files if path.is_file()]
    return f"{date.fromtimestamp(max(ends)):%Y-%m-%d}" if ends else ""


def training_of(folder: str | Path, parts: Mapping[str, Run]) -> list[Row]:
    """Return the metrics of a training run: of the folder itself, or of the student that was played in it."""
    student = Path(str(next(iter(parts.values())).meta.get("student") or "."))
    for place in (Path(folder), student, student.parent):
        if place != Path() and (place / "metrics.jsonl").is_file():
            return list(read_jsonl(place / "metrics.jsonl"))
    return []


def run(config: Report) -> int:
    """Write the files and say where they are."""
    formats, folder, alone = _target(config)
    reports = Reports.read(formats, config.card, config.leakage)
    runs: dict[str, str] = {}
    for text in config.runs:
        name, path = named(text)
        label = name or Path(path).name or path
        if label in runs:
            raise ValueError(f"run {label!r} is given twice, expected different names; use NAME=RUN")
        runs[label] = path
    single = _singles(config.single, runs)
    images, replicates = not config.no_images, config.replicates
    reports.write(
        runs, folder, title=config.title, single=single, images=images, alone=alone, replicates=replicates
    )
    return 0


def _target(config: Report) -> tuple[tuple[str, ...], Path, Path | None]:
    """Formats, folder, and the one file if `--out` names one."""
    endings = {".html": "html", ".md": "md", ".csv": "csv", ".parquet": "parquet"}
    if config.out is None or config.out.suffix not in endings or config.out.is_dir():
        folder = config.out or Path(named(config.runs[0])[1])
        return formats_of(config.format), folder, None
    if config.format is not None and formats_of(config.format) != (endings[config.out.suffix],):
        raise ValueError(
            f"format={config.format!r} beside out={str(config.out)!r}, which is one file; name a folder there"
        )
    return formats_of(endings[config.out.suffix]), config.out.parent, config.out


def _singles(texts: Sequence[str], names: Container[str]) -> dict[str, Sequence[Row]]:
    found = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if name not in names or not folder:
            raise ValueError(f"single={text!r}, expected NAME=RUN with the name of one of the runs")
        found[name] = load_run(folder).rows
    return found


COMMAND = Command(Report, run, _EXAMPLES)
