"""`steer-env evaluate --suite`: whole scenario groups, several attempts, several parts in one run folder."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import steer_env
from steer_env.cli.checks import check_played
from steer_env.cli.common import check_unchanged, judge_content, model_hash, open_student, settle
from steer_env.cli.progress import Bar, Bars
from steer_env.cli.watch import Watch
from steer_env.judges.independence import check_independent
from steer_env.models import is_backend
from steer_env.play.suites import Part, WholeGroups, groups_for, suite_parts
from steer_env.records import token_pieces
from steer_env.registration import make_seats
from steer_env.runs import RunFolder
from steer_env.types import meta_of
from steer_env.versions import versions_of

_DEFAULTS: dict[str, Any] = {
    "student": None,
    "suite": None,
    "attacker": None,
    "judge": "rule",
    "allow_self_judge": None,
    "seed": 0,
    "episodes": 200,
    "attempts": 1,
    "temperature": 0.0,
    "max_new_tokens": None,
    "dtype": None,
}
_REFUSED = ("env", "split", "scenarios")


def suite_of(out: Path) -> str | None:
    """Return the suite that a run folder holds, None if it holds none."""
    meta = RunFolder(out).stored()
    return str(meta["suite"]) if "parts" in meta else None


def run_suite(args: argparse.Namespace, write: Callable[[Path, str], None]) -> int:
    """Play every part of a suite, each into its own folder of the run, then write the reports.

    Args:
        args: Of `steer-env evaluate`.
        write: Called with the run folder and the student's name when all is played.

    Raises:
        ValueError: If an option contradicts the suite, or attempts could not differ.
    """
    given = [name for name in _REFUSED if getattr(args, name) is not None]
    if given:
        raise ValueError(
            f"{given[0]}={getattr(args, given[0])!r} beside suite={args.suite!r}, which decides the "
            f"dialogues; leave --{given[0]} or --suite out"
        )
    name = f"{args.student}-{args.suite}"
    out: Path = args.out or Path("runs/evaluate") / re.sub(r"[^\w.-]+", "-", name).strip("-.")
    chosen = settle(args, _DEFAULTS, out)
    parts = suite_parts(chosen["suite"])
    model = {key: chosen[key] for key in ("temperature", "max_new_tokens")}
    student = open_student(
        chosen["student"], device=args.device, dtype=chosen["dtype"], batch_size=args.batch_size, **model
    )
    seats = _Seats(chosen)
    check_independent(seats.judge, student, seats.attacker(), allow=chosen["allow_self_judge"] or ())
    content = {"model_hash": model_hash(chosen["student"]), **judge_content(seats.judge)}
    check_unchanged(out, **content)
    _check_attempts(parts, student, seats, chosen)
    meta = {"command": "evaluate", **chosen, "parts": [part.name for part in parts], **content}
    meta |= versions_of(seats.judge)
    RunFolder(out).write(meta)
    print(f"dialogues go to {', '.join(str(out / part.name / 'dialogues.jsonl') for part in parts)}")
    for part in parts:
        _play_part(part, student, seats, chosen, content, out / part.name, args)
    write(out, chosen["student"])
    return 0


class _Seats:
    """Who attacks and who judges: models are opened once, scripts anew for every attempt."""

    def __init__(self, chosen: Mapping[str, Any]) -> None:
        self._name = chosen["attacker"]
        first, self.judge = make_seats("SteerEscalation-v0", self._name, chosen["judge"])
        self._model = first if self._name is not None and is_backend(self._name) else None

    def attacker(self, env: str = "SteerEscalation-v0") -> Any:
        """Return the attacker of an environment."""
        return steer_env.make_attacker(env, self._name) if self._model is None else self._model


def _check_attempts(parts: Sequence[Part], student: Any, seats: _Seats, chosen: Mapping[str, Any]) -> None:
    if chosen["attempts"] > 1 and not (
        student.varies or any(seats.attacker(part.env).varies for part in parts)
    ):
        raise ValueError(
            f"attempts={chosen['attempts']!r} with greedy replies to an attacker that does not vary would be "
            "one dialogue again and again; expected a sampling student (--temperature 1) or --attacker tutor"
        )


def _play_part(
    part: Part,
    student: Any,
    seats: _Seats,
    chosen: Mapping[str, Any],
    content: Mapping[str, str],
    folder: Path,
    args: argparse.Namespace,
) -> None:
    """Play one part; what is in its folder already is not played again."""
    from steer_env.play.controls import play_controls, search
    from steer_env.play.evaluate import DIALOGUES, finish, load_rows, play

    groups = groups_for(part.env, part.split, chosen["episodes"])
    scenarios = WholeGroups(part.env, part.split, groups, chosen["seed"])
    count = len(scenarios)
    attempts = chosen["attempts"] if student.varies or seats.attacker(part.env).varies else 1
    if attempts < chosen["attempts"]:
        print(f"{part.name}: one attempt, as greedy replies to a static attacker are the same each time")
    meta = {
        "command": "evaluate",
        **{key: value for key, value in chosen.items() if key not in ("suite", "episodes", "attempts")},
        **{"env": part.env, "split": part.split, "scenarios": None, "suite": part.name, "groups": groups},
        **content,
    }
    extra = _labels(part, scenarios, student if args.tokens else None)
    vec = steer_env.make_vec(part.env, min(args.num_envs, count), split=part.split, judge=seats.judge)
    label = f"evaluate {chosen['student']} {part.name}"
    with Watch(label, folder / DIALOGUES) if args.watch else Bar(label, attempts * count) as bar:
        for attempt in range(attempts):
            attacker = seats.attacker(part.env)
            if attempt:
                attacker.reseed(attempt)
            student.reseed(attempt)
            before = attempt * count
            play(
                vec,
                attacker,
                student,
                range(before, before + count),
                folder,
                resume=args.resume or attempt > 0,
                scenarios=scenarios,
                meta=meta,
                extra=extra,
                progress=_after(bar, before, attempts * count),
                unscored_limit=0.05 if args.unscored_limit is None else args.unscored_limit,
                allow_self_judging=chosen["allow_self_judge"] or (),
            )
    finish(folder, range(attempts * count))
    check_played(load_rows(folder))
    if args.controls is False:
        return
    student.reseed(0)
    with Bars() as bars:
        play_controls(
            vec,
            seats.attacker(part.env),
            student,
            range(count),
            folder,
            scenarios=scenarios,
            meta=meta,
            constant=search(part.env, split=part.split),
            progress=lambda name, n, of: bars.update(f"{label}, {name}", n, of),
            extra=_labels(part, scenarios, None),
            unscored_limit=1.0,  # a control that the judge cannot read is a result, too
            allow_self_judging=chosen["allow_self_judge"] or (),
        )


def _after(bar: Bar | Watch, before: int, total: int) -> Callable[[int, int], None]:
    """Progress of one attempt as progress of all."""
    return lambda done, _: bar.update(before + done, total)


def _labels(part: Part, scenarios: WholeGroups, student: Any) -> Callable[[Any], dict[str, Any]]:
    """Return what gives the further keys of a row; with a student, its tokens as well."""

    def labels(dialogue: Any) -> dict[str, Any]:
        attempt, index = divmod(dialogue.seed, len(scenarios))
        where = {"suite": part.name, "distribution": part.distribution, "attempt": attempt}
        tokens = {} if student is None else token_row(dialogue, student)
        return {**where, **scenarios.labels(index), **tokens}

    return labels


def token_row(dialogue: Any, student: Any) -> dict[str, Any]:
    """Return the tokens of a finished dialogue for its row, nothing where the student has none."""
    trace = meta_of(dialogue.turns[-1].turn.reply).get("trace") if dialogue.turns else None
    if trace is None:
        return {}
    return {"tokens": token_pieces(trace, student.codec.tokenizer.decode)}
