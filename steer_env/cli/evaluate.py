"""`steer-env evaluate`: play dialogues against a student and report."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import steer_env
from steer_env.cli.common import (
    Setting,
    add_env_options,
    add_model_options,
    check_unchanged,
    command,
    model_hash,
    natural,
    open_setting,
    open_student,
    positive,
    settle,
)
from steer_env.cli.progress import Bar, show_table

_EXAMPLE = """  steer-env evaluate constructive
  steer-env evaluate runs/mine --env SteerRedTeam-v0 --episodes 500
  steer-env evaluate path/to/model --scenarios my.jsonl --out runs/eval-mine
  steer-env evaluate path/to/model --scenarios my.jsonl --out runs/eval-mine --resume"""

_DESCRIPTION = """Play dialogues against a student and report multi-turn safety, helpfulness, leaks and
survival, each with its interval. The run folder gets dialogues.jsonl (each row as its dialogue ends),
summary.json, survival.png, report.html, report.md and results.csv. Turns without a verdict are never
guessed: they show as unscored, and rates that hang on them as bounds."""

_DEFAULTS: dict[str, Any] = {
    "student": None,
    "env": "SteerEscalation-v0",
    "split": None,
    "scenarios": None,
    "attacker": None,
    "seed": 0,
    "temperature": 0.0,
    "max_new_tokens": None,
}


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "evaluate", "test a student", _EXAMPLE, run, _DESCRIPTION)
    parser.add_argument(
        "student",
        metavar="STUDENT",
        help="refuse, comply, constructive, random, a model folder, a run folder, or hf:ORGANISATION/MODEL",
    )
    add_env_options(parser, "bench")
    parser.add_argument(
        "--episodes", type=positive, help="dialogues (default: 200, or each scenario of a file once)"
    )
    parser.add_argument(
        "--seed", type=natural, help="first seed; the dialogues take this and the following ones (default: 0)"
    )
    parser.add_argument("--num-envs", type=positive, default=32, help="dialogues at a time (default: 32)")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/evaluate/STUDENT)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--watch", action="store_true", help="show table and curves while it runs")
    parser.add_argument(
        "--unscored-limit",
        type=float,
        metavar="SHARE",
        help="stop when more than this share of turns has no verdict (default: 0.05; with --scenarios, whose "
        "turns the rule judge cannot score, 1)",
    )
    parser.add_argument("--card", type=Path, metavar="FILE", help="calibration card of the judge, JSON")
    add_model_options(parser)
    parser.add_argument("--temperature", type=float, help="of a model's replies, 0 is greedy (default: 0)")
    parser.add_argument("--max-new-tokens", type=positive, help="longest reply of a model (default: 48)")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the table."""
    from steer_env.cli.watch import Watch
    from steer_env.evaluation.calibration import load_card
    from steer_env.evaluation.evaluate import DIALOGUES, evaluate
    from steer_env.evaluation.measures import check_card

    card = None if args.card is None else check_card(load_card(args.card))  # before anything is played
    out: Path = args.out or Path("runs/evaluate") / (
        re.sub(r"[^\w.-]+", "-", args.student).strip("-.") or "student"
    )
    chosen = settle(args, _DEFAULTS, out)
    setting = open_setting(chosen, "bench")
    model = {key: chosen[key] for key in ("temperature", "max_new_tokens")}
    student = open_student(
        chosen["student"], device=args.device, dtype=args.dtype, batch_size=args.batch_size, **model
    )
    episodes = args.episodes or (200 if setting.scenarios is None else len(setting.scenarios))
    seeds = range(chosen["seed"], chosen["seed"] + episodes)
    vec = steer_env.make_vec(setting.env_id, min(args.num_envs, episodes), **setting.options)
    content = {"scenario_hash": setting.digest, "model_hash": model_hash(chosen["student"])}
    check_unchanged(out, **content)
    meta = {"command": "evaluate", **chosen, **content}
    print(f"dialogues go to {out / 'dialogues.jsonl'}")
    label = f"evaluate {chosen['student']}"
    with Watch(label, out / DIALOGUES) if args.watch else Bar(label, episodes) as bar:
        summary = evaluate(
            vec,
            setting.attacker,
            student,
            seeds,
            out,
            resume=args.resume,
            scenarios=setting.scenarios,
            meta=meta,
            progress=bar.update,
            unscored_limit=_limit(args.unscored_limit, setting),
        )
    title = f"{setting.env_id}, {chosen['scenarios'] or setting.options.get('split', '')}"
    name = chosen["student"]
    show_table({name: summary}, title)
    print(f"harm rate {summary.harm_rate.text(percent=True)}; refused harmless turns "
          f"{summary.refusal_of_harmless.text(percent=True)}")  # fmt: skip
    print(f"summary: {out / 'summary.json'}")
    print(f"plot: {plot({name: summary}, out / 'survival.png', title)}")
    print(f"report: {_report(name, out, setting, card, title)}")
    return 0


def _limit(given: float | None, setting: Setting) -> float:
    if given is not None:
        return given
    return 0.05 if setting.scenarios is None else 1.0


def _report(name: str, out: Path, setting: Setting, card: Any, title: str) -> Path:
    from steer_env.cli.report import pictures_from
    from steer_env.evaluation.evaluate import load_rows
    from steer_env.evaluation.outputs import write_reports
    from steer_env.evaluation.rescore import Scenes

    pictures = pictures_from(Scenes(setting.env_id, setting.options, setting.scenarios))
    return write_reports({name: load_rows(out)}, out, title=title, card=card, pictures=pictures)["html"]


def plot(summaries: Any, path: Path, title: str) -> str:
    """Draw the survival plot and return where it is, or why there is none."""
    from steer_env.evaluation.report import survival_plot

    try:
        return str(survival_plot(summaries, path, title=title))
    except ImportError as error:  # the numbers stand without it
        return f"none ({error})"
