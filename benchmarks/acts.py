"""Steps per second of SteerActs-v0, alone and in arrays. One JSON line.

python benchmarks/acts.py
"""

from __future__ import annotations

import json
import time

import gymnasium
import numpy as np

import steer_env  # noqa: F401  registers the environment


def one(seconds: float) -> float:
    """Return steps per second of one dialogue at a time, resets included."""
    env = gymnasium.make("steer_env/SteerActs-v0")
    env.reset(seed=0)
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        steps += 1
        if env.step(steps % 14)[2]:
            env.reset()
    return steps / (time.perf_counter() - start)


def many(num_envs: int, seconds: float) -> float:
    """Return acts per second of `num_envs` dialogues; no step is spent on starting anew."""
    vec = gymnasium.make_vec("steer_env/SteerActs-v0", num_envs=num_envs, autoreset_mode="SameStep")
    vec.reset(seed=0)
    acts = np.random.default_rng(0).integers(14, size=num_envs)
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        vec.step(acts)
        steps += num_envs
    return steps / (time.perf_counter() - start)


if __name__ == "__main__":
    result = {"one": one(2.0)} | {f"vector_{n}": many(n, 2.0) for n in (64, 1024, 4096)}
    print(json.dumps({name: round(rate) for name, rate in result.items()}))
