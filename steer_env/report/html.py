"""`report.html`: one self-contained page that opens offline.

Nothing a student or an attacker wrote can run in it: the template escapes what is put into it, dialogues
travel as JSON in which `<`, `>` and `&` are escaped and reach the page as text nodes, curves are pictures,
and the page's own policy lets only the one script run whose hash it names. Needs jinja2; without matplotlib
it has no curves.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from steer_env.evaluation import scales
from steer_env.evaluation.calibration import Card
from steer_env.evaluation.summary import Summary
from steer_env.evaluation.tabulate import is_refusal
from steer_env.extras import need
from steer_env.files import write_text
from steer_env.records import Row
from steer_env.report import grids, plots
from steer_env.report.sections import HEADINGS, Section, detailed, sections_of, suite_table
from steer_env.versions import versions_in

#: Returns the pictures of a stored dialogue, objects with `digest` and `pil()`.
Pictures = Callable[[Row], Sequence[Any]]

PICTURE_SIDE = 256


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
    metas: Iterable[Mapping[str, Any]] = (),
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
        metas: What the run folders say of themselves: environment, split, attacker, versions.
        **options: `replicates`, `seed` and `confidence` of the intervals.

    Returns:
        The path.

    Raises:
        ImportError: If jinja2 is not installed.
    """
    parts = sections_of(runs, card=card, **options) if sections is None else sections
    dialogues = _dialogues(runs, max_dialogues)
    kept = [row for row, _ in dialogues]
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
        lead=about(metas) + _lead([m for part in parts for m in part.measures.values()], card),
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
        filters=_FILTERS,
        dialogue_note="" if len(kept) == total else f"The worst {len(kept)} of {total} are listed.",
        data={
            "dialogues": [body for _, body in dialogues],
            "images": _pictures(kept, pictures, max_pictures),
        },
    )
    path = Path(path)
    write_text(path, page)
    return path


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


#: What the page says of its runs, by key of `run.json`.
_ABOUT = {
    "env": "environment",
    "split": "split",
    "scenarios": "scenarios",
    "attacker": "attacker",
    "seed": "first seed",
    "temperature": "temperature",
    "world_version": "world version",
    "judge_version": "judge version",
}


def about(metas: Iterable[Mapping[str, Any]]) -> str:
    """Say in a sentence what was run, from what run folders say of themselves; "" if they say nothing."""
    found = [{**meta, **versions_in(meta)} for meta in metas if meta]
    parts = []
    for key, name in _ABOUT.items():
        values = dict.fromkeys(str(meta[key]) for meta in found if meta.get(key) not in (None, ""))
        if values:
            parts.append(f"{name} {' and '.join(values)}")
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}. " if text else ""


def _lead(summaries: Sequence[Summary], card: Card | None) -> str:
    judges = sorted({name for s in summaries for name in s.judges}) or ["none"]
    says = f"Judge: {', '.join(judges)}. "
    if card is None:
        says += "No calibration card was given: all rates are the judge's, not the truth's. "
    else:
        says += f"Calibration: {card.text()}. Only rates called corrected use it. "
    confidence = ", ".join(sorted({f"{s.confidence:.0%}" for s in summaries}))
    unscored = sum(s.unscored_turns for s in summaries)
    if unscored:
        says += f"{unscored} turns have no verdict: what hangs on them is given as bounds a..b; "
        says += "curves stop watching a dialogue at its first such turn. "
    says += "Twin pass: share of contrast groups of which every member passes safety and helpfulness. "
    return says + f"In brackets: {confidence} intervals, clustered on scenario groups."


# -- dialogues ----------------------------------------------------------------------------------------------


def _dialogues(runs: Mapping[str, Sequence[Row]], most: int) -> list[tuple[Row, dict[str, Any]]]:
    """Rows with what the page needs of them, worst first, each policy with its share of `most`."""
    result = []
    share = max(1, most // max(1, len(runs)))
    for policy, rows in runs.items():
        made = [(row, _dialogue(row, policy)) for row in rows]
        middle = float(np.median([body["mean"] for _, body in made])) if made else 0.0
        for _, body in made:
            body["typical"] = abs(body["mean"] - middle)
        result += sorted(made, key=lambda pair: (pair[1]["low"], pair[1]["mean"]))[:share]
    return sorted(result, key=lambda pair: (pair[1]["low"], pair[1]["mean"]))


def _dialogue(row: Row, policy: str) -> dict[str, Any]:
    turns = [_turn(turn) for turn in row["turns"]]
    scored = [(s, turn["event"]) for turn in turns if (s := turn.pop("safety")) is not None]
    known = [s for s, _ in scored]
    low, worst = min(scored, default=(4, "unscored"))  # unscored dialogues come last
    labels = {
        k: str(row.get(k) or "") for k in ("kind", "strategy", "technique", "category", "mechanism", "goal")
    }
    suite = str(row.get("suite") or "")
    return {
        **labels,
        "policy": policy,
        "suite": HEADINGS.get(suite, suite),
        "seed": row.get("seed", -1),
        "note": _where(row),
        "stop": "" if row.get("stop") == "seed_end" else str(row.get("stop", "")),
        "images": [str(digest) for digest in row.get("images", ())],
        "turns": turns,
        "worst": worst,
        "low": low,
        "mean": round(float(np.mean(known)), 4) if known else 4.0,
        **({"tokens": _tokens(row["tokens"])} if row.get("tokens") else {}),
    }


def _where(row: Row) -> str:
    """Which attempt of a suite, or which step of training with which advantage, a dialogue was."""
    said = []
    if row.get("attempt"):
        said.append(f"attempt {int(row['attempt']) + 1}")
    if "step" in row:
        said.append(f"step {int(row['step'])}")
    if row.get("advantage") is not None:
        said.append(f"advantage {float(row['advantage']):+.2f}")
    return " · ".join(said)


def _tokens(pieces: Sequence[Any]) -> list[Any]:
    """Tokens as the page reads them: a string is context, else [text, log-probability, advantage or None]."""
    return [
        piece
        if isinstance(piece, str)
        else [str(piece[0]), *(None if x is None else round(float(x), 3) for x in piece[1:3])]
        for piece in pieces
    ]


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    verdict = turn.get("verdict") or {}
    terms = verdict.get("terms")
    safety = None if terms is None else int(scales.safety(terms["safety"]))
    refused = is_refusal(verdict)
    event = "unscored" if safety is None else grids.EVENTS[int(scales.event([safety], [refused])[0])]
    return {
        "user": str(turn.get("user", "")),
        "reply": str(turn.get("reply", "")),
        "images": int(turn.get("images") or 0),
        "event": event,
        "facts": _facts(turn, verdict, safety),
        "safety": safety,
    }


def _facts(turn: Mapping[str, Any], verdict: Mapping[str, Any], safety: int | None) -> list[str]:
    """What is said under a turn, in words."""
    facts = []
    if safety is None:
        facts.append(f"no verdict: {verdict.get('unscored', 'no judge')}")
    else:
        terms = verdict["terms"]
        facts.append(f"safety {safety} of 3, helpfulness {int(scales.helpfulness(terms['usefulness']))} of 3")
        facts.append("rubric " + ", ".join(f"{name} {value}" for name, value in terms.items()))
    if "tcsr" in turn:
        facts.append("TCSR {value:.2f} (minimum {min:.2f}, mean {mean:.2f})".format(**turn["tcsr"]))
    if turn.get("advantage") is not None:
        facts.append(f"advantage {turn['advantage']:+.2f}")
    if verdict.get("leaked"):
        facts.append("leaked: " + ", ".join(map(str, verdict["leaked"])))
    for name, key in (("move", "move"), ("because", "rationale")):
        if verdict.get(key):
            facts.append(f"{name}: {verdict[key]}")
    tutor = " ".join(str(turn[key]) for key in ("strategy", "tactic") if turn.get(key))
    return facts + ([f"tutor: {tutor}"] if tutor else [])


def _pictures(rows: Sequence[Row], pictures: Pictures | None, most: int) -> dict[str, str]:
    """Data URLs by digest, for as many dialogues from the top as fit."""
    found: dict[str, str] = {}
    if pictures is None:
        return found
    for row in rows:
        wanted = [digest for digest in row.get("images", ()) if digest not in found]
        if not wanted:
            continue
        if len(found) + len(wanted) > most:
            break
        for image in pictures(row):
            if image.digest in wanted:
                found[image.digest] = data_url(image.pil())
    return found


def data_url(picture: Any) -> str:
    """Return a picture as a small JPEG in a data URL; the picture itself is made small."""
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
