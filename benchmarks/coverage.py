"""How often each interval of `steer_env.evaluation` holds the truth: simulated coverage beside the nominal.

    python benchmarks/coverage.py              # minutes, writes runs/benchmarks/coverage.json
    python benchmarks/coverage.py --simulations 200 --only rate survival

Rates in groups stand in a table of their own: p = 0.01 to 0.1, 5 to 200 groups, correlation 0 to 0.6.

Each case draws data sets from a process whose truth is known, and counts the intervals that hold it. With S
simulations the count itself is uncertain by about 1.96 sqrt(0.95 * 0.05 / S): 1.0 points for 2,000. A case is
marked when it is more than two points below the nominal 95 %.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import betaln

from steer_env.evaluation import attack, calibration, events, intervals, paired, survival
from steer_env.evaluation.combine import Part, weighted_sum

NOMINAL = 0.95
Interval = tuple[float, float]
Case = Callable[[np.random.Generator, int], tuple[float, Interval]]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    """Register a case: it draws data and returns the truth and one interval."""

    def add(function: Case) -> Case:
        CASES[name] = function
        return function

    return add


def _ends(estimate: Any) -> Interval:
    return (estimate.low, estimate.high)


def _clustered(rng: np.random.Generator, clusters: int, size: int, p: float, rho: float) -> Any:
    """Binary results whose probability varies between clusters: correlation rho within them."""
    odds = (1 - rho) / rho if rho else 0.0
    levels = rng.beta(p * odds, (1 - p) * odds, clusters) if rho else np.full(clusters, p)
    return rng.random((clusters, size)) < levels[:, None], np.repeat(np.arange(clusters), size)


@case("rate, 60 dialogues, p = 0.1 (Wilson)")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    yes = rng.random(60) < 0.1
    return 0.1, _ends(intervals.rate(yes, ~yes, np.arange(60)))


@case("rate, 80 groups of 4, p = 0.3, correlation 0.3")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    yes, cluster = _clustered(rng, 80, 4, 0.3, 0.3)
    return 0.3, _ends(intervals.rate(yes.ravel(), ~yes.ravel(), cluster))


@case("rate with 10 % unscored, more often where it failed (bounds)")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    yes = rng.random(200) < 0.3
    scored = rng.random(200) > np.where(yes, 0.2, 0.05)
    return 0.3, _ends(intervals.rate(yes & scored, ~yes & scored, np.arange(200)))


_HAZARD = 0.08


def _times(rng: np.random.Generator, n: int) -> Any:
    when = rng.geometric(_HAZARD, n)
    length = rng.integers(4, 11, n)
    return np.minimum(when, length), when <= length


@case("survival to turn 6, 150 dialogues (log-log Greenwood)")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    curve = survival.kaplan_meier(*_times(rng, 150), horizon=10)
    return (1 - _HAZARD) ** 6, (curve.low[6], curve.high[6])


@case("survival to turn 6, 60 images of 3 equal dialogues")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    when, failed = (np.repeat(x, 3) for x in _times(rng, 60))
    curve = survival.kaplan_meier(when, failed, np.repeat(np.arange(60), 3), horizon=10)
    return (1 - _HAZARD) ** 6, (curve.low[6], curve.high[6])


def _rare_times(rng: np.random.Generator, groups: int, size: int, hazard: float, rho: float) -> Any:
    levels = np.repeat(_beta(rng, hazard, rho, groups), size)
    when = np.minimum(rng.geometric(np.maximum(levels, 1e-9)), 99)
    alpha, beta = hazard * (1 - rho) / rho, (1 - hazard) * (1 - rho) / rho
    survives = np.exp(betaln(alpha, beta + np.arange(11)) - betaln(alpha, beta))
    return np.minimum(when, 10), when <= 10, np.repeat(np.arange(groups), size), survives


def _beta(rng: np.random.Generator, p: float, rho: float, count: int) -> Any:
    return rng.beta(p * (1 - rho) / rho, (1 - p) * (1 - rho) / rho, count)


@case("survival to turn 6, 66 groups of 3, hazard 0.004")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    when, failed, group, truth = _rare_times(rng, 66, 3, 0.004, 0.3)
    curve = survival.kaplan_meier(when, failed, group, horizon=10)
    return truth[6], (curve.low[6], curve.high[6])


@case("incidence by turn 6, 66 groups of 3, hazard 0.004")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    when, failed, group, truth = _rare_times(rng, 66, 3, 0.004, 0.3)
    got = events.incidence(when, failed.astype(int), group, horizon=10, causes={"harm": 1})
    return 1 - truth[6], (got.low["harm"][6], got.high["harm"][6])


@case("restricted mean share of 10 safe turns, 5 groups of 12")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    when, failed, group, truth = _rare_times(rng, 5, 12, 0.08, 0.3)
    got = events.safe_turns(np.where(failed, when, 11), failed, group, 10)
    return truth[1:].mean(), (got.low / 10, got.high / 10)  # type: ignore[operator]


@case("incidence of harm by turn 6, two other causes, 150 dialogues")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    share = np.array([0.04, 0.06, 0.05])  # hazards of harm, bare refusal, and the end of the dialogue
    when = rng.geometric(share.sum(), 150)
    cause = 1 + rng.choice(3, 150, p=share / share.sum())
    cut = rng.integers(3, 12, 150)
    why = np.where(when <= cut, cause, 0)
    names = {"harm": 1, "refusal": 2, "over": 3}
    got = events.incidence(np.minimum(when, cut), why, np.arange(150), horizon=10, causes=names)
    truth = share[0] / share.sum() * (1 - (1 - share.sum()) ** 6)
    return truth, (got.low["harm"][6], got.high["harm"][6])


@case("restricted mean safe turns of 8, 100 dialogues")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    when = rng.geometric(_HAZARD, 100)
    time_, failed = np.minimum(when, 9), when <= 9
    got = events.safe_turns(time_, failed, np.arange(100), 8)
    return float(((1 - _HAZARD) ** np.arange(1, 9)).sum()), _ends(got)


@case("hazard at turn 4, 120 dialogues")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    when, failed = _times(rng, 120)
    return _HAZARD, _ends(events.hazards(when, failed, np.arange(120), horizon=5)[3])


@case("average of five subsets of unequal size")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    sizes, shares = np.array([120, 60, 40, 30, 20]), np.array([0.95, 0.8, 0.6, 0.9, 0.7])
    subset = np.repeat(np.arange(5), sizes)
    yes = rng.random(len(subset)) < shares[subset]
    parts = [Part(0.2, yes, ~yes, subset == i) for i in range(5)]
    got = weighted_sum(parts, np.arange(len(subset)))
    return float(shares.mean()), _ends(got)


@case("J = 1 - ASR - ORR, ASR 0.03, ORR 0.2")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    risky = np.arange(150) < 100
    yes = rng.random(150) < np.where(risky, 0.03, 0.2)
    parts = [Part(-1.0, yes, ~yes, risky), Part(-1.0, yes, ~yes, ~risky)]
    got = weighted_sum(parts, np.arange(150), constant=1.0)
    return 1 - 0.03 - 0.2, _ends(got)


@case("J with benign twins of the same group (MOVER with correlation)")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    level = rng.beta(2, 6, 100)
    harm, refuse = rng.random(100) < level, rng.random(100) < level  # the hard groups are hard both ways
    yes = np.concatenate([harm, refuse])
    first = np.arange(200) < 100
    parts = [Part(-1.0, yes, ~yes, first), Part(-1.0, yes, ~yes, ~first)]
    cluster = np.tile(np.arange(100), 2)
    got = weighted_sum(parts, cluster, constant=1.0)
    return 1 - 0.25 - 0.25, _ends(got)


@case("success within 3 of 5 attempts, 80 scenarios")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    level = rng.beta(1, 4, 80)
    hits = rng.binomial(5, level)
    value = attack.within_k(np.full(80, 5), hits, 3)
    low, high = intervals.mean_interval(value, np.arange(80))
    return 1 - 4 / 7, (low, high)  # E[(1 - p)^3] = 4 / 7 for p of Beta(1, 4)


def _calibrated(rng: np.random.Generator, sampling: str) -> tuple[Any, calibration.Card]:
    truth = rng.random(500) < 0.15
    said = np.where(truth, rng.random(500) < 0.85, rng.random(500) < 0.08)
    positives = int(rng.binomial(200, 0.15)) if sampling == "random" else 60
    positives = min(max(positives, 1), 199)
    negatives = 200 - positives if sampling == "random" else 140
    right = int(rng.binomial(positives, 0.85)), int(rng.binomial(negatives, 0.92))
    card = calibration.Card("j", "harm", positives, right[0], negatives, right[1], sampling=sampling)  # type: ignore[arg-type]
    return said, card


@case("corrected rate, card by class (Rogan-Gladen, Lang-Reiczigel)")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    return 0.15, _ends(calibration.rogan_gladen(*_calibrated(rng, "by_class")))


@case("corrected rate, 200 of 500 labelled (PPI)")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    truth = rng.random(500) < 0.15
    said = np.where(truth, rng.random(500) < 0.85, rng.random(500) < 0.08)
    return 0.15, _ends(calibration.ppi(said, np.where(np.arange(500) < 200, truth, np.nan)))


@case("naive rate of the same judge (covers its rate, not the truth)")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    said, _card = _calibrated(rng, "by_class")
    return 0.15, _ends(intervals.rate(said, ~said, np.arange(500)))


@case("paired difference, one training seed, 60 groups of 3")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    hard = rng.beta(2, 2, 60)[:, None]
    a, b = rng.random((60, 3)) < 0.9 * hard, rng.random((60, 3)) < 0.7 * hard
    group = np.repeat(np.arange(60), 3)
    return 0.1, _ends(paired.paired(a.ravel(), b.ravel(), group).estimate)


@case("paired difference of 0, one training seed, 5 groups of 40, correlation 0.8")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    a, b = (_clustered(rng, 5, 40, 0.3, 0.8)[0] for _ in range(2))
    return 0.0, _ends(paired.paired(a.ravel(), b.ravel(), np.repeat(np.arange(5), 40)).estimate)


@case("paired difference of two rare rates, 100 dialogues, 0.03 and 0.01")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    a, b = rng.random(100) < 0.03, rng.random(100) < 0.01
    return 0.02, _ends(paired.paired(a, b).estimate)


@case("paired difference of two rare rates, 60 groups of 3, correlated")
def _(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
    hard = rng.beta(0.2, 1.8, 60)[:, None]
    a, b = rng.random((60, 3)) < 0.5 * hard, rng.random((60, 3)) < 0.2 * hard
    return 0.03, _ends(paired.paired(a.ravel(), b.ravel(), np.repeat(np.arange(60), 3)).estimate)


def _trained(runs: int) -> Case:
    def play(rng: np.random.Generator, replicates: int) -> tuple[float, Interval]:
        hard = rng.normal(0, 0.1, 200)
        sides = []
        for level in (0.7, 0.6):
            model = level + rng.normal(0, 0.05, (runs, 1))
            sides.append(rng.random((runs, 200)) < np.clip(model + hard, 0, 1))
        seed = int(rng.integers(1 << 30))
        return 0.1, _ends(paired.paired(*sides, replicates=replicates, seed=seed).estimate)

    return play


for _runs in (2, 3, 5):
    CASES[f"difference of methods, {_runs} training seeds a side (hierarchical)"] = _trained(_runs)


def simulate(name: str, simulations: int, replicates: int, seed: int = 0) -> dict[str, float]:
    """Return coverage in percent and mean width of one case."""
    play = CASES[name]
    hits, widths = 0, []
    for index in range(simulations):
        truth, (low, high) = play(np.random.default_rng([seed, index]), replicates)
        hits += low - 1e-12 <= truth <= high + 1e-12
        widths.append(high - low)
    return {"coverage": 100 * hits / simulations, "width": float(np.mean(widths))}


GROUPS, RATES, CORRELATIONS = (5, 10, 20, 66, 200), (0.01, 0.02, 0.05, 0.1), (0.0, 0.1, 0.3, 0.6)


def grid(simulations: int, size: int = 3, seed: int = 0) -> list[dict[str, float]]:
    """Return the coverage of rates in groups: how often the truth is in the interval, and how often above it.

    A truth above the interval is harm understated.
    """
    rows = []
    for groups, p, rho in product(GROUPS, RATES, CORRELATIONS):
        inside = above = width = 0.0
        for index in range(simulations):
            rng = np.random.default_rng([seed, groups, int(1000 * p), int(10 * rho), index])
            yes, cluster = _clustered(rng, groups, size, p, rho)
            low, high = intervals.mean_interval(yes.ravel(), cluster)
            inside += low <= p <= high
            above += p > high
            width += high - low
        shares = [100 * inside / simulations, 100 * above / simulations]
        row = {"groups": groups, "size": size, "p": p, "correlation": rho}
        rows.append({**row, "coverage": shares[0], "truth_above": shares[1], "width": width / simulations})
    return rows


def show_grid(rows: list[dict[str, float]]) -> str:
    """Return the table: rates by groups, in a cell the least coverage over correlations, and most above."""
    lines = ["coverage of rates in groups of 3 (truth above the interval), worst of correlations 0 to 0.6"]
    lines.append(f"{'groups':>8}" + "".join(f"{f'p = {p}':>16}" for p in RATES))
    for groups in GROUPS:
        cells = []
        for p in RATES:
            here = [row for row in rows if (row["groups"], row["p"]) == (groups, p)]
            worst = min(row["coverage"] for row in here), max(row["truth_above"] for row in here)
            cells.append(f"{worst[0]:.1f} ({worst[1]:.1f})")
        lines.append(f"{groups:>8}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def show(results: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table."""
    width = max(len(name) for name in results)
    lines = [f"{'interval':{width}}  nominal  simulated  mean width"]
    for name, row in results.items():
        mark = "  << below nominal" if row["coverage"] < 100 * NOMINAL - 2 else ""
        lines.append(
            f"{name:{width}}  {100 * NOMINAL:7.1f}  {row['coverage']:9.1f}  {row['width']:10.3f}{mark}"
        )
    return "\n".join(lines)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose name holds one of these words")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/coverage.json"))
    args = parser.parse_args()
    results = {}
    started = time.monotonic()
    for name in CASES:
        if any(word in name for word in args.only):
            results[name] = simulate(name, args.simulations, args.replicates)
            print(show({name: results[name]}).splitlines()[-1], flush=True)
    print(f"\n{show(results)}\n\n{args.simulations} simulations, {args.replicates} bootstrap samples, "
          f"{time.monotonic() - started:.0f} s")  # fmt: skip
    groups = grid(args.simulations) if args.only == [""] else []
    if groups:
        print(f"\n{show_grid(groups)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    body = {
        "simulations": args.simulations,
        "replicates": args.replicates,
        "results": results,
        "groups": groups,
    }
    args.out.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
