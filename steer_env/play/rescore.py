"""Judge stored dialogues again with another judge, without generating anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import Any

from steer_env.drawing import redrawn
from steer_env.evaluation.summary import Summary, summarise
from steer_env.files import read_json, write_json
from steer_env.judges.base import (
    DEADLINE,
    AsyncJudge,
    Judge,
    JudgeRequest,
    give_up,
    judge_batch,
    read_verdict,
)
from steer_env.judges.combine import submitted
from steer_env.play.controls import CHOICE, CONTROLS, FOLDER
from steer_env.play.evaluate import DIALOGUES, SUMMARY, load_rows, prepare
from steer_env.play.recorded import CannotRescore, Run, Scenes, load_run, scenes_of
from steer_env.records import JsonlWriter, Row, verdict_row
from steer_env.rewards import harm_cost
from steer_env.rollout import Progress
from steer_env.runs import locked
from steer_env.scenarios import Scenario
from steer_env.types import ASSISTANT, USER, Message, Scored, Verdict
from steer_env.versions import judge_version

__all__ = ["CannotRescore", "Scenes", "requests", "rescore", "scenes_of"]

#: What the old verdicts led to and the new ones contradict; left out of rescored rows.
_DERIVED = ("reward", "tcsr", "advantage")


@locked("out")
def rescore(
    run_dir: str | Path,
    judge: Judge,
    scenario_of: Any,
    out: str | Path,
    *,
    resume: bool = False,
    batch: int = 16,
    progress: Progress | None = None,
    deadline: float = DEADLINE,
    **options: Any,
) -> Summary:
    """Judge every stored turn again, of a run and of its controls, and write a run folder of its own.

    Rows are copied with new verdicts; rewards and TCSR, which rested on the old ones, are left out. Each
    batch is on disk as soon as it is judged, and what is on disk is not judged again.

    Args:
        run_dir: Folder that `evaluate` wrote.
        judge: The other judge.
        scenario_of: Returns the `Scenario` of a row, such as `Scenes`.
        out: Folder of the result.
        resume: Go on with a folder that holds part of it.
        batch: Dialogues per call of the judge.
        progress: Called with (finished, all).
        deadline: Seconds after which a verdict under way counts as lost; its turn is unscored.
        **options: Of `summarise`.

    Raises:
        CannotRescore: If a row lacks what the judge needs; those before it are on disk.
        RunExists: If the folder holds dialogues and `resume` is False, or is of another run.
    """
    if batch < 1:
        raise ValueError(f"batch={batch!r}, expected a positive number of dialogues")
    source, folder = Path(run_dir), Path(out)
    played = [f"{FOLDER}/{name}" for name in CONTROLS if load_rows(source / FOLDER / name)]
    runs = {place: load_run(source / place) for place in ("", *played)}
    total, before = sum(len(run.rows) for run in runs.values()), 0
    summaries = []
    for place, run in runs.items():
        tell = None if progress is None else lambda n, before=before: progress(before + n, total)
        meta = {**run.meta, "rescored_from": str(source / place)}
        _rescore(run, judge, scenario_of, folder / place, meta, resume, batch, tell, deadline)
        summary = summarise(load_run(folder / place).rows, **options)
        write_json(folder / place / SUMMARY, summary.to_dict())
        summaries.append(summary)
        before += len(run.rows)
    if (source / FOLDER / CHOICE).exists():  # how the constant was chosen does not rest on this judge
        write_json(folder / FOLDER / CHOICE, read_json(source / FOLDER / CHOICE))
    return summaries[0]


def _rescore(
    run: Run,
    judge: Judge,
    scenario_of: Any,
    folder: Path,
    meta: Mapping[str, Any],
    resume: bool,
    batch: int,
    tell: Callable[[int], None] | None,
    deadline: float,
) -> None:
    """Judge one run folder again; see `rescore`."""
    seeds = [row.get("seed") for row in run.rows]
    if None in seeds or len(set(seeds)) != len(seeds):
        raise CannotRescore(
            f"run={meta['rescored_from']!r} has rows without a seed or with the same, expected each once"
        )
    new = {**meta, "judge": judge.name, "judge_version": judge_version(judge)}
    done = prepare(folder, new, resume=resume)
    left = [row for row in run.rows if row["seed"] not in done]
    judged = len(run.rows) - len(left)
    with JsonlWriter(folder / DIALOGUES) as writer:
        for row in _judged(left, judge, scenario_of, batch, deadline):
            writer.write(row)
            judged += 1
            if tell is not None:
                tell(judged)
        writer.sync()


def _judged(
    rows: Sequence[Row], judge: Judge, scenario_of: Any, batch: int, deadline: float
) -> Iterator[Row]:
    """Yield judged dialogues: batch by batch, or of an asynchronous judge each as its verdicts are there."""
    if not isinstance(judge, AsyncJudge):
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            asked = [requests(row, scenario_of(row)) for row in part]
            verdicts = iter(judge_batch(judge, [request for one in asked for request in one]))
            for row, one in zip(part, asked, strict=True):
                yield _with_verdicts(row, [next(verdicts) for _ in one])
        return
    waiting = iter(rows)
    open_rows: dict[int, tuple[Row, list[Future[Verdict]]]] = {}
    since: dict[Future[Any], float] = {}
    while True:
        for row in islice(waiting, batch - len(open_rows)):
            futures = [submitted(judge, request) for request in requests(row, scenario_of(row))]
            open_rows[id(row)] = row, futures
        if not open_rows:
            return
        ready = [key for key, (_, futures) in open_rows.items() if all(f.done() for f in futures)]
        if not ready:
            give_up([f for _, fs in open_rows.values() for f in fs if not f.done()], since, deadline)
        for key in ready:
            row, futures = open_rows.pop(key)
            yield _with_verdicts(row, [read_verdict(judge, future) for future in futures])


def requests(row: Row, scenario: Scenario) -> list[JudgeRequest]:
    """Return one judge request per turn of a stored dialogue.

    Raises:
        CannotRescore: If a turn lacks its texts, or there are more turns than the scenario has.
    """
    context: dict[str, Any] = {}
    transcript: tuple[Message, ...] = ()
    result = []
    if len(row["turns"]) > len(scenario):
        raise CannotRescore(
            f"seed {row.get('seed')}: {len(row['turns'])} turns stored, {len(scenario)} in the scenario"
        )
    for index, turn in enumerate(row["turns"]):
        missing = [name for name in ("user", "reply") if not isinstance(turn.get(name), str)]
        if missing:
            raise CannotRescore(
                f"seed {row.get('seed')}, turn {index + 1} has no {' and no '.join(missing)}, expected the "
                "texts to judge; record dialogues with their texts, or evaluate anew"
            )
        shown = scenario
        if scenario.dealt is not None:  # as it was judged: with what had been drawn by then, and not later
            shown = redrawn(scenario.dealt, (told.get("acts", ()) for told in row["turns"][: index + 1]))
        images = len(shown.turns[index].images)
        user, reply = Message(USER, turn["user"], images), Message(ASSISTANT, turn["reply"], 0)
        transcript = (*transcript, user, reply)
        result.append(JudgeRequest(shown, transcript, context))
    return result


def _with_verdicts(row: Row, verdicts: Sequence[Any]) -> Row:
    turns = []
    for turn, verdict in zip(row["turns"], verdicts, strict=True):
        kept = {key: value for key, value in turn.items() if key not in _DERIVED}
        cost = float(harm_cost(verdict.terms.safety)) if isinstance(verdict, Scored) else None
        turns.append({**kept, "verdict": verdict_row(verdict), "cost": cost})
    return {**{key: value for key, value in row.items() if key != "return"}, "turns": turns}
