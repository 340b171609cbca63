"""One dialogue as one JSON line: the format of every run folder.

Rows are appended and flushed one by one, so a killed run leaves whole lines behind it; a torn last line
is recognised and dropped when the file is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_env.drawing import acts_of
from steer_env.files import MAX_JSON, open_append, write_bytes, writing
from steer_env.scenarios import Scenario
from steer_env.trajectory import StopReason, TokenTrace, Trajectory
from steer_env.types import Scored, Terms, TurnResult, Unscored, Verdict, meta_of

#: Increased when a reader of old rows would misread new ones.
SCHEMA = 1

#: File of a training run with the dialogues it recorded.
ROLLOUTS = "rollouts.jsonl"
#: File of a data command with what it left out, and why; no data.
REJECTED = "rejected.jsonl"

Row = dict[str, Any]


def verdict_row(verdict: Verdict | None) -> Row | None:
    """Return a verdict as plain data: `{"terms": ...}`, `{"unscored": reason}` or None."""
    if verdict is None:
        return None
    if isinstance(verdict, Unscored):
        return {"unscored": verdict.reason, "judge": verdict.judge}
    row: Row = {
        "terms": verdict.terms._asdict(),
        "move": verdict.move,
        "leaked": list(verdict.leaked),
        "rationale": verdict.rationale,
        "judge": verdict.judge,
        "prompt_hash": verdict.prompt_hash,
    }
    if verdict.leaks_known:
        row["leaks_known"] = True
    if verdict.disagreement:
        row["disagreement"] = verdict.disagreement
    return row


def verdict_from_row(row: Mapping[str, Any] | None) -> Verdict | None:
    """Inverse of `verdict_row`."""
    if row is None:
        return None
    if "unscored" in row:
        return Unscored(row["unscored"], row.get("judge", ""))
    return Scored(
        Terms(**row["terms"]),
        move=row.get("move", ""),
        leaked=tuple(row.get("leaked", ())),
        rationale=row.get("rationale", ""),
        judge=row.get("judge", ""),
        prompt_hash=row.get("prompt_hash", ""),
        disagreement=row.get("disagreement", 0),
        leaks_known=row.get("leaks_known", False),
    )


def turn_row(result: TurnResult) -> Row:
    """Return one finished turn as plain data; `cost` is None where the turn is unscored.

    `finish` says why a model's reply ended: "stop", "length" where it was cut off, or "filtered" where a
    content filter or the model's refusal field stopped it.
    """
    turn, cost = result.turn, result.info.get("cost")
    row: Row = {
        "user": str(turn.user),
        "reply": str(turn.reply),
        "risk": turn.risk,
        "images": turn.images,
        "verdict": verdict_row(turn.verdict),
        "reward": float(result.reward),
        "cost": None if cost is None else float(cost),
    }
    if "tcsr" in result.info:
        row["tcsr"] = dict(result.info["tcsr"])
    if "finish" in meta_of(turn.reply):
        row["finish"] = str(meta_of(turn.reply)["finish"])
    if acts := acts_of(turn.user):
        row["acts"] = [act.row() for act in acts]
    for key in ("strategy", "tactic", "fallback", "attack"):
        if key in meta_of(turn.user):
            row[key] = meta_of(turn.user)[key]
    return row


def dialogue_row(scenario: Scenario, seed: int, turns: Sequence[TurnResult], stop: str, **extra: Any) -> Row:
    """Return a finished dialogue as one JSON-ready row.

    `return` is the sum of the emitted rewards, None if no turn was scored. `extra` adds keys such as the
    policy's name.
    """
    scored = any(isinstance(t.turn.verdict, Scored) for t in turns)
    bodies = [turn_row(t) for t in turns]
    if scenario.truth is not None:  # only the built-in world has a grammar of its own
        from steer_env.world.reply_language.reading import parse_reply

        for body in bodies:
            body["well_formed"] = parse_reply(body["reply"]).well_formed
    return {
        "schema": SCHEMA,
        "scenario": scenario.id,
        "kind": scenario.kind,
        "strategy": scenario.strategy,
        "technique": scenario.technique,
        "category": scenario.category,
        "mechanism": scenario.mechanism,
        "group": scenario.group,
        "cell": scenario.cell,
        "cells": scenario.cells,
        "goal": scenario.goal,
        "images": [image.digest for image in scenario.images],
        **({"dealt": [image.digest for image in scenario.dealt.images]} if scenario.dealt else {}),
        "seed": seed,
        "stop": str(stop),
        "return": float(sum(t.reward for t in turns)) if scored else None,
        "turns": bodies,
        **extra,
    }


def trajectory_row(trajectory: Trajectory, **extra: Any) -> Row:
    """Return a trajectory as a row; token arrays are left out, see `token_pieces`.

    A failed one says why in `error`, and in `planned` how many turns it was to have.
    """
    if trajectory.stop == StopReason.FAILED:
        extra = {"error": trajectory.error, "planned": len(trajectory.scenario), **extra}
    return dialogue_row(trajectory.scenario, trajectory.seed, trajectory.turns, trajectory.stop, **extra)


def token_pieces(
    trace: TokenTrace,
    text_of: Callable[[Sequence[int]], str],
    mask_L: NDArray[np.bool_] | None = None,
    advantages_L: NDArray[np.floating[Any]] | None = None,
) -> list[Any]:
    """Return the tokens of a dialogue for its row (`tokens`): text, mask, log-probability, advantage.

    What the student did not sample is context: a string per stretch. A sampled token is `[text,
    log-probability, advantage]`, its advantage None where the loss leaves it out. A character of several
    tokens shows as replacement characters.

    Args:
        trace: The tokens.
        text_of: Turns token ids into text.
        mask_L: (L,) tokens in the loss; None if there was no training.
        advantages_L: (L,) advantage of each token.
    """
    pieces: list[Any] = []
    sampled = trace.sampled_L.tolist()
    start = 0
    for end in range(1, len(sampled) + 1):
        if end < len(sampled) and sampled[end] == sampled[start] and not sampled[start]:
            continue
        text = text_of(trace.ids_L[start:end].tolist())
        if sampled[start]:
            learnt = mask_L is not None and advantages_L is not None and bool(mask_L[start])
            advantage = round(float(advantages_L[start]), 4) if learnt and advantages_L is not None else None
            pieces.append([text, round(float(trace.logprobs_L[start]), 4), advantage])
        else:
            pieces.append(text)
        start = end
    return pieces


class JsonlWriter:
    """Append-only JSON lines, each written whole, in one call of the operating system.

    Opening an existing file cuts off a torn last line, which a killed process may have left; every whole
    line stays. A symbolic link at the file's place is refused.

    Raises:
        CannotWrite: If the file cannot be written, also by `write` and `sync`; after that no further line is
            taken, so that a torn one stays the last.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle: int | None = open_append(self.path)
        with writing(self.path):
            _drop_torn_line(self._handle)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        line = memoryview((json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n").encode())
        handle = self._open()
        try:
            with writing(self.path):
                while line:  # a disk that is nearly full takes part of it
                    line = line[os.write(handle, line) :]
        except BaseException:
            self.close()
            raise

    def sync(self) -> None:
        """Force what was written to disk, also across a power failure."""
        with writing(self.path):
            os.fsync(self._open())

    def close(self) -> None:
        """Close the file; further writes fail."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _open(self) -> int:
        if self._handle is None:
            raise ValueError(f"{self.path} is closed, expected an open file; open another writer")
        return self._handle

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, in this process or another, appends to the same file through a handle of its own.
        return JsonlWriter, (self.path,)

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()


def _drop_torn_line(handle: int) -> None:
    end = os.fstat(handle).st_size
    while end > 0:
        start = max(0, end - 65_536)
        newline = os.pread(handle, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != os.fstat(handle).st_size:
        os.ftruncate(handle, end)


def keep_rows(path: str | Path, wanted: Callable[[Row], bool]) -> int:
    """Cut a JSON-lines file at the first row that is not wanted, or not whole; returns how many stay."""
    path = Path(path)
    if not path.exists():
        return 0
    kept, count = bytearray(), 0
    with path.open("rb") as file:
        for line in file:
            try:
                good = line.endswith(b"\n") and wanted(json.loads(line))
            except (ValueError, RecursionError, LookupError, TypeError):
                good = False
            if not good:
                break
            kept += line
            count += 1
    if len(kept) != path.stat().st_size:
        write_bytes(path, bytes(kept))
    return count


def read_jsonl(path: str | Path, *, finished: bool = False) -> Iterator[Row]:
    """Yield the rows of a JSON-lines file, skipping a torn last line.

    Args:
        path: The file.
        finished: Nobody was killed while appending to it: a last line without line end counts.

    Raises:
        ValueError: If a line other than the last is no JSON object or longer than 64 MiB, with its number.
    """
    with Path(path).open("rb") as file:
        number = 0
        while line := file.readline(MAX_JSON + 1):
            number += 1
            if not line.endswith(b"\n"):
                if len(line) > MAX_JSON:
                    raise ValueError(f"{path}:{number} is longer than {MAX_JSON >> 20} MiB; remove this line")
                if not finished:
                    return
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"{path}:{number} is not JSON ({error}); remove or repair this line"
                ) from error
            if not isinstance(row, dict):
                raise ValueError(
                    f"{path}:{number} holds a {type(row).__name__}, expected a JSON object; remove this line"
                )
            yield row
