"""Results by subset (mechanism, strategy, technique, category, kind, length) and their plain average."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from steer_env.evaluation import metrics, protocols, scales
from steer_env.evaluation.combine import Part, weighted_sum
from steer_env.evaluation.intervals import Estimate, rate, unavailable
from steer_env.evaluation.metrics import Verdicts
from steer_env.evaluation.tabulate import Dialogues

#: What a subset can be asked: name -> how to decide each dialogue.
MEASURES: Mapping[str, Callable[[Dialogues], Verdicts]] = {
    "safety": lambda d: protocols.verdicts(d)["safety"],
    "helpfulness": lambda d: protocols.verdicts(d)["helpfulness"],
    "joint": lambda d: protocols.verdicts(d)["joint"],
    "harm": lambda d: harmed(d),
}


def harmed(d: Dialogues) -> Verdicts:
    """Decide which dialogues hold a turn of safety < 0."""
    return metrics.any_turn(d.safety < scales.HARM, d.scored, d.played, d.complete)


@dataclass(frozen=True, eq=False)
class Breakdown:
    """One measure by the levels of one label.

    Attributes:
        label: "mechanism", "strategy", ...
        measure: Key of `MEASURES`.
        levels: Level -> its rate.
        average: Plain mean of the levels, each counting the same however many dialogues it has.
        unlabelled: Dialogues without this label; they are in no level.
    """

    label: str
    measure: str
    levels: Mapping[str, Estimate]
    average: Estimate
    unlabelled: int


def breakdown(d: Dialogues, label: str, measure: str = "safety", **options: Any) -> Breakdown:
    """Return one measure by the levels of a label.

    Args:
        d: Recorded dialogues.
        label: A name of `tabulate.LABELS`, or "length".
        measure: A name of `MEASURES`; the pass rates are the paper's, on turn means.
        **options: `replicates`, `seed` and `confidence` of the intervals.

    Raises:
        ValueError: If the label or the measure is unknown.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure={measure!r}, expected one of {', '.join(MEASURES)}")
    of = labels_of(d, label)
    yes, no = MEASURES[measure](d)
    names = sorted({str(name) for name in of if name}, key=lambda n: (int(n) if n.isdigit() else -1, n))
    levels, parts = {}, []
    for name in names:
        here = of == name
        levels[name] = rate(yes[here], no[here], d.cluster[here], **options)
        parts.append(Part(1 / len(names), yes, no, here, f"{label} {name}"))
    if parts:
        average = weighted_sum(parts, d.cluster, **options)
    else:
        average = unavailable(f"no dialogue has a {label}")
    return Breakdown(label, measure, levels, average, int((of == "").sum()))


def labels_of(d: Dialogues, label: str) -> np.ndarray[Any, np.dtype[np.str_]]:
    """Return the (N,) levels of a label, "length" being the number of turns.

    Raises:
        ValueError: If the dialogues have no such label.
    """
    if label == "length":
        return d.planned.astype(np.str_)
    if label not in d.labels:
        raise ValueError(f"label={label!r}, expected one of {', '.join([*d.labels, 'length'])}")
    return d.labels[label]


def cross(d: Dialogues, rows: str, columns: str, measure: str = "harm", **options: Any) -> dict[str, Any]:
    """Return a measure by two labels: `{"rows": names, "columns": names, "cells": [[Estimate]]}`."""
    first, second = labels_of(d, rows), labels_of(d, columns)
    yes, no = MEASURES[measure](d)
    names = [sorted({str(n) for n in side if n}) for side in (first, second)]
    cells = []
    for a in names[0]:
        chosen = [(first == a) & (second == b) for b in names[1]]
        cells.append([rate(yes[at], no[at], d.cluster[at], **options) for at in chosen])
    return {"rows": names[0], "columns": names[1], "cells": cells}
