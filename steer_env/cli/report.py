"""`steer-env report`: report files of recorded runs."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from steer_env.cli.command import Command, Positional
from steer_env.configs.base import Positive, Switch, config
from steer_env.images import Image
from steer_env.records import Row
from steer_env.scenarios import Scenario

#: Gives the pictures of a row.
Maker = Callable[[Row], Sequence[Image]]

_EXAMPLES = """  steer-env report runs/base runs/sft runs/grpo --out runs/report
  steer-env report runs/base runs/sft runs/grpo --out runs/report.html
  steer-env report ours=runs/grpo --card judge.json --format html,parquet,svg,inspect
  steer-env report runs/grpo --leakage leakage.jsonl
  steer-env report base=runs/base --single base=runs/base-single"""


@config(frozen=True, kw_only=True)
class Report:
    """Write report files of run folders of `evaluate`.

    These are report.html (one file that opens offline), report.md, results.csv or results.parquet, plots
    (png, svg), and logs that Inspect AI's viewer opens. Folders of a suite give the table of single- and
    multi-turn dialogues, in- and out-of-distribution. A training run that recorded its dialogues shows their
    tokens by mask and advantage. Pictures are made again from the run's options; where that fails they are
    left out. With a calibration card of the judge, harm rates are given corrected beside the judge's own.

    Attributes:
        runs: Run folders, as [NAME=]RUN.
        single: As NAME=RUN: run of one-turn dialogues (--env SteerSingleTurn-v0) of the policy of that name.
        out: Folder of the files, or one file by its ending; the first run's folder unless it is given.
        format: Files to write, of html, md, csv, parquet, png, svg, inspect, with commas between them;
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
    from steer_env.report.outputs import check_formats

    return check_formats(None if text is None else [part.strip() for part in text.split(",") if part.strip()])


def run(config: Report) -> int:
    """Write the files and say where they are."""
    from steer_env.evaluation.calibration import load_card
    from steer_env.evaluation.leakage import load_leakage
    from steer_env.play.controls import load_controls
    from steer_env.report.outputs import write_reports
    from steer_env.report.sections import sections_of, suite_text

    formats, folder, alone = _target(config)
    bins = None if config.leakage is None else load_leakage(config.leakage)
    named: dict[str, list[Row]] = {}
    makers: dict[tuple[str, str], Maker] = {}
    metas: dict[tuple[str, str], Mapping[str, Any]] = {}
    controls: dict[str, dict[str, list[Row]]] = {}
    for text in config.runs:
        name, _, path = text.rpartition("=") if not Path(text).is_dir() else ("", "", text)
        label = name or Path(path).name or path
        if label in named:
            raise ValueError(f"run {label!r} is given twice, expected different names; use NAME=RUN")
        named[label], pictures, said = open_run(path, label, bins, images=not config.no_images)
        makers |= pictures
        metas |= said
        controls[label] = load_controls(path)
    card = None if config.card is None else load_card(config.card)
    single = _singles(config.single, named)
    sections = sections_of(named, card=card, single=single, controls=controls, replicates=config.replicates)
    paths = write_reports(
        named,
        folder,
        title=config.title,
        card=card,
        pictures=lambda row: makers[row["_run"], row.get("suite", "")](row),
        formats=formats,
        metas=metas,
        sections=sections,
    )
    if any(section.suite for section in sections):
        print(suite_text(sections))
    for what, written in paths.items():
        print(f"{'report' if what == 'html' else what}: {written.replace(alone) if alone else written}")
    return 0


def _target(config: Report) -> tuple[tuple[str, ...], Path, Path | None]:
    """Formats, folder, and the one file if `--out` names one."""
    endings = {".html": "html", ".md": "md", ".csv": "csv", ".parquet": "parquet"}
    first = config.runs[0]
    if config.out is None or config.out.suffix not in endings or config.out.is_dir():
        folder = config.out or Path(first if Path(first).is_dir() else first.rpartition("=")[2])
        return formats_of(config.format), folder, None
    if config.format is not None and formats_of(config.format) != (endings[config.out.suffix],):
        raise ValueError(
            f"format={config.format!r} beside out={str(config.out)!r}, which is one file; name a folder there"
        )
    return formats_of(endings[config.out.suffix]), config.out.parent, config.out


def open_run(
    path: str | Path, label: str, bins: Mapping[str, str] | None = None, *, images: bool = True
) -> tuple[list[Row], dict[tuple[str, str], Maker], dict[tuple[str, str], Mapping[str, Any]]]:
    """Read a run folder or every part of a suite.

    Args:
        path: The folder.
        label: What the rows call their run (`_run`).
        bins: Leakage of the dialogues, see `steer_env.evaluation.leakage`.
        images: Make the pictures again.

    Returns:
        Its rows; (label, suite) -> what gives the pictures of a row; the same -> what the run says of itself.
    """
    from steer_env.evaluation.leakage import with_leakage
    from steer_env.play.compare import load_parts

    rows: list[Row] = []
    makers, metas = {}, {}
    for part, one in load_parts(path).items():
        rows += [{**row, "_run": label} for row in one.rows]
        suite = str(one.meta.get("suite") or part)
        makers[label, suite] = pictures_from(scenes_of(one.meta) if images else None)
        metas[label, suite] = one.meta
    return (rows if bins is None else with_leakage(rows, bins)), makers, metas


def _singles(texts: Sequence[str], names: Container[str]) -> dict[str, Sequence[Row]]:
    from steer_env.play.compare import load_run

    found = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if name not in names or not folder:
            raise ValueError(f"single={text!r}, expected NAME=RUN with the name of one of the runs")
        found[name] = load_run(folder).rows
    return found


def pictures_from(scenes: Callable[[Row], Scenario] | None) -> Callable[[Row], Sequence[Image]]:
    """Return what gives the pictures of a stored dialogue; none where its scenario cannot be made again."""

    def pictures(row: Row) -> Sequence[Image]:
        if scenes is None:
            return ()
        try:
            return scenes(row).images
        except ValueError:  # another version of the world made this dialogue
            return ()

    return pictures


def scenes_of(meta: Mapping[str, Any]) -> Callable[[Row], Scenario] | None:
    """As `open_scenes`; None where the scenarios cannot be made again."""
    try:
        return open_scenes(meta) if "env" in meta else None
    except (ValueError, OSError):  # the scenario file has moved: the report stands without pictures
        return None


def open_scenes(meta: Mapping[str, Any]) -> Callable[[Row], Scenario]:
    """Return a maker of the scenario of a row from what a run folder says of itself.

    Raises:
        ValueError: If an option is no good.
        OSError: If the scenario file is gone.
    """
    from steer_env.cli.common import env_of, open_setting
    from steer_env.configs.env import EnvConfig
    from steer_env.play.rescore import Scenes
    from steer_env.play.suites import WholeGroups

    if meta.get("groups"):
        played = WholeGroups(meta["env"], meta["split"], meta["groups"], meta.get("seed", 0))
        return Scenes(EnvConfig(meta["env"], meta["split"]), played)
    # Only the scenarios are wanted: a model that attacked or judged need not be there any more.
    setting = open_setting(env_of(meta), "train" if meta.get("command") == "train" else "bench")
    return Scenes(setting.env, setting.scenarios)


COMMAND = Command(Report, run, _EXAMPLES)
