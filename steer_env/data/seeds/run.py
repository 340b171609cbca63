"""Making seeds from a source into a folder: appended as they are made, resumable, accounted for.

Every row of the source leaves exactly one line: a seed in the file of its kind, or a rejected row. Lines are
written in the order of the rows, each after its pictures are in place, so a killed run is gone on with where
it stopped, and the rule generator ends with the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BeforeValidator

from steer_env import checks
from steer_env.configs.base import Natural, Positive, Share, config
from steer_env.data.quota import length_shares
from steer_env.data.seeds.base import (
    Outcome,
    Rejected,
    Seed,
    SeedGenerator,
    SeedJob,
    details_in,
    with_details,
)
from steer_env.data.seeds.rows import Assigner, RowSource, perturb
from steer_env.files import remove_torn, write_json
from steer_env.play.evaluate import SUMMARY
from steer_env.records import REJECTED, JsonlWriter, Row, read_jsonl
from steer_env.rollout import StageProgress
from steer_env.runs import RunExists, RunFolder, locked
from steer_env.scenario_files import scenario_row
from steer_env.scenarios import KINDS, Scenario
from steer_env.world.plan import stream_seed

_IMAGES: Final = "images"
_FORMAT: Final = 1


def _kinds(value: Any) -> tuple[str, ...]:
    """Check kinds, given one by one or with commas between them."""
    given = value.split(",") if isinstance(value, str) else value
    given = [one for word in given for one in word.split(",")] if isinstance(given, list | tuple) else given
    found = checks.choices("kinds", given or KINDS, KINDS)
    if len(set(found)) != len(found):
        raise ValueError(f"kinds={list(found)!r}, expected each once")
    return found


@config(frozen=True)
class SeedsConfig:
    """What a run depends on, beside its source and its generator.

    Attributes:
        kinds: Which kinds of seeds to make; all three unless it is given.
        seed: 0 or more; decides everything random.
        mean_turns: Mean number of turns asked for, between 2 and 10; the default is STEER-SFT's.
        noise_share: Share of rows with Gaussian noise on their pictures.
        typography_share: Share of rows with a phrase drawn on their pictures.
        batch_size: Rows handed to the generator at a time.
    """

    kinds: Annotated[tuple[str, ...], BeforeValidator(_kinds)] = ()
    seed: Natural = 0
    mean_turns: float = 6.35
    noise_share: Share = 0.1
    typography_share: Share = 0.1
    batch_size: Positive = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", self.kinds or KINDS)
        length_shares(self.mean_turns)


class _Prepared(NamedTuple):
    """A row on its way: its number, what was done to its pictures, and its job or why there is none."""

    number: int
    row: Scenario
    perturbed: dict[str, Any]
    job: SeedJob | Rejected


@locked("out")
def make_seeds(
    out: str | Path,
    source: RowSource,
    generator: SeedGenerator,
    config: SeedsConfig | None = None,
    *,
    resume: bool = False,
    progress: StageProgress | None = None,
) -> dict[str, Any]:
    """Turn the rows of a source into seed dialogues in the folder `out`.

    Args:
        out: Folder: `benign.jsonl`, `obfuscated.jsonl`, `red_team.jsonl` (scenario files, without those that
            would be empty), `images/`, `rejected.jsonl`, `summary.json`, `run.json`.
        source: The rows.
        generator: Who writes the dialogues.
        config: The rest.
        resume: Go on with what the folder holds.
        progress: Called after every row.

    Returns:
        The summary, as written.

    Raises:
        RunExists: If the folder holds seeds and `resume` is False, or they depend on something else.
        BackendError: If a model is gone; what is finished is on disk.
    """
    out, config = Path(out), config or SeedsConfig()
    settings, run = _settings(source, generator, config), RunFolder(out)
    if not run.check(settings, resume=resume, alone=True):
        run.write(settings)
    remove_torn(out / _IMAGES)
    with _Writers(out) as writers:
        batch: list[_Prepared] = []
        for prepared in _prepare(source, config):
            if writers.has(prepared):
                continue
            batch.append(prepared)
            if len(batch) == config.batch_size:
                _flush(batch, generator, writers, source.total, progress)
        _flush(batch, generator, writers, source.total, progress)
        writers.sync()
    summary = summarise(out, config.kinds)
    write_json(out / SUMMARY, summary)
    return summary


def _settings(source: RowSource, generator: SeedGenerator, config: SeedsConfig) -> dict[str, Any]:
    chosen = asdict(config)
    del chosen["batch_size"]  # how many at a time changes nothing that was asked for
    settings = {
        "format": _FORMAT,
        "source": {"name": source.name, "rows": source.total, "digest": source.digest},
        "generator": generator.describe(),
        **chosen,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))  # as it comes back from disk
    return plain


def check_folder(out: str | Path, resume: bool = False) -> None:
    """Refuse a folder that `make_seeds` would refuse whatever is asked for; before a model is loaded.

    Raises:
        RunExists: If it holds seeds and `resume` is False, or anything else.
    """
    RunFolder(out).check(resume=resume, alone=True)


def _prepare(source: RowSource, config: SeedsConfig) -> Iterator[_Prepared]:
    """Perturb every row's pictures and give it its kind and length.

    This runs over finished rows too: which kind a row gets depends on those before it.
    """
    assigner = Assigner(config.kinds)
    lengths = length_shares(config.mean_turns)
    for number, row in enumerate(source.open()):
        seed = stream_seed("stage I", config.seed, row.id)
        images, perturbed = perturb(row.images, seed, config.noise_share, config.typography_share)
        kind = assigner.assign(row, images)
        if isinstance(kind, Rejected):
            yield _Prepared(number, row, {}, kind)
            continue
        rng = random.Random(stream_seed("turns", seed))
        turns = rng.choices(list(lengths), weights=list(lengths.values()))[0]
        job = SeedJob(replace(row, images=images), kind, turns, seed)
        yield _Prepared(number, row, perturbed, job)


def _flush(
    batch: list[_Prepared],
    generator: SeedGenerator,
    writers: _Writers,
    total: int,
    progress: StageProgress | None,
) -> None:
    """Make the seeds of a batch, write a line for each of its rows, and empty it."""
    jobs = [one.job for one in batch if isinstance(one.job, SeedJob)]
    outcomes = generator.generate(jobs) if jobs else []
    if len(outcomes) != len(jobs):
        raise ValueError(
            f"{generator.name} gave {len(outcomes)} outcomes for {len(jobs)} jobs, expected one each"
        )
    made = iter(outcomes)
    for one in batch:
        outcome = one.job if isinstance(one.job, Rejected) else next(made)
        writers.write(one, outcome, generator.name)
        if progress is not None:
            progress("rows", one.number + 1, total)
    batch.clear()


class _Writers:
    """The files of a run, appended to; a file of seeds appears with its first seed."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._stack = ExitStack()
        self._files: dict[str, JsonlWriter] = {}
        self._done: dict[int, str] = {}  # number -> id of the rows that have their line
        self._ids: dict[str, int] = {}  # id of a seed -> number of its row

    def __enter__(self) -> _Writers:
        for name in (REJECTED, *(f"{kind}.jsonl" for kind in KINDS)):
            if name == REJECTED or (self._out / name).is_file():
                self._file(name)  # cuts off a torn last line
        self._done = {row["row"]: row["id"] for row in _rows(self._out, REJECTED)}
        for kind in KINDS:
            for row in _rows(self._out, f"{kind}.jsonl"):
                details = details_in(row["provenance"], row["id"])
                self._done[details["row"]] = details["row_id"]
                self._ids[row["id"]] = details["row"]
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def has(self, one: _Prepared) -> bool:
        """Return whether a row has its line.

        Raises:
            RunExists: If the line is that of another row.
        """
        known = self._done.get(one.number)
        if known is not None and known != one.row.id:
            raise RunExists(
                f"row {one.number} of the source is {one.row.id!r}, {known!r} when the run began; restore "
                "the source or choose another folder"
            )
        return known is not None

    def write(self, one: _Prepared, outcome: Outcome, generator: str) -> None:
        """Append the line of a row."""
        if isinstance(outcome, Seed):
            first = self._ids.setdefault(outcome.scenario.id, one.number)
            if first == one.number:
                self._write_seed(one, outcome, generator)
                return
            outcome = Rejected("output", "duplicate", f"the same dialogue as that of row {first}")
        kind = one.job.kind if isinstance(one.job, SeedJob) else ""
        self._file(REJECTED).write({"row": one.number, "id": one.row.id, "kind": kind, **asdict(outcome)})

    def _write_seed(self, one: _Prepared, seed: Seed, generator: str) -> None:
        details = {
            "row": one.number,
            "row_id": one.row.id,
            "generator": generator,
            **one.perturbed,
            **seed.details,
        }
        scenario = with_details(seed.scenario, one.row, details)
        # Pictures first: a line never names one that is not there.
        self._file(f"{scenario.kind}.jsonl").write(scenario_row(scenario, self._out / _IMAGES))

    def _file(self, name: str) -> JsonlWriter:
        if name not in self._files:
            self._files[name] = self._stack.enter_context(JsonlWriter(self._out / name))
        return self._files[name]

    def sync(self) -> None:
        """Force all files to disk."""
        for file in self._files.values():
            file.sync()


# -- summary ------------------------------------------------------------------------------------------------


def summarise(out: Path, kinds: Sequence[str]) -> Row:
    """Return the summary of a folder of seeds: what was kept, what it is like, and why rows fell out."""
    lost = Counter((row["kind"], f"{row['stage']}: {row['reason']}") for row in _rows(out, REJECTED))
    reasons: Counter[str] = Counter()
    for (_, reason), count in lost.items():
        reasons[reason] += count
    by_kind: Row = {}
    perturbed: Counter[str] = Counter()
    for kind in kinds:
        rejected = Counter({reason: count for (of, reason), count in lost.items() if of == kind})
        by_kind[kind] = _summary(_rows(out, f"{kind}.jsonl"), rejected, perturbed)
    kept = sum(one["kept"] for one in by_kind.values())
    return {
        "rows": kept + lost.total(),
        "kept": kept,
        "keep_rate": _share(kept, kept + lost.total()),
        "kinds": by_kind,
        "reasons": _sorted(reasons),
        "perturbed": {
            name: {"seeds": perturbed[name], "share": _share(perturbed[name], perturbed["pictured"])}
            for name in ("noise", "typography")
        },
    }


def _summary(rows: Iterator[Row], rejected: Counter[str], perturbed: Counter[str]) -> Row:
    """Count the seeds of one kind; a row is held in memory at a time."""
    counts: dict[str, Counter[str]] = {
        key: Counter() for key in ("strategy", "technique", "mechanism", "grade")
    }
    risks: Counter[int] = Counter()
    lengths: Counter[int] = Counter()
    for row in rows:
        details = details_in(row["provenance"], row["id"])
        lengths[len(row["turns"])] += 1
        risks.update(turn.get("risk", 0) for turn in row["turns"])
        values = {**row, "grade": str(details.get("grade", ""))}
        for key, counter in counts.items():
            counter.update([values[key]] if values.get(key) else [])
        perturbed["pictured"] += any(turn.get("images") for turn in row["turns"])
        perturbed.update(name for name in ("noise", "typography") if name in details)
    kept = lengths.total()
    turns = sum(n * count for n, count in lengths.items())
    return {
        "rows": kept + rejected.total(),
        "kept": kept,
        "keep_rate": _share(kept, kept + rejected.total()),
        "mean_turns": round(turns / kept, 4) if kept else None,
        "risks": {str(level): risks[level] for level in sorted(risks)},
        **{key: _sorted(counter) for key, counter in counts.items() if counter},
        "rejected": _sorted(rejected),
    }


def _rows(out: Path, name: str) -> Iterator[Row]:
    return read_jsonl(out / name) if (out / name).is_file() else iter(())


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))
