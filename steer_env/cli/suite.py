"""`steer-env evaluate --suite`: whole scenario groups, several attempts, several parts in one run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import steer_env
from steer_env.cli.checks import check_played
from steer_env.cli.common import (
    check_unchanged,
    judge_content,
    model_hash,
    open_folder,
    open_student,
    run_meta,
)
from steer_env.cli.progress import Bar, Bars
from steer_env.cli.watch import Watch
from steer_env.configs.base import flat
from steer_env.configs.env import EnvConfig, Split
from steer_env.judges.independence import check_independent
from steer_env.models import is_backend
from steer_env.play.suites import Part, WholeGroups, groups_for, suite_parts
from steer_env.records import token_pieces
from steer_env.registration import make_seats
from steer_env.runs import RunFolder
from steer_env.types import meta_of
from steer_env.versions import versions_of

if TYPE_CHECKING:
    from steer_env.cli.evaluate import Evaluate

#: Dialogues of each part, unless it is told otherwise.
EPISODES = 200


def run_suite(config: Evaluate, write: Callable[[Path, str], None]) -> int:
    """Play every part of a suite, each into its own folder of the run, then write the reports.

    Args:
        config: What to play.
        write: Called with the run folder and the student's name when all is played.

    Raises:
        ValueError: If an option contradicts the suite, or attempts could not differ.
    """
    config = replace(config, episodes=config.episodes or EPISODES, attempts=config.attempts or 1)
    who = {name: getattr(config.env, name) for name in ("attacker", "judge", "allow_self_judge")}
    for name, value in flat(config.env).items():
        if value != flat(EnvConfig(**who))[name]:
            raise ValueError(
                f"{name}={value!r} beside suite={config.suite!r}, which decides the dialogues; leave "
                f"--{name.replace('_', '-')} or --suite out"
            )
    out = open_folder(config)
    parts = suite_parts(str(config.suite))
    student = open_student(config.student, config.model, **asdict(config.sampling))
    seats = _Seats(config.env)
    check_independent(seats.judge, student, seats.attacker(), allow=config.env.allow_self_judge)
    content = {"model_hash": model_hash(config.student), **judge_content(seats.judge)}
    check_unchanged(out, **content)
    _check_attempts(parts, student, seats, config)
    meta = run_meta("evaluate", config, content, free=False) | {"parts": [part.name for part in parts]}
    RunFolder(out).write(meta | versions_of(seats.judge))
    print(f"dialogues go to {', '.join(str(out / part.name / 'dialogues.jsonl') for part in parts)}")
    for part in parts:
        _play_part(part, student, seats, config, content, out / part.name)
    write(out, config.student)
    return 0


class _Seats:
    """Who attacks and who judges: models are opened once, scripts anew for every attempt."""

    def __init__(self, env: EnvConfig) -> None:
        self._name = env.attacker
        first, self.judge = make_seats(env.env, self._name, env.judge)
        self._model = first if self._name is not None and is_backend(self._name) else None

    def attacker(self, env: str = "SteerEscalation-v0") -> Any:
        """Return the attacker of an environment."""
        return steer_env.make_attacker(env, self._name) if self._model is None else self._model


def _check_attempts(parts: Sequence[Part], student: Any, seats: _Seats, config: Evaluate) -> None:
    varied = student.varies or any(seats.attacker(part.env).varies for part in parts)
    if config.attempts != 1 and not varied:
        raise ValueError(
            f"attempts={config.attempts!r} with greedy replies to an attacker that does not vary would be "
            "one dialogue again and again; expected a sampling student (--temperature 1) or --attacker tutor"
        )


def _play_part(
    part: Part,
    student: Any,
    seats: _Seats,
    config: Evaluate,
    content: Mapping[str, str],
    folder: Path,
) -> None:
    """Play one part; what is in its folder already is not played again."""
    from steer_env.play.controls import play_controls, search
    from steer_env.play.evaluate import DIALOGUES, finish, load_rows, play

    groups = groups_for(part.env, part.split, config.episodes or EPISODES)
    scenarios = WholeGroups(part.env, part.split, groups, config.seed)
    count = len(scenarios)
    wanted = config.attempts or 1
    attempts = wanted if student.varies or seats.attacker(part.env).varies else 1
    if attempts < wanted:
        print(f"{part.name}: one attempt, as greedy replies to a static attacker are the same each time")
    env = replace(config.env, env=part.env, split=cast(Split, part.split))
    of_part = replace(config, env=env, suite=None)
    meta = run_meta("evaluate", of_part, content, free=False) | {"suite": part.name, "groups": groups}
    extra = _labels(part, scenarios, student if config.tokens else None)
    vec = steer_env.make_vec(env, min(config.num_envs, count), judge=seats.judge)
    label = f"evaluate {config.student} {part.name}"
    with Watch(label, folder / DIALOGUES) if config.watch else Bar(label, attempts * count) as bar:
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
                resume=config.resume or attempt > 0,
                scenarios=scenarios,
                meta=meta,
                extra=extra,
                progress=_after(bar, before, attempts * count),
                unscored_limit=config.limit(own=False),
                allow_self_judging=config.env.allow_self_judge,
            )
    finish(folder, range(attempts * count))
    check_played(load_rows(folder))
    if config.no_controls:
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
            allow_self_judging=config.env.allow_self_judge,
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
