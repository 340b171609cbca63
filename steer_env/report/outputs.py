"""Report files of one or several runs: page, Markdown, CSV, Parquet, plots, Inspect AI logs, hub cards."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from steer_env.evaluation.calibration import Card
from steer_env.evaluation.measures import Measures, flat_row, table_rows
from steer_env.evaluation.tables import table
from steer_env.files import cell, replacing, write_text
from steer_env.records import Row
from steer_env.render import markdown, markdown_table
from steer_env.report.dialogues import Pictures
from steer_env.report.grids import Grid, corrected, subsets
from steer_env.report.header import about
from steer_env.report.html import write_html
from steer_env.report.plots import figures_of, save
from steer_env.report.sections import Section, detailed, sections_of, suite_rows
from steer_env.report.verdict import verdicts

#: Format -> what it needs beside numpy.
FORMATS = {
    "html": "jinja2",
    "md": "",
    "csv": "",
    "parquet": "pyarrow",
    "png": "matplotlib",
    "svg": "matplotlib",
    "inspect": "inspect_ai",
    "hf": "huggingface_hub",
}
#: Name of the extra that brings it.
_EXTRAS = {
    "jinja2": "cli",
    "pyarrow": "data",
    "matplotlib": "eval",
    "inspect_ai": "inspect",
    "huggingface_hub": "data",
}


@dataclass(frozen=True, eq=False)
class _Job:
    """What every writer gets."""

    runs: Mapping[str, Sequence[Row]]
    sections: Sequence[Section]
    folder: Path
    title: str
    card: Card | None
    pictures: Pictures | None
    metas: Mapping[tuple[str, str], Mapping[str, Any]]
    training: Mapping[str, Sequence[Row]]
    options: Mapping[str, Any]

    @cached_property
    def figures(self) -> dict[str, dict[str, Any]]:
        """What page and plots show, drawn once."""
        return figures_of(self.sections, self.title)


def check_formats(formats: Sequence[str] | None) -> tuple[str, ...]:
    """Return the formats to write: md and csv by default, html with jinja2 and png with matplotlib.

    Raises:
        ValueError: If a format is unknown.
        ImportError: If one needs a package that is not installed; the message names the extra.
    """
    if formats is None:
        usual = ("html", "md", "csv", "png")
        return tuple(name for name in usual if not FORMATS[name] or find_spec(FORMATS[name]))
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"format={name!r}, expected some of {', '.join(FORMATS)}")
        package = FORMATS[name]
        if package and find_spec(package) is None:
            raise ImportError(
                f"format={name!r} needs {package}, expected it installed; "
                f"pip install 'steer-env[{_EXTRAS[package]}]'"
            )
    return tuple(dict.fromkeys(formats))


def write_reports(
    runs: Mapping[str, Sequence[Row]],
    folder: str | Path,
    *,
    title: str = "steer_env: evaluation",
    card: Card | None = None,
    pictures: Pictures | None = None,
    single: Mapping[str, Sequence[Row]] | None = None,
    formats: Sequence[str] | None = None,
    metas: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
    sections: Sequence[Section] | None = None,
    training: Mapping[str, Sequence[Row]] | None = None,
    **options: Any,
) -> dict[str, Path]:
    """Write report files.

    Args:
        runs: Name of the policy -> its rows.
        folder: Where to; made if missing.
        title: Heading.
        card: Calibration of the judge.
        pictures: Returns the pictures of a row; None embeds none.
        single: Name of the policy -> rows of its one-turn dialogues, for the single-turn columns and the gap.
        formats: Some of `FORMATS`, see `check_formats`.
        metas: (name of the policy, suite) -> what the run folder says of itself.
        sections: What `sections_of` returned, if it was called already.
        training: Name of the policy -> rows of the `metrics.jsonl` of its training, for the page.
        **options: `replicates`, `seed` and `confidence` of the intervals.

    Returns:
        Format -> path; "png survival" and the like where a format has several files.

    Raises:
        ValueError: If a format is unknown.
        ImportError: If a package that a format needs is missing.
    """
    chosen = check_formats(formats)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    parts = sections_of(runs, card=card, single=single, **options) if sections is None else sections
    job = _Job(runs, parts, target, title, card, pictures, metas or {}, training or {}, options)
    paths: dict[str, Path] = {}
    for name in chosen:
        paths |= _WRITERS[name](job)
    return paths


def _html(job: _Job) -> dict[str, Path]:
    path = job.folder / "report.html"
    options: dict[str, Any] = {"card": job.card, "pictures": job.pictures, "metas": job.metas}
    options |= {"title": job.title, "sections": job.sections, "curves": job.figures}
    options |= {"training": job.training, **job.options}
    write_html(job.runs, path, **options)
    return {"html": path}


def _markdown(job: _Job) -> dict[str, Path]:
    parts = [f"**{markdown(job.title)}**", ""]
    if said := about(job.metas.values()):
        parts += [said.strip(), ""]
    if job.card is not None:
        parts += [f"Calibration: {markdown(job.card.text())}. Only rates called corrected use it.", ""]
    if any(section.suite for section in job.sections):
        head, body, notes = suite_rows(job.sections)
        parts += [markdown_table(head, body), *(f"\n{markdown(note)}" for note in notes), ""]
    for section in detailed(job.sections):
        parts += [f"{markdown(text)}\n" for text in verdicts(section, job.metas, **job.options)]
        beside, worth = section.controls, section.worth
        parts += [table(section.measures, "markdown", section.title, controls=beside, worth=worth), ""]
        parts += [line for grid in corrected(section.measures) for line in _grid(grid)]
        parts += _by_mechanism(section.measures)
    path = job.folder / "report.md"
    write_text(path, "\n".join(parts).rstrip() + "\n")
    return {"md": path}


def _by_mechanism(measures: Mapping[str, Measures]) -> list[str]:
    """Multi-turn safety by mechanism, the shape of the paper's table; other labels are in the CSV file."""
    parts: list[str] = []
    for grid in subsets({name: m for name, m in measures.items() if "mechanism" in m.subsets}):
        if grid.title.endswith("by mechanism"):
            parts += _grid(grid)
    return parts


def _grid(grid: Grid) -> list[str]:
    return [f"{grid.title}:", "", markdown_table(grid.head, grid.texts()), ""]


def result_rows(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Return every estimate of every section as one flat row, see `measures.table_rows`.

    Controls are policies of their own, such as "sft blind", with the measures of the table.
    """
    return [
        {"suite": s.suite, **row} for s in sections for row in (*table_rows(s.measures), *_control_rows(s))
    ]


#: Attribute of `Summary` -> name of the same measure in `results.csv`.
_OF_CONTROLS = {
    "twin_pass": "twin_pass",
    "multi_turn_joint": "turn_mean_joint",
    "over_refusal": "over_refusal",
    "multi_turn_safety": "turn_mean_safety",
    "multi_turn_helpfulness": "turn_mean_helpfulness",
}


def _control_rows(section: Section) -> list[dict[str, Any]]:
    return [
        flat_row(f"{policy} {what}", measure, "all", getattr(summary, attribute))
        for policy, controls in section.controls.items()
        for what, summary in controls.items()
        for attribute, measure in _OF_CONTROLS.items()
    ]


def _csv(job: _Job) -> dict[str, Path]:
    rows, path = result_rows(job.sections), job.folder / "results.csv"
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    write_text(path, file.getvalue())
    return {"csv": path}


def _parquet(job: _Job) -> dict[str, Path]:
    """Write the estimates, typed also where a column is empty."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, counts = ("suite", "policy", "measure", "subset", "note"), ("n", "undecided")
    numbers = ("value", "low", "high", "least", "most")
    order = ("suite", "policy", "measure", "subset", *numbers, *counts, "note")
    kinds = {**dict.fromkeys(texts, pa.string()), **dict.fromkeys(numbers, pa.float64())}
    kinds |= dict.fromkeys(counts, pa.int64())
    schema = pa.schema([(name, kinds[name]) for name in order])
    path = job.folder / "results.parquet"
    with replacing(path) as part:
        pq.write_table(pa.Table.from_pylist(result_rows(job.sections), schema), part)
    return {"parquet": path}


def _plots(job: _Job, ending: str) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for suite, drawn in job.figures.items():
        tail = f"-{file_name(suite)}" if suite else ""
        for what, figure in drawn.items():
            paths[f"{ending} {what}{tail}"] = save(figure, job.folder / f"{what}{tail}.{ending}")
    return paths


def _inspect(job: _Job) -> dict[str, Path]:
    """Write one log per policy and suite."""
    from steer_env.report.inspect_log import write_inspect_log

    paths: dict[str, Path] = {}
    for section in job.sections:
        for policy, rows in section.runs.items():
            name = "-".join(filter(None, (policy, section.suite)))
            path = job.folder / f"{file_name(name)}.eval"
            if path in paths.values():  # names that differ only in signs a file name cannot have
                path = path.with_name(f"{path.stem}-{len(paths)}.eval")
            meta = job.metas.get((policy, section.suite), {})
            summary = section.measures[policy]
            write_inspect_log(rows, path, policy=policy, meta=meta, summary=summary, pictures=job.pictures)
            paths[f"inspect {name}"] = path
    return paths


def _hub(job: _Job) -> dict[str, Path]:
    """Write a card with a `model-index` for each policy, of all its suites: `README.md` in its own folder."""
    from steer_env.report.cards import policy_card

    found: dict[str, list[tuple[Measures, Mapping[str, Any]]]] = {}
    for section in job.sections:
        for policy, measures in section.measures.items():
            found.setdefault(policy, []).append((measures, job.metas.get((policy, section.suite), {})))
    paths: dict[str, Path] = {}
    for policy, parts in found.items():
        path = job.folder / "hf" / file_name(policy) / "README.md"
        if path in paths.values():
            path = path.parent.with_name(f"{path.parent.name}-{len(paths)}") / path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, policy_card(policy, parts))
        paths[f"hf {policy}"] = path
    return paths


def file_name(text: str) -> str:
    """Return a text as a name of a file."""
    return re.sub(r"[^\w.=-]+", "-", text).strip("-.") or "run"


_WRITERS: dict[str, Callable[[_Job], dict[str, Path]]] = {
    "html": _html,
    "md": _markdown,
    "csv": _csv,
    "parquet": _parquet,
    "png": lambda job: _plots(job, "png"),
    "svg": lambda job: _plots(job, "svg"),
    "inspect": _inspect,
    "hf": _hub,
}
