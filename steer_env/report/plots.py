"""Curves of one or several runs: survival, incidence of harm, hazards, TCSR, training. Needs matplotlib."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from steer_env.arrays import Floats
from steer_env.evaluation.intervals import Estimate, cluster_sums, t_value
from steer_env.evaluation.measures import Measures
from steer_env.evaluation.summary import HORIZON, Summary
from steer_env.evaluation.tabulate import from_rows
from steer_env.extras import need
from steer_env.files import replacing
from steer_env.records import Row
from steer_env.report.sections import Section, detailed

_COLOURS: Final = ("#4d4d4d", "#c8641e", "#1f6fb4", "#2c8a4b", "#8a4fa3", "#a08a1e")
_DASHES: Final = ("-", "--", "-.", ":")
#: A hazard is drawn while at least so many dialogues are watched.
LEAST_WATCHED: Final = 5
#: What the figures of `figures_of` show.
CAPTIONS: Final = {
    "survival": "No failure and no harm so far (Kaplan-Meier: the end of a dialogue censors)",
    "incidence": "Harm, and a bare refusal as the first turn not ideal, so far (Aalen-Johansen: the end of a "
    "dialogue competes)",
    "hazard": "Failures and harm at a turn among dialogues without one before "
    f"({LEAST_WATCHED} or more of them)",
    "tcsr": "TCSR by turn, and the lowest reward so far: means over the dialogues that reach the turn",
    "training": "Training, by step; dots where a step was evaluated on dialogues that are not trained on",
}
#: Metrics of a training run worth a curve, the best known first, and what they are called.
_TRAINING: Final = {
    "return_per_turn": "return per turn",
    "safety": "safety (1..10)",
    "usefulness": "usefulness (1..10)",
    "cost": "harm per dialogue",
    "kl": "KL from the reference",
    "entropy": "entropy",
    "loss": "loss",
}


def figures_of(sections: Sequence[Section], title: str = "") -> dict[str, dict[str, Any]]:
    """Draw the figures of a report: suite -> name in `CAPTIONS` -> figure; empty without matplotlib."""
    if find_spec("matplotlib") is None:
        return {}
    drawn = {}
    for s in detailed(sections):
        heading = ", ".join(filter(None, (title, s.title)))
        of = {"survival": _survival, "incidence": _incidence, "hazard": _hazard}
        drawn[s.suite] = {name: draw(s.measures, heading) for name, draw in of.items()}
        if any("tcsr" in turn for rows in s.runs.values() for row in rows for turn in row["turns"]):
            drawn[s.suite]["tcsr"] = _tcsr(s, heading)
    return drawn


def training_figure(runs: Mapping[str, Sequence[Row]]) -> Any:
    """Draw the curves of training runs: name -> rows of `metrics.jsonl`; None where there is nothing to draw.

    Without matplotlib there is nothing to draw.
    """
    known = {key for rows in runs.values() for row in rows for key, x in row.items() if x is not None}
    shown = [name for name in _TRAINING if name in known][:6]
    if find_spec("matplotlib") is None or not shown:
        return None
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    figure = _canvas((9.6, 2.6 * down + 0.5))
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    for axis, metric in zip(axes, shown, strict=False):
        _plain_axis(axis, _TRAINING[metric], "step")
        for i, (name, rows) in enumerate(runs.items()):
            axis.plot(*_by_step(rows, metric), label=name, linewidth=1.2, **_look(i))
            axis.plot(*_by_step(rows, f"eval_{metric}"), "o", markersize=4, color=_look(i)["color"])
    return _finish(figure, axes, "")


def _by_step(rows: Sequence[Row], metric: str) -> tuple[list[float], list[float]]:
    known = [(float(row["step"]), float(row[metric])) for row in rows if row.get(metric) is not None]
    return [step for step, _ in known], [value for _, value in known]


def survival_plot(summaries: Mapping[str, Summary], path: str | Path, *, title: str = "") -> Path:
    """Draw Kaplan-Meier curves with their bands: the paper's failure on the left, harm on the right.

    The ending of `path` chooses the format (png, svg, pdf); the path is returned.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    return save(_survival(summaries, title), path)


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure to a file; its ending chooses the format."""
    target = Path(path)
    with replacing(target) as part:
        figure.savefig(part, format=target.suffix.lstrip(".") or "png")
    return target


def data_url(figure: Any) -> str:
    """Return a figure as an SVG without background in a data URL."""
    from matplotlib import rc_context

    buffer, title = io.BytesIO(), figure.get_suptitle()
    figure.suptitle("")  # the page has one of its own
    with rc_context({"svg.hashsalt": "steer_env"}):  # the same curves are the same bytes
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    figure.suptitle(title)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _survival(summaries: Mapping[str, Summary], title: str) -> Any:
    horizon = max((s.horizon for s in summaries.values()), default=HORIZON)
    names = ("no failure so far (safety < 2)", "no harm so far (safety < 0)")
    figure, axes = _figure("share of dialogues", names, horizon)
    for axis, which in zip(axes, ("failure_curve", "harm_curve"), strict=True):
        for i, (name, summary) in enumerate(summaries.items()):
            curve = getattr(summary, which)
            _steps(axis, (curve.survival, curve.low, curve.high), f"{name} (n = {summary.dialogues})", i)
    return _finish(figure, axes, title)


def _incidence(measures: Mapping[str, Measures], title: str) -> Any:
    """Cumulative incidences; on the right harm, middling and style compete with the bare refusal."""
    names = ("harm so far", "a bare refusal was the first turn not ideal")
    figure, axes = _figure("share of dialogues", names, _reach(measures))
    for axis, which, cause in zip(
        axes, ("harm_incidence", "end_incidence"), ("harm", "bare_refusal"), strict=True
    ):
        for i, (name, m) in enumerate(measures.items()):
            of = getattr(m, which)
            _steps(axis, (of.incidence[cause], of.low[cause], of.high[cause]), name, i)
    return _finish(figure, axes, title)


def _hazard(measures: Mapping[str, Measures], title: str) -> Any:
    names = ("failures at a turn (safety < 2)", "harm at a turn (safety < 0)")
    figure, axes = _figure("share of the dialogues watched", names, _reach(measures))
    for axis, which in zip(axes, ("failure_hazard", "harm_hazard"), strict=True):
        for i, (name, m) in enumerate(measures.items()):
            value, low, high = (_watched(getattr(m, which), end) for end in ("value", "low", "high"))
            turn = np.arange(1, len(value) + 1) + 0.08 * (i - (len(measures) - 1) / 2)
            bars = np.clip(np.stack([value - low, high - value]), 0, None)
            axis.errorbar(turn, value, bars, label=name, marker="o", markersize=3, linewidth=1.2, **_look(i))
    return _finish(figure, axes, title)


def _tcsr(section: Section, title: str) -> Any:
    """Means by turn with t intervals over scenario groups."""
    names = ("TCSR value of the turn", "lowest reward of the dialogue so far")
    figure, axes = _figure("mean over dialogues", names, _reach(section.measures))
    for axis, key in zip(axes, ("value", "min"), strict=True):
        for i, (name, rows) in enumerate(section.runs.items()):
            turns, value, half = tcsr_by_turn(rows, key)
            axis.plot(turns, value, label=name, marker="o", markersize=3, linewidth=1.4, **_look(i))
            axis.fill_between(
                turns, value - half, value + half, color=_look(i)["color"], alpha=0.13, linewidth=0
            )
    means = [y for axis in axes for line in axis.lines for y in line.get_ydata()]
    axes[0].set_ylim(min([0, *means]), 1.02 * max([1, *means]))  # both share it; few groups have wide bands
    return _finish(figure, axes, title)


def tcsr_by_turn(rows: Sequence[Row], key: str = "value") -> tuple[Floats, Floats, Floats]:
    """Return turns, means of a part of TCSR at them and half the width of their 95 % intervals.

    A turn that fewer than `LEAST_WATCHED` dialogues reached is left out, as is a turn without TCSR. The
    interval is Student's t over scenario groups; NaN where there is one group alone.

    Args:
        rows: Dialogues.
        key: "value", "min" or "mean".
    """
    clusters = from_rows(rows).cluster if rows else np.zeros(0)
    found = []
    for turn in range(max((len(row["turns"]) for row in rows), default=0)):
        there = [
            (i, float(row["turns"][turn]["tcsr"][key]))
            for i, row in enumerate(rows)
            if turn < len(row["turns"]) and "tcsr" in row["turns"][turn]
        ]
        if len(there) < LEAST_WATCHED:
            continue
        values = np.array([value for _, value in there])
        sums = cluster_sums(values - values.mean(), clusters[[i for i, _ in there]])
        df = len(sums) - 1
        error = np.sqrt((sums**2).sum() * (df + 1) / df) / len(values) if df else np.nan
        found.append((turn + 1, values.mean(), t_value(0.95, df) * error if df else np.nan))
    turns, means, halves = np.array(found, float).reshape(-1, 3).T
    return turns, means, halves


def _reach(measures: Mapping[str, Measures]) -> int:
    return max((m.reach for m in measures.values()), default=HORIZON)


def _watched(estimates: Sequence[Estimate], end: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return "value", "low" or "high" per turn; NaN where too few are watched to draw a rate."""
    values = [getattr(e, end) if e.n >= LEAST_WATCHED else None for e in estimates]
    return np.array([np.nan if v is None else v for v in values], float)


def _look(index: int) -> dict[str, str]:
    return {"color": _COLOURS[index % len(_COLOURS)], "linestyle": _DASHES[index % len(_DASHES)]}


def _steps(axis: Any, curve: Sequence[ArrayLike], label: str, index: int) -> None:
    value, low, high = (np.append(side, np.asarray(side)[-1:]) for side in curve)
    turns = np.append(np.arange(len(value) - 1), len(value) - 1.5)  # room for what holds after the last turn
    axis.step(turns, value, where="post", label=label, linewidth=1.8, **_look(index))
    axis.fill_between(turns, low, high, step="post", color=_look(index)["color"], alpha=0.13, linewidth=0)


def _figure(measure: str, names: Sequence[str], horizon: int) -> tuple[Any, Any]:
    """An empty figure with two axes over turns."""
    figure = _canvas((9.6, 4.2))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, name in zip(axes, names, strict=True):
        _plain_axis(axis, name, "turn")
        axis.set_xlim(0, horizon + 0.5)
        axis.set_ylim(0, 1.02)
        axis.set_xticks(range(0, horizon + 1, max(1, horizon // 10)))
    axes[0].set_ylabel(measure)
    return figure, axes


def _canvas(size: tuple[float, float]) -> Any:
    """An empty figure without global state and without display, unlike pyplot's."""
    figure = need("matplotlib.figure", "eval").Figure(figsize=size, dpi=150, layout="constrained")
    need("matplotlib.backends.backend_agg", "eval").FigureCanvasAgg(figure)
    return figure


def _plain_axis(axis: Any, title: str, along: str) -> None:
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_xlabel(along)
    axis.grid(axis="y", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _finish(figure: Any, axes: Any, title: str) -> Any:
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        columns = min(len(labels), 4)
        labels = [_plain(label) for label in labels]
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    if title:
        figure.suptitle(_plain(title), fontsize=12)
    return figure


def _plain(text: str) -> str:
    """Return a text escaped, so that matplotlib does not read a formula in it."""
    return text.replace("$", r"\$")
