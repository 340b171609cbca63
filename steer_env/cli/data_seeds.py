"""`steer-env data seeds`: single-turn rows into multi-turn seed dialogues (Stage I)."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_env.cli.command import Command
from steer_env.cli.common import SCRIPTED_STUDENTS, claim, model_hash, open_student
from steer_env.configs.base import Amount, Positive, Switch, config
from steer_env.data.seeds.run import SeedsConfig

if TYPE_CHECKING:
    from steer_env.data.seeds.grading import Grader, Target

_EXAMPLES = """  steer-env data seeds --out seeds --count 300
  steer-env data seeds --out seeds/own --source my.jsonl \\
      --generator openai:MODEL@http://localhost:8000/v1 \\
      --target hf:path/to/student --judge openai:OTHER@http://localhost:8001/v1
  steer-env data seeds --out seeds/spa --source spa-vl:train:path/to/spa-vl --kinds benign
  steer-env evaluate constructive --scenarios seeds/red_team.jsonl"""


@config(frozen=True, kw_only=True)
class Seeds:
    """Stage I: turn single-turn rows into benign, obfuscated and red-team seed dialogues.

    A row is a picture and a question; the kinds are disjoint. Writes scenario files, rejected rows with
    reasons, and a summary. Killed or interrupted, the same command with --resume goes on where it stopped.

    Attributes:
        out: Folder to write.
        source: world or world:SPLIT, a scenario file with one turn a line, or NAME:[SPLIT:]ROOT of a dataset.
        count: Most rows to take; all (of the world 300) unless it is given.
        seeds: What is made of them.
        generator: Who writes: rule, or a model: openai:MODEL@URL, vllm:PATH, hf:PATH.
        target: What red-team scripts are tried on: fixed (helpful only, refuses harm that is stated bluntly),
            a scripted student, a model, or a run folder.
        judge: Who grades it, 1 to 5: rule or a model.
        allow_self_judge: Let the target's own model grade its replies.
        attempts: At a usable answer.
        max_tokens: Longest answer in tokens.
        temperature: Temperature of the generator.
        allow_licence: Take rows although a licence keeps them out of training data; names a gate
            (non-commercial, no-training, unstated) or a dataset.
        resume: Go on with what the folder holds.
        trust: Accept links that lead out of the folder.
    """

    out: Path
    source: str = "world"
    count: Positive | None = None
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    generator: str = "rule"
    target: str = "fixed"
    judge: str = "rule"
    allow_self_judge: Switch = False
    attempts: Positive = 3
    max_tokens: Positive = 1536
    temperature: Amount = 0.8
    allow_licence: tuple[str, ...] = ()
    resume: Switch = False
    trust: Switch = False


def run(config: Seeds) -> int:
    """Make the seeds and print the summary; exit code 1 if there is not one."""
    from steer_env.cli.progress import Bar, Bars
    from steer_env.data.seeds.rows import open_source
    from steer_env.data.seeds.run import check_folder, make_seeds

    seeds = config.seeds
    _check(config)
    claim(config.out, config.trust)
    check_folder(config.out, config.resume)
    with Bar(f"reading {config.source}"):
        source = open_source(config.source, config.count, seeds.kinds, seeds.seed, config.allow_licence)
    backends: dict[str, Any] = {}
    try:
        generator = _generator(config, backends)
        with Bars() as bars:
            summary = make_seeds(
                config.out, source, generator, seeds, resume=config.resume, progress=bars.update
            )
    finally:
        for backend in backends.values():
            backend.close()
    _show(summary, config.out)
    return 0 if summary["kept"] else 1


def _check(config: Seeds) -> None:
    """Refuse combinations that could not give a seed.

    Raises:
        ValueError: Naming the option and what to give in its place.
    """
    if config.source.partition(":")[0] == "world":
        return
    risky = [kind for kind in config.seeds.kinds if kind != "benign"]
    if config.generator == "rule" and risky:
        raise ValueError(
            f"generator='rule' takes risky requests of the built-in world apart, not of {config.source!r}; "
            "name a model with --generator, or leave --kinds benign"
        )
    if "red_team" not in config.seeds.kinds:
        return
    if config.judge == "rule":
        raise ValueError(
            f"judge='rule' has no ground truth for {config.source!r}; name a model with --judge, or leave "
            "red_team out of --kinds"
        )
    if config.target in ("fixed", *SCRIPTED_STUDENTS):
        raise ValueError(
            f"target={config.target!r} plays the built-in world only; name a model with --target, or leave "
            "red_team out of --kinds"
        )


def _generator(config: Seeds, backends: dict[str, Any]) -> Any:
    """Open generator, target and judge; what is asked for twice is opened once."""
    from steer_env.data.seeds.grading import ChatGrader, RuleGrader
    from steer_env.data.seeds.llm import ChatGenerator
    from steer_env.data.seeds.rule import RuleGenerator
    from steer_env.judges.independence import check_independent
    from steer_env.models.structured import Settings

    settings = Settings(config.attempts, config.max_tokens, config.temperature)
    target: Target = _target("fixed", backends)
    grader: Grader = RuleGrader()
    if "red_team" in config.seeds.kinds:  # no one else is attacked or graded
        if config.judge != "rule":
            grader = ChatGrader(_open(config.judge, "judge", backends))
        target = _target(config.target, backends)
        check_independent(grader, target, allow=("student",) if config.allow_self_judge else ())
    if config.generator == "rule":
        return RuleGenerator(target, grader)
    return ChatGenerator(_open(config.generator, "generator", backends), target, grader, settings)


def _target(name: str, backends: dict[str, Any]) -> Target:
    from steer_env.data.seeds.grading import AgentTarget, ChatTarget, FixedTarget

    if name == "fixed":
        return AgentTarget(FixedTarget(), name)
    if name in SCRIPTED_STUDENTS:
        return AgentTarget(open_student(name), name)
    if ":" in name:
        return ChatTarget(_open(name, "target", backends))
    return AgentTarget(open_student(name), name, model_hash(name))


def _open(name: str, option: str, backends: dict[str, Any]) -> Any:
    """Open a back end and make sure that it answers."""
    from steer_env.models.base import open_backend

    if name not in backends:
        try:
            backends[name] = open_backend(name)
        except ValueError as error:
            raise ValueError(f"{option}: {error}; or 'rule'") from error
        backends[name].check()
    return backends[name]


def _show(summary: dict[str, Any], out: Path) -> None:
    for kind, one in summary["kinds"].items():
        rate = "" if one["keep_rate"] is None else f" ({one['keep_rate']:.1%})"
        turns = "" if one["mean_turns"] is None else f", {one['mean_turns']:.2f} turns in the mean"
        print(f"{kind}: {one['kept']} of {one['rows']} rows kept{rate}{turns}")
        for key in ("strategy", "technique", "grade"):
            if key in one:
                print(f"  {key}: " + ", ".join(f"{name} {count}" for name, count in one[key].items()))
    for reason, count in summary["reasons"].items():
        print(f"rejected, {reason}: {count}")
    for name, one in summary["perturbed"].items():
        share = 0.0 if one["share"] is None else one["share"]
        print(f"pictures with {name}: {one['seeds']} ({share:.1%})")
    print(f"seeds: {out}")


COMMAND = Command(Seeds, run, _EXAMPLES)
