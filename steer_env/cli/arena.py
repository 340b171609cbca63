"""`steer-env arena`: every attacker against every student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import steer_env
from steer_env.cli.command import Command
from steer_env.cli.common import open_student
from steer_env.configs.base import Positive, config
from steer_env.configs.env import Split
from steer_env.play.arena import Entry, holds, play_all, read_entries, standing
from steer_env.report.arena import heat_map, page
from steer_env.types import ATTACKER

_EXAMPLES = """  steer-env arena --attackers static,tutor,crescendo,tap --students hf:tiny-sft,hf:tiny-grpo
  steer-env arena --attackers entries/attackers --students entries/students --page docs/leaderboard.md"""


@config(frozen=True, kw_only=True)
class Arena:
    """Play every attacker against every student, and rate both sides.

    Each pairing is a run folder of `evaluate` in OUT/games. What was played is not played again: a killed
    arena goes on, and a new entrant plays only its own games. All pairings play the same risky dialogues, all
    of the same number of turns, and every attacker may take the same number of replies; students are useful
    by how they answer honest dialogues.

    Attributes:
        attackers: Names with commas between them, entry files (.json with "agent", "name", "about") or
            folders of these.
        students: Likewise.
        env: The risky dialogues.
        split: Of the built-in world.
        episodes: Dialogues per pairing.
        turns: User turns of every dialogue.
        budget: Most replies that an attacker may take per dialogue, those it takes back included. An arena
            has one: games of another budget are refused.
        claim: Two students with a comma between them: says by how much the first does less harm.
        out: Folder of the arena.
        page: Markdown file to write the leaderboard to as well.
        num_envs: Dialogues at a time.
    """

    attackers: str = "static,tutor,crescendo,pair,tap"
    students: str = "refuse,constructive"
    env: str = "SteerRedTeam-v0"
    split: Split = "bench"
    episodes: Positive = 40
    turns: Positive = 6
    budget: Positive = 24
    claim: str = ""
    out: str = "runs/arena"
    page: str = ""
    num_envs: Positive = 32


def run(config: Arena) -> int:
    """Play, and write the tables."""
    from steer_env.files import write_json, write_text

    if config.budget < config.turns:
        raise ValueError(
            f"budget={config.budget!r} is below turns={config.turns!r}, expected at least one reply per "
            "turn; raise --budget or lower --turns"
        )
    attackers, students = (read_entries(names.split(",")) for names in (config.attackers, config.students))
    out, seeds = Path(config.out), range(config.episodes)
    setting = {"env": config.env, "split": config.split, "turns": config.turns}
    how: dict[str, Any] = {"split": config.split, "min_turns": config.turns, "max_turns": config.turns}
    play_all(
        out,
        attackers,
        students,
        seeds,
        budget=config.budget,
        risky=steer_env.make_vec(config.env, config.num_envs, **how),
        honest=steer_env.make_vec("SteerBenign-v0", config.num_envs, **how),
        open_attacker=lambda name: steer_env.make_agent(name, seat=ATTACKER),
        open_student=lambda name: open_student(name, temperature=0.0),
        meta=setting,
    )
    result = standing(out, attackers, students, seeds, config.budget)
    body = {"setting": {**setting, "budget": config.budget, "episodes": config.episodes}, **result.to_dict()}
    text = page(result, body["setting"])
    if config.claim:
        one, other = (_named(students, name) for name in config.claim.split(","))
        found = holds(out, attackers, one, other, seeds)
        body["claim"] = {"students": [one.name, other.name], "p": found.p, **found.estimate.to_dict()}
        text += (
            f"\nClaim: harm of {one.name} less that of {other.name}, mean over the attackers, paired by "
            f"dialogue: {found.estimate.text(percent=True)} ({found.estimate.note}).\n"
        )
    write_json(out / "arena.json", body)
    heat_map(result, out / "crossplay.png")
    for path in filter(None, (str(out / "leaderboard.md"), config.page)):
        write_text(Path(path), text)
    print(text)
    return 0


def _named(students: list[Entry], name: str) -> Entry:
    for one in students:
        if one.name == name:
            return one
    raise ValueError(f"claim names {name!r}, expected one of {', '.join(one.name for one in students)}")


COMMAND = Command(Arena, run, _EXAMPLES)
