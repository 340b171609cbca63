"""The tables of `report.html` as data: what stands in which cell, without markup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from steer_env.evaluation import scales
from steer_env.evaluation.intervals import Estimate
from steer_env.evaluation.measures import Measures
from steer_env.evaluation.summary import Summary
from steer_env.evaluation.tables import COLUMNS, notes_of
from steer_env.report.sections import Section

#: What a turn can be on the page.
EVENTS = (*scales.EVENTS, "unscored")
#: Dialogues of a cell of a heat map below which it is not coloured.
LEAST = 5


@dataclass(frozen=True)
class Cell:
    """One cell: a text with its interval in small print, or tinted by a share (0..1) of an event's colour."""

    text: str = ""
    small: str = ""
    about: str = ""
    missing: bool = False
    event: str = ""
    share: float = 0.0


@dataclass(frozen=True)
class Grid:
    """A table under a heading; each row has a name."""

    title: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]

    def texts(self) -> list[list[str]]:
        """Return the rows as plain text."""
        return [[name, *(f"{c.text} {c.small}".strip() for c in cells)] for name, cells in self.rows]


def cell(estimate: Estimate, percent: bool = True) -> Cell:
    """Return an estimate as a cell: its value, the interval below it; or why there is none."""
    if not estimate.available:
        return Cell("n/a", estimate.note, estimate.note, missing=True)
    value, bracket, interval = estimate.text(percent=percent).partition("[")
    return Cell(value.strip(), bracket + interval, estimate.note)


def _tinted(share: float | None, event: str, about: str = "") -> Cell:
    if share is None:
        return Cell("–", missing=True)
    return Cell(f"{share:.0%}", "", about, event=event, share=share)


def results(section: Section) -> Iterator[Grid]:
    """Yield the tables of results: the headline first, controls under their policy."""
    measures = section.measures
    columns = [*COLUMNS[:-1], ("harm", "harm_rate", True), COLUMNS[-1]]
    head = ["policy", *(heading for heading, _, _ in columns)]
    single = any(m.one_turn.safety.available for m in measures.values())
    if single:
        head[2:2] = ["single-turn safety", "single-turn helpfulness"]

    def rates(one: Summary, alone: list[Cell]) -> list[Cell]:
        cells = [cell(getattr(one, attribute), percent) for _, attribute, percent in columns]
        return [cells[0], *(alone if single else ()), *cells[1:]]

    rows = []
    for name, m in measures.items():
        alone = [cell(m.one_turn.safety), cell(m.one_turn.helpfulness)]
        rows.append((f"{name} ({m.dialogues})", rates(m, alone)))
        beside = section.controls.get(name, {}).items()
        rows += [(f"\u2003{what}", rates(control, [Cell(), Cell()])) for what, control in beside]
    yield Grid("", head, rows)
    yield Grid(
        "The same thresholds on the mean, the last and the worst turn (both at once)",
        ["policy", "turn mean (paper)", "last turn", "worst turn"],
        [(n, [cell(m.multi_turn[w].joint) for w in ("mean", "last", "worst")]) for n, m in measures.items()],
    )
    yield Grid(
        "Harm against over-refusal",
        ["policy", "J = 1 - attack success - over-refusal", "turns before the first failure"],
        [(name, [cell(m.balance, False), cell(m.safe_turns, False)]) for name, m in measures.items()],
    )
    if single:
        gaps = [(name, [cell(m.gap)]) for name, m in measures.items()]
        yield Grid("Single- minus multi-turn safety", ["policy", "gap"], gaps)
    yield from corrected(measures)


def corrected(measures: Mapping[str, Measures]) -> Iterator[Grid]:
    """Yield the harm that a calibration card corrects; nothing without a card."""
    fixed = [(name, m.corrected) for name, m in measures.items() if m.corrected is not None]
    if fixed:
        yield Grid(
            "Harm, corrected for the judge's errors",
            ["policy", "the judge's", "corrected (Rogan-Gladen)", "corrected (PPI)"],
            [(name, [cell(c.naive), cell(c.rogan_gladen), cell(c.ppi)]) for name, c in fixed],
        )


def counts(summaries: Mapping[str, Summary]) -> Iterator[tuple[str, str]]:
    """Yield of each policy what its numbers rest on: turns without a verdict, replies cut off, warnings."""
    for name, s in summaries.items():
        said = f"{s.unscored_turns} of {s.turns} turns without a verdict"
        said += f"; {s.cut_off} of {s.replies} replies cut off." if s.replies else "."
        yield name, " ".join([said, *notes_of({name: s})])


def turns(section: Section) -> Iterator[Grid]:
    """Yield of each policy how many dialogues reached a turn and which share of them had which event."""
    for name, m in section.measures.items():
        lengths = [len(row["turns"]) for row in section.runs[name]]
        reached = (sum(length >= turn for length in lengths) for turn in range(1, m.reach + 1))
        rows = [("n", [Cell(str(n)) for n in reached])]
        for index, event in enumerate(EVENTS):
            word = event.replace("_", " ")
            shares = enumerate((turn[index] for turn in m.turn_events), 1)
            rows.append((word, [_tinted(share, event, f"{word} at turn {t}") for t, share in shares]))
        yield Grid(name, ["turn", *map(str, range(1, m.reach + 1))], rows)


def subsets(measures: Mapping[str, Measures], prefix: str = "Multi-turn safety") -> Iterator[Grid]:
    """Yield the pass rates by each label, then of each policy harm by strategy and category."""
    missing = Estimate(None, note="no dialogues")
    for label in dict.fromkeys(label for m in measures.values() for label in m.subsets):
        of = {name: m.subsets[label] for name, m in measures.items() if label in m.subsets}
        levels = list(dict.fromkeys(level for table in of.values() for level in table.levels))
        rows = [
            (name, [*(cell(t.levels.get(level, missing)) for level in levels), cell(t.average)])
            for name, t in of.items()
        ]
        yield Grid(f"{prefix} by {label}", ["policy", *map(_word, levels), "average"], rows)
    for name, m in measures.items():
        if m.matrix["rows"] and m.matrix["columns"]:
            title = f"{name}: dialogues with harm, by strategy and category"
            strategies = zip(m.matrix["rows"], m.matrix["cells"], strict=True)
            rows = [(_word(strategy), list(map(_harm, row))) for strategy, row in strategies]
            yield Grid(title, ["strategy", *map(_word, m.matrix["columns"])], rows)


def _harm(estimate: Estimate) -> Cell:
    """A share with the dialogues it rests on, without colour where they are fewer than `LEAST`."""
    if estimate.value is None:
        if not estimate.available:
            return _tinted(None, "harm")
        bounds = cell(estimate)
        return replace(bounds, small=f"{bounds.small}, n = {estimate.n}")
    about = f"{estimate.text(percent=True)}, n = {estimate.n}"
    shown = _tinted(estimate.value, "harm", about)
    return replace(shown, small=f"n = {estimate.n}", event="harm" if estimate.n >= LEAST else "")


def _word(name: str) -> str:
    return name.replace("_", " ")
