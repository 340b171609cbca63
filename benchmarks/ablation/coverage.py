"""How often the intervals hold the truth, by simulation: training seeds, and lines that share bases.

    python -m benchmarks.ablation.coverage

Two arms play the same groups of dialogues; the truth is a difference of 0.1. Groups differ in hardness
(shared by the arms, and a part of their own), training seeds in luck (shared, and their own), and results are
passes or failures. Nominal 95 %, mean width in brackets, 2000 simulations (known to 1 point), 50 groups of 3:

case                seeds  interval used      plain percentiles
no seed effect          3   97.1 % (0.225)   99.3 % (0.196)
no seed effect          5   96.4 % (0.139)   99.8 % (0.163)
small seed effect       3   94.2 % (0.292)   98.0 % (0.209)
small seed effect       5   96.0 % (0.169)   98.7 % (0.175)
large seed effect       3   93.5 % (0.660)   87.9 % (0.302)
large seed effect       5   95.7 % (0.355)   92.5 % (0.262)
seeds alone             3   93.8 % (0.674)   87.2 % (0.302)
seeds alone             5   95.5 % (0.358)   92.3 % (0.262)

The sweep has three bases with three lines each and 25 groups of 4. Lines taken for nine independent seeds
claim too much as soon as bases differ; the report counts bases (400 simulations, known to 2 points):

case                  lines  bases counted      lines counted
no effect of base         9   97.0 % (0.215)   96.8 % (0.149)
small effect of base      9   95.2 % (0.248)   95.0 % (0.155)
large effect of base      9   94.5 % (0.380)   87.5 % (0.176)
bases alone               9   94.8 % (0.465)   78.5 % (0.175)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steer_env.evaluation.crossed import difference

#: The difference; rates are 0.55 and 0.45.
TRUTH = 0.1


class Case(NamedTuple):
    """Standard deviations: seed by arm, group by arm, seed, group, seed by group, base by arm."""

    seed_arm: float
    group_arm: float
    seed: float
    group: float
    both: float
    base_arm: float = 0.0


CASES = {
    "no seed effect": Case(0.0, 0.05, 0.0, 0.1, 0.05),
    "small seed effect": Case(0.03, 0.05, 0.03, 0.1, 0.05),
    "large seed effect": Case(0.10, 0.05, 0.05, 0.1, 0.05),
    "seeds alone": Case(0.10, 0.0, 0.0, 0.0, 0.0),
}
BASES = {
    "no effect of base": Case(0.04, 0.05, 0.0, 0.1, 0.05),
    "small effect of base": Case(0.04, 0.05, 0.0, 0.1, 0.05, 0.02),
    "large effect of base": Case(0.04, 0.05, 0.0, 0.1, 0.05, 0.05),
    "bases alone": Case(0.0, 0.05, 0.0, 0.1, 0.05, 0.07),
}


def draw(
    rng: np.random.Generator, sd: Case, seeds: int, groups: int, members: int, bases: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return results (S, N) of two arms whose true rates are 0.55 and 0.45, and the groups (N,)."""
    shared = rng.normal(0, sd.seed, (seeds, 1)) + rng.normal(0, sd.group, (1, groups))
    arms = []
    for rate in (0.5 + TRUTH / 2, 0.5 - TRUTH / 2):
        own = rng.normal(0, sd.seed_arm, (seeds, 1)) + rng.normal(0, sd.group_arm, (1, groups))
        own = own + np.repeat(rng.normal(0, sd.base_arm, (bases, 1)), seeds // bases, axis=0)
        chance = rate + shared + own + rng.normal(0, sd.both, (seeds, groups))
        passed = rng.random((seeds, groups, members)) < chance[..., None]
        arms.append(passed.reshape(seeds, -1).astype(float))
    return arms[0], arms[1], np.repeat(np.arange(groups), members)


def simulate(
    case: Case, simulations: int, *, seeds: int = 5, bases: int = 0, replicates: int = 500, seed: int = 0
) -> Mapping[str, float]:
    """Return coverage in percent of two intervals, and their mean widths.

    With `bases` the first one counts bases and the second ("other") lines; without, the first counts seeds
    and the second is the plain percentile one.
    """
    hits, widths = np.zeros(2), np.zeros(2)
    groups, members = (25, 4) if bases else (50, 3)
    clusters = np.repeat(np.arange(bases), seeds // bases) if bases else None
    for index in range(simulations):
        rng = np.random.default_rng([seed, index])
        a, b, group = draw(rng, case, seeds, groups, members, bases or seeds)
        options = {"replicates": replicates, "seed": int(rng.integers(1 << 30))}
        effect = difference(a, b, group, clusters=clusters, **options)
        other = difference(a, b, group, **options).estimate if bases else None
        ends = [(effect.estimate.low, effect.estimate.high)]
        ends.append((other.low, other.high) if other else effect.percentile)
        hits += [low <= TRUTH <= high for low, high in ends]
        widths += [high - low for low, high in ends]
    (used, plain), (width, plain_width) = 100 * hits / simulations, widths / simulations
    return {"used": used, "other": plain, "width": width, "other_width": plain_width}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--only", choices=("seeds", "bases"))
    args = parser.parse_args()
    tables = []
    if args.only != "bases":
        tables.append(("seeds  interval used      plain percentiles", CASES, (3, 5), 0))
    if args.only != "seeds":
        tables.append(("lines  bases counted      lines counted", BASES, (9,), 3))
    for head, cases, counts, bases in tables:
        print(f"{'case':20}  {head}")
        for name, case in cases.items():
            for seeds in counts:
                row = simulate(case, args.simulations, seeds=seeds, bases=bases)
                print(
                    f"{name:20}  {seeds:5}  {row['used']:5.1f} % ({row['width']:.3f})  "
                    f"{row['other']:5.1f} % ({row['other_width']:.3f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
