"""What policies earn in the built-in world: returns by id and return mode, advantages by credit.

    python -m benchmarks.world_rewards              # share of the optimal return: every id, bench and ood
    python -m benchmarks.world_rewards --credits    # advantages of five policies by return mode and credit

The policies are those of `world_bars`; tables are printed in Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

import steer_env
from benchmarks.world_bars import Played, groups_of, play_all, policies
from steer_env.agents import StaticAttacker
from steer_env.algorithms.advantages import group_advantages
from steer_env.algorithms.credit import CREDITS, Ledger, turn_values
from steer_env.ids import spec
from steer_env.registration import make_attacker
from steer_env.rewards import ALPHA, declared_return, tcsr, turn_reward
from steer_env.types import Scored, Verdict
from steer_env.world import WorldSource

RETURNS: Final = ("sum", "final", "mean")


def returns_table(env: str, split: str = "bench", groups: int = 50) -> dict[str, dict[str, float]]:
    """Return the share of the optimal return by policy and return mode, against the id's own attacker.

    Returns are computed from the verdicts as the wrappers do it (TCSR, then the return mode); of each kind of
    policy the variant with the highest return counts.
    """
    source = WorldSource(**{**spec(env).world, "split": split})
    scenarios = [source.scenario(i) for i in range(groups * source.members)]
    best: dict[str, dict[str, float]] = {}
    for kind, variants in policies().items():
        if kind != "constant":
            found = [mean_returns(play_all(scenarios, make_attacker(env), v)) for v in variants.values()]
            best[kind] = {mode: max(one[mode] for one in found) for mode in RETURNS}
    top = best["constructive"]
    return {kind: {mode: row[mode] / top[mode] for mode in RETURNS} for kind, row in best.items()}


#: Whose advantages are compared, and how many of the late leaker's turns are right.
SIBLINGS: Final = ("constructive", "late leaker", "always refuse", "describer", "always comply")
RIGHT_TURNS: Final = 3
#: Replies drawn for the rest of a dialogue, to say what a turn did to its expected return.
DRAWS: Final = 256


def own_rewards(split: str = "bench", groups: int = 50) -> list[np.ndarray]:
    """Return turn rewards of `SIBLINGS` in the same dialogues, (5, T) each; the seed's turns are replayed."""
    scenarios = [scenario for group in groups_of(split, groups) for scenario in group]
    made = policies()
    played = [play_all(scenarios, StaticAttacker(), next(iter(made[kind].values()))) for kind in SIBLINGS]
    return [
        np.array([turn_reward(*np.array([_terms(v) for v in p.verdicts], float).T) for p in siblings])
        for siblings in zip(*played, strict=True)
    ]


def _ledger(own_T: np.ndarray, mode: str, rivals: np.ndarray) -> Ledger:
    """Return a dialogue's ledger; effects are told from going on like one of the rivals each turn."""
    count = len(own_T)
    so_far = [float(declared_return(tcsr(own_T[: t + 1]), mode)) for t in range(count)]
    rng = np.random.default_rng(0)  # the same draws for all siblings
    drawn = rivals[rng.integers(len(rivals), size=(DRAWS, count)), np.arange(count)]
    values = [
        declared_return(tcsr(np.where(np.arange(count) < t, own_T, drawn)), mode).mean()
        for t in range(count + 1)
    ]
    return Ledger(own_T, np.zeros(count), np.diff([0.0, *so_far]), so_far[-1], mode, ALPHA, np.diff(values))


def credit_table(
    rewards: Sequence[np.ndarray], discount: float = 0.5
) -> dict[tuple[str, str], dict[str, float]]:
    """Return mean advantages of a turn: (credit, return mode) -> policy -> number.

    The five are siblings of one group, as GRPO compares them; a number is the mean advantage of a turn, in
    units of that of the constructive policy. The five sum to 0. The late leaker's right turns and the later
    ones stand apart: a good credit pays for the former and not for the latter.
    """
    table = {}
    for mode in RETURNS:
        groups = [[_ledger(row, mode, own) for row in own] for own in rewards]
        for credit in CREDITS:
            found: dict[str, list[float]] = {name: [] for name in (*SIBLINGS, "before", "after")}
            for ledgers in groups:
                values = turn_values(ledgers, credit, discount=discount)
                advantages = group_advantages(values, scale=credit == "turn_normalised")
                advantages = np.broadcast_to(advantages, (len(ledgers[0]), len(ledgers))).T
                for name, row in zip(SIBLINGS, advantages, strict=True):
                    found[name] += row.tolist()
                late = advantages[SIBLINGS.index("late leaker")]
                found["before"] += late[:RIGHT_TURNS].tolist()
                found["after"] += late[RIGHT_TURNS:].tolist()
            means = {name: float(np.mean(values)) for name, values in found.items() if values}
            table[credit, mode] = {name: mean / means["constructive"] for name, mean in means.items()}
    return table


def _terms(verdict: Verdict) -> tuple[int, ...]:
    return tuple(verdict.terms) if isinstance(verdict, Scored) else (1, 1, 1)


def mean_returns(dialogues: Iterable[Played]) -> dict[str, float]:
    """Return the mean return of dialogues by return mode, with the default weights and alpha."""
    sums = dict.fromkeys(RETURNS, 0.0)
    for count, played in enumerate(dialogues, 1):
        values = tcsr(turn_reward(*np.array([_terms(v) for v in played.verdicts], float).T))
        for mode in RETURNS:
            sums[mode] += (float(declared_return(values, mode)) - sums[mode]) / count
    return sums


def print_returns(split: str, envs: Sequence[str], groups: int) -> None:
    """Print the share of the optimal return as a table in Markdown."""
    for number, env in enumerate(envs):
        table = returns_table(env, split, groups)
        if not number:
            print(f"\n| {split}: {' / '.join(RETURNS)} | {' | '.join(list(table)[1:])} |")
            print("|---" * len(table) + "|")
        cells = (" / ".join(f"{row[mode]:.2f}" for mode in RETURNS) for row in list(table.values())[1:])
        print(f"| {env.removeprefix('Steer').removesuffix('-v0')} | {' | '.join(cells)} |", flush=True)


def print_credits(split: str, groups: int) -> None:
    """Print advantages by credit and return mode, and the returns themselves, as a table in Markdown."""
    rewards = own_rewards(split, groups)
    table = credit_table(rewards)
    columns = ("constructive", "late leaker", "before", "after", *SIBLINGS[2:])
    print(f"\n| {split}: {' / '.join(RETURNS)} | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    means = {
        mode: np.mean([[declared_return(tcsr(row), mode) for row in own] for own in rewards], 0)
        for mode in RETURNS
    }
    shares = {
        name: " / ".join(f"{means[mode][k] / means[mode][0]:.2f}" for mode in RETURNS)
        for k, name in enumerate(SIBLINGS)
    }
    print(f"| the return, share of the optimum | {' | '.join(shares.get(name, '') for name in columns)} |")
    for credit in CREDITS:
        cells = ([f"{table[credit, mode][name]:+.2f}" for mode in RETURNS] for name in columns)
        print(f"| {credit} | {' | '.join(c[0] if len(set(c)) == 1 else ' / '.join(c) for c in cells)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=50)
    parser.add_argument("--splits", nargs="+", default=["bench", "ood"])
    parser.add_argument("--envs", nargs="+", default=steer_env.env_ids())
    parser.add_argument("--credits", action="store_true", help="advantages by return mode and credit instead")
    options = parser.parse_args()
    for split in options.splits:
        if options.credits:
            print_credits(split, options.groups)
        else:
            print_returns(split, options.envs, options.groups)


if __name__ == "__main__":
    main()
