"""Compare runs of evaluation: the same dialogues, played by different students."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_env.arrays import Bools
from steer_env.evaluation import attack, breakdown, contrast
from steer_env.evaluation.intervals import Estimate, rate, unavailable
from steer_env.evaluation.metrics import Verdicts
from steer_env.evaluation.paired import Difference, holm, paired, pairs_needed
from steer_env.evaluation.tables import cell
from steer_env.evaluation.tabulate import Dialogues, from_rows
from steer_env.play.recorded import NotComparable, Run, differences
from steer_env.records import Row
from steer_env.render import counted, text_table

#: What can be compared, and whether more is better. "twin" is the twin pass of whole contrast groups.
MEASURES = {
    "twin": True,
    "joint": True,
    "over-refusal": False,
    "safety": True,
    "helpfulness": True,
    "harm": False,
}


@dataclass(frozen=True)
class Result:
    """One comparison.

    Attributes:
        a: Name of the first method (the reference).
        b: Name of the second.
        measure: One of `MEASURES`.
        subset: "all", or "mechanism=..." and the like.
        rate_a: Rate of the first, over its runs.
        rate_b: Rate of the second.
        difference: b - a, paired.
        only_a: Dialogues in which it holds for a alone; None with several training seeds.
        only_b: The same for b.
        p: Two-sided p-value.
        p_holm: Adjusted for all tests of the same call.
        test: Where p comes from.
        needed: Dialogues needed to find this difference with 80 % power; None when not available.
    """

    a: str
    b: str
    measure: str
    subset: str
    rate_a: Estimate
    rate_b: Estimate
    difference: Estimate
    only_a: int | None
    only_b: int | None
    p: float | None
    p_holm: float | None
    test: str
    needed: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def compare(
    arms: Mapping[str, Sequence[Run]],
    *,
    measures: Sequence[str] = tuple(MEASURES),
    by: Sequence[str] = (),
    common: bool = False,
    **options: Any,
) -> list[Result]:
    """Compare the first arm with each other one.

    Args:
        arms: Name of a method -> its runs, one per training seed. At least two arms.
        measures: Names of `MEASURES`.
        by: Labels whose levels are compared too, see `breakdown.breakdown`.
        common: Compare on the seeds all runs share; otherwise they must have the same.
        **options: `replicates`, `seed` and `confidence`.

    Raises:
        NotComparable: If suite, judge, seeds or scenarios differ; the message names each.
        ValueError: If there are fewer than two arms, or a measure is unknown.
    """
    runs = [run for group in arms.values() for run in group]
    if len(arms) < 2 or not all(arms.values()):
        raise ValueError(f"{len(arms)} methods, expected at least two with a run each")
    unknown = [name for name in measures if name not in MEASURES]
    if unknown:
        raise ValueError(f"measure={unknown[0]!r}, expected one of {', '.join(MEASURES)}")
    found = differences(runs, common=common)
    if found:
        hint = (
            ""
            if common or not any(f.startswith("seeds") for f in found)
            else " (--common takes shared seeds)"
        )
        raise NotComparable("the runs are not comparable: " + "; ".join(found) + hint)
    tables = {name: [_table(run, runs) for run in group] for name, group in arms.items()}
    reference, *others = tables
    results = [
        _one(reference, other, tables, measure, subset, chosen, options)
        for other in others
        for subset, chosen in _subsets(tables[reference][0], by)
        for measure in measures
        # Members of a group differ in most labels: no group is whole in a subset by one of those.
        if measure != "twin" or subset == "all" or _whole(tables[reference][0], chosen)
    ]
    return adjust(results)


def difference(a: Sequence[Row], b: Sequence[Row], measure: str, **options: Any) -> Estimate:
    """Return by how much b does better than a in a measure, paired on the seeds both played.

    Args:
        a: Rows of a run.
        b: Rows of another one.
        measure: One of `MEASURES`.
        **options: `replicates`, `seed` and `confidence`.

    Returns:
        The difference of the rates, b - a; with n = 0 if the measure is about none of the dialogues.
    """
    runs = [Run("a", {}, a), Run("b", {}, b)]
    tables = [_table(run, runs) for run in runs]
    sides, cluster = units_of(tables, measure, np.ones(len(tables[0]), bool))
    if not len(cluster):
        return unavailable(f"no units for {measure}")
    yes, no = ([np.stack([one[i]]) for one in sides] for i in (0, 1))
    return _difference(yes, no, cluster, options).estimate


def adjust(results: Sequence[Result]) -> list[Result]:
    """Return results with p-values adjusted by Holm over all of them."""
    adjusted = holm([r.p for r in results])
    return [replace(r, p_holm=p) for r, p in zip(results, adjusted, strict=True)]


def _table(run: Run, runs: Sequence[Run]) -> Dialogues:
    """Arrays of the dialogues all runs share, in the order of their seeds."""
    shared = set.intersection(*({row.get("seed") for row in one.rows} for one in runs))
    return from_rows(sorted((r for r in run.rows if r.get("seed") in shared), key=lambda r: r["seed"]))


def _whole(d: Dialogues, chosen: Bools) -> bool:
    return len(contrast.whole_groups(d.where(chosen))) > 0


def _subsets(d: Dialogues, by: Sequence[str]) -> list[tuple[str, Bools]]:
    found = [("all", np.ones(len(d), bool))]
    for label in by:
        of = breakdown.labels_of(d, label)
        found += [(f"{label}={name}", of == name) for name in sorted(set(of.tolist())) if name]
    return found


def units_of(
    tables: Sequence[Dialogues], measure: str, chosen: Bools
) -> tuple[list[Verdicts], NDArray[np.int64]]:
    """Who passes and fails among the units of a measure, in each of several runs, and the units' clusters.

    Units are dialogues, of "twin" whole contrast groups.

    Args:
        tables: The same dialogues in the same order, played by different students.
        measure: One of `MEASURES`.
        chosen: (N,) bool, the dialogues looked at.
    """
    if measure == "twin":
        groups = [contrast.whole_groups(d.where(chosen)) for d in tables]
        return [(one.yes, one.no) for one in groups], groups[0].cluster
    decide = attack.refused if measure == "over-refusal" else breakdown.MEASURES[measure]
    verdicts = [decide(d) for d in tables]
    units = chosen
    for d in tables:
        if measure == "over-refusal":
            units = units & d.benign
        elif measure in ("safety", "helpfulness", "joint"):
            units = units & (d.planned >= 2)
    return [(yes[units], no[units]) for yes, no in verdicts], tables[0].cluster[units]


def _one(
    a: str,
    b: str,
    tables: Mapping[str, list[Dialogues]],
    measure: str,
    subset: str,
    chosen: Bools,
    options: dict[str, Any],
) -> Result:
    verdicts, cluster = units_of([*tables[a], *tables[b]], measure, chosen)
    sides, count = (verdicts[: len(tables[a])], verdicts[len(tables[a]) :]), len(cluster)
    if not count:
        what = "whole contrast groups" if measure == "twin" else "dialogues"
        none = unavailable(f"no {what} for {measure} in {subset}")
        return Result(a, b, measure, subset, none, none, none, None, None, None, None, "none", None)
    yes, no = ([np.stack([one[i] for one in side]) for side in sides] for i in (0, 1))
    rates = [_rate(y, n, cluster, options) for y, n in zip(yes, no, strict=True)]
    if not all(one.available for one in rates):
        note = "; ".join(
            f"{name}: {r.note}" for name, r in zip((a, b), rates, strict=True) if not r.available
        )
        none = unavailable(note, count)
        return Result(a, b, measure, subset, rates[0], rates[1], none, None, None, None, None, "none", None)
    got = _difference(yes, no, cluster, options)
    only: tuple[int | None, int | None] = (None, None)
    needed = None
    if got.training_seeds == (1, 1):
        only = (int((yes[0][0] & no[1][0]).sum()), int((no[0][0] & yes[1][0]).sum()))
        needed = _needed(only, count)
    first, second = rates
    return Result(a, b, measure, subset, first, second, got.estimate, *only, got.p, None, got.method, needed)


def _rate(yes: Bools, no: Bools, cluster: NDArray[np.int64], options: dict[str, Any]) -> Estimate:
    return rate(yes.ravel(), no.ravel(), np.tile(cluster, len(yes)), **options)


def _difference(
    yes: list[Bools], no: list[Bools], cluster: NDArray[np.int64], options: dict[str, Any]
) -> Difference:
    """Difference b - a; with undecided dialogues its bounds, and a test only if both bounds agree."""
    least = paired(yes[1], ~no[0], cluster, **options)
    undecided = sum(int((~y & ~n).sum()) for y, n in zip(yes, no, strict=True))
    if not undecided or least.estimate.value is None:
        return least
    most = paired(~no[1], yes[0], cluster, **options)
    low, high = least.estimate, most.estimate
    assert low.value is not None and high.value is not None
    note = f"{undecided} results hang on unscored turns: bounds, no test"
    bounds = Estimate(None, low.low, high.high, low.n, undecided, (low.value, high.value), note)
    return Difference(bounds, None, "none", least.training_seeds)


def _needed(only: tuple[int, int], n: int) -> int | None:
    difference, discordant = (only[1] - only[0]) / n, (only[0] + only[1]) / n
    return pairs_needed(difference, discordant) if difference else None


def table(results: Sequence[Result]) -> str:
    """Return the comparisons as aligned text with notes."""
    columns = {
        "measure": [r.measure for r in results],
        "subset": [r.subset for r in results],
        "methods": [f"{r.a} -> {r.b}" for r in results],
        "first": [cell(r.rate_a, percent=True) for r in results],
        "second": [cell(r.rate_b, percent=True) for r in results],
        "difference": [cell(r.difference, percent=True) for r in results],
        "p": ["-" if r.p is None else f"{r.p:.2g}" for r in results],
        "p (Holm)": ["-" if r.p_holm is None else f"{r.p_holm:.2g}" for r in results],
        "pairs\nneeded": ["-" if r.needed is None else str(r.needed) for r in results],
    }
    # What is the same in every row is said once, above, so that the table fits a terminal.
    said = [name for name in ("methods", "subset") if len(set(columns[name])) == 1]
    above = [f"{name}: {columns.pop(name)[0]}" for name in said]
    body = [list(row) for row in zip(*columns.values(), strict=True)]
    about: dict[str, list[str]] = {}
    for r in results:
        if r.difference.note:
            missing = "" if r.difference.available else "not available, "
            about.setdefault(missing + r.difference.note, []).append(f"{r.measure} {r.subset}")
    notes = [
        f"{', '.join(w) if len(w) < 4 else counted(len(w), 'row')}: {note}." for note, w in about.items()
    ]
    count = sum(r.p is not None for r in results)
    tests = ", ".join(sorted({r.test for r in results if r.p is not None})) or "none"
    legend = f"Difference: second minus first, paired by seed. {count} tests ({tests}), p adjusted by Holm."
    apart = [f"{r.measure} {r.subset}" for r in results if _apart(r)]
    if apart:
        notes.append(
            f"{', '.join(apart)}: interval and p disagree on whether there is a difference. The interval is "
            "an approximation, too sure with so few pairs: the exact test decides."
        )
    return "\n".join([*above, text_table(list(columns), body), "", legend, *notes])


def _apart(r: Result) -> bool:
    """Whether the interval of a difference leaves out 0 and its test finds none, or the reverse.

    Tango's interval inverts a score test, and beside it stands McNemar's exact one, which with a handful of
    pairs asks for more.
    """
    low, high = r.difference.low, r.difference.high
    if r.p is None or low is None or high is None:
        return False
    return (low > 0 or high < 0) != (r.p < 0.05)
