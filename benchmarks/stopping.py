"""What it costs and saves to stop once a question is decided: `evaluate --until` in simulation.

    python -m benchmarks.stopping          # some minutes, writes runs/benchmarks/stopping.json

False alarms: how often an interval excludes the true rate at any of its looks, for the confidence sequence (a
look after each of 400 groups) and for Wilson's 95 % interval looked at after every 16. Stops: after how many
groups "harm<0.05" is answered, of at most 1,000, where the truth is another.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from steer_env.evaluation.intervals import wilson
from steer_env.evaluation.sequential import confidence_sequence
from steer_env.play.evaluate import EACH
from steer_env.render import markdown_table

RESULT = Path("runs/benchmarks/stopping.json")


def false_alarms(
    mean: float, simulations: int, rng: np.random.Generator, groups: int = 400
) -> dict[str, Any]:
    """Return the share of simulations in which each interval is wrong at some look."""
    sequence = repeated = 0
    for _ in range(simulations):
        x = (rng.random(groups) < mean).astype(float)
        lower, upper = confidence_sequence(x)
        sequence += bool(np.any((lower > mean) | (upper < mean)))
        hits = np.cumsum(x)
        looks = (wilson(int(hits[n - 1]), n) for n in range(EACH, groups + 1, EACH))
        repeated += any(not low <= mean <= high for low, high in looks)
    return {"rate": mean, "sequence": sequence / simulations, "wilson": repeated / simulations}


def stops(mean: float, simulations: int, rng: np.random.Generator, number: float = 0.05) -> dict[str, Any]:
    """Return after how many groups it is decided whether the mean is below a number."""
    groups, found, right = 1000, [], 0
    for _ in range(simulations):
        lower, upper = confidence_sequence((rng.random(groups) < mean).astype(float))
        looks = np.arange(EACH - 1, groups, EACH)
        decided = looks[(lower[looks] > number) | (upper[looks] < number)]
        found.append(int(decided[0]) + 1 if len(decided) else groups)
        right += bool(len(decided)) and bool((upper[decided[0]] < number) == (mean < number))
    low, middle, high = np.quantile(found, (0.1, 0.5, 0.9))
    return {"rate": mean, "median": middle, "p10": low, "p90": high, "right": right / simulations}


def main() -> None:
    """Simulate, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rng, n = np.random.default_rng(11), options.simulations
    alarms = [false_alarms(mean, n, rng) for mean in (0.02, 0.05, 0.2, 0.5)]
    answers = [stops(mean, n // 4, rng) for mean in (0.0, 0.01, 0.02, 0.1, 0.2, 0.3)]
    rows = [[f"{a['rate']:.0%}", f"{a['sequence']:.1%}", f"{a['wilson']:.1%}"] for a in alarms]
    print(markdown_table(["true rate", "sequence ever wrong", "Wilson ever wrong"], rows), "\n")
    rows = [
        [f"{a['rate']:.0%}", f"{a['median']:.0f} ({a['p10']:.0f} to {a['p90']:.0f})", f"{a['right']:.1%}"]
        for a in answers
    ]
    print(markdown_table(["true harm", "groups until harm<0.05 is answered", "answered rightly"], rows))
    result = {"simulations": n, "false_alarms": alarms, "simulations_of_stops": n // 4, "stops": answers}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
