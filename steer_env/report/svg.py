"""Curves as inline SVG and shares as coloured table cells, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike

_WIDTH, _HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 36, 8, 10, 30
_DASHES = ("none", "7 3", "2 3", "9 3 2 3")
_BORDERS = ("solid", "dashed", "dotted", "dashed")  # of the legend, as near as style sheets come
#: Colours of the style sheet, `--c0` and so on.
COLOURS = 6


@dataclass(frozen=True, eq=False)
class Line:
    """A step curve at turns 0..H with its band; NaN ends it. `colour` counts policies."""

    name: str
    value: ArrayLike
    low: ArrayLike
    high: ArrayLike
    colour: int


def chart(lines: Sequence[Line], caption: str) -> str:
    """Return a figure with step curves between 0 and 1 over turns, as HTML."""
    turns = max((len(np.asarray(line.value)) for line in lines), default=1) - 1
    span = max(turns, 1)

    def x(turn: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * turn / (span + 0.5)

    def y(share: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(caption)}">']
    for share in (0, 0.25, 0.5, 0.75, 1):
        at = y(share)
        parts.append(f'<path class="axis" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for turn in range(0, span + 1, max(1, span // 10)):
        parts.append(f'<text x="{x(turn):.1f}" y="{_HEIGHT - 14}" text-anchor="middle">{turn}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 1}" text-anchor="middle">turn</text>')
    for line in lines:
        style = f"var(--c{line.colour % COLOURS})"
        band = _steps(line.low, x, y), _steps(line.high, x, y)[::-1]
        if band[0]:
            ring = " ".join(f"{a:.1f},{b:.1f}" for side in band for a, b in side)
            parts.append(f'<polygon points="{ring}" style="fill:{style};opacity:.14"/>')
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in _steps(line.value, x, y))
        dash = _DASHES[line.colour % len(_DASHES)]
        look = f"fill:none;stroke:{style};stroke-width:2;stroke-dasharray:{dash}"
        name = f"<title>{escape(line.name)}</title>"
        parts.append(f'<polyline points="{path}" style="{look}">{name}</polyline>')
    parts.append("</svg>")
    return f"<figure>{''.join(parts)}<figcaption>{escape(caption)}</figcaption></figure>"


def _steps(values: ArrayLike, x: object, y: object) -> list[tuple[float, float]]:
    """Corners of a right-continuous step curve, up to its first NaN, held half a turn beyond the last."""
    given = np.asarray(values, float)
    known = np.flatnonzero(~np.isfinite(given))
    given = given[: known[0]] if len(known) else given
    points = []
    for turn, share in enumerate(given):
        end = turn + 1 if turn + 1 < len(given) else turn + 0.5
        height = y(min(1.0, max(0.0, float(share))))  # type: ignore[operator]
        points += [(x(turn), height), (x(end), height)]  # type: ignore[operator]
    return points


def legend(names: Sequence[str]) -> str:
    """Return the legend of the policies' colours, as HTML."""
    items = [
        f'<span><i style="border-color:var(--c{i % COLOURS});border-top-style:{_BORDERS[i % len(_BORDERS)]}">'
        f"</i>{escape(name)}</span>"
        for i, name in enumerate(names)
    ]
    return f'<div class="legend">{"".join(items)}</div>'


def shade(share: float | None, colour: str, text: str = "") -> str:
    """Return a table cell tinted by a share, with its percentage; a dash for None."""
    if share is None:
        return '<td class="na">–</td>'
    tint = f"background:color-mix(in srgb, var(--{colour}) {60 * share:.0f}%, transparent)"
    return f'<td style="{tint}" title="{escape(text)}">{share:.0%}</td>'
