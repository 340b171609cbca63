"""PPO in one file, in the style of CleanRL, on the vector form of SteerActs-v0; logs reward and harm.

python examples/cleanrl_ppo.py --steps 400000
"""

from __future__ import annotations

import argparse
import time

import gymnasium
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

import steer_env  # noqa: F401  registers the environment
from steer_env.acts import optimum


class Agent(nn.Module):
    """Actor and critic with a hidden layer pair each."""

    def __init__(self, features: int, acts: int) -> None:
        super().__init__()
        self.actor = nn.Sequential(
            nn.Linear(features, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, acts)
        )
        self.critic = nn.Sequential(
            nn.Linear(features, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
        )

    def policy(self, observation: torch.Tensor) -> Categorical:
        """Return the distribution over acts."""
        return Categorical(logits=self.actor(observation))

    def value(self, observation: torch.Tensor) -> torch.Tensor:
        """Return the value of each observation."""
        return self.critic(observation).squeeze(-1)


def advantages(rewards: torch.Tensor, values: torch.Tensor, dones: torch.Tensor, last: torch.Tensor,
               gamma: float, lam: float) -> torch.Tensor:  # fmt: skip
    """Return generalised advantage estimates, (steps, envs); `dones[t]`: step t ended a dialogue."""
    out, running, following = torch.zeros_like(rewards), torch.zeros_like(last), last
    for t in reversed(range(len(rewards))):
        alive = 1.0 - dones[t]
        delta = rewards[t] + gamma * following * alive - values[t]
        running = delta + gamma * lam * alive * running
        out[t], following = running, values[t]
    return out


def update(
    agent: Agent, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor], args: argparse.Namespace
) -> None:
    """Do the epochs of clipped policy and value updates on one rollout."""
    size = len(batch["acts"])
    for _ in range(args.epochs):
        for rows in torch.randperm(size).split(args.minibatch):
            policy = agent.policy(batch["observations"][rows])
            ratio = (policy.log_prob(batch["acts"][rows]) - batch["log_probs"][rows]).exp()
            advantage = batch["advantages"][rows]
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            gain = torch.min(ratio * advantage, ratio.clamp(1 - args.clip, 1 + args.clip) * advantage).mean()
            error = (agent.value(batch["observations"][rows]) - batch["returns"][rows]).square().mean()
            loss = 0.5 * error - gain - args.entropy * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


def evaluate(agent: Agent, seed: int, dialogues: int) -> tuple[float, float]:
    """Return (mean return, harm per turn) of the greedy policy, one dialogue in each of `dialogues` slots."""
    envs = gymnasium.make_vec("steer_env/SteerActs-v0", num_envs=dialogues)
    observation, _ = envs.reset(seed=seed)
    total, harm, turns, over = np.zeros(dialogues), 0.0, 0, np.zeros(dialogues, bool)
    while not over.all():
        with torch.no_grad():
            acts = agent.actor(torch.as_tensor(observation)).argmax(-1).numpy()
        observation, reward, terminated, _, infos = envs.step(acts)
        total += np.where(over, 0.0, reward)
        harm, turns = harm + infos["cost"][~over].sum(), turns + int((~over).sum())
        over |= terminated
    return float(total.mean()), harm / turns


def main(argv: list[str] | None = None) -> float:
    """Train, evaluate, print; return the share of the known optimum."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("steps", 400_000), ("seed", 0), ("envs", 64), ("horizon", 32), ("epochs", 6),
                          ("minibatch", 512), ("dialogues", 4000)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, rate in (("lr", 2e-3), ("gamma", 0.9), ("lam", 0.9), ("clip", 0.2), ("entropy", 0.003)):
        parser.add_argument(f"--{name}", type=float, default=rate)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    # SAME_STEP: no step is spent on starting anew, and no act is ignored.
    envs = gymnasium.make_vec("steer_env/SteerActs-v0", num_envs=args.envs, autoreset_mode="SameStep")
    agent = Agent(envs.single_observation_space.shape[0], int(envs.single_action_space.n))
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.lr, eps=1e-5)
    observation = torch.as_tensor(envs.reset(seed=args.seed)[0])
    start, updates = time.perf_counter(), max(1, args.steps // (args.envs * args.horizon))
    for number in range(updates):
        optimizer.param_groups[0]["lr"] = args.lr * (1 - number / updates)
        rows: list[tuple[torch.Tensor, ...]] = []
        costs = 0.0
        for _ in range(args.horizon):
            with torch.no_grad():
                policy, value = agent.policy(observation), agent.value(observation)
                act = policy.sample()
            after, reward, terminated, _, infos = envs.step(act.numpy())
            costs += infos["cost"].mean() / args.horizon
            rows.append((observation, act, policy.log_prob(act), value,
                         torch.as_tensor(reward).float(), torch.as_tensor(terminated).float()))  # fmt: skip
            observation = torch.as_tensor(after)
        o, a, lp, v, r, d = (torch.stack(column) for column in zip(*rows, strict=True))
        with torch.no_grad():
            gae = advantages(r, v, d, agent.value(observation), args.gamma, args.lam)
        batch = {"observations": o, "acts": a, "log_probs": lp, "advantages": gae, "returns": gae + v}
        update(agent, optimizer, {k: x.flatten(0, 1) for k, x in batch.items()}, args)
        if number % max(1, updates // 8) == 0:
            print(f"update {number + 1}/{updates}: reward per turn {r.mean():.3f}, harm per turn {costs:.3f}")
    seconds = time.perf_counter() - start
    mean, harm = evaluate(agent, 10_000 + args.seed, args.dialogues)
    best = optimum()
    share = mean / best.upper
    print(f"PPO: {args.steps} steps in {seconds:.0f} s, return {mean:.3f}, optimum {best.upper:.3f}, "
          f"{share:.1%} of it, harm per turn {harm:.3f}")  # fmt: skip
    return share


if __name__ == "__main__":
    main()
