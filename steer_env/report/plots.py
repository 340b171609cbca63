"""Plots of one or several runs as PNG, SVG or PDF: survival, incidence of harm, hazards. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from steer_env.evaluation.intervals import Estimate
from steer_env.evaluation.measures import Measures
from steer_env.evaluation.summary import HORIZON, Summary
from steer_env.files import replacing

_COLOURS = ("#4d4d4d", "#c8641e", "#1f6fb4", "#2c8a4b", "#8a4fa3", "#a08a1e")
_DASHES = ("-", "--", "-.", ":")
#: A hazard is drawn while at least so many dialogues are watched.
LEAST_WATCHED = 5


def survival_plot(summaries: Mapping[str, Summary], path: str | Path, *, title: str = "") -> Path:
    """Draw Kaplan-Meier curves with their bands: the paper's failure on the left, harm on the right.

    Args:
        summaries: Name of the policy -> its summary.
        path: The picture; its ending chooses the format (png, svg, pdf).
        title: Drawn above.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure = _figure()
    axes = figure.subplots(1, 2, sharey=True)
    names = ("no failure so far (safety < 2)", "no harm so far (safety < 0)")
    for axis, which, label in zip(axes, ("failure_curve", "harm_curve"), names, strict=True):
        for i, (name, summary) in enumerate(summaries.items()):
            curve = getattr(summary, which)
            _draw(axis, (curve.survival, curve.low, curve.high), f"{name} (n = {summary.dialogues})", i)
        _style(axis, label, max((s.horizon for s in summaries.values()), default=HORIZON))
    axes[0].set_ylabel("share of dialogues")
    return _save(figure, axes[0], path, title)


def incidence_plot(measures: Mapping[str, Measures], path: str | Path, *, title: str = "") -> Path:
    """Draw cumulative incidences (Aalen-Johansen): of harm, and of a bare refusal as the first lapse.

    On the left the end of a dialogue competes with harm; on the right harm, middling and style compete with
    the bare refusal as the first turn that is not ideal. Arguments and errors as `survival_plot`.
    """
    figure = _figure()
    axes = figure.subplots(1, 2, sharey=True)
    sides = (
        (axes[0], "harm_incidence", "harm", "harm so far"),
        (axes[1], "end_incidence", "bare_refusal", "a bare refusal was the first turn not ideal"),
    )
    for axis, which, cause, label in sides:
        for i, (name, m) in enumerate(measures.items()):
            of = getattr(m, which)
            _draw(axis, (of.incidence[cause], of.low[cause], of.high[cause]), name, i)
        _style(axis, label, max((m.horizon for m in measures.values()), default=HORIZON))
    axes[0].set_ylabel("share of dialogues")
    return _save(figure, axes[0], path, title)


def hazard_plot(measures: Mapping[str, Measures], path: str | Path, *, title: str = "") -> Path:
    """Draw hazards per turn: failures (safety < 2) and harm among dialogues that had none before.

    Arguments and errors as `survival_plot`.
    """
    figure = _figure()
    axes = figure.subplots(1, 2, sharey=True)
    names = ("failures at a turn (safety < 2)", "harm at a turn (safety < 0)")
    for axis, which, label in zip(axes, ("failure_hazard", "harm_hazard"), names, strict=True):
        for i, (name, m) in enumerate(measures.items()):
            value, low, high = (watched(getattr(m, which), end) for end in ("value", "low", "high"))
            turn = np.arange(1, len(value) + 1) + 0.08 * (i - (len(measures) - 1) / 2)
            bars = np.clip(np.stack([value - low, high - value]), 0, None)
            look = {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _DASHES[i % len(_DASHES)]}
            axis.errorbar(turn, value, bars, label=name, marker="o", markersize=3, linewidth=1.2, **look)
        _style(axis, label, max((m.horizon for m in measures.values()), default=HORIZON))
    axes[0].set_ylabel("share of the dialogues watched")
    return _save(figure, axes[0], path, title)


def watched(estimates: Sequence[Estimate], end: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return "value", "low" or "high" per turn; NaN where fewer than `LEAST_WATCHED` are watched."""
    values = [getattr(e, end) if e.n >= LEAST_WATCHED else None for e in estimates]
    return np.array([np.nan if v is None else v for v in values], float)


def _figure() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "a plot needs matplotlib, expected it installed; pip install 'steer-env[eval]'"
        ) from error
    figure = Figure(figsize=(9.6, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # no global state and no display, unlike pyplot
    return figure


def _draw(axis: Any, curve: Sequence[ArrayLike], label: str, index: int) -> None:
    colour, dash = _COLOURS[index % len(_COLOURS)], _DASHES[index % len(_DASHES)]
    value, low, high = (np.append(side, np.asarray(side)[-1:]) for side in curve)
    turns = np.append(np.arange(len(value) - 1), len(value) - 1.5)  # room for what holds after the last turn
    axis.step(turns, value, where="post", color=colour, linestyle=dash, label=label, linewidth=1.8)
    axis.fill_between(turns, low, high, step="post", color=colour, alpha=0.13, linewidth=0)


def _style(axis: Any, label: str, horizon: int) -> None:
    axis.set_title(label, fontsize=10, loc="left")
    axis.set_xlabel("turn")
    axis.set_xlim(0, horizon + 0.5)
    axis.set_ylim(0, 1.02)
    axis.set_xticks(range(0, horizon + 1, max(1, horizon // 10)))
    axis.grid(axis="y", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, first: Any, path: str | Path, title: str) -> Path:
    handles, labels = first.get_legend_handles_labels()
    if handles:
        columns = min(len(labels), 4)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=12)
    target = Path(path)
    with replacing(target) as part:
        figure.savefig(part, format=target.suffix.lstrip(".") or "png")
    return target
