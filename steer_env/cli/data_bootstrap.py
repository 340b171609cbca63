"""`steer-env data bootstrap`: make the training data of Stage II and say what was left out, and why."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import steer_env
from steer_env.agents import make_agent
from steer_env.agents.base import Agent
from steer_env.cli.legacy import (
    SCRIPTED_STUDENTS,
    add_model_options,
    add_trust,
    check_unchanged,
    finite,
    judge_content,
    model_hash,
    natural,
    open_setting,
    open_student,
    positive,
    settle,
)
from steer_env.cli.progress import Bar
from steer_env.data.guided import GUIDELINES, Guided, guidelines_hash
from steer_env.data.licences import check_training_allowed
from steer_env.judges.independence import ROLES, check_independent
from steer_env.records import REJECTED
from steer_env.scenarios import Scenario

_EXAMPLE = """examples:
  steer-env data bootstrap --out boot --red tutor --blue constructive --count 1000
  steer-env data bootstrap --out boot --scenarios my.jsonl --blue hf:path/to/model --max-new-tokens 256
  steer-env data bootstrap --out boot --resume
then: steer-env sft --model path/to/model --data boot --out runs/sft"""

_DEFAULTS: dict[str, Any] = {
    "env": "SteerEscalation-v0",
    "split": None,
    "scenarios": None,
    "red": "tutor",
    "blue": "constructive",
    "judge": "rule",
    "allow_self_judge": None,
    "guidelines": None,
    "tau_safe": 8.0,
    "tau_help": 8.0,
    "count": None,
    "seed": 0,
    "chunk": 64,
    "temperature": None,
    "max_new_tokens": None,
    "dtype": None,
}
#: Back ends whose students take a system prompt of their own.
_SYSTEM = ("openai:",)


def add(actions: Any) -> None:
    """Add the action to `steer-env data`."""
    parser = actions.add_parser(
        "bootstrap",
        help="Stage II: red and blue agents talk, the judge scores, good dialogues are kept",
        description="A red agent rewrites each turn of a seed, a blue agent answers under guidelines, the "
        "reward judge scores every turn. Kept if no turn is less safe than --tau-safe and the mean "
        "usefulness is at least --tau-help. Writes sft/steer_sft.jsonl with images/, rejected.jsonl and "
        "summary.json.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("boot"), help="folder (default: boot)")
    parser.add_argument("--resume", action="store_true", help="continue in --out")
    add_trust(parser)
    text = "environment id of the built-in world (default: SteerEscalation-v0)"
    parser.add_argument("--env", metavar="ID", help=text)
    parser.add_argument("--split", help="of the built-in world (default: sft)")
    text = "your own scenarios, JSON Lines; replaces the built-in world"
    parser.add_argument("--scenarios", metavar="FILE", help=text)
    parser.add_argument(
        "--red",
        help="who plays the user: static, tutor, or a model such as openai:MODEL@URL (default: tutor)",
    )
    parser.add_argument("--blue", help="who answers: constructive, a model, ... (default: constructive)")
    parser.add_argument("--judge", help="who scores: rule, openai:MODEL@URL, ... (default: rule)")
    text = "let the judge have the weights of the student (blue) or the attacker (red); may be repeated"
    parser.add_argument("--allow-self-judge", metavar="ROLE", action="append", choices=ROLES, help=text)
    parser.add_argument(
        "--guidelines", metavar="FILE", help="what a blue model is told (default: the built-in text)"
    )
    parser.add_argument("--tau-safe", type=float, help="least safety of every turn, 1..10 (default: 8)")
    parser.add_argument("--tau-help", type=float, help="least mean usefulness, 1..10 (default: 8)")
    text = "dialogues to play (default: 1000, or each scenario of a file once)"
    parser.add_argument("--count", type=positive, help=text)
    parser.add_argument("--seed", type=natural, help="decides scenarios and wording (default: 0)")
    text = "dialogues at a time; they are written when all of them have ended (default: 64)"
    parser.add_argument("--chunk", type=positive, help=text)
    parser.add_argument(
        "--allow-licence",
        metavar="NAME",
        action="append",
        default=[],
        help="use scenarios although a licence forbids training; names a gate or a dataset; may be repeated",
    )
    add_model_options(parser)
    parser.add_argument("--temperature", type=finite, help="of a model's replies (default: its own)")
    parser.add_argument("--max-new-tokens", type=positive, help="longest reply of a model (default: 256)")


def run(args: argparse.Namespace) -> int:
    """Play, filter, and print the table."""
    from steer_env.data.bootstrap import KEPT, BootstrapConfig, ChosenScenarios, bootstrap, table
    from steer_env.runs import RunFolder

    out: Path = args.out
    chosen = settle(args, _DEFAULTS, out)
    setting = open_setting({**chosen, "attacker": "static"}, "sft", wrappers=())
    if setting.scenarios is not None:
        check_training_allowed(setting.scenarios, allow=args.allow_licence)
    config = BootstrapConfig(
        chosen["count"] or _count(setting.scenarios),
        chosen["tau_safe"], chosen["tau_help"], chosen["seed"], chosen["chunk"],
    )  # fmt: skip
    guidelines = GUIDELINES if chosen["guidelines"] is None else _read(Path(chosen["guidelines"]))
    content = {
        "scenario_hash": setting.digest,
        "model_hash": model_hash(chosen["blue"]),
        "guidelines_hash": guidelines_hash(guidelines),
        **judge_content(setting.judge),
    }
    check_unchanged(out, **content)
    red = open_red(chosen["red"], chosen["seed"])
    options = {key: chosen[key] for key in ("temperature", "max_new_tokens", "dtype")}
    options |= {key: getattr(args, key) for key in ("device", "batch_size")}
    blue = open_blue(chosen["blue"], guidelines, seed=chosen["seed"], **options)
    check_independent(setting.judge, blue, red, allow=chosen["allow_self_judge"] or ())
    vec: Any = steer_env.make_vec(setting.env_id, min(config.chunk, config.count), **setting.options)
    if setting.scenarios is not None:
        vec = ChosenScenarios(vec, setting.scenarios)
    RunFolder(out).write({"command": "data bootstrap", **chosen, **content})
    agents = {name: chosen[name] for name in ("red", "blue", "judge")}
    with Bar("bootstrap", config.count) as bar:
        summary = bootstrap(
            out, vec, red, blue, config, resume=True, agents=agents, progress=bar.update
        )  # `settle` has refused a folder that holds rows
    print(table(summary))
    print(f"kept: {out / KEPT}\nrejected, with reasons: {out / REJECTED}")
    if summary["all"]["kept"]:
        print(f"next: steer-env sft --model MODEL --data {out}")
    return 0


def open_red(name: str, seed: int) -> Agent:
    """Return a red agent by name; one with a memory is opened without it, so that order does not matter."""
    if name == "tutor":
        return make_agent("tutor", seed=seed, memory=False)
    if name == "learning":
        raise ValueError(f"red={name!r} has nobody to learn from here, expected static, tutor or a model")
    if name in SCRIPTED_STUDENTS:
        raise ValueError(f"red={name!r} plays the student, expected an attacker, such as static or tutor")
    if ":" in name:
        from steer_env.agents.llm_tutor import LLMTutor
        from steer_env.models import open_backend

        return LLMTutor(open_backend(name))
    return make_agent(name)


def open_blue(name: str, guidelines: str, **options: Any) -> Agent:
    """Return a blue agent by name.

    A model behind a server gets the guidelines as its system prompt; one in process, whose template need not
    have one, in front of the user's first words. A scripted student follows its own rules.
    """
    if name in SCRIPTED_STUDENTS:
        return make_agent(name, **({"seed": options["seed"]} if name != "refuse" else {}))
    if not name.startswith(_SYSTEM):
        return Guided(open_student(name, **options), guidelines)
    try:
        return open_student(name, system=guidelines, **options)
    except TypeError as error:
        if "system" not in str(error):
            raise
        raise ValueError(
            f"blue={name!r} takes no system prompt, expected a student that does: {error}"
        ) from error


def _count(scenarios: Sequence[Scenario] | None) -> int:
    return 1_000 if scenarios is None else len(scenarios)


def _read(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError(f"guidelines={str(path)!r} is blank, expected what the blue agent is to be told")
    return text
