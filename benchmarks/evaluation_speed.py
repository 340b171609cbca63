"""How long the survival and incidence measures take: 100,000 dialogues in clusters.

python benchmarks/evaluation_speed.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from steer_env.evaluation import events, survival


def main() -> None:
    """Draw dialogues, measure, print seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dialogues", type=int, default=100_000)
    parser.add_argument("--clusters", type=int, default=30_000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    length = rng.integers(2, 11, args.dialogues)
    when = np.minimum(rng.geometric(0.08, args.dialogues), length)
    cause = np.where(rng.random(args.dialogues) < 0.4, rng.integers(1, 4, args.dialogues), 0)
    cluster = rng.integers(0, args.clusters, args.dialogues)
    causes = {"harm": 1, "bare_refusal": 2, "over": 3}
    jobs = {
        "survival band": lambda: survival.kaplan_meier(when, cause > 0, cluster, horizon=10),
        "incidence bands": lambda: events.incidence(when, cause, cluster, horizon=10, causes=causes),
        "restricted mean safe turns": lambda: events.safe_turns(when, cause > 0, cluster, 10),
    }
    print(f"{args.dialogues} dialogues in {args.clusters} clusters")
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
