"""`report.html`: one self-contained page that opens offline.

Nothing a student or an attacker wrote can run in it: the template escapes what is put into it, dialogues
travel as JSON in which `<`, `>` and `&` are escaped and reach the page as text nodes, curves are pictures,
and the page's own policy lets only the one script run whose hash it names. Needs jinja2; without matplotlib
it has no curves.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from steer_env.evaluation.calibration import Card
from steer_env.extras import need
from steer_env.files import write_text
from steer_env.records import Row
from steer_env.report import grids, header, plots
from steer_env.report.dialogues import Pictures, entries, pictures_by_digest, side_by_side
from steer_env.report.sections import Section, detailed, sections_of, suite_table
from steer_env.report.verdict import verdicts


def write_html(
    runs: Mapping[str, Sequence[Row]],
    path: str | Path,
    *,
    title: str = "steer_env: evaluation",
    card: Card | None = None,
    pictures: Pictures | None = None,
    max_dialogues: int = 2000,
    max_pictures: int = 300,
    sections: Sequence[Section] | None = None,
    curves: Mapping[str, Mapping[str, Any]] | None = None,
    metas: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
    training: Mapping[str, Sequence[Row]] | None = None,
    **options: Any,
) -> Path:
    """Write the report.

    Args:
        runs: Name of the policy -> its rows.
        path: The file.
        title: Heading.
        card: Calibration of the judge; without one the page says that rates are the judge's.
        pictures: Where the pictures of a row come from; None embeds none.
        max_dialogues: Dialogues listed, shared among the policies; the worst of each are kept.
        max_pictures: Pictures embedded, for the dialogues at the top of the list.
        sections: What `sections_of` returned, if it was called already.
        curves: Suite -> name -> figure, of `plots.figures_of`, if drawn already.
        metas: (name of the policy, suite) -> what its run folder says: environment, split, attacker.
        training: Name of the policy -> rows of the `metrics.jsonl` of its training.
        **options: `replicates`, `seed` and `confidence` of the intervals.

    Returns:
        The path.

    Raises:
        ImportError: If jinja2 is not installed.
    """
    parts = sections_of(runs, card=card, **options) if sections is None else sections
    dialogues, told = entries(runs, max_dialogues), metas or {}
    kept, beside = [row for row, _ in dialogues], side_by_side(runs)
    compared = [row for group in beside for row, _ in group]
    learnt = plots.training_figure(training or {})
    total = sum(len(rows) for rows in runs.values())
    script = _asset("report.js")
    drawn = plots.figures_of(parts) if curves is None else curves
    head, lines = suite_table(parts)
    measures = [(name, list(of)) for name, of in groupby(lines, key=lambda line: line.measure)]
    page = _template().render(
        title=title,
        style=_asset("report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        facts=header.chips(runs, told.values()),
        verdicts=[(part.title, verdicts(part, told, **options)) for part in detailed(parts)],
        lead=header.lead([m for part in parts for m in part.measures.values()], card),
        glossary=header.GLOSSARY,
        suites={"head": head, "measures": measures} if any(part.suite for part in parts) else None,
        sections=detailed(parts),
        anchors=_ANCHORS,
        results=grids.results,
        counts=grids.counts,
        turns=grids.turns,
        subsets=grids.subsets,
        cell=grids.cell,
        curves={suite: {n: plots.data_url(f) for n, f in of.items()} for suite, of in drawn.items()},
        captions=plots.CAPTIONS,
        training=None if learnt is None else plots.data_url(learnt),
        beside=[[body for _, body in group] for group in beside],
        beside_images=pictures_by_digest(compared, pictures, max_pictures),
        marks=MARKS,
        filters=_FILTERS,
        dialogue_note="" if len(kept) == total else f"The worst {len(kept)} of {total} are listed.",
        listed=[body for _, body in dialogues[:_LISTED]],
        data={
            "dialogues": [body for _, body in dialogues],
            "images": pictures_by_digest(kept, pictures, max_pictures),
        },
    )
    path = Path(path)
    write_text(path, page)
    return path


#: Dialogues that are listed where no script runs.
_LISTED = 20
#: Sign of an event in the strip of a dialogue.
MARKS = {"harm": "✖", "bare_refusal": "−", "middling": "~", "style": "◦", "ideal": "●", "unscored": "?"}
_ANCHORS = (
    ("summary", "Results"),
    ("curves", "When it fails"),
    ("turns", "What happens at each turn"),
    ("subsets", "Subsets"),
)
_FILTERS = (
    ("suite", "Suite"),
    ("policy", "Policy"),
    ("worst", "Worst turn"),
    ("kind", "Kind"),
    ("strategy", "Strategy"),
    ("category", "Category"),
)


def _asset(name: str) -> str:
    return (resources.files("steer_env.report") / "assets" / name).read_text(encoding="utf-8")


def _template() -> Any:
    """The page: all that is put into it is escaped, and `tojson` writes no sign that could end the script."""
    jinja2 = need("jinja2", "cli")
    made = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return made.from_string(_asset("report.html"))
