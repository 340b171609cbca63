r"""How much signal and noise is in each way of giving credit, on the same dialogues of your own task.

    python benchmarks/credit_signal.py --student tiny-sft     # and runs/benchmarks/credit_signal.json
    python benchmarks/credit_signal.py --student runs/my/model --env SteerRedTeam-v0 --attacker learning
    python benchmarks/credit_signal.py --student tiny-sft --oracle 8     # beside a Monte-Carlo oracle

The student plays `--groups` seeds with `--siblings` dialogues each. The policy gradient of every group is
taken with each credit's advantages, everything else equal. Groups are independent, so that

- *signal* is the mean inner product of the gradients of two groups, an unbiased estimate of the squared
  norm of the expected gradient, relative to the mean squared norm of one group's; 90 % bootstrap over groups;
- *SNR* is 10 times signal over noise, the ratio in the gradient of a step of ten groups;
- *cosine* is the mean cosine of the gradients of two random halves: what another batch of that size
  repeats.

Credits aim at somewhat different objectives (see `steer_env.algorithms.credit`): a high SNR says that a
gradient is repeatable, not that it points to the best policy. `--oracle K` plays every turn of some groups
on, K times before and after each reply, and says how the advantages correlate with the effect on the return
that the row declares (the sum for own rewards). The oracle is noisy itself: its reliability (halves of K,
Spearman-Brown) bounds what can be seen.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import steer_env
from steer_env.agents import make_agent
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.advantages import group_advantages
from steer_env.algorithms.base import make_example
from steer_env.algorithms.credit import Ledger, reward_ledger, split, turn_values
from steer_env.algorithms.forward import Forward, Scaling
from steer_env.arrays import Floats
from steer_env.rollout import rollout, rollout_from
from steer_env.trajectory import Trajectory, TrajectoryGroup, group_by_seed
from steer_env.types import ATTACKER

RESULTS = Path("runs/benchmarks/credit_signal.json")
#: Name -> (credit, return): what is compared.
ROWS = {
    "own_turn": ("own_turn", "sum"),
    "discounted": ("discounted", "sum"),
    "difference, sum": ("difference", "sum"),
    "difference, final": ("difference", "final"),
    "reward_to_go, sum": ("reward_to_go", "sum"),
    "reward_to_go, final": ("reward_to_go", "final"),
    "turn_normalised, sum": ("turn_normalised", "sum"),
    "trajectory, sum (paper)": ("trajectory", "sum"),
    "trajectory, final": ("trajectory", "final"),
}


def under(ledger: Ledger, returns: str, alpha: float) -> Ledger:
    """Return the same own rewards under another return of TCSR's."""
    own = ledger.own_T
    if np.isnan(ledger.total):
        return ledger
    plain = replace(ledger, inside_T=own, outside_T=np.zeros(len(ledger)), returns=returns, alpha=alpha)
    known = ~np.isnan(own)
    parts = [float(plain.declared(own[: t + 1])) if known[: t + 1].any() else 0.0 for t in range(len(own))]
    return replace(plain, shares_T=np.diff([0.0, *parts]), total=parts[-1])


def advantages(group: TrajectoryGroup, row: str, alpha: float, discount: float) -> list[Floats]:
    """Return the advantages of each member's turns under one row of the table."""
    credit, returns = ROWS[row]
    ledgers = [under(reward_ledger(t), returns, alpha) for t in group.trajectories]
    values = turn_values(ledgers, credit, discount=discount)
    return split(group_advantages(values, scale=credit == "turn_normalised"), group.trajectories)


# -- gradients ------------------------------------------------------------------------------------------


def gradients(
    forward: Forward, group: TrajectoryGroup, by_row: Mapping[str, Sequence[Floats]]
) -> dict[str, NDArray[np.float32]]:
    """Return the gradient of a group under each row, sums over tokens."""
    parameters = [p for p in forward.student.model.parameters() if p.requires_grad]
    total: dict[str, Any] = {}
    made = {
        row: [make_example(t, a) for t, a in zip(group.trajectories, values, strict=True)]
        for row, values in by_row.items()
    }
    kept = [i for i, example in enumerate(next(iter(made.values()))) if example is not None]
    dialogues = [made[next(iter(made))][i].dialogue for i in kept]  # type: ignore[union-attr]
    for indices in forward.dealt(dialogues):
        packed = forward.policy([dialogues[i] for i in indices])
        rows = list(made)
        for number, row in enumerate(rows):
            advantages_N = packed.gather([made[row][kept[i]].advantages_L for i in indices])  # type: ignore[union-attr]
            loss = (advantages_N * packed.logprobs_N).sum()
            parts = torch.autograd.grad(
                loss, parameters, retain_graph=number + 1 < len(rows), allow_unused=True
            )
            flat = torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).reshape(-1)
                    for p, g in zip(parameters, parts, strict=True)
                ]
            )
            total[row] = total[row] + flat if row in total else flat
    return {row: value.float().numpy() for row, value in total.items()}


def signal_and_noise(gradients_GP: NDArray[np.float32], rng: np.random.Generator) -> dict[str, float]:
    """Return signal, its bootstrap interval, SNR of ten groups and split-half cosine of G groups' gradients.

    The expected inner product of two groups' gradients is the squared norm of the expected gradient; that of
    a group with itself has the noise as well.
    """
    gram = (gradients_GP @ gradients_GP.T).astype(np.float64)
    count = len(gram)
    own = float(np.trace(gram)) / count
    if own <= 0:
        return dict.fromkeys(("signal", "low", "high", "snr", "cosine"), float("nan"))
    across = (gram.sum() - np.trace(gram)) / (count * (count - 1))
    drawn = []
    for _ in range(1000):
        index = rng.integers(count, size=count)
        sub, same = gram[np.ix_(index, index)], index[:, None] == index[None]
        if not same.all() and np.trace(sub) > 0:
            drawn.append(sub[~same].mean() / (np.trace(sub) / count))
    cosines = []
    for _ in range(200):
        order = rng.permutation(count)
        a, b = order[: count // 2], order[count // 2 :]
        norms = gram[np.ix_(a, a)].sum() * gram[np.ix_(b, b)].sum()
        cosines.append(gram[np.ix_(a, b)].sum() / np.sqrt(norms) if norms > 0 else 0.0)
    low, high = np.percentile(drawn, [5, 95])
    return {
        "signal": float(across / own),
        "low": float(low),
        "high": float(high),
        "snr": float(10 * across / (own - across)) if own > across else float("inf"),
        "cosine": float(np.mean(cosines)),
    }


# -- the oracle -----------------------------------------------------------------------------------------


def oracle(
    play: Callable[[Sequence[tuple[Trajectory, int]], int], list[list[Trajectory]]],
    groups: Sequence[TrajectoryGroup],
    k: int,
    alpha: float,
) -> dict[str, list[list[tuple[Floats, Floats, Floats]]]]:
    """Return what each reply did to the return, by return: per group and member (all forks, half, half)."""
    members = [t for group in groups for t in group.trajectories]
    points = [(t, turn) for t in members for turn in range(len(t.turns))]
    played = play(points, k)
    result: dict[str, list[list[tuple[Floats, Floats, Floats]]]] = {}
    for returns in ("sum", "final"):
        values = iter([[under(reward_ledger(t), returns, alpha).total for t in row] for row in played])
        effects = []
        for t in members:
            own = under(reward_ledger(t), returns, alpha).total
            table = np.array([next(values) for _ in t.turns] + [[own] * k])
            halves = [table, table[:, ::2], table[:, 1::2]]
            effects.append(tuple(np.diff(np.nanmean(half, 1)) for half in halves))
        rows = iter(effects)
        result[returns] = [[next(rows) for _ in group.trajectories] for group in groups]  # type: ignore[misc]
    return result


def agreement(
    groups: Sequence[TrajectoryGroup], truth: Mapping[str, Any], row: str, alpha: float, discount: float
) -> tuple[float, float]:
    """Return the correlation of a row's advantages with the oracle's, and the oracle's reliability."""
    returns = ROWS[row][1]
    given, wanted, halves = [], [], ([], [])
    for group, effects in zip(groups, truth[returns], strict=True):
        for own, (whole, one, two) in zip(advantages(group, row, alpha, discount), effects, strict=True):
            known = ~np.isnan(own) & ~np.isnan(whole)
            given.append(own[known])
            wanted.append(whole[known])
            halves[0].append(one[known])
            halves[1].append(two[known])
    found = float(np.corrcoef(np.concatenate(given), np.concatenate(wanted))[0, 1])
    half = float(np.corrcoef(np.concatenate(halves[0]), np.concatenate(halves[1]))[0, 1])
    return found, 2 * half / (1 + half)


# -- the command ----------------------------------------------------------------------------------------


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Play, take gradients, compare."""
    student = HFStudent.from_pretrained(
        args.student, temperature=args.temperature, max_new_tokens=args.max_new_tokens
    )
    env = steer_env.make_vec(args.env, args.num_envs, split=args.split, max_turns=args.max_turns)
    attacker = make_agent(args.attacker, seat=ATTACKER)
    first = args.seed * 1_000_000
    seeds = [first + g for g in range(args.groups) for _ in range(args.siblings)]
    started = time.process_time()
    groups = group_by_seed(rollout(env, attacker, student, seeds), args.siblings)
    print(f"played {len(seeds)} dialogues, {time.process_time() - started:.0f} s of CPU", flush=True)
    forward = Forward(student, Scaling(), temperature=args.temperature)
    found: dict[str, list[NDArray[np.float32]]] = {row: [] for row in ROWS}
    sizes: dict[str, list[float]] = {row: [] for row in ROWS}
    for group in groups:
        by_row = {row: advantages(group, row, args.alpha, args.discount) for row in ROWS}
        for row, gradient in gradients(forward, group, by_row).items():
            found[row].append(gradient)
            sizes[row] += [float(np.square(a).mean()) for a in by_row[row]]
    rng = np.random.default_rng(args.seed)
    rows = {row: signal_and_noise(np.stack(value), rng) for row, value in found.items()}
    for row, value in rows.items():
        value["advantage"] = float(np.sqrt(np.mean(sizes[row])))
    if args.oracle:
        some = groups[: args.oracle_groups]
        truth = oracle(lambda p, k: rollout_from(env, attacker, student, p, k), some, args.oracle, args.alpha)
        for row in rows:
            rows[row]["oracle"], rows[row]["reliability"] = agreement(
                some, truth, row, args.alpha, args.discount
            )
    settings = {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items() if name != "out"}
    turns = [len(t.turns) for group in groups for t in group.trajectories]
    return {
        "settings": settings,
        "dialogues": len(seeds),
        "turns": float(np.mean(turns)),
        "cpu_seconds": time.process_time() - started,
        "rows": rows,
    }


def show(result: Mapping[str, Any]) -> str:
    """Return the table as Markdown."""
    rows: Mapping[str, Mapping[str, float]] = result["rows"]
    with_oracle = any("oracle" in row for row in rows.values())
    lines = [
        "| credit | advantage (rms) | cosine of halves | SNR of 10 groups | signal, 90 % |"
        + (" with oracle |" if with_oracle else ""),
        "|---|---|---|---|---|" + ("---|" if with_oracle else ""),
    ]
    for name, row in rows.items():
        line = (
            f"| {name} | {row['advantage']:.3f} | {row['cosine']:.3f} | {row['snr']:.3f} "
            f"| {row['signal']:.4f} [{row['low']:.4f}, {row['high']:.4f}] |"
        )
        if with_oracle:
            line += f" {row['oracle']:.2f} (oracle's reliability {row['reliability']:.2f}) |"
        lines.append(line)
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", required=True, help="model folder, hub id or the name of a shipped one")
    parser.add_argument("--env", default="SteerEscalation-v0")
    parser.add_argument("--split", default="train")
    parser.add_argument("--attacker", default="tutor")
    parser.add_argument("--groups", type=int, default=24, help="seeds")
    parser.add_argument("--siblings", type=int, default=8, help="dialogues of each")
    parser.add_argument("--max-turns", type=int, default=10)
    parser.add_argument("--max-new-tokens", type=int, default=44)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--alpha", type=float, default=0.3, help="TCSR's weight of the minimum")
    parser.add_argument("--discount", type=float, default=0.5)
    parser.add_argument("--oracle", type=int, default=0, help="continuations of each turn, 0 for no oracle")
    parser.add_argument("--oracle-groups", type=int, default=4)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    result = measure(args)
    print(show(result))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
