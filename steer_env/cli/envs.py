"""`steer-env envs`: list the environments."""

from __future__ import annotations

import json
from dataclasses import dataclass

import steer_env
from steer_env.cli.command import Command
from steer_env.ids import ACTS, NAMESPACE
from steer_env.models.shipped import SHIPPED


@dataclass(frozen=True)
class Envs:
    """List the environment ids.

    Attributes:
        json: For programs.
    """

    json: bool = False


def run(config: Envs) -> int:
    """Print ids, attackers and summaries, and the shipped students."""
    specs = [steer_env.spec(id) for id in steer_env.env_ids()]
    rows = [(s.id, s.attacker, s.summary) for s in specs]
    rows.append(
        (ACTS.removeprefix(f"{NAMESPACE}/"), "tutor", f"dialogue acts, no text: gymnasium.make({ACTS!r})")
    )
    if config.json:
        print(
            json.dumps([dict(zip(("id", "attacker", "summary"), row, strict=True)) for row in rows], indent=2)
        )
        return 0
    width = max(len(id) for id, _, _ in rows)
    for id, attacker, summary in rows:
        print(f"{id.ljust(width)}  {attacker.ljust(6)}  {summary}")
    print("\nstudents that come with the package, for evaluate, train --student, play --student:")
    for name, summary in SHIPPED.items():
        print(f"{f'hf:{name}'.ljust(width)}  {summary}")
    return 0


COMMAND = Command(Envs, run, "  steer-env envs\n  steer-env envs --json")
