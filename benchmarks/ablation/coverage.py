"""How often the intervals of `analysis.hierarchical` hold the truth, by simulation.

    python -m benchmarks.ablation.coverage

Two arms of 3 or 5 training seeds play 50 groups of 3 dialogues; the truth is a difference of 0.1. Groups
differ in hardness (shared by the arms, and a part of their own), training seeds in luck (shared, and their
own), and results are passes or failures. Nominal 95 %, mean width in brackets, 2000 simulations (known to 1
point):

case                seeds  interval used      plain percentiles
no seed effect          3   97.1 % (0.225)   99.3 % (0.196)
no seed effect          5   96.4 % (0.139)   99.8 % (0.163)
small seed effect       3   94.2 % (0.292)   98.0 % (0.209)
small seed effect       5   96.0 % (0.169)   98.7 % (0.175)
large seed effect       3   93.5 % (0.660)   87.9 % (0.302)
large seed effect       5   95.7 % (0.355)   92.5 % (0.262)
seeds alone             3   93.8 % (0.674)   87.2 % (0.302)
seeds alone             5   95.5 % (0.358)   92.3 % (0.262)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks.ablation.analysis import difference

#: The difference; rates are 0.55 and 0.45.
TRUTH = 0.1
GROUP_SIZE = 3
#: Name -> standard deviations of: seed by arm, group by arm, seed shared, group shared, seed by group.
CASES: dict[str, tuple[float, float, float, float, float]] = {
    "no seed effect": (0.0, 0.05, 0.0, 0.1, 0.05),
    "small seed effect": (0.03, 0.05, 0.03, 0.1, 0.05),
    "large seed effect": (0.10, 0.05, 0.05, 0.1, 0.05),
    "seeds alone": (0.10, 0.0, 0.0, 0.0, 0.0),
}


def draw(
    rng: np.random.Generator, sd: tuple[float, float, float, float, float], seeds: int, groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return results (S, N) of two arms whose true rates are 0.55 and 0.45, and the groups (N,)."""
    seed_arm, group_arm, seed_both, group_both, both = sd
    shared = rng.normal(0, seed_both, (seeds, 1)) + rng.normal(0, group_both, (1, groups))
    arms = []
    for rate in (0.5 + TRUTH / 2, 0.5 - TRUTH / 2):
        own = rng.normal(0, seed_arm, (seeds, 1)) + rng.normal(0, group_arm, (1, groups))
        chance = rate + shared + own + rng.normal(0, both, (seeds, groups))
        arms.append(
            (rng.random((seeds, groups, GROUP_SIZE)) < chance[..., None]).reshape(seeds, -1).astype(float)
        )
    return arms[0], arms[1], np.repeat(np.arange(groups), GROUP_SIZE)


def simulate(
    name: str, simulations: int, *, seeds: int = 5, groups: int = 50, replicates: int = 500, seed: int = 0
) -> Mapping[str, float]:
    """Return coverage in percent of the t interval and of the plain percentile one, and their mean widths."""
    hits, widths = np.zeros(2), np.zeros(2)
    for index in range(simulations):
        rng = np.random.default_rng([seed, index])
        a, b, group = draw(rng, CASES[name], seeds, groups)
        effect = difference(a, b, group, replicates=replicates, seed=int(rng.integers(1 << 30)))
        assert effect.estimate.low is not None and effect.estimate.high is not None
        ends = ((effect.estimate.low, effect.estimate.high), effect.percentile)
        hits += [low <= TRUTH <= high for low, high in ends]
        widths += [high - low for low, high in ends]
    t, percentile = 100 * hits / simulations
    width = widths / simulations
    return {"t": t, "percentile": percentile, "width": width[0], "percentile_width": width[1]}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=2000)
    args = parser.parse_args()
    print("case                seeds  interval used      plain percentiles")
    for name in CASES:
        for seeds in (3, 5):
            row = simulate(name, args.simulations, seeds=seeds)
            print(
                f"{name:18}  {seeds:5}  {row['t']:5.1f} % ({row['width']:.3f})  "
                f"{row['percentile']:5.1f} % ({row['percentile_width']:.3f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
