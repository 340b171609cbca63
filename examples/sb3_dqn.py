"""Stable-Baselines3 DQN on SteerActs-v0.

python examples/sb3_dqn.py --steps 150000
"""

from __future__ import annotations

import argparse
import time

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import steer_env  # noqa: F401  registers the environment
from steer_env.acts import optimum


def main(argv: list[str] | None = None) -> float:
    """Train, evaluate, print; return the share of the known optimum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=2000, help="dialogues of the evaluation")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)

    env = make_vec_env("steer_env/SteerActs-v0", n_envs=32, seed=args.seed)
    model = DQN(
        "MlpPolicy", env, learning_rate=1e-3, buffer_size=50_000, learning_starts=min(2000, args.steps // 4),
        batch_size=256, train_freq=2, gradient_steps=8, target_update_interval=640, gamma=0.5,
        exploration_fraction=0.4, exploration_final_eps=0.05,
        seed=args.seed, device="cpu", policy_kwargs={"net_arch": [128, 128]},
    )  # fmt: skip
    start = time.perf_counter()
    model.learn(args.steps)
    seconds = time.perf_counter() - start

    held_out = make_vec_env("steer_env/SteerActs-v0", n_envs=32, seed=10_000 + args.seed)
    mean, _ = evaluate_policy(model, held_out, args.episodes, deterministic=True)
    best = optimum()
    share = float(mean) / best.upper
    print(f"DQN: {args.steps} steps in {seconds:.0f} s: {mean:.3f}, optimum {best.upper:.3f} ({share:.1%})")
    return share


if __name__ == "__main__":
    main()
