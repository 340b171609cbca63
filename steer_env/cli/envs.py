"""`steer-env envs`: list the environments."""

from __future__ import annotations

import json
from dataclasses import dataclass

import steer_env
from steer_env.cli.command import Command
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
    if config.json:
        print(
            json.dumps([{"id": s.id, "attacker": s.attacker, "summary": s.summary} for s in specs], indent=2)
        )
        return 0
    width = max(len(s.id) for s in specs)
    for s in specs:
        print(f"{s.id.ljust(width)}  {s.attacker.ljust(6)}  {s.summary}")
    print("\nstudents that come with the package, for evaluate, train --student, play --student:")
    for name, summary in SHIPPED.items():
        print(f"{f'hf:{name}'.ljust(width)}  {summary}")
    return 0


COMMAND = Command(Envs, run, "  steer-env envs\n  steer-env envs --json")
