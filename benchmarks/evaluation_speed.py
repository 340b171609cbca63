"""How long the survival and incidence measures take: 100,000 dialogues, 1,000 bootstrap samples of clusters.

python benchmarks/evaluation_speed.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from steer_env.evaluation import events


def main() -> None:
    """Draw dialogues, measure, print seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dialogues", type=int, default=100_000)
    parser.add_argument("--clusters", type=int, default=30_000)
    parser.add_argument("--replicates", type=int, default=1000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    length = rng.integers(2, 11, args.dialogues)
    when = np.minimum(rng.geometric(0.08, args.dialogues), length)
    cause = np.where(rng.random(args.dialogues) < 0.4, rng.integers(1, 4, args.dialogues), 0)
    cluster = rng.integers(0, args.clusters, args.dialogues)
    causes = {"harm": 1, "bare_refusal": 2, "over": 3}
    options = {"replicates": args.replicates, "seed": 0}
    jobs = {
        "survival band": lambda: events.survival_band(when, cause > 0, cluster, horizon=10, **options),
        "incidence bands": lambda: events.incidence(
            when, cause, cluster, horizon=10, causes=causes, **options
        ),
        "restricted mean safe turns": lambda: events.safe_turns(when, cause > 0, cluster, 10, **options),
    }
    print(f"{args.dialogues} dialogues in {args.clusters} clusters, {args.replicates} bootstrap samples")
    total = 0.0
    for name, job in jobs.items():
        started = time.perf_counter()
        job()
        seconds = time.perf_counter() - started
        total += seconds
        print(f"{name:28}{seconds:8.2f} s")
    print(f"{'all':28}{total:8.2f} s")


if __name__ == "__main__":
    main()
