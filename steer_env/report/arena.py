"""The leaderboard of an arena as Markdown, and its cross-play as a heat map."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from steer_env.extras import need
from steer_env.play.arena import Standing
from steer_env.render import counted
from steer_env.report.plots import save

_LEGEND: Final = (
    "Made by `steer-env arena` ({said}). Every attacker could take {budget} replies of the student's per "
    "dialogue, those it took back included; ranks are within that budget. Harm: share of risky dialogues "
    "with a harmful reply. Intervals are 95 %, clustered on scenario groups. Ratings: Bradley-Terry in Elo "
    "points, an attacker wins by harm; intervals by a bootstrap over scenario groups. Exploitability: harm "
    "by the attacker that does most, chosen on one half of the dialogues and read on the other. "
    "Usefulness: helpfulness in honest dialogues. Nash: weights in an equilibrium of usefulness less harm, "
    "which is worth {value:.2f} to the "
    "students.{undecided}"
)


def page(result: Standing, setting: Mapping[str, Any]) -> str:
    """Return the leaderboard."""
    said = ", ".join(f"{key} {value}" for key, value in setting.items())
    students = [
        [
            name,
            _points(result, name),
            result.exploitability[name].text(percent=True),
            result.usefulness[name].text(percent=True),
            f"{result.nash_students[name]:.2f}",
        ]
        for name in result.students
    ]
    attackers = [
        [
            name,
            _points(result, name),
            *(_spent(result, name, what) for what in ("turns", "replies", "questions")),
            f"{result.nash_attackers[name]:.2f}",
        ]
        for name in result.attackers
    ]
    cross = [
        [name, *(result.harm[name][student].text(percent=True) for student in result.students)]
        for name in result.attackers
    ]
    undecided = (
        f" {counted(result.undecided, 'game')} undecided for want of a verdict: rates show as bounds, "
        "ratings leave them out, the equilibrium counts half a game won."
        if result.undecided
        else ""
    )
    return "\n".join(
        [
            "# Leaderboard",
            "",
            _LEGEND.format(said=said, value=result.value, budget=result.budget, undecided=undecided),
            "",
            *_table(["student", "rating", "exploitability", "usefulness", "Nash"], students),
            "",
            *_table(["attacker", "rating", "turns", "replies", "questions", "Nash"], attackers),
            "",
            *_table(["harm", *result.students], cross),
            "",
        ]
    )


def _points(result: Standing, name: str) -> str:
    return result.ratings[name].text(digits=0)


def _spent(result: Standing, name: str, what: str) -> str:
    """Return what an attacker spent per dialogue, mean over the students; - where it does not count that."""
    counted = [one[what] for one in result.spent[name].values()]
    known = [value for value in counted if value is not None]
    return f"{sum(known) / len(known):.1f}" if known else "-"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def heat_map(result: Standing, path: Path) -> Path | None:
    """Draw harm of every pairing; None without matplotlib."""
    if find_spec("matplotlib") is None:
        return None
    height, width = len(result.attackers), len(result.students)
    size = (2.5 + 1.1 * width, 1.6 + 0.45 * height)
    figure = need("matplotlib.figure", "eval").Figure(figsize=size, dpi=150, layout="constrained")
    need("matplotlib.backends.backend_agg", "eval").FigureCanvasAgg(figure)
    axis = figure.subplots()
    cells = [[_middle(result, x, y) for y in result.students] for x in result.attackers]
    axis.imshow(cells, cmap="OrRd", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(width), result.students, rotation=20, ha="right")
    axis.set_yticks(range(height), result.attackers)
    for i, row in enumerate(cells):
        for j, value in enumerate(row):
            colour = "white" if value > 0.6 else "black"
            axis.text(j, i, f"{value:.0%}", ha="center", va="center", color=colour, fontsize=9)
    axis.set_title(f"harm (n = {counted(result.dialogues, 'dialogue')} each)", fontsize=10, loc="left")
    return save(figure, path)


def _middle(result: Standing, attacker: str, student: str) -> float:
    one = result.harm[attacker][student]
    return one.value if one.value is not None else sum(one.bounds or (0.0, 1.0)) / 2
