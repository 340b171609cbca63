"""From the results folder alone to `report.md`, `tables.json` and a figure: one table per question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.ablation.store import Row, Table, read
from benchmarks.ablation.sweep import ARMS, CONTROLLED, PRIMARY, QUESTIONS, TRAINED, Question, lineage
from steer_env.evaluation.crossed import Effect
from steer_env.evaluation.paired import holm
from steer_env.evaluation.replications import COLUMNS
from steer_env.evaluation.survival import kaplan_meier
from steer_env.files import read_json, write_json, write_text
from steer_env.play.controls import CONTROLS
from steer_env.render import counted, markdown_table

#: Most unfinished models that are named and not only counted.
NAMED = 8
#: Arms of the figure.
FIGURE = ("base", "sft", "static", "full", "learning")
_LEGEND = (
    "Rates in percent, usefulness to honest users from 1 to 10. In brackets: 95 % intervals over *bases* and "
    "scenario groups: the lines of a base count as one, with their mean, for three lines from one base are "
    "not three bases. With three bases they are wide (`coverage.py`). `a..b` is what unscored turns leave "
    "open. Differences are arm minus reference, paired by line and dialogue, and also stand base by base. "
    "p (Holm) is corrected over the {tests} differences that `sweep.py` declared beforehand; the others are "
    "to be read as description."
)


@dataclass(frozen=True)
class Compared:
    """A difference of the report; `primary` ones were declared beforehand."""

    arm: str
    reference: str
    part: str
    measure: str
    effect: Effect
    primary: bool
    p_holm: float | None = None


def write_report(folder: Path, **options: Any) -> str:
    """Write `report.md`, `tables.json` and `survival.png` of a results folder; returns the report.

    Args:
        folder: With `cells.jsonl.gz` and `summary.json`.
        **options: `replicates`, `seed` and `confidence` of the intervals.
    """
    summary = read_json(folder / "summary.json") if (folder / "summary.json").is_file() else {}
    keys = summary.get("evaluations", {})
    rows = [row for row in read(folder) if row["evaluation"] in keys.values()]
    if not rows:
        return f"no cell in {folder} is finished: nothing to report"
    have = {row["evaluation"] for row in rows}
    missing = [name for name, key in keys.items() if key not in have]
    table = Table(rows)
    compared = comparisons(table, **options)
    parts = [
        "# Ablations on the built-in world",
        _about(summary, rows, missing),
        *(text for q in QUESTIONS for text in _question(table, q, compared, **options)),
        "## Controls",
        _controls(table, **options),
        "## Bases, and what it took",
        _bases(table, **options),
        _cost(rows),
    ]
    if _figure(table, folder / "survival.png"):
        parts.append("![Against attackers trained on each model](survival.png)")
    text = "\n\n".join(parts) + "\n"
    write_text(folder / "report.md", text)
    write_json(folder / "tables.json", _plain(table, compared, missing, **options))
    return text


def comparisons(table: Table, **options: Any) -> list[Compared]:
    """Return every pair of every question on its table's columns and tests, primary ones with Holm's p."""
    wanted: dict[tuple[str, str, str, str], None] = {}
    for question in QUESTIONS:
        for test in question.tests:
            wanted |= dict.fromkeys((*test[:2], *column) for column in question.columns)
    wanted |= {tuple(test): None for test in PRIMARY}
    found = [
        Compared(*one, effect, one in PRIMARY)
        for one in wanted
        if (effect := table.compare(*one, **options)) is not None
    ]
    adjusted = iter(holm([c.effect.p for c in found if c.primary]))
    return [replace(c, p_holm=next(adjusted)) if c.primary else c for c in found]


def _about(summary: Mapping[str, Any], rows: Sequence[Row], missing: Sequence[str]) -> str:
    settings, machines = summary["settings"], {tuple(row["machine"].values()) for row in rows}
    lines = {(row["base"], row["seed"]) for row in rows if row["arm"] != "base"}
    made = f"{counted(len(lines), 'line')} from {counted(len({base for base, _ in lines}), 'base')}"
    text = [
        f"Made by `{summary['command']}`: {made}, "
        f"{settings['dialogues']} dialogues or more of each part in whole contrast groups, greedy replies, "
        f"Stage III of {settings['recipe']['grpo']['steps']} steps; world version {rows[0]['world']}, rule "
        f"judge version {rows[0]['judge']}. {'; '.join(' '.join(m) for m in sorted(machines))}.",
        _LEGEND.format(tests=len(PRIMARY)),
    ]
    if missing:
        names = f": {', '.join(missing)}" if len(missing) <= NAMED else ""
        text.append(f"**Not finished: {len(missing)} of {len(summary['evaluations'])} models{names}.**")
    if apart := trained_again(rows):
        text.append(f"**Trained again, so that arms start from different weights: {', '.join(apart)}.**")
    return "\n\n".join(text)


def trained_again(rows: Iterable[Row]) -> list[str]:
    """Return the ancestors that are not the same weights for all that start from them."""
    seen: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        for name, weights in zip(lineage(row["arm"]), row["weights"], strict=True):
            seen.setdefault((name, row["base"] if name == "base" else row["seed"]), set()).add(weights)
    return [f"{name} {seed}" for (name, seed), weights in seen.items() if len(weights) > 1]


def _question(table: Table, question: Question, compared: Sequence[Compared], **options: Any) -> list[str]:
    pairs = {test[:2] for test in question.tests}
    columns = {*question.columns, *((test.part, test.measure) for test in question.tests)}
    mine = [c for c in compared if (c.arm, c.reference) in pairs and (c.part, c.measure) in columns]
    levels = _levels(
        table, [(ARMS[arm].title, arm, None) for arm in question.rows], question.columns, **options
    )
    if not mine:
        return [f"## {question.title}", "Not run."]
    head = ["", "part", "measure", "difference", "by base", "p", "p (Holm)"]
    body = [
        [
            f"{c.arm} - {c.reference}", c.part, COLUMNS[c.measure].heading, _text(c.effect, c.measure),
            " ".join(f"{_scale(c.measure) * x:+.{_places(c.measure)}f}" for x in c.effect.by_seed),
            _p(c.effect.p), _p(c.p_holm) if c.primary else "",
        ]
        for c in mine
    ]  # fmt: skip
    return [f"## {question.title}", question.note, levels, markdown_table(head, body)]


def _levels(
    table: Table,
    rows: Sequence[tuple[str, str, str | None]],
    columns: Sequence[tuple[str, str]],
    **options: Any,
) -> str:
    """Return a table of (title, arm, part in place of the columns' own)."""
    body = []
    for title, arm, instead in rows:
        if not table.lines(arm, instead or "bench"):
            continue
        effects = [table.level(arm, instead or part, measure, **options) for part, measure in columns]
        cells = (_text(e, m) if e else "-" for e, (_, m) in zip(effects, columns, strict=True))
        body.append([title, *cells, str(len(table.lines(arm, instead or "bench")))])
    return markdown_table(["", *(f"{p} {COLUMNS[m].heading}" for p, m in columns), "lines"], body)


def _controls(table: Table, **options: Any) -> str:
    rows = [(f"{arm}, {part or 'as it is'}", arm, part) for arm in CONTROLLED for part in (None, *CONTROLS)]
    measures = ("twin_pass", "joint", "safety", "helpfulness", "over_refusal", "harm")
    return _levels(table, rows, [("bench", measure) for measure in measures], **options)


def _bases(table: Table, **options: Any) -> str:
    body = []
    for row in sorted((row for row in table.rows if row["arm"] == "base"), key=lambda row: row["seed"]):
        own = Table([row])
        cells = [_text(own.level("base", "bench", m, **options), m) for m in ("joint", "usefulness")]
        body.append([str(row["seed"]), row["weights"][0], *cells, "; ".join(row["gates_missed"]) or "none"])
    return markdown_table(["base", "weights", "bench joint", "bench usefulness", "gates missed"], body)


def _cost(rows: Sequence[Row]) -> str:
    body = []
    for arm in ARMS:
        mine = [row["cpu"] for row in rows if row["arm"] == arm]
        if mine:
            body.append([arm, *(f"{np.mean([c[k] for c in mine]):.0f}" for k in ("train", "evaluate"))])
    hours = sum(sum(row["cpu"].values()) for row in rows) / 3600
    head = ["arm", "CPU seconds to train", "to evaluate"]
    return markdown_table(head, body) + f"\n\nMeans of a model; {hours:.1f} CPU hours in all."


def _figure(table: Table, path: Path) -> bool:
    """Draw survival without harm against trained attackers; False where there is nothing to draw it from."""
    arms = [arm for arm in FIGURE if table.lines(arm, TRAINED)]
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not arms:
        return False
    figure = Figure(figsize=(7.0, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for number, arm in enumerate(arms):
        bases = table.harm(arm, TRAINED)
        pooled = [np.concatenate(side) for side in zip(*bases.values(), strict=True)]
        for turn, seen in bases.values():
            axis.step(*_curve(turn, seen), where="post", color=f"C{number}", linewidth=0.6, alpha=0.5)
        axis.step(*_curve(*pooled), where="post", color=f"C{number}", linewidth=2, label=ARMS[arm].title)
    axis.set(xlabel="turn", ylabel="share of dialogues without harm so far", ylim=(0, 1.02))
    axis.set_title("Against an attacker trained on the model; thin: each base", fontsize=10, loc="left")
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path)
    return True


def _curve(turn: ArrayLike, seen: ArrayLike) -> tuple[Any, Any]:
    curve = kaplan_meier(turn, np.asarray(seen) > 0)
    return curve.turn, curve.survival


def _plain(table: Table, compared: Sequence[Compared], missing: Sequence[str], **options: Any) -> Any:
    found = []
    for arm, this in ARMS.items():
        for part in this.parts:
            for measure in COLUMNS:
                if (effect := table.level(arm, part, measure, **options)) is not None:
                    found.append({"arm": arm, "part": part, "measure": measure, **_numbers(effect)})
    differences = [
        {**{k: v for k, v in vars(c).items() if k != "effect"}, "p": c.effect.p, **_numbers(c.effect)}
        for c in compared
    ]
    return {"missing": list(missing), "levels": found, "differences": differences}


def _numbers(effect: Effect) -> dict[str, Any]:
    e, finite = effect.estimate, [None if np.isnan(x) else round(x, 4) for x in effect.by_seed]
    ends = {name: None if x is None else round(x, 4) for name, x in (("low", e.low), ("high", e.high))}
    value = [round(x, 4) for x in (e.bounds or (e.value,)) if x is not None]
    return {"value": value, **ends, "by_base": finite}


def _text(effect: Effect | None, measure: str) -> str:
    return "-" if effect is None else effect.estimate.text(percent=COLUMNS[measure].rate)


def _scale(measure: str) -> int:
    return 100 if COLUMNS[measure].rate else 1


def _places(measure: str) -> int:
    return 0 if COLUMNS[measure].rate else 2


def _p(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
