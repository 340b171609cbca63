"""Figures of the report: survival, learning curves, alpha. Without matplotlib there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.ablation import analysis
from benchmarks.ablation.analysis import Effect
from benchmarks.ablation.sweep import LATE, TRAINED

if TYPE_CHECKING:
    from benchmarks.ablation.report import Results

Levels = Mapping[tuple[str, str, str], Effect]
COLOURS = (
    "#4d4d4d",
    "#c8641e",
    "#1f6fb4",
    "#2c8a4b",
    "#8a4fa3",
    "#a08a1e",
    "#b3386b",
    "#3aa6a0",
    "#7a5230",
    "#6b7fd7",
    "#d45087",
    "#00768a",
    "#94b33c",
    "#5b4a9e",
    "#d9903d",
    "#7f8c8d",
)
#: Arms of the survival figure, two rows: the paper's models, the components.
SURVIVAL = (
    ("base", "sft", "full", "single-sft", "single-grpo"),
    ("full", "no-bootstrap", "mean-only", "last-turn", "tutor", "static"),
)
SURVIVAL_LATE = (("sft", "late-tcsr", "late-mean"),
                 ("sft", "full", "mean-only", "last-turn", "sum"))  # fmt: skip
EVENTS = (
    ("failure_time", "failed", "no failure so far (safety < 2)"),
    ("harm_time", "harmed", "no harm so far"),
)


def draw_all(results: Results, levels: Levels, folder: Path) -> list[str]:
    """Draw what there are results for; returns the files' names."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return []
    parts = [p for p in ("bench", "ood", TRAINED, LATE) if p in results.table.parts]
    drawn = [survival(results, part, folder / f"survival-{part}.png") for part in parts]
    drawn.append(learning(results, folder / "learning.png"))
    drawn.append(alphas(results, levels, parts, folder / "alpha.png"))
    return [path.name for path in drawn if path is not None]


def survival(results: Results, part: str, path: Path) -> Path | None:
    """Draw Kaplan-Meier curves of a part, pooled over training seeds, with bands over seeds and groups."""
    table = results.table
    horizon = int(max(np.nanmax(table.values(m, part, "turns")) for m in table.models if table.has(m, part)))
    figure = _figure(10.5, 8.0)
    axes = figure.subplots(2, 2, sharey=True, sharex=True)
    for row, arms in zip(axes, SURVIVAL_LATE if part == LATE else SURVIVAL, strict=True):
        for axis, (time, event, label) in zip(row, EVENTS, strict=True):
            for arm in arms:
                model = results.models.get(arm)
                if model is None or not table.has(model, part):
                    continue
                data = (table.values(model, part, column) for column in (time, event))
                curve = analysis.survival(*data, table.groups(part), horizon=horizon)
                _step(axis, curve, results.titles[arm], _colour(results, arm))
            axis.set_title(label, fontsize=10, loc="left")
            axis.set_ylim(0, 1.02)
            _plain(axis)
        row[0].set_ylabel("share of dialogues")
        if row[0].get_legend_handles_labels()[1]:
            row[1].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for axis in axes[1]:
        axis.set_xlabel("turn")
    seeds = max(len(table.seeds(m, part)) for m in table.models if table.has(m, part))
    figure.suptitle(
        f"{part}: {seeds} training seeds pooled, 95 % bands over seeds and scenario groups", fontsize=11
    )
    return _save(figure, path)


def _step(axis: Any, curve: analysis.Survival, label: str, colour: str) -> None:
    turn = np.arange(len(curve.survival))
    axis.step(turn, curve.survival, where="post", color=colour, label=label, linewidth=1.8)
    axis.fill_between(turn, curve.low, curve.high, step="post", color=colour, alpha=0.12, linewidth=0)


def learning(results: Results, path: Path) -> Path | None:
    """Draw training curves of Stage III: the mean over seeds, each seed thin."""
    if not results.curves:
        return None
    columns = {
        "safety": "safety (1 to 10)",
        "usefulness": "usefulness (1 to 10)",
        "cost": "harm per turn",
        "kl": "KL to the first policy",
        "entropy": "entropy",
        "return": "return (differs by arm; a sum is divided by turns)",
    }
    figure = _figure(12.0, 7.0)
    axes = figure.subplots(2, 3).ravel()
    first = {model: arm for arm, model in reversed(results.models.items())}
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        for model, arm in first.items():
            summed = column == "return" and _stage(results, arm).get("returns") == "sum"
            runs = _runs(results.curves, model, "return_per_turn" if summed else column)
            if runs is None:
                continue
            colour = _colour(results, arm)
            axis.plot(runs.T, color=colour, linewidth=0.5, alpha=0.25)
            mean = np.nanmean(runs, axis=0) if np.isfinite(runs).any(axis=0).all() else runs.mean(axis=0)
            axis.plot(mean, color=colour, linewidth=1.8, label=results.titles[arm])
        axis.set_title(label, fontsize=10, loc="left")
        _plain(axis)
    for axis in axes[3:]:
        axis.set_xlabel("step")
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle("Stage III while training: mean over training seeds, each seed thin", fontsize=11)
    return _save(figure, path)


def _stage(results: Results, arm: str) -> Mapping[str, Any]:
    """Return how Stage III of an arm differs, as the summary has it."""
    entry = next(entry for entry in results.summary["arms"] if entry["name"] == arm)
    return entry.get("stage_three") or {}


def _runs(curves: Sequence[Mapping[str, str]], model: str, column: str) -> Any:
    by_seed: dict[str, list[float]] = {}
    for line in curves:
        if line["model"] == model:
            by_seed.setdefault(line["seed"], []).append(float(line[column] or "nan"))
    if not by_seed:
        return None
    length = max(map(len, by_seed.values()))
    return np.array([run + [float("nan")] * (length - len(run)) for run in by_seed.values()])


def alphas(results: Results, levels: Levels, parts: Sequence[str], path: Path) -> Path | None:
    """Draw pass rates and harm over alpha with their intervals, each training seed as a dot."""
    known = [(alpha, arm) for alpha, arm in results.summary["alphas"] if arm in results.models]
    parts = [part for part in parts if all((arm, part, "harm") in levels for _, arm in known)]
    if len(known) < 2 or not parts:
        return None
    figure = _figure(10.5, 3.8)
    axes = np.atleast_1d(figure.subplots(1, len(parts), sharey=True))
    for axis, part in zip(axes, parts, strict=True):
        for number, measure in enumerate(("safety", "helpfulness", "harm")):
            effects = [levels[arm, part, measure] for _, arm in known]
            x = np.array([alpha for alpha, _ in known]) + 0.012 * (number - 1)
            ends = [(analysis.middle(e.estimate), e.estimate.low, e.estimate.high) for e in effects]
            value, low, high = (np.array(side, float) for side in zip(*ends, strict=True))
            bars = np.clip(np.stack([value - low, high - value]), 0, None)
            axis.errorbar(x, value, bars, color=COLOURS[number + 1], label=measure, marker="o", markersize=4)
            for at, e in zip(x, effects, strict=True):
                axis.plot(
                    [at] * len(e.by_seed), e.by_seed, ".", color=COLOURS[number + 1], alpha=0.35, markersize=4
                )
        axis.set_title(part, fontsize=10, loc="left")
        axis.set_xlabel("alpha")
        axis.set_ylim(-0.02, 1.02)
        _plain(axis)
    axes[0].set_ylabel("share of dialogues")
    figure.suptitle("alpha: weight of the minimum in TCSR", fontsize=11)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    return _save(figure, path)


def _colour(results: Results, arm: str) -> str:
    models = list(dict.fromkeys(entry["model"] for entry in results.summary["arms"]))
    return COLOURS[models.index(results.models[arm]) % len(COLOURS)]


def _plain(axis: Any) -> None:
    axis.grid(axis="y", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path)
    return path
