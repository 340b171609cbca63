"""Writes seeds as a data set for verl: python examples/verl/seeds.py 20000 runs/seeds.parquet."""

import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet


def write_seeds(count: int, path: str | Path, first: int = 0) -> None:
    """Write `count` rows; the agent loop plays the seed in `extra_info`, the prompt is never shown."""
    rows = [
        {
            "data_source": "steer_env",
            "prompt": [{"role": "user", "content": f"seed {seed}"}],
            "extra_info": {"seed": seed, "index": seed},
        }
        for seed in range(first, first + count)
    ]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


if __name__ == "__main__":
    write_seeds(int(sys.argv[1]), sys.argv[2])
