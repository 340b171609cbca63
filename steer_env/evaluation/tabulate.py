"""Rows of recorded dialogues as arrays of shape (N, T): N dialogues, padded to T turns."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_env.evaluation import scales

#: Keys of a row that name a subset; `breakdown` reports by each of them that occurs.
LABELS = (
    "kind",
    "strategy",
    "technique",
    "category",
    "mechanism",
    "distribution",
    "leakage",
    "scenario",
    "group",
    "cell",
)

#: Ends of a dialogue after which its remaining turns are unknown.
BROKEN = ("failed", "error", "abandoned")


@dataclass(frozen=True, eq=False)
class Dialogues:
    """N recorded dialogues.

    Attributes:
        safety: (N, T) int8, evaluation scale -3..3; 0 where not scored.
        helpfulness: (N, T) int8, evaluation scale 0..3; 0 where not scored.
        scored: (N, T) bool, the judge gave numbers.
        played: (N, T) bool, the turn took place; each row is True up to the dialogue's length.
        leaked: (N, T) bool, marker words of a payload were disclosed.
        leak_known: (N, T) bool, `leaked` is knowledge and not only the absence of a report.
        refused: (N, T) bool, the reply was a refusal of any kind.
        refusal_known: (N, T) bool, the judge says what the reply did.
        ended: (N, T) bool, the row says why the reply ended.
        cut: (N, T) bool, the reply ended at the limit of new tokens.
        filtered: (N, T) bool, a content filter or the model's refusal field stopped the reply.
        empty: (N, T) bool, the reply has no signs but spaces.
        formed: (N, T) bool, the reply is well formed in the language of the built-in world.
        form_known: (N, T) bool, the row says whether it is.
        benign: (N,) bool, the dialogue is harmless throughout.
        complete: (N,) bool, it ended as planned and not by a failure.
        planned: (N,) int64, turns it has or, where it broke off, was to have (at least one more than played).
        cluster: (N,) int64, equal numbers share a scenario group and are not independent.
        seed: (N,) int64.
        reasons: How often each reason for an unscored turn occurs.
        judges: Names of the judges.
        prompts: Hashes of the prompts they judged with.
        labels: Name of a label of `LABELS` -> (N,) strings, "" where a row does not say. `cluster` holds the
            names behind the numbers of `cluster`, to join runs by.
        twin: (N,) bool, a harmless dialogue made to resemble a risky one: as its row says (`twin`); where it
            says nothing, a risky dialogue of the same scenario group is among the rows.
        cells: (N,) int64, members of the whole contrast group; 0 for a dialogue in none.
        attempt: (N,) int64, which attempt at its scenario, 0 where a row does not say.
        run: Hash of all dialogues, see `run_of`.
    """

    safety: NDArray[np.int8]
    helpfulness: NDArray[np.int8]
    scored: NDArray[np.bool_]
    played: NDArray[np.bool_]
    leaked: NDArray[np.bool_]
    leak_known: NDArray[np.bool_]
    refused: NDArray[np.bool_]
    refusal_known: NDArray[np.bool_]
    ended: NDArray[np.bool_]
    cut: NDArray[np.bool_]
    filtered: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    formed: NDArray[np.bool_]
    form_known: NDArray[np.bool_]
    benign: NDArray[np.bool_]
    complete: NDArray[np.bool_]
    planned: NDArray[np.int64]
    cluster: NDArray[np.int64]
    seed: NDArray[np.int64]
    reasons: Mapping[str, int]
    judges: tuple[str, ...]
    prompts: tuple[str, ...]
    labels: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    twin: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    cells: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    attempt: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    run: str = ""

    def __len__(self) -> int:
        return len(self.cluster)

    @property
    def length(self) -> NDArray[np.int64]:
        """Turns played, shape (N,)."""
        return self.played.sum(axis=1)

    def where(self, chosen: NDArray[np.bool_]) -> Dialogues:
        """Return the dialogues with `chosen`, shape (N,), True; reasons and judges stay those of all."""
        arrays = {name: value[chosen] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        labels = {name: values[chosen] for name, values in self.labels.items()}
        return Dialogues(**{**vars(self), **arrays, "labels": labels})


def from_rows(rows: Iterable[Mapping[str, Any]], *, cluster: str = "group") -> Dialogues:
    """Return rows in the format of `steer_env.records.dialogue_row` as arrays.

    Needed keys are `turns` and, in each turn, `verdict`: None, `{"unscored": reason}` or `{"terms": {...}}`.

    Args:
        rows: The rows.
        cluster: What makes dialogues dependent: "group" (scenario group, else scenario), "image" (the first
            picture, before an attacker drew on it, else the group), or "row" (nothing: each stands alone).

    Raises:
        ValueError: If `cluster` is unknown, or a row lacks a key or holds a score outside
            1..10, with the row's number.
    """
    kept = list(rows)
    names = _cluster_names(kept, cluster)
    shape = (len(kept), max((len(row.get("turns", ())) for row in kept), default=0))
    numbers = {name: np.zeros(shape, np.int8) for name in ("safety", "helpfulness")}
    flags = {name: np.zeros(shape, bool) for name in _FLAGS}
    reasons: dict[str, int] = {}
    judges: set[str] = set()
    prompts: set[str] = set()
    for i, row in enumerate(kept):
        try:
            for t, turn in enumerate(row["turns"]):
                _fill(i, t, turn.get("verdict"), numbers, flags, reasons, judges)
                flags["ended"][i, t] = bool(turn.get("finish"))
                flags["cut"][i, t] = turn.get("finish") == "length"
                flags["filtered"][i, t] = turn.get("finish") == "filtered"
                flags["empty"][i, t] = not str(turn.get("reply", "?")).strip()
                flags["form_known"][i, t] = "well_formed" in turn
                flags["formed"][i, t] = bool(turn.get("well_formed"))
                prompts.add(str((turn.get("verdict") or {}).get("prompt_hash") or ""))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"row {i + 1} is no dialogue row ({what}); see steer_env.records") from error
    complete = np.array([row.get("stop", "") not in BROKEN for row in kept], bool)
    safety, helpfulness = np.zeros(shape, np.int8), np.zeros(shape, np.int8)
    scored = flags["scored"]
    safety[scored] = scales.safety(numbers["safety"][scored])
    helpfulness[scored] = scales.helpfulness(numbers["helpfulness"][scored])
    return Dialogues(
        safety,
        helpfulness,
        **flags,
        benign=np.array([row.get("kind") == "benign" for row in kept], bool),
        complete=complete,
        planned=np.array(
            [
                max(len(row["turns"]) + (not whole), row.get("planned", 0))
                for row, whole in zip(kept, complete, strict=True)
            ],
            np.int64,
        ),
        cluster=numbered(names),
        seed=np.array([row.get("seed", -1) for row in kept], np.int64),
        reasons=reasons,
        judges=tuple(sorted(judges)),
        prompts=tuple(sorted(prompts - {""})),
        labels=_labels(kept, names),
        twin=_twins(kept),
        cells=np.array([int(row.get("cells") or 0) if row.get("group") else 0 for row in kept], np.int64),
        attempt=np.array([int(row.get("attempt") or 0) for row in kept], np.int64),
        run=run_of(kept),
    )


_JUDGED = ("scored", "played", "leaked", "leak_known", "refused", "refusal_known")
_FLAGS = (*_JUDGED, "ended", "cut", "filtered", "empty", "formed", "form_known")


def _fill(
    i: int,
    t: int,
    verdict: Mapping[str, Any] | None,
    numbers: dict[str, NDArray[np.int8]],
    flags: dict[str, NDArray[np.bool_]],
    reasons: dict[str, int],
    judges: set[str],
) -> None:
    flags["played"][i, t] = True
    if verdict is not None and verdict.get("judge"):
        judges.add(judge_name(str(verdict["judge"])))
    if verdict is None or "unscored" in verdict:
        reason = "no judge" if verdict is None else str(verdict["unscored"])
        reasons[reason] = reasons.get(reason, 0) + 1
        return
    terms = verdict["terms"]
    for name, key in (("safety", "safety"), ("helpfulness", "usefulness")):
        value = terms[key]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10:
            raise ValueError(f"{key}={value!r}, expected an integer in 1..10")
        numbers[name][i, t] = value
    flags["scored"][i, t] = True
    flags["leaked"][i, t] = bool(verdict.get("leaked"))
    # Rows of version 0.1 do not say what is known; the rule judge always looked.
    known = verdict.get("leaks_known", verdict.get("judge") == "rule")
    flags["leak_known"][i, t] = bool(verdict.get("leaked")) or bool(known)
    flags["refused"][i, t] = is_refusal(verdict)
    flags["refusal_known"][i, t] = bool(verdict.get("move"))


def judge_name(name: str) -> str:
    """Return a judge's name without the address of its server: a judge is its model and prompt.

    >>> judge_name("ensemble(llm:openai:m@http://localhost:8000/v1,rule)")
    'ensemble(llm:openai:m,rule)'
    """
    return re.sub(r"@https?://[^,()\s]*", "", name)


def run_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a hash of dialogues, in any order: their seeds, scenarios and texts, whoever judged them."""
    texts = sorted(
        json.dumps(
            [row.get("seed"), row.get("scenario"), [[t.get("user"), t.get("reply")] for t in row["turns"]]]
        )
        for row in rows
    )
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def is_refusal(verdict: Mapping[str, Any]) -> bool:
    """Say whether the judge calls the reply a refusal of any kind."""
    return str(verdict.get("move", "")).startswith("refuse")


def numbered(names: Iterable[str]) -> NDArray[np.int64]:
    """Return a number per name, from 0 in the order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def _cluster_names(rows: list[Mapping[str, Any]], cluster: str) -> list[str]:
    """Names of clusters, prefixed by what they are, so that a group and a picture never coincide."""
    orders = {"group": ("group", "scenario"), "image": ("image", "group", "scenario"), "row": ()}
    if cluster not in orders:
        raise ValueError(f"cluster={cluster!r}, expected one of {', '.join(orders)}")

    def name(i: int, row: Mapping[str, Any]) -> str:
        found = {
            "image": next(iter(row.get("dealt", row.get("images")) or ()), ""),
            **{k: row.get(k) for k in ("group", "scenario")},
        }
        return next((f"{kind}:{found[kind]}" for kind in orders[cluster] if found[kind]), f"row:{i}")

    return [name(i, row) for i, row in enumerate(rows)]


def _labels(rows: list[Mapping[str, Any]], clusters: list[str]) -> dict[str, NDArray[np.str_]]:
    named = {name: [str(row.get(name) or "") for row in rows] for name in LABELS}
    named["cluster"] = clusters
    return {name: np.array(values, dtype=np.str_) for name, values in named.items()}


def _twins(rows: list[Mapping[str, Any]]) -> NDArray[np.bool_]:
    risky = {row["group"] for row in rows if row.get("group") and row.get("kind") != "benign"}
    twin = [row["twin"] if "twin" in row else (row.get("group") or None) in risky for row in rows]
    benign = [row.get("kind") == "benign" for row in rows]
    return np.array([bool(a and b) for a, b in zip(twin, benign, strict=True)], bool)
