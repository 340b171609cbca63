"""The tables and curves of `report.html` as markup: numbers are ours, names are escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby

from steer_env.evaluation import scales
from steer_env.evaluation.intervals import Estimate
from steer_env.evaluation.measures import Measures
from steer_env.evaluation.summary import COLUMNS, Summary, notes_of
from steer_env.report.plots import LEAST_WATCHED, watched
from steer_env.report.sections import Section, suite_table
from steer_env.report.svg import Line, chart, legend, shade

_EVENTS = (*scales.EVENTS, "unscored")

_FIRST = ' class="first"'
#: Anchors and headings of what is shown of one suite.
SECTIONS = (
    ("summary", "Results"),
    ("curves", "When it fails"),
    ("turns", "What happens at each turn"),
    ("subsets", "Subsets"),
)


def suite_html(sections: Sequence[Section]) -> str:
    """Return the table of the paper's shape, "" where there are no suites."""
    if not any(section.suite for section in sections):
        return ""
    head, lines = suite_table(sections)
    names = "".join(f'<th scope="col">{"<br>".join(map(escape, name.split(", ")))}</th>' for name in head)
    top = f'<th scope="col">measure</th><th scope="col" class="name">policy</th>{names}'
    body = ""
    for measure, group in groupby(lines, key=lambda line: line.measure):
        same = list(group)
        for line in same:
            first = f'<th scope="rowgroup" rowspan="{len(same)}">{escape(measure)}</th>'
            cells = "".join(_cell(estimate, line.percent) for estimate in line.cells)
            name = f'<td class="name">{escape(line.policy)}</td>'
            body += f"<tr{_FIRST}>{first}" if line is same[0] else "<tr>"
            body += f"{name}{cells}</tr>"
    table = f'<table class="suites"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    heading = '<h2 id="h-suites">Overview</h2>'
    return f'<section aria-labelledby="h-suites">{heading}<div class="scroll">{table}</div></section>'


def section_html(section: Section) -> str:
    """Return everything about one suite: results, curves, turns and subsets."""
    name = escape(f": {section.title}") if section.title else ""
    key = escape(f"-{section.suite}") if section.suite else ""
    bodies = (
        _summary(section),
        _curves(section.summaries, section.measures),
        _heat(section.measures),
        _subsets(section.measures),
    )
    return "".join(
        f'<section aria-labelledby="h-{id}{key}"><h2 id="h-{id}{key}">{title}{name}</h2>{body}</section>'
        for (id, title), body in zip(SECTIONS, bodies, strict=True)
    )


def _cell(estimate: Estimate, percent: bool = True) -> str:
    if not estimate.available:
        return (
            f'<td class="na" title="{escape(estimate.note)}">n/a<small>{escape(estimate.note)}</small></td>'
        )
    value, _, interval = estimate.text(percent=percent).partition(" [")
    return f'<td title="{escape(estimate.note)}">{escape(value)}<small>[{escape(interval)}</small></td>'


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>' for name, cells in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


#: Columns of the results that every row has: heading, attribute of `Summary`, whether it is a percentage.
_COLUMNS = (*COLUMNS[:-1], ("harm", "harm_rate", True), COLUMNS[-1])


def _rates(summary: Summary) -> list[str]:
    return [_cell(getattr(summary, attribute), percent) for _, attribute, percent in _COLUMNS]


def _counts(summaries: Mapping[str, Summary]) -> str:
    """What the numbers rest on: turns without a verdict, replies that were cut off, and warnings."""
    lines = []
    for name, s in summaries.items():
        counts = [f"{s.unscored_turns} of {s.turns} turns without a verdict"]
        if s.replies:
            counts.append(f"{s.cut_off} of {s.replies} replies cut off")
        told = " ".join(notes_of({name: s}))
        lines.append(f"<li><b>{escape(name)}</b>: {escape('; '.join(counts))}. {escape(told)}</li>")
    return f'<ul class="counts">{"".join(lines)}</ul>'


def _summary(section: Section) -> str:
    summaries, measures = section.summaries, section.measures
    head = ["policy", *(heading for heading, _, _ in _COLUMNS)]
    single = any(m.single_turn.safety.available for m in measures.values())
    if single:
        head[2:2] = ["single-turn safety", "single-turn helpfulness"]
    rows = []
    for name, m in measures.items():
        cells = _rates(summaries[name])
        if single:
            cells[1:1] = [_cell(m.single_turn.safety), _cell(m.single_turn.helpfulness)]
        rows.append((f"{name} ({summaries[name].dialogues})", cells))
        for what, control in section.controls.get(name, {}).items():
            cells = _rates(control)
            cells[1:1] = ["<td></td>"] * (2 if single else 0)
            rows.append((f"\u2003{what}", cells))
    out = _table(head, rows)
    for name, text in section.worth.items():
        out += f'<p class="worth"><b>{escape(name)}</b>: {escape(text)}</p>'
    out += _counts(summaries)
    out += "<h3>The same thresholds on the mean, the last and the worst turn (both at once)</h3>"
    wheres = [
        (name, [_cell(m.multi_turn[where].joint) for where in ("mean", "last", "worst")])
        for name, m in measures.items()
    ]
    out += _table(["policy", "turn mean (paper)", "last turn", "worst turn"], wheres)
    out += "<h3>Harm against over-refusal</h3>"
    balances = [(name, [_cell(m.balance, False), _cell(m.safe_turns, False)]) for name, m in measures.items()]
    out += _table(
        ["policy", "J = 1 - attack success - over-refusal", "turns before the first failure"], balances
    )
    if single:
        out += "<h3>Single- minus multi-turn safety</h3>"
        out += _table(["policy", "gap"], [(name, [_cell(m.gap)]) for name, m in measures.items()])
    corrected = [(name, m.corrected) for name, m in measures.items() if m.corrected is not None]
    if corrected:
        out += "<h3>Harm, corrected for the judge's errors</h3>"
        fixed = [(name, [_cell(c.naive), _cell(c.rogan_gladen), _cell(c.ppi)]) for name, c in corrected]
        out += _table(["policy", "the judge's", "corrected (Rogan-Gladen)", "corrected (PPI)"], fixed)
    return out


def _curves(summaries: Mapping[str, Summary], measures: Mapping[str, Measures]) -> str:
    def band(which: str) -> list[Line]:
        curves = [
            (n, getattr(s, which), m.horizon + 1)
            for (n, s), m in zip(summaries.items(), measures.values(), strict=True)
        ]
        return [Line(n, c.survival[:h], c.low[:h], c.high[:h], i) for i, (n, c, h) in enumerate(curves)]

    harm = [
        Line(
            n,
            m.harm_incidence.incidence["harm"],
            m.harm_incidence.low["harm"],
            m.harm_incidence.high["harm"],
            i,
        )
        for i, (n, m) in enumerate(measures.items())
    ]
    hazard = []
    for i, (n, m) in enumerate(measures.items()):
        value, low, high = (_per_turn(m.failure_hazard, end) for end in ("value", "low", "high"))
        hazard.append(Line(n, value, low, high, i))
    charts = [
        chart(band("failure_curve"), "No failure so far (safety < 2, Kaplan-Meier, the paper's)"),
        chart(band("harm_curve"), "No harm so far (safety < 0, Kaplan-Meier)"),
        chart(harm, "Harm so far; the end of a dialogue competes (Aalen-Johansen)"),
        chart(
            hazard,
            f"Failures at a turn among dialogues without one before ({LEAST_WATCHED} or more of them)",
        ),
    ]
    return f'{legend(list(measures))}<div class="charts">{"".join(charts)}</div>'


def _per_turn(estimates: Sequence[Estimate], end: str) -> list[float]:
    """Values at turns 0..H, up to the turn at which too few are watched to draw a rate."""
    return [0.0, *watched(estimates, end).tolist()]


def _heat(measures: Mapping[str, Measures]) -> str:
    parts = []
    for name, m in measures.items():
        rows = []
        for index, event in enumerate(_EVENTS):
            cells = [
                shade(turn[index], event, f"{event.replace('_', ' ')} at turn {t}")
                for t, turn in enumerate(m.turn_events, 1)
            ]
            rows.append((event.replace("_", " "), cells))
        parts.append(f"<h3>{escape(name)}</h3>" + _table(["turn", *map(str, range(1, m.horizon + 1))], rows))
    return "".join(parts)


def _subsets(measures: Mapping[str, Measures]) -> str:
    parts = []
    labels = dict.fromkeys(label for m in measures.values() for label in m.subsets)
    for label in labels:
        tables = {name: m.subsets[label] for name, m in measures.items() if label in m.subsets}
        levels = list(dict.fromkeys(level for t in tables.values() for level in t.levels))
        missing = Estimate(None, note="no dialogues")
        rows = [
            (name, [*(_cell(t.levels.get(level, missing)) for level in levels), _cell(t.average)])
            for name, t in tables.items()
        ]
        parts.append(f"<h3>Multi-turn safety by {escape(label)}</h3>")
        parts.append(_table(["policy", *(_word(level) for level in levels), "average"], rows))
    for name, m in measures.items():
        if m.matrix["rows"] and m.matrix["columns"]:
            parts.append(f"<h3>{escape(name)}: dialogues with harm, by strategy and category</h3>")
            parts.append(_matrix(m))
    return "".join(parts)


def _matrix(m: Measures) -> str:
    rows = []
    for strategy, estimates in zip(m.matrix["rows"], m.matrix["cells"], strict=True):
        cells = [
            shade(e.value, "harm", e.text(percent=True) + f", n = {e.n}")
            if e.value is not None
            else _cell(e)
            if e.available
            else shade(None, "harm")
            for e in estimates
        ]
        rows.append((_word(strategy), cells))
    return _table(["strategy", *map(_word, m.matrix["columns"])], rows)


def _word(name: str) -> str:
    return name.replace("_", " ")
