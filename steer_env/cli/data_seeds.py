"""`steer-env data seeds`: single-turn rows into multi-turn seed dialogues (Stage I)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_env.cli.legacy import (
    SCRIPTED_STUDENTS,
    add_trust,
    claim,
    model_hash,
    natural,
    open_student,
    positive,
)
from steer_env.scenarios import KINDS

if TYPE_CHECKING:
    from steer_env.data.seeds.grading import Grader
    from steer_env.data.seeds.run import SeedsConfig
    from steer_env.data.seeds.targets import Target

_EXAMPLE = """examples:
  steer-env data seeds --out seeds --count 300
  steer-env data seeds --out seeds/own --source my.jsonl \\
      --generator openai:MODEL@http://localhost:8000/v1 \\
      --target hf:path/to/student --judge openai:OTHER@http://localhost:8001/v1
  steer-env data seeds --out seeds/spa --source spa-vl:train:path/to/spa-vl --kinds benign
  steer-env evaluate constructive --scenarios seeds/red_team.jsonl
killed or interrupted, the same command with --resume goes on where it stopped"""


def add(actions: Any) -> None:
    """Add the subcommand."""
    parser = actions.add_parser(
        "seeds",
        help="turn single-turn rows into benign, obfuscated and red-team seed dialogues",
        description="Turn single-turn rows (picture and question) into three disjoint kinds of multi-turn "
        "seed dialogues: scenario files, rejected rows with reasons, and a summary.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--source",
        default="world",
        help="world or world:SPLIT, a scenario file with one turn a line, or NAME:[SPLIT:]ROOT of a dataset "
        "(default: world)",
    )
    parser.add_argument("--count", type=positive, help="most rows to take (default: all; of the world, 300)")
    parser.add_argument(
        "--kinds", default=",".join(KINDS), help="kinds to make, separated by commas (default: all three)"
    )
    _add_models(parser)
    parser.add_argument("--seed", type=natural, default=0, help="decides everything random (default: 0)")
    parser.add_argument("--mean-turns", type=float, default=6.35, help="wanted, 2 to 10 (default: 6.35)")
    for name, what in (("noise", "Gaussian noise"), ("typography", "a loud phrase")):
        text = f"share of rows with {what} on their pictures (default: 0.1)"
        parser.add_argument(f"--{name}-share", type=float, default=0.1, metavar="SHARE", help=text)
    parser.add_argument(
        "--allow-licence",
        metavar="NAME",
        action="append",
        default=[],
        help="take rows although a licence keeps them out of training data; names a gate (non-commercial, "
        "no-training, unstated) or a dataset; may be repeated",
    )
    parser.add_argument("--resume", action="store_true", help="go on with what the folder holds")
    add_trust(parser)


def _add_models(parser: argparse.ArgumentParser) -> None:
    models = parser.add_argument_group("who writes, who is attacked, who judges")
    models.add_argument(
        "--generator",
        default="rule",
        help="rule, or a model: openai:MODEL@URL, vllm:PATH, hf:PATH (default: rule)",
    )
    models.add_argument(
        "--target",
        default="fixed",
        help="what red-team scripts are tried on: fixed (helpful only, refuses harm that is stated bluntly), "
        f"{', '.join(SCRIPTED_STUDENTS)}, a model as above, or a run folder (default: fixed)",
    )
    models.add_argument(
        "--judge", default="rule", help="who grades it, 1 to 5: rule or a model (default: rule)"
    )
    models.add_argument(
        "--allow-self-judge", action="store_true", help="let the target's own model grade its replies"
    )
    models.add_argument("--attempts", type=positive, default=3, help="at a usable answer (default: 3)")
    models.add_argument("--max-tokens", type=positive, default=1536, help="of an answer (default: 1536)")
    models.add_argument("--temperature", type=float, default=0.8, help="of the generator (default: 0.8)")
    models.add_argument("--batch-size", type=positive, default=32, help="rows at a time (default: 32)")


def run(args: argparse.Namespace) -> int:
    """Make the seeds and print the summary; exit code 1 if there is not one."""
    from steer_env.cli.progress import Bar, Bars
    from steer_env.data.seeds.run import SeedsConfig, check_folder, make_seeds
    from steer_env.data.seeds.source import open_source

    config = SeedsConfig(
        tuple(args.kinds.split(",")),
        args.seed,
        args.mean_turns,
        args.noise_share,
        args.typography_share,
        args.batch_size,
    )
    _check(args, config)
    claim(args, args.out)
    check_folder(args.out, args.resume)
    with Bar(f"reading {args.source}"):
        source = open_source(args.source, args.count, config.kinds, args.seed, args.allow_licence)
    backends: dict[str, Any] = {}
    try:
        generator = _generator(args, config, backends)
        with Bars() as bars:
            summary = make_seeds(
                args.out, source, generator, config, resume=args.resume, progress=bars.update
            )
    finally:
        for backend in backends.values():
            backend.close()
    _show(summary, args.out)
    return 0 if summary["kept"] else 1


def _check(args: argparse.Namespace, config: SeedsConfig) -> None:
    """Refuse combinations that could not give a seed.

    Raises:
        ValueError: Naming the option and what to give in its place.
    """
    if args.source.partition(":")[0] == "world":
        return
    risky = [kind for kind in config.kinds if kind != "benign"]
    if args.generator == "rule" and risky:
        raise ValueError(
            f"generator='rule' takes risky requests of the built-in world apart, not of {args.source!r}; "
            "name a model with --generator, or leave --kinds benign"
        )
    if "red_team" not in config.kinds:
        return
    if args.judge == "rule":
        raise ValueError(
            f"judge='rule' has no ground truth for {args.source!r}; name a model with --judge, or leave "
            "red_team out of --kinds"
        )
    if args.target in ("fixed", *SCRIPTED_STUDENTS):
        raise ValueError(
            f"target={args.target!r} plays the built-in world only; name a model with --target, or leave "
            "red_team out of --kinds"
        )


def _generator(args: argparse.Namespace, config: SeedsConfig, backends: dict[str, Any]) -> Any:
    """Open generator, target and judge; what is asked for twice is opened once."""
    from steer_env.data.seeds.grading import ChatGrader, RuleGrader
    from steer_env.data.seeds.llm import ChatGenerator
    from steer_env.data.seeds.rule import RuleGenerator
    from steer_env.judges.independence import check_independent
    from steer_env.models.structured import Settings

    settings = Settings(args.attempts, args.max_tokens, args.temperature)
    target: Target = _target("fixed", backends)
    grader: Grader = RuleGrader()
    if "red_team" in config.kinds:  # no one else is attacked or graded
        if args.judge != "rule":
            grader = ChatGrader(_open(args.judge, "judge", backends))
        target = _target(args.target, backends)
        check_independent(grader, target, allow=("student",) if args.allow_self_judge else ())
    if args.generator == "rule":
        return RuleGenerator(target, grader)
    return ChatGenerator(_open(args.generator, "generator", backends), target, grader, settings)


def _target(name: str, backends: dict[str, Any]) -> Target:
    from steer_env.data.seeds.targets import AgentTarget, ChatTarget, FixedTarget

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
