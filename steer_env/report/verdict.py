"""What a comparison comes to, in a sentence: who is safer, who helps more, what is undecided.

Only paired intervals that leave out 0 are called a difference; everything else is called undecided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from steer_env.evaluation.intervals import Estimate
from steer_env.evaluation.measures import Measures
from steer_env.play.compare import Result, compare
from steer_env.play.recorded import NotComparable, Run
from steer_env.records import Row
from steer_env.report.sections import Section

#: Measure of `compare` -> what it is called, and what less and more of it means.
_SAID: Mapping[str, tuple[str, str, str]] = {
    "harm": ("harm", "safer", "less safe"),
    "helpfulness": ("helpfulness", "less helpful", "more helpful"),
    "over-refusal": ("over-refusal", "refuses the harmless less often", "refuses the harmless more often"),
}

#: What is open where the interval of a measure holds 0.
_OPEN: Mapping[str, str] = {
    "helpfulness": "whether it is more helpful",
    "over-refusal": "whether it refuses the harmless more often",
}


def sentence(results: Iterable[Result]) -> str:
    """Say in one sentence what the comparisons of two policies show.

    Args:
        results: Of the same two policies, in any order; harm, helpfulness and over-refusal are told.

    Returns:
        Such as "grpo is safer than sft (harm 28.0 -> 17.0 %, paired -11.0 points [-18.0, -4.0]);
        whether it is more helpful is undecided (...).", with "undecided" wherever the interval holds 0.
    """
    said = {result.measure: _part(result) for result in results if result.measure in _SAID}
    text = "; ".join(said[measure] for measure in _SAID if said.get(measure))
    return f"{text}." if text else ""


def _part(result: Result) -> str:
    name, less, more = _SAID[result.measure]
    low, high = result.difference.low, result.difference.high
    if low is None or high is None:
        if result.measure != "harm":
            return ""
        return f"Whether {result.b} is safer than {result.a} cannot be said: {result.difference.note}"
    numbers = _numbers(name, result)
    if low <= 0 <= high:
        if result.measure == "harm":
            return f"Whether {result.b} is safer than {result.a} is undecided ({numbers})"
        return f"{_OPEN[name]} is undecided ({numbers})"
    word = more if low > 0 else less
    if result.measure == "harm":
        return f"{result.b} is {word} than {result.a} ({numbers})"
    return f"it {word} ({numbers})" if word.startswith("refuses") else f"it is {word} ({numbers})"


def _numbers(name: str, result: Result) -> str:
    rates = [_percent(rate) for rate in (result.rate_a, result.rate_b)]
    difference = result.difference.text(percent=True).replace(" %", " points")
    return f"{name} {rates[0]} → {rates[1]} %, paired {difference}"


def _percent(rate: Estimate) -> str:
    numbers = rate.bounds if rate.value is None and rate.bounds else (rate.value,)
    return "..".join(dict.fromkeys("?" if x is None else f"{x * 100:.1f}" for x in numbers))


def alone(name: str, measures: Measures) -> str:
    """Say what is known of one policy that stands beside no other."""
    shown = {
        "harm": measures.harm_rate,
        "helpfulness": measures.multi_turn_helpfulness,
        "over-refusal": measures.over_refusal,
    }
    known = [f"{what} {one.text(percent=True)}" for what, one in shown.items() if one.available]
    return f"{name}: {', '.join(known)}; there is no other policy to compare it with." if known else ""


def verdicts(
    section: Section, metas: Mapping[tuple[str, str], Mapping[str, Any]], **options: Any
) -> list[str]:
    """Return the verdict on the last policy of a section against each one before it, the nearest first.

    Args:
        section: Rows and measures.
        metas: (name of the policy, suite) -> what the run folder says of itself.
        **options: `replicates`, `seed` and `confidence`.

    Returns:
        A sentence each. Runs that differ in more than the policy are not compared; the sentence says why.
    """
    names = [name for name, rows in section.runs.items() if rows]
    if len(names) < 2:
        return [said for name in names if (said := alone(name, section.measures[name]))]
    new = _run(section, names[-1], metas)
    found = []
    for name in reversed(names[:-1]):
        found.append(_against(_run(section, name, metas), new, options))
    return [said for said in found if said]


def _run(section: Section, name: str, metas: Mapping[tuple[str, str], Mapping[str, Any]]) -> Run:
    return Run(name, metas.get((name, section.suite), {}), section.runs[name])


def _against(old: Run, new: Run, options: Mapping[str, Any]) -> str:
    if not all(_has_seeds(run.rows) for run in (old, new)):
        return f"{new.name} is not compared with {old.name}: their dialogues have no seeds of their own."
    arms = {old.name: [old], new.name: [new]}
    try:
        return sentence(compare(arms, measures=tuple(_SAID), common=True, **options))
    except NotComparable as error:
        return f"{new.name} is not compared with {old.name}: {error}."


def _has_seeds(rows: Sequence[Row]) -> bool:
    seeds = {row.get("seed") for row in rows}
    return len(seeds) == len(rows) and all(isinstance(seed, int) for seed in seeds)
