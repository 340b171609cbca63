"""TorchRL's multi-agent collector on the real two-seat dialogue, and a policy gradient for both seats.

TorchRL has no specification for text of any length, so `ActsSeats` puts acts and features between: what is
said is still text, scored by the rule judge and the reward wrappers. The attacker is paid for harm.

    python examples/torchrl_collector.py --frames 4000
"""

from __future__ import annotations

import argparse

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.envs import PettingZooWrapper
from torchrl.modules import ProbabilisticActor

import steer_env
from steer_env.acts import ActsSeats

SEATS = ("attacker_0", "student_0")


def seat_actor(env: PettingZooWrapper, seat: str) -> ProbabilisticActor:
    """Return the policy of one seat: features to acts; TorchRL drops them while the other speaks."""
    features = env.observation_spec[seat, "observation"].shape[-1]
    acts = env.full_action_spec[seat, "action"].space.n
    net = nn.Sequential(nn.Linear(features, 64), nn.Tanh(), nn.Linear(64, acts))
    module = TensorDictModule(net, in_keys=[(seat, "observation")], out_keys=[(seat, "logits")])
    return ProbabilisticActor(
        module,
        spec=env.full_action_spec[seat, "action"],
        in_keys={"logits": (seat, "logits")},
        out_keys=[(seat, "action")],
        distribution_class=Categorical,
    )


def to_go(rewards: torch.Tensor, done: torch.Tensor) -> torch.Tensor:
    """Return the sum of rewards to the end of each dialogue, shape (frames,)."""
    out, running = torch.zeros_like(rewards), torch.zeros(())
    for t in reversed(range(len(rewards))):
        running = rewards[t] + running * (~done[t]).float()
        out[t] = running
    return out


def seat_loss(batch: TensorDictBase, actor: ProbabilisticActor, seat: str) -> tuple[torch.Tensor, float]:
    """Return REINFORCE's loss with a mean baseline on the frames this seat spoke in, and its mean reward."""
    spoke = batch[seat, "mask"].flatten().bool()
    done = batch["next", "done"].flatten()
    rewards = batch["next", seat, "reward"].flatten()
    gain = to_go(rewards, done)[spoke]
    gain = (gain - gain.mean()) / (gain.std() + 1e-6)
    dist = actor.get_dist(batch)
    log_prob = dist.log_prob(batch[seat, "action"]).flatten()[spoke]
    return -(log_prob * gain).mean(), float(rewards.sum() / spoke.sum())


def main(argv: list[str] | None = None) -> list[dict[str, float]]:
    """Collect, train both seats, print; return the mean reward per turn of each seat and batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=4000, help="utterances in all")
    parser.add_argument("--batch", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    game = ActsSeats(steer_env.make("SteerEscalation-v0", returns="mean"), paid_for_harm=True)
    env = PettingZooWrapper(game, use_mask=True, seed=args.seed)
    actors = {seat: seat_actor(env, seat) for seat in SEATS}
    optimizer = torch.optim.Adam([p for a in actors.values() for p in a.parameters()], lr=3e-3)
    collector = Collector(
        env, TensorDictSequential(*actors.values()), frames_per_batch=args.batch, total_frames=args.frames
    )
    history = []
    for number, batch in enumerate(collector):
        losses, means = zip(*(seat_loss(batch, actors[seat], seat) for seat in SEATS), strict=True)
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        history.append(dict(zip(SEATS, means, strict=True)))
        print(f"batch {number + 1}: reward per turn, attacker {means[0]:.3f}, student {means[1]:.3f}")
    collector.shutdown()
    return history


if __name__ == "__main__":
    main()
