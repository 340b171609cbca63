"""Recorded dialogues as a log of Inspect AI: one `.eval` file per run, read by `inspect view`.

A dialogue is a sample, an attempt at the same scenario an epoch. Turn verdicts are in the sample's metadata;
what hangs on an unscored turn is an unscored sample, not a number. Needs the extra `inspect`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steer_env.evaluation import protocols, scales
from steer_env.evaluation.breakdown import harmed
from steer_env.evaluation.intervals import Estimate
from steer_env.evaluation.summary import Summary, summarise
from steer_env.evaluation.tabulate import Dialogues, from_rows
from steer_env.extras import need
from steer_env.files import writing
from steer_env.play.logs import ROW
from steer_env.records import Row
from steer_env.report.dialogues import Pictures, data_url

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalScore, EvalSpec

#: Scores of a sample -> the attribute of `Summary` with its rate.
_RATES = {
    "joint_pass": "multi_turn_joint",
    "safety_pass": "multi_turn_safety",
    "helpfulness_pass": "multi_turn_helpfulness",
    "harm": "harm_rate",
}
#: Names of the scores of a sample.
SCORES = ("safety", "helpfulness", *_RATES)
_LABELS = (
    "kind",
    "strategy",
    "technique",
    "category",
    "mechanism",
    "group",
    "cell",
    "cells",
    "goal",
    "seed",
    "stop",
)
_MORE = ("suite", "distribution", "attempt", "twin", "leakage", "return", "advantage", "step")


def write_inspect_log(rows: Sequence[Row], path: str | Path, **options: Any) -> Path:
    """Write what `to_eval_log` makes to a file that ends in .eval (or .json), and return its path.

    Raises:
        ImportError: If inspect_ai is not installed.
        ValueError: If a row does not hold a dialogue.
    """
    log = to_eval_log(rows, **options)
    from inspect_ai.log import write_eval_log

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():  # a received folder must not choose what is overwritten
        target.unlink()
    with writing(target):
        write_eval_log(log, str(target))
    return target


def to_eval_log(
    rows: Sequence[Row],
    *,
    policy: str = "student",
    meta: Mapping[str, Any] | None = None,
    summary: Summary | None = None,
    pictures: Pictures | None = None,
) -> EvalLog:
    """Return dialogues as an `inspect_ai.log.EvalLog`.

    Args:
        rows: Rows in the format of `steer_env.records`.
        policy: Name of the student.
        meta: What the run folder says of itself (`run.json`).
        summary: What `summarise` returned, if it was called already.
        pictures: Returns the pictures of a row; None leaves a line of text in their place.

    Raises:
        ImportError: If inspect_ai is not installed.
    """
    need("inspect_ai.log", "inspect")
    from inspect_ai.log import EvalLog, EvalResults, EvalStats

    d = from_rows(rows)
    known = dict(meta or {})
    samples = [
        _sample(row, name, pictures, scores, policy)
        for row, name, scores in zip(rows, _ids(rows), scores_of(d), strict=True)
    ]
    found = summary or summarise(d)
    results = EvalResults(
        total_samples=len(rows),
        completed_samples=int(d.complete.sum()),
        scores=[
            _rate("twin_pass", found.twin_pass),  # of groups of samples, so no sample has one
            *(_rate(name, getattr(found, attribute)) for name, attribute in _RATES.items()),
        ],
    )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return EvalLog(
        status="success",
        eval=_spec(rows, d, policy, known, now),
        results=results,
        stats=EvalStats(started_at=now, completed_at=now),
        samples=samples,
    )


def _epoch(row: Row) -> int:
    return int(row.get("attempt") or 0) + 1


def _ids(rows: Sequence[Row]) -> list[str]:
    """Names of samples: the scenario, with the seed where a scenario was played more often."""
    names = [str(row.get("scenario") or "dialogue") for row in rows]
    often = Counter(zip(names, map(_epoch, rows), strict=True))
    seen: Counter[str] = Counter()
    result = []
    for row, name in zip(rows, names, strict=True):
        if often[name, _epoch(row)] > 1:
            name = f"{name}-{row.get('seed', '')}"
            seen[name] += 1
            name += f"-{seen[name]}" if seen[name] > 1 else ""
        result.append(name)
    return result


def scores_of(d: Dialogues) -> list[dict[str, float | None]]:
    """Scores of each dialogue; None where they hang on an unscored turn."""
    whole = d.complete & (d.length > 0) & ~(d.played & ~d.scored).any(axis=1)
    turns = np.maximum(d.length, 1)
    passes = protocols.verdicts(d)
    deciders = {
        "joint_pass": passes["joint"],
        "safety_pass": passes["safety"],
        "helpfulness_pass": passes["helpfulness"],
        "harm": harmed(d),
    }
    result = []
    for i in range(len(d)):
        scores: dict[str, float | None] = {
            name: float(values[i].sum() / turns[i]) if whole[i] else None
            for name, values in (("safety", d.safety), ("helpfulness", d.helpfulness))
        }
        for name, (yes, no) in deciders.items():
            scores[name] = 1.0 if yes[i] else 0.0 if no[i] else None
        result.append(scores)
    return result


def _sample(
    row: Row, name: str, pictures: Pictures | None, scores: Mapping[str, float | None], policy: str
) -> EvalSample:
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

    messages = _messages(row, name, pictures)
    choices = [{"message": messages[-1], "stop_reason": "stop"}] if messages else []
    said = {
        name: Score.unscored(explanation="hangs on a turn without a verdict")
        if value is None
        else Score(value=value)
        for name, value in scores.items()
    }
    text = str(row.get("error") or "")
    return EvalSample(
        id=name,
        epoch=_epoch(row),
        input=messages[:1],
        target="",
        messages=messages,
        output=ModelOutput.model_validate({"model": policy, "choices": choices}),
        scores=said,
        metadata=_metadata(row),
        error=EvalError(message=text, traceback=text, traceback_ansi=text) if text else None,
    )


def _messages(row: Row, name: str, pictures: Pictures | None) -> list[Any]:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ContentImage, ContentText

    images = {image.digest: data_url(image.pil()) for image in (pictures(row) if pictures else ())}
    digests = list(row.get("images") or ())
    messages: list[Any] = []
    for number, turn in enumerate(row["turns"], 1):
        ids = [f"{name}-{_epoch(row)}-{number}-{who}" for who in ("user", "assistant")]
        count = int(turn.get("images") or 0)
        shown, digests = digests[:count], digests[count:]
        parts: list[Any] = [
            ContentImage(image=images[digest])
            if digest in images
            else ContentText(text=f"[picture {digest}]")
            for digest in shown
        ]
        text = str(turn.get("user", ""))
        content = [*parts, ContentText(text=text)] if parts else text
        messages.append(ChatMessageUser(content=content, id=ids[0]))
        messages.append(ChatMessageAssistant(content=str(turn.get("reply", "")), id=ids[1]))
    return messages


def _metadata(row: Row) -> dict[str, Any]:
    turns = []
    for turn in row["turns"]:
        kept = {key: value for key, value in turn.items() if key not in ("user", "reply")}
        terms = (turn.get("verdict") or {}).get("terms")
        if terms is not None:
            kept["safety"] = int(scales.safety(terms["safety"]))
            kept["helpfulness"] = int(scales.helpfulness(terms["usefulness"]))
        turns.append(kept)
    labels = {key: row[key] for key in (*_LABELS, *_MORE) if row.get(key) not in (None, "")}
    whole = {key: value for key, value in row.items() if key not in ("tokens", "_run")}
    plain: dict[str, Any] = json.loads(json.dumps({**labels, "turns": turns, ROW: whole}))
    return plain


def _rate(name: str, estimate: Estimate) -> EvalScore:
    """One rate over all samples; without a value there is no metric but a note."""
    from inspect_ai.log import EvalMetric, EvalScore

    ends = {"mean": estimate.value, "low": estimate.low, "high": estimate.high}
    return EvalScore(
        name=name,
        scorer="steer_env",
        scored_samples=estimate.n - estimate.undecided,
        unscored_samples=estimate.undecided,
        metrics={
            key: EvalMetric(name=key, value=float(value)) for key, value in ends.items() if value is not None
        },
        metadata={"bounds": estimate.bounds and list(estimate.bounds), "note": estimate.note},
    )


def _spec(rows: Sequence[Row], d: Dialogues, policy: str, meta: dict[str, Any], created: str) -> EvalSpec:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalSpec
    from inspect_ai.model import GenerateConfig, ModelConfig

    import steer_env

    digest = hashlib.sha256(json.dumps([meta, rows], sort_keys=True, default=str).encode()).hexdigest()
    where = meta.get("scenarios") or "/".join(str(meta[k]) for k in ("env", "split") if meta.get(k))
    roles = {"attacker": meta.get("attacker") or "default", "judge": ", ".join(d.judges) or "none"}
    ids = list(dict.fromkeys(_ids(rows)))
    return EvalSpec(
        created=created,
        eval_id=digest[:22],
        run_id=digest[22:44],
        task="steer_env/" + str(meta.get("suite") or meta.get("env") or "dialogues"),
        task_id=hashlib.sha256(str(where).encode()).hexdigest()[:22],
        task_args={key: value for key, value in meta.items() if value is not None},
        dataset=EvalDataset(
            name=str(where or "dialogues"), samples=len(ids), sample_ids=list(ids), shuffled=False
        ),
        model=str(meta.get("student") or policy),
        model_generate_config=GenerateConfig(
            temperature=meta.get("temperature"), max_tokens=meta.get("max_new_tokens")
        ),
        model_roles={role: ModelConfig(model=str(name)) for role, name in roles.items()},
        config=EvalConfig(epochs=max(map(_epoch, rows), default=1)),
        packages={"steer_env": steer_env.__version__},
        metadata=meta,
    )
