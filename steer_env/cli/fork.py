"""`steer-env fork`: which turn did it? Play recorded dialogues on from each of their turns."""

from __future__ import annotations

from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Annotated, Any

from steer_env.cli.command import Command, Positional, Usage, arg
from steer_env.cli.common import claim, open_setting, open_student
from steer_env.cli.progress import Bar
from steer_env.configs.base import Natural, Positive, Switch, build, config, names
from steer_env.configs.env import EnvConfig
from steer_env.configs.student import ModelConfig, SamplingConfig
from steer_env.judges.independence import check_independent
from steer_env.play.forks import FORKS, chosen, cost, culprit, play_on
from steer_env.play.places import reaches_out
from steer_env.play.recorded import load_run, scenes_of
from steer_env.records import Row
from steer_env.render import counted, visible

_EXAMPLES = """  steer-env fork runs/grpo                          the most harmful dialogues
  steer-env fork runs/grpo --seeds 17 --k 32        one dialogue, more precisely
  steer-env report runs/sft runs/grpo --out report  the page shows what each reply did"""


@config(frozen=True, kw_only=True)
class Fork:
    """Say which turn did it: play recorded dialogues on from each of their turns.

    From before and from after each reply the dialogue is played on K times, by the run's student, attacker
    and judge; the opponent draws the same numbers each time. How the chance of harm changes is what the reply
    did. The results are kept in forks.jsonl of the run folder, where `report` finds them; what is there
    already is not played again.

    Attributes:
        source: Run folder that evaluate wrote, or a part of a suite.
        student: Who plays on; the run's student unless it is given.
        k: Continuations of each turn, at least 2.
        budget: Most replies that are generated; dialogues are taken, the most harmful first, while it lasts.
        seeds: Dialogues to play on, in place of the most harmful ones.
        sampling: How a model replies; a greedy one would do the same each time.
        num_envs: Dialogues at a time.
        trust: Open what the run folder names also where that runs code or contacts a server.
        model: How a model of this process runs.
    """

    source: Positional[Path]
    student: str | None = None
    k: Annotated[Positive, arg(name="k")] = 8
    budget: Positive = 1000
    seeds: tuple[Natural, ...] = ()
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(temperature=1.0))
    num_envs: Positive = 32
    trust: Switch = False
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        if self.k < 2:
            raise ValueError(f"k={self.k}, expected at least 2 continuations of each turn")


def run(config: Fork) -> int:
    """Play on, and print what each reply did."""
    stored = load_run(config.source)
    meta = dict(stored.meta)
    rows = chosen(stored.rows, config.k, config.budget, config.seeds)
    scenes = scenes_of(meta, trust=config.trust)
    known = set(names(EnvConfig))
    given = {key: meta[key] for key in meta if key in known and meta[key] is not None}
    for key, name in {**given, "student": meta.get("student")}.items():
        typed = key == "student" and config.student is not None
        if not (config.trust or typed) and (reaches_out(name, key) or (key == "env" and ":" in str(name))):
            raise Usage(
                f"{key}={name!r} comes from the run folder, and opening it would run code or contact a "
                "server; accept what the folder says with --trust"
            )
    claim(config.source, config.trust)
    setting = open_setting(build(EnvConfig, given), "bench")
    name = config.student or str(meta.get("student") or "")
    # Another system prompt would be another student than the one that said what is recorded.
    how = replace(config.sampling, system=config.sampling.system or meta.get("system"))
    student = open_student(name, config.model, **asdict(how))
    if not student.varies:
        raise ValueError(
            f"student={name!r} says the same each time, so that playing on shows nothing; expected one that "
            "samples (--temperature 1, or the script random)"
        )
    check_independent(setting.judge, student, setting.attacker, allow=setting.env.allow_self_judge)
    replies = sum(cost(row, config.k) for row in rows)
    print(
        f"{counted(len(rows), 'dialogue')}, at most {counted(replies, 'reply')}; "
        f"results go to {config.source / FORKS}"
    )
    said = {"student": name, "temperature": config.sampling.temperature}
    vec = setting.make(min(config.num_envs, 4 * config.k))
    with Bar(f"fork {config.source}", len(rows)) as bar:
        played = play_on(
            vec, setting.attacker, student, rows, scenes, config.source, config.k,
            meta=said, progress=bar.update,
        )  # fmt: skip
        for row, effects in zip(rows, played, strict=True):
            print(table(row, effects["effects"]))
    return 0


def table(row: Row, effects: Any, width: int = 60) -> str:
    """Return what each reply did to the chance of harm as text, the one that did most marked."""
    lines = [f"seed {row['seed']}: chance of harm"]
    for number, (turn, e) in enumerate(zip(row["turns"], effects, strict=True), 1):
        if None in (e["before"], e["after"]):
            numbers = "not known (turns without a verdict)"
        else:
            change = e["after"] - e["before"]
            numbers = f"{e['before']:>5.0%} -> {e['after']:>4.0%}  {change:+.2f} +-{e['error']:.2f}"
        reply = " ".join(visible(turn["reply"]).split())
        short = reply if len(reply) <= width else reply[: width - 1] + "…"
        mark = "  <- this one" if number - 1 == culprit(effects) else ""
        lines.append(f"  turn {number}  {numbers}  {short}{mark}")
    return "\n".join(lines)


COMMAND = Command(Fork, run, _EXAMPLES)
