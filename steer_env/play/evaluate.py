"""Play dialogues and report: every dialogue is on disk the moment it ends, and a killed run goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from steer_env.agents import Acts, name_of
from steer_env.evaluation.sequential import Look
from steer_env.evaluation.summary import Summary, summarise
from steer_env.files import write_json
from steer_env.judges.base import DEADLINE
from steer_env.judges.independence import check_env
from steer_env.records import JsonlWriter, Row, read_jsonl, trajectory_row
from steer_env.rollout import Progress, rollout_iter
from steer_env.runs import RunFolder, locked
from steer_env.scenarios import FixedScenarios, Scenario, digest_of
from steer_env.trajectory import StopReason, Trajectory
from steer_env.unscored import UnscoredGuard
from steer_env.versions import versions_of

DIALOGUES = "dialogues.jsonl"
SUMMARY = "summary.json"
#: What was known when a run with a question (`until`) looked last.
UNTIL = "until.json"
#: Scenario groups, or dialogues that are in none, between two looks.
EACH = 16

#: Returns further keys of the row of a dialogue that ended.
Extra = Callable[[Trajectory], Mapping[str, Any]]
#: Says what is known after some rows, of how many there may be, in a run that says this of itself.
Question = Callable[[Sequence[Row], int, Mapping[str, Any]], Look]


@locked("run_dir")
def evaluate(
    vec: Any,
    attacker: Acts,
    student: Acts,
    seeds: Sequence[int],
    run_dir: str | Path,
    *,
    resume: bool = False,
    scenarios: Sequence[Scenario] | None = None,
    meta: Mapping[str, Any] | None = None,
    extra: Extra | None = None,
    progress: Progress | None = None,
    unscored_limit: float = 0.05,
    allow_self_judging: Collection[str] = (),
    deadline: float = DEADLINE,
    summary_of: Iterable[int] | None = None,
    until: Question | None = None,
    **options: Any,
) -> Summary:
    """Play one dialogue per seed and summarise.

    Of the built-in world, and of every scenario source with `members` and `scenario(index)`, seed s is
    dialogue `source.scenario(s)`: the `members` of a group have seeds in a row, and groups are played whole.
    Of groups that `seeds` names in part the other members are played too.

    The run folder gets `run.json` (what was run), `dialogues.jsonl` (one row per dialogue, appended as it
    ends) and `summary.json`. A dialogue that failed (a lost server) is a row too, with its reason; it counts
    as undecided, and on resume its seed is played again.

    Args:
        vec: A vector environment, see `steer_env.make_vec`.
        attacker: Speaks for the user.
        student: Speaks for the policy under test.
        seeds: Different reset seeds; on resume those already in the folder are skipped. See above for what is
            added to them.
        run_dir: Folder of the run; made if missing.
        resume: Go on with a folder that already holds dialogues.
        scenarios: Play exactly these, seed s playing number s modulo their count, and not what `vec` draws.
        meta: What identifies the run, stored and compared on resume; what it leaves out of environment,
            split, student, attacker and judge is read off them (`identity`).
        extra: Adds keys to rows, such as `distribution`.
        progress: Called with (finished, all).
        unscored_limit: Stop when more than this share of the turns, beyond chance, has no verdict, 1 to never
            stop; a failed dialogue counts as one. See `UnscoredGuard`.
        allow_self_judging: Roles ("student", "attacker") whose weights the judge may share.
        deadline: Seconds after which a reply or verdict under way counts as lost, see `rollout`.
        summary_of: Seeds that are summarised, such as those of several attempts at the same dialogues, which
            are played one after the other; `seeds` unless it is given.
        until: Ends the run once its question is answered (`steer_env.play.until`). It looks after every
            `EACH` whole groups, never in between: what ends first is short, and no sample of all. The last
            look is in `until.json`. The summary is of what was played by then; its own intervals are those
            of a fixed number of dialogues.
        **options: Of `summarise`.

    Raises:
        TooManyUnscored: If the judge or an agent fails too often; what was played is on disk, and `resume`
            goes on.
        SelfJudging: If the judge is the student's or the attacker's model and that was not allowed.
        RunExists: If the folder holds dialogues and `resume` is False, or `meta` differs from the stored one.
        ValueError: If seeds repeat.
    """
    check_env(vec, student, attacker, allow=allow_self_judging)
    guard = UnscoredGuard(unscored_limit, window=None)
    folder, source = Path(run_dir), source_of(vec)
    members = members_of(source) if scenarios is None else 0
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"{len(seeds)} seeds, {len(set(seeds))} of them different; expected each seed once")
    seeds = whole(seeds, members)
    meta = {**identity(vec, attacker, student, scenarios), **(meta or {})}
    policy = str(meta["student"])
    meta |= versions_of(judge_of(vec))
    done = prepare(folder, meta, resume=resume)
    (folder / UNTIL).unlink(missing_ok=True)  # what was known of fewer dialogues
    played = len(done.intersection(seeds))
    wanted = list(seeds if summary_of is None else summary_of)
    with JsonlWriter(folder / DIALOGUES) as writer:

        def write(trajectory: Trajectory) -> None:
            more = {} if extra is None else extra(trajectory)
            writer.write(trajectory_row(trajectory, policy=policy, **more))

        batch = len(seeds) if until is None else EACH * max(members, 1)
        for start in range(0, len(seeds), max(batch, 1)):
            left = [seed for seed in seeds[start : start + batch] if seed not in done]
            tell = None if progress is None else partial(_tell, progress, played, len(seeds))
            for _, trajectory in rollout_iter(
                vec,
                attacker,
                student,
                left,
                progress=tell,
                on_finished=write,
                scenarios=source.scenario if members else scenarios,
                deadline=deadline,
            ):
                guard.see([trajectory])
            played += len(left)
            if until is not None:
                wanted = seeds[: start + batch]
                look = until(_of(load_rows(folder), wanted), len(seeds), meta)
                write_json(folder / UNTIL, look.to_dict())
                if look.answer is not None:
                    break
        writer.sync()
    summary = summarise(_of(load_rows(folder), wanted), **options)
    write_json(folder / SUMMARY, summary.to_dict())
    return summary


def _tell(progress: Progress, before: int, of: int, done: int, _: int) -> None:
    progress(before + done, of)


def _of(rows: Sequence[Row], seeds: Iterable[int]) -> list[Row]:
    wanted = set(seeds)
    return [row for row in rows if row["seed"] in wanted]


def source_of(vec: Any) -> Any:
    """Return the scenario source of a vector environment, None where it has none."""
    return getattr(core_of(vec), "scenarios", None)


def judge_of(vec: Any) -> Any:
    """Return the judge of a vector environment, None where it has none."""
    return getattr(core_of(vec), "judge", None)


def identity(
    vec: Any, attacker: Any, student: Any, scenarios: Sequence[Scenario] | None = None
) -> dict[str, Any]:
    """Return what identifies a run, as far as its parts say: who played what, judged by whom."""
    judge, source = judge_of(vec), source_of(vec)
    listed = source if scenarios is None else scenarios
    found = {
        "env": getattr(core_of(vec), "metadata", {}).get("name"),
        "split": getattr(source, "split", None) if scenarios is None else None,
        "scenario_hash": digest_of(listed) if isinstance(listed, list | tuple | FixedScenarios) else None,
        "student": name_of(student),
        "model_hash": getattr(student, "weights", None),
        "attacker": name_of(attacker),
        "judge": None if judge is None else str(judge.name),
    }
    return {key: value for key, value in found.items() if isinstance(value, str) and value}


def core_of(vec: Any) -> Any:
    """Return the innermost environment of the first slot of a vector environment, None where it has none."""
    return getattr(next(iter(getattr(vec, "envs", ())), None), "unwrapped", None)


def members_of(source: Any) -> int:
    """Return how many dialogues in a row make a group of a scenario source, 0 if it has no such groups."""
    return int(getattr(source, "members", 0)) if callable(getattr(source, "scenario", None)) else 0


def whole(seeds: Iterable[int], members: int) -> list[int]:
    """Return seeds with those of the other members of their groups, groups in the order of their first seed.

    >>> whole(range(5), 4)
    [0, 1, 2, 3, 4, 5, 6, 7]
    """
    if members < 2:
        return list(seeds)
    groups = dict.fromkeys(seed // members for seed in seeds)
    return [group * members + member for group in groups for member in range(members)]


def prepare(folder: Path, meta: dict[str, Any], *, resume: bool) -> set[int]:
    """Make or reopen a run folder and return the seeds already played there.

    Raises:
        RunExists: See `evaluate`.
    """
    run = RunFolder(folder)
    stored = run.stored() or meta  # of rows without a run.json nobody knows what they are
    run.check(meta, resume=resume, stored=stored, marks=(DIALOGUES,), exact=True)
    run.write(meta)
    return {row["seed"] for row in load_rows(folder) if row.get("stop") != StopReason.FAILED}


def load_rows(run_dir: str | Path) -> list[Row]:
    """Return the dialogues of a run folder, without a torn last line; an empty list if there are none.

    A failed dialogue that was played again later is left out.

    Raises:
        ValueError: If a seed occurs more than once: what was counted twice would look like more evidence.
    """
    path = Path(run_dir) / DIALOGUES
    rows = without_retried(read_jsonl(path)) if path.exists() else []
    seeds = Counter(row["seed"] for row in rows if "seed" in row)
    twice = [seed for seed, count in seeds.items() if count > 1]
    if twice:
        shown = ", ".join(map(str, twice[:5])) + (", ..." if len(twice) > 5 else "")
        raise ValueError(
            f"{path} holds {len(twice)} seeds more than once ({shown}), expected each once: two processes "
            "wrote there at once. Keep one line of each, or evaluate anew in another folder"
        )
    return rows


class AllFailed(RuntimeError):
    """Not one dialogue of a run was played to its end."""


def check_played(rows: Sequence[Row]) -> None:
    """Refuse to call a run done in which every dialogue failed: it has no numbers, and no controls.

    Raises:
        AllFailed: With the commonest reason.
    """
    failed = Counter(str(row.get("error")) for row in rows if row.get("stop") == StopReason.FAILED)
    if rows and failed.total() == len(rows):
        reason, count = failed.most_common(1)[0]
        raise AllFailed(
            f"all {len(rows)} dialogues failed, expected some to be played; the commonest reason ({count}): "
            f"{reason}. Mend that, then --resume plays them again"
        )


def without_retried(rows: Iterable[Row]) -> list[Row]:
    """Return rows without the failed ones whose seed occurs again later."""
    kept = list(rows)
    last = {row.get("seed"): number for number, row in enumerate(kept)}
    failed = StopReason.FAILED
    return [row for n, row in enumerate(kept) if row.get("stop") != failed or last[row.get("seed")] == n]
