"""
Train with Stable-Baselines3
============================

``SteerActs-v0`` is the student's seat with fourteen dialogue acts instead of text. Observations are vectors and the optimum is known, so any
library of reinforcement learning can be put to it. Needs the extra ``rl``.
"""

# %%
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import steer_env  # noqa: F401  registers the environment
from steer_env.acts import optimum

torch.set_num_threads(1)
env = make_vec_env("steer_env/SteerActs-v0", n_envs=32, seed=0)
model = PPO("MlpPolicy", env, n_steps=64, batch_size=512, learning_rate=2e-3, gamma=0.9, seed=0, device="cpu")

# %%
# Before and after
# ----------------
# The return of a dialogue, against the best that is possible.
best = optimum().upper
held_out = make_vec_env("steer_env/SteerActs-v0", n_envs=32, seed=10_000)


def share_of_optimum():
    """Return the mean return of 200 dialogues, as a share of the optimum."""
    return evaluate_policy(model, held_out, 200)[0] / best


shares = {0: share_of_optimum()}
for _ in range(3):
    model.learn(6144, reset_num_timesteps=False)
    shares[model.num_timesteps] = share_of_optimum()
print({steps: f"{share:.0%}" for steps, share in shares.items()})

# %%
import matplotlib.pyplot as plt

plt.plot(list(shares), list(shares.values()), marker="o")
plt.axhline(1, linestyle="--", color="grey")
plt.xlabel("steps")
plt.ylabel("share of the optimum")
plt.show()

# %%
# ``examples/sb3_ppo.py`` goes on to 98 % in 150,000 steps; CleanRL and TorchRL have examples beside it (:doc:`/acts`).
