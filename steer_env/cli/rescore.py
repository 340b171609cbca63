"""`steer-env rescore`: judge stored dialogues again."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from steer_env.cli.legacy import add_trust, claim, command, positive
from steer_env.cli.progress import Bar, show_table
from steer_env.cli.report import open_scenes
from steer_env.judges.independence import ROLES, check_independent
from steer_env.models import is_backend, read_name
from steer_env.models.weights import weights_id
from steer_env.records import Row
from steer_env.scenarios import Scenario

_EXAMPLE = """  steer-env rescore runs/mine --judge rule
  steer-env rescore runs/mine --judge rule --out runs/mine-rule --resume"""

_DESCRIPTION = """Judge the dialogues of a run folder and of its controls again, without generating anything,
and write a run folder of its own. The scenarios are made again from the run's options and seeds; a dialogue
that does not fit its scenario is an error. After Ctrl-C, --resume goes on and judges nothing twice."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "rescore", "judge stored dialogues again", _EXAMPLE, run, _DESCRIPTION)
    parser.add_argument("source", metavar="RUN", type=Path, help="run folder that evaluate wrote")
    parser.add_argument(
        "--judge", required=True, help="name of the judge, such as rule, or of several, as ensemble:..."
    )
    text = "let the judge have the weights of the student or the attacker; may be repeated"
    parser.add_argument("--allow-self-judge", metavar="ROLE", action="append", choices=ROLES, help=text)
    parser.add_argument("--out", type=Path, help="run folder (default: RUN-JUDGE)")
    parser.add_argument("--scenarios", metavar="FILE", help="where the run's scenario file is now")
    parser.add_argument("--batch", type=positive, default=16, help="dialogues per call (default: 16)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    """Judge again and print the table."""
    from steer_env.evaluation.summary import summarise
    from steer_env.files import read_json
    from steer_env.play.compare import load_parts
    from steer_env.play.controls import load_controls, sentence
    from steer_env.play.evaluate import load_rows
    from steer_env.play.rescore import rescore
    from steer_env.registration import make_judge
    from steer_env.report.outputs import file_name
    from steer_env.runs import RUN, RunFolder

    judge = make_judge(args.judge)
    if judge is None:
        raise ValueError(f"judge={args.judge!r}, expected the name of a judge, such as rule")
    parts = load_parts(args.source)
    for one in parts.values():  # who played is known by name and by the hash of its weights
        check_independent(judge, *_players(one.meta), allow=args.allow_self_judge or ())
    suite = "" not in parts
    out = args.out or args.source.with_name(f"{args.source.name}-{file_name(judge.name)}")
    claim(args, out)
    run, meta = RunFolder(out), {"rescored_from": str(args.source), "judge": judge.name}
    if suite:
        meta = read_json(args.source / RUN) | meta
        run.check(meta, resume=args.resume, exact=True)
    scenes = {
        part: _scenes(args, one.meta) for part, one in parts.items()
    }  # all checked before any is judged
    if suite:
        run.write(meta)
    print(f"dialogues go to {out}")
    summaries, controls, worth = {}, {}, {}
    for part in parts:
        source = args.source / part
        with Bar(f"rescore {source}") as bar:
            options = {"resume": args.resume, "batch": args.batch, "progress": bar.update}
            summary = rescore(source, judge, scenes[part], out / part, **options)
        name = f"{args.source.name}{' ' if part else ''}{part}, judge {judge.name}"
        beside = load_controls(out / part)
        summaries[name] = summary
        controls[name] = {what: summarise(rows) for what, rows in beside.items()}
        if beside:
            worth[name] = sentence(load_rows(out / part), beside)
    show_table(summaries, "", controls=controls, worth=worth)
    return 0


def _players(meta: Mapping[str, Any]) -> list[Any]:
    """Return stand-ins for student and attacker of a run, with the weights they had as far as it says."""
    found = []
    for name, known in ((meta.get("student"), meta.get("model_hash")), (meta.get("attacker"), None)):
        bare = read_name(str(name or ""))[0]
        model = bare.partition(":")[2].partition("@http")[0] if is_backend(bare) else ""
        found.append(SimpleNamespace(weights=known or (weights_id(model) if model else "")))
    return found


def _scenes(args: argparse.Namespace, meta: Mapping[str, Any]) -> Callable[[Row], Scenario]:
    """Return what makes the scenarios of a run again.

    Raises:
        CannotRescore: If the run does not say enough of itself, or its scenario file is gone.
    """
    from steer_env.play.rescore import CannotRescore

    if "env" not in meta:
        raise CannotRescore(
            f"run={str(args.source)!r} does not say its environment (no 'env' in run.json), expected a "
            "folder that `steer-env evaluate` wrote; with other rows use the Python function `rescore`"
        )
    return open_scenes({**meta, "scenarios": args.scenarios or meta.get("scenarios")})
