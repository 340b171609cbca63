"""Logs of other programs: dialogues of ours in a log of Inspect AI, and anybody's scores.

A table of scores has a row per sample, epoch and score. Formats: Inspect AI's `.eval` and `.json`, CSV and
Parquet with columns `sample`, `score` and, optional, `epoch`, `measure` and `cluster`; samples of lm-eval,
traces of verifiers and memories of PyRIT, see `foreign_logs`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from steer_env.evaluation.intervals import Estimate
from steer_env.evaluation.paired import Difference, holm, paired
from steer_env.extras import need
from steer_env.files import read_sheet
from steer_env.play.foreign_logs import DATABASES, of_lines, of_pyrit
from steer_env.records import Row
from steer_env.render import text_table

#: Key of a sample's metadata with the dialogue as one of our rows.
ROW: Final = "row"
_LOGS: Final = (".eval", ".json")
_TABLES: Final = (".csv", ".parquet", ".jsonl", *DATABASES)
#: What Inspect and lm-eval write for a pass, a partial one, a failure.
_LETTERS: Final = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "TRUE": 1.0, "FALSE": 0.0}
#: What stands for a score that is none.
_NONE: Final = ("", "NA", "NAN", "NONE", "NULL", "UNSCORED")


def is_log(path: str | Path) -> bool:
    """Whether a path is the file of a log of Inspect AI."""
    return Path(path).suffix in _LOGS and Path(path).is_file()


def is_scores(path: str | Path) -> bool:
    """Whether a path is a file of scores that `read_scores` reads."""
    return Path(path).suffix in (*_LOGS, *_TABLES) and Path(path).is_file()


def _log(path: str | Path) -> Any:
    need("inspect_ai.log", "inspect")
    from inspect_ai.log import read_eval_log

    try:
        return read_eval_log(str(path))
    except Exception as error:  # zip files, JSON and pydantic say what they miss, and not where
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"file={str(path)!r} is no log of Inspect AI that can be read: {told}") from error


def holds_dialogues(path: str | Path) -> bool:
    """Whether a file is a log whose every sample is one of our dialogues."""
    if not is_log(path):
        return False
    samples = _log(path).samples or []
    return bool(samples) and all(ROW in (sample.metadata or {}) for sample in samples)


def read_dialogues(path: str | Path) -> tuple[dict[str, Any], list[Row]]:
    """Return what a log says of its run, and its dialogues.

    Raises:
        ValueError: If a sample is none of our dialogues.
        ImportError: If inspect_ai is not installed.
    """
    log = _log(path)
    samples = log.samples or []
    rows: list[Row] = [sample.metadata[ROW] for sample in samples if ROW in (sample.metadata or {})]
    whole = all(isinstance(row, dict) and isinstance(row.get("turns"), list) for row in rows)
    if not rows or len(rows) < len(samples) or not whole:
        raise ValueError(
            f"log={str(path)!r} holds samples that are no dialogues of steer_env; its scores alone can be "
            "compared: steer-env compare A.eval B.eval"
        )
    meta = {"student": log.eval.model, **(log.eval.metadata or {})}
    if log.plan.steps:  # Inspect played it, with models that are named as it names them
        meta["student"] = f"inspect:{log.eval.model}"
        for role, model in (log.eval.model_roles or {}).items():
            if role in ("attacker", "judge"):
                way = meta.get(role) if role == "attacker" else None
                meta[role] = f"{way}?model=inspect:{model.model}" if way else f"inspect:{model.model}"
    return meta, rows


@dataclass(frozen=True)
class ScoreRow:
    """One score of one sample.

    Attributes:
        sample: Id of the sample.
        epoch: Number of the attempt.
        measure: Name of the score.
        score: Its value, NaN where it was not scored.
        cluster: What samples share that are not independent; the sample itself by default.
    """

    sample: str
    epoch: int
    measure: str
    score: float
    cluster: str


def value_of(score: Any) -> float:
    """Return a score as a number, NaN where there is none.

    >>> value_of("C"), value_of(True), value_of("0.25")
    (1.0, 1.0, 0.25)

    Raises:
        ValueError: If it is neither a finite number nor a letter of Inspect's.
    """
    if score is None:
        return math.nan
    if isinstance(score, str):
        word = score.strip().upper()
        if word in _NONE:
            return math.nan
        if word in _LETTERS:
            return _LETTERS[word]
    try:
        number = float(score)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isinf(number):
        shown = repr(score)[:80]
        raise ValueError(
            f"score={shown}, expected a finite number, C, P, I or N, or nothing where it is unscored"
        )
    return number


def read_scores(path: str | Path) -> list[ScoreRow]:
    """Read the scores of a file.

    Raises:
        ValueError: If a column is missing, a score is no number, or a sample is scored twice.
        ImportError: If the library for the format is not installed.
    """
    source = Path(path)
    if source.suffix in _LOGS:
        rows = list(_of_log(_log(source)))
    elif source.suffix in (".jsonl", *DATABASES):
        found = of_lines(source) if source.suffix == ".jsonl" else of_pyrit(source)
        rows = [ScoreRow(s, epoch, measure, value_of(x), cluster) for s, epoch, measure, x, cluster in found]
    elif source.suffix == ".csv":
        lines = read_sheet(source)
        _check_columns(next(lines, (0, {}))[1], source)
        rows = [_of_columns(row, f"{source}:{line}") for line, row in lines]
    else:
        table = need("pyarrow.parquet", "data").read_table(source)
        _check_columns(table.column_names, source)
        rows = [_of_columns(row, f"{source}: row {n}") for n, row in enumerate(table.to_pylist(), 1)]
    seen = {(r.sample, r.epoch, r.measure) for r in rows}
    if not rows or len(seen) != len(rows):
        what = "a sample more than once" if rows else "no scores"
        raise ValueError(f"file={str(path)!r} holds {what}, expected one score per sample, epoch and measure")
    return rows


def _of_log(log: Any) -> Iterable[ScoreRow]:
    for sample in log.samples or []:
        cluster = str((sample.metadata or {}).get("group") or sample.id)
        for name, score in (sample.scores or {}).items():
            missing = sample.error is not None  # an unscored score is NaN
            parts = score.value if isinstance(score.value, Mapping) else {"": score.value}
            for part, value in parts.items():
                label = f"{name}/{part}" if part else name
                yield ScoreRow(
                    str(sample.id), sample.epoch, label, math.nan if missing else value_of(value), cluster
                )


def _check_columns(columns: Iterable[str], path: Path) -> None:
    missing = {"sample", "score"} - set(columns)
    if missing:
        raise ValueError(f"file={str(path)!r} has no column {min(missing)!r}, expected sample and score")


def _of_columns(row: Mapping[str, Any], where: str) -> ScoreRow:
    sample = str(row["sample"])
    try:
        epoch, score = float(row.get("epoch") or 1), value_of(row["score"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
    if not epoch.is_integer():
        raise ValueError(f"{where}: epoch={row['epoch']!r}, expected an integer")
    measure, cluster = str(row.get("measure") or "score"), str(row.get("cluster") or sample)
    return ScoreRow(sample, int(epoch), measure, score, cluster)


@dataclass(frozen=True)
class ScoreDifference:
    """How two files differ in a score: `b - a`.

    Attributes:
        measure: Name of the score.
        a: Mean of the first over the pairs.
        b: Mean of the second.
        difference: With its interval and the pairs that were left out.
        p: Two-sided p-value, None where there is none.
        p_holm: Adjusted for all scores.
        test: Where interval and p come from.
    """

    measure: str
    a: float | None
    b: float | None
    difference: Estimate
    p: float | None
    p_holm: float | None
    test: str


def compare_scores(a: Sequence[ScoreRow], b: Sequence[ScoreRow], **options: Any) -> list[ScoreDifference]:
    """Compare two tables of scores, paired by sample and epoch, in clusters, p-values adjusted by Holm.

    A pair of which one is unscored, or in one table only, is left out and counted.

    Args:
        a: The reference.
        b: The other one.
        **options: `confidence`.

    Raises:
        ValueError: If they share no score, or no sample.
    """
    tables = [{(r.measure, r.sample, r.epoch): r for r in rows} for rows in (a, b)]
    names = list(dict.fromkeys(r.measure for r in a if r.measure in {other.measure for other in b}))
    keys = {name: [k for k in tables[0] | tables[1] if k[0] == name] for name in names}
    if not names or not all(any(k in tables[0] and k in tables[1] for k in ks) for ks in keys.values()):
        raise ValueError("the files share no score of the same samples and epochs, expected runs of one task")
    found: list[tuple[str, Difference, float | None, float | None]] = []
    for name in names:
        first, second = (
            np.array([table[k].score if k in table else math.nan for k in keys[name]]) for table in tables
        )
        clusters = [(tables[0].get(k) or tables[1][k]).cluster for k in keys[name]]
        known = np.isfinite(first) & np.isfinite(second)
        means = [float(x[known].mean()) if known.any() else None for x in (first, second)]
        found.append((name, paired(second, first, clusters, **options), means[0], means[1]))
    adjusted = holm([one.p for _, one, _, _ in found])
    return [
        ScoreDifference(name, low, high, one.estimate, one.p, p, one.method)
        for (name, one, low, high), p in zip(found, adjusted, strict=True)
    ]


def score_table(results: Sequence[ScoreDifference], a: str, b: str) -> str:
    """Return the comparison as aligned text."""
    body = [
        [
            r.measure,
            *("-" if x is None else f"{x:.3f}" for x in (r.a, r.b)),
            r.difference.text(),
            str(r.difference.n),
            str(r.difference.undecided),
            *("-" if p is None else f"{p:.2g}" for p in (r.p, r.p_holm)),
            r.test,
        ]
        for r in results
    ]
    head = ["score", a, b, "difference", "pairs", "left out", "p", "p (Holm)", "test"]
    told = "Difference: second minus first, paired by sample and epoch; where a side has none, left out."
    return "\n".join([text_table(head, body), "", told])
