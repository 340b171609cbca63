"""Leakage of the data audit, joined to recorded dialogues: how much of each was in the training data.

The file has one JSON line per held-out dialogue, `{"id": ..., "score": 0.12, "bin": ...}`: the id of its
scenario, how near it is to the training data (0 to 1), and the bin, by the score where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from steer_env.records import Row, read_jsonl

#: Lower ends of the bins, and what they are called.
BINS = ((0.5, "0.5 and more"), (0.2, "0.2 to 0.5"), (0.05, "0.05 to 0.2"), (0.0, "below 0.05"))
#: Label of a dialogue that the audit did not see.
UNAUDITED = "not audited"


def load_leakage(path: str | Path) -> dict[str, str]:
    """Read a leakage file: id of a scenario -> its bin.

    Raises:
        ValueError: If a line has no id, no score in [0, 1], or contradicts another one; or there are none.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(read_jsonl(path, finished=True), 1):
        where = f"leakage={str(path)!r}, line {number}"
        if not isinstance(line, dict) or not isinstance(line.get("id"), str):
            raise ValueError(f"{where} has no text 'id', expected the id of a scenario and its 'score'")
        name = str(line["bin"]) if line.get("bin") else bin_of(line.get("score"), where)
        if found.setdefault(line["id"], name) != name:
            raise ValueError(f"{where}: id {line['id']!r} was given another score before")
    if not found:
        raise ValueError(f"leakage={str(path)!r} has no lines, expected those of `steer-env data audit`")
    return found


def bin_of(score: object, where: str = "leakage") -> str:
    """Return the bin of a score.

    >>> bin_of(0.0), bin_of(0.2), bin_of(1)
    ('below 0.05', '0.2 to 0.5', '0.5 and more')

    Raises:
        ValueError: If it is no number in [0, 1].
    """
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise ValueError(f"{where}: score={score!r}, expected a number in [0, 1]")
    return next(name for least, name in BINS if score >= least)


def with_leakage(rows: Sequence[Row], bins: Mapping[str, str]) -> list[Row]:
    """Return the rows with their bin as `leakage`.

    Raises:
        ValueError: If the audit saw none of these dialogues: it was of another set.
    """
    if rows and not any(row.get("scenario") in bins for row in rows):
        raise ValueError(
            f"none of the {len(rows)} dialogues is among the {len(bins)} of the leakage file; expected the "
            "audit of the scenarios that were played"
        )
    return [{**row, "leakage": bins.get(str(row.get("scenario")), UNAUDITED)} for row in rows]
