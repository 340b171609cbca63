"""`steer-env evaluate`: play dialogues against a student and report."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import steer_env
from steer_env.cli.checks import check_played
from steer_env.cli.common import (
    Setting,
    add_env_options,
    add_model_options,
    add_trust,
    check_unchanged,
    command,
    finite,
    judge_content,
    model_hash,
    natural,
    open_setting,
    open_student,
    positive,
    settle,
)
from steer_env.cli.progress import Bar, Bars, show_table
from steer_env.cli.report import add_format_option, add_leakage_option, formats_of, open_run
from steer_env.cli.suite import run_suite, suite_of, token_row
from steer_env.evaluation.summary import Summary
from steer_env.judges.independence import check_independent
from steer_env.play.suites import distribution_of

_EXAMPLE = """  steer-env evaluate constructive
  steer-env evaluate runs/mine --env SteerRedTeam-v0 --episodes 500
  steer-env evaluate runs/mine --controls
  steer-env evaluate path/to/model --scenarios my.jsonl --out runs/eval-mine
  steer-env evaluate path/to/model --scenarios my.jsonl --out runs/eval-mine --resume
  steer-env evaluate runs/mine --attacker openai:MODEL@http://localhost:8000/v1 --judge tutor
  steer-env evaluate runs/mine --suite full --attempts 3 --out runs/full"""

_DESCRIPTION = """Play dialogues against a student and report multi-turn safety, helpfulness, leaks and
survival, each with its interval. The run folder gets dialogues.jsonl (each row as its dialogue ends),
summary.json and the report files. Turns without a verdict are never guessed: they show as unscored, and rates
that hang on them as bounds. The built-in world is played in whole scenario groups, whose members differ in
the picture or the history alone: the number of dialogues is rounded up. A suite plays each of its parts in
a folder of its own; `full` is single- and multi-turn, in- and out-of-distribution."""

_DEFAULTS: dict[str, Any] = {
    "student": None,
    "env": "SteerEscalation-v0",
    "split": None,
    "scenarios": None,
    "attacker": None,
    "judge": "rule",
    "allow_self_judge": None,
    "seed": 0,
    "temperature": 0.0,
    "max_new_tokens": None,
    "dtype": None,
}


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "evaluate", "test a student", _EXAMPLE, run, _DESCRIPTION)
    parser.add_argument(
        "student",
        metavar="STUDENT",
        help="refuse, comply, constructive, random, tiny, tiny-sft, tiny-grpo, a model folder, a run folder, "
        "hf:ORGANISATION/MODEL, "
        "vllm:PATH or openai:MODEL@URL",
    )
    add_env_options(parser, "bench")
    parser.add_argument(
        "--episodes", type=positive, help="dialogues (default: 200, or each scenario of a file once)"
    )
    parser.add_argument(
        "--seed",
        type=natural,
        help="first seed; the dialogues take this and the following ones, with those of their groups "
        "(default: 0)",
    )
    parser.add_argument(
        "--suite", metavar="NAME", help="bench, bench-single, ood, ood-single or full, in place of --env"
    )
    parser.add_argument(
        "--attempts",
        type=positive,
        help="of a suite: attempts at each dialogue, seeded differently (default: 1)",
    )
    parser.add_argument(
        "--controls",
        action=argparse.BooleanOptionalAction,
        help="play the same dialogues also without pictures, with swapped ones, without the history and with "
        "a constant reply, each shown as a row (default: with a suite)",
    )
    parser.add_argument(
        "--tokens", action="store_true", help="record a model's tokens with mask and log-probability (large)"
    )
    parser.add_argument("--num-envs", type=positive, default=32, help="dialogues at a time (default: 32)")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/evaluate/STUDENT)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    add_trust(parser)
    parser.add_argument("--watch", action="store_true", help="show table and curves while it runs")
    parser.add_argument(
        "--unscored-limit",
        type=float,
        metavar="SHARE",
        help="stop when more than this share of turns has no verdict (default: 0.05; with --scenarios and "
        "the rule judge, which cannot score them, 1)",
    )
    parser.add_argument("--card", type=Path, metavar="FILE", help="calibration card of the judge, JSON")
    add_format_option(parser)
    add_leakage_option(parser)
    add_model_options(parser)
    parser.add_argument("--temperature", type=finite, help="of a model's replies, 0 is greedy (default: 0)")
    parser.add_argument(
        "--max-new-tokens", type=positive, help="longest reply of a model in tokens (default: 256)"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the table."""
    reports = _Reports(args)  # what is wrong with them is said before anything is played
    if args.suite is None and args.out is not None:
        args.suite = suite_of(args.out)
    if args.suite is not None:
        return run_suite(args, reports.write)
    if args.attempts is not None:
        raise ValueError(f"attempts={args.attempts!r} without a suite, expected --suite beside --attempts")
    return _run_plain(args, reports)


def _run_plain(args: argparse.Namespace, reports: _Reports) -> int:
    """Play dialogues of one environment."""
    from steer_env.cli.watch import Watch
    from steer_env.play.evaluate import DIALOGUES, evaluate, load_rows

    out: Path = args.out or Path("runs/evaluate") / (
        re.sub(r"[^\w.-]+", "-", args.student).strip("-.") or "student"
    )
    chosen = settle(args, _DEFAULTS, out)
    setting = open_setting(chosen, "bench")
    model = {key: chosen[key] for key in ("temperature", "max_new_tokens")}
    student = open_student(
        chosen["student"], device=args.device, dtype=chosen["dtype"], batch_size=args.batch_size, **model
    )
    allowed = chosen["allow_self_judge"] or ()
    check_independent(setting.judge, student, setting.attacker, allow=allowed)
    episodes = args.episodes or (200 if setting.scenarios is None else len(setting.scenarios))
    seeds = range(chosen["seed"], chosen["seed"] + episodes)
    vec = steer_env.make_vec(setting.env_id, min(args.num_envs, episodes), **setting.options)
    content = {"scenario_hash": setting.digest, "model_hash": model_hash(chosen["student"])}
    content |= judge_content(setting.judge)
    check_unchanged(out, **content)
    meta = {"command": "evaluate", **chosen, **content}
    split = setting.options.get("split")
    where = {} if split is None else {"distribution": distribution_of(split)}
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
            extra=lambda dialogue: {**where, **(token_row(dialogue, student) if args.tokens else {})},
            progress=bar.update,
            unscored_limit=_limit(args.unscored_limit, setting, chosen["judge"]),
            allow_self_judging=allowed,
        )
    check_played(load_rows(out))
    controls: dict[str, Summary] = {}
    if args.controls:
        from steer_env.play.controls import play_controls, search

        with Bars() as bars:
            controls = play_controls(
                vec,
                setting.attacker,
                student,
                seeds,
                out,
                scenarios=setting.scenarios,
                meta=meta,
                constant=None if split is None else search(setting.env_id, split=split),
                progress=lambda name, n, of: bars.update(f"{label}, {name}", n, of),
                extra=lambda _: where,
                unscored_limit=1.0,  # a control that the judge cannot read is a result, too
                allow_self_judging=allowed,
            )
    title = f"{setting.env_id}, {chosen['scenarios'] or split or ''}"
    _show(chosen["student"], summary, title, controls, out)
    print(f"summary: {out / 'summary.json'}")
    reports.write(out, chosen["student"], title)
    return 0


def _show(name: str, summary: Summary, title: str, controls: dict[str, Summary], out: Path) -> None:
    from steer_env.play.controls import load_controls, sentence
    from steer_env.play.evaluate import load_rows

    worth = {name: sentence(load_rows(out), load_controls(out))} if controls else {}
    show_table({name: summary}, title, controls={name: controls}, worth=worth)
    print(f"harm rate {summary.harm_rate.text(percent=True)}; refused harmless turns "
          f"{summary.refusal_of_harmless.text(percent=True)}")  # fmt: skip


def _limit(given: float | None, setting: Setting, judge: str) -> float:
    if given is not None:
        return given
    return 1.0 if setting.scenarios is not None and judge == "rule" else 0.05


class _Reports:
    """The report files that the options ask for, checked before anything is played."""

    def __init__(self, args: argparse.Namespace) -> None:
        from steer_env.evaluation.calibration import load_card
        from steer_env.evaluation.leakage import load_leakage
        from steer_env.evaluation.measures import check_card

        self.card = None if args.card is None else check_card(load_card(args.card))
        self.bins = None if args.leakage is None else load_leakage(args.leakage)
        self.formats = formats_of(args.format)

    def write(self, out: Path, name: str, title: str = "") -> None:
        """Write the files of a run folder, or of a suite, and say where they are."""
        from steer_env.play.controls import load_controls
        from steer_env.report.outputs import write_reports
        from steer_env.report.sections import sections_of, suite_text

        rows, makers, metas = open_run(out, name, self.bins)
        check_played(rows)
        sections = sections_of({name: rows}, card=self.card, controls={name: load_controls(out)})
        if any(section.suite for section in sections):
            print(suite_text(sections))
        paths = write_reports(
            {name: rows},
            out,
            title=title or f"steer_env: {name}",
            card=self.card,
            pictures=lambda row: makers[name, row.get("suite", "")](row),
            formats=self.formats,
            metas=metas,
            sections=sections,
        )
        for what, path in paths.items():
            print(f"{'report' if what == 'html' else what}: {path}")


def plot(summaries: Any, path: Path, title: str) -> str:
    """Draw the survival plot and return where it is, or why there is none."""
    from steer_env.report.plots import survival_plot

    try:
        return str(survival_plot(summaries, path, title=title))
    except ImportError as error:  # the numbers stand without it
        return f"none ({error})"
