"""The two JSON-lines schemas of the paper's code, to and from `Scenario`.

Bench row: `question_id, image, messages_fixed: [{role, content}], category, risk_trajectory: [float]`.
RL row: `question: [message], images: [path], metadata: {rest_messages, question_id, image}, label`.

What these schemas cannot hold travels under one additional key, `steer_env` (in an RL row inside
`metadata`), which the paper's code ignores: kind, goal, strategy, technique, mechanism, group, provenance,
licence, goals of single turns, a bench row's further pictures, pictures that come later than turn 1, and
the recipes of the built-in world's pictures, which hold its ground truth. With it a row gives back the
scenario exactly. With `extras=False` the row has the authors' keys only and these fields are lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from steer_env.images import Image
from steer_env.records import Row
from steer_env.scenarios import KINDS, DraftTurn, Scenario
from steer_env.world.draw import Recipe, recipe_of, truth_of

#: Key of what the authors' schemas have no place for.
EXTRA: Final = "steer_env"

_TEXTS: Final = ("kind", "goal", "strategy", "technique", "mechanism", "group", "provenance", "licence")


class SchemaError(ValueError):
    """A row that does not follow the schema; the message names the key, the value and what was expected."""


def to_bench_row(scenario: Scenario, images: Sequence[str] = (), extras: bool = True) -> Row:
    """Return a scenario as a row of STEER-Bench.

    Args:
        scenario: The scenario.
        images: Paths of its pictures, in order.
        extras: Whether to add what the schema cannot hold under `EXTRA`.

    Raises:
        ValueError: If the number of paths is wrong, or, without extras, the scenario has several pictures or
            one that is not shown in turn 1.
    """
    paths = _paths(scenario, images)
    if not extras and (len(paths) > 1 or (paths and not scenario.turns[0].images)):
        raise ValueError(
            f"scenario {scenario.id} shows {[list(t.images) for t in scenario.turns]}, but a bench row holds "
            "one picture, shown in turn 1; pass extras=True"
        )
    row: Row = {
        "question_id": scenario.id,
        "image": paths[0] if paths else "",
        "messages_fixed": [_user(turn.text) for turn in scenario.turns],
        "category": scenario.category,
        "risk_trajectory": [float(turn.risk) for turn in scenario.turns],
    }
    if extras:
        more = _extras(scenario)
        if len(paths) > 1:
            more["images"] = paths
        row[EXTRA] = more
    return row


def from_bench_row(row: Mapping[str, Any], images: Sequence[Image] = (), **defaults: str) -> Scenario:
    """Return the scenario of a bench row; only its user messages are taken, as the paper's code does.

    As there, `image`, `category` and `risk_trajectory` may be left out.

    Args:
        row: The row.
        images: Its pictures, opened (`bench_images` gives the paths).
        **defaults: Fields for a row without `EXTRA`: kind, group, provenance, licence, ...

    Raises:
        SchemaError: If keys are missing or have wrong values.
    """
    _need(row, ("question_id", "messages_fixed"))
    texts = user_texts(row["messages_fixed"], "messages_fixed")
    risks = _risks(row.get("risk_trajectory"), row["messages_fixed"], len(texts))
    more = row.get(EXTRA) or {}
    category = row.get("category") or row.get("source_category") or ""
    return _build(
        texts,
        risks,
        images,
        more,
        {"kind": "obfuscated", **defaults, "category": category},
        row["question_id"],
    )


def bench_images(row: Mapping[str, Any]) -> list[str]:
    """Return the paths of a bench row's pictures."""
    more = (row.get(EXTRA) or {}).get("images")
    one = row.get("image") or ""
    if not isinstance(one, str):
        raise SchemaError(f"image={one!r}, expected a path, or nothing where there is no picture")
    return list(more) if more else [one] if one.strip() else []


def to_rl_row(scenario: Scenario, images: Sequence[str] = (), extras: bool = True) -> Row:
    """Return a scenario as a row of STEER-RL; `label` is its kind. Arguments and errors as `to_bench_row`."""
    paths = _paths(scenario, images)
    if not extras and any(turn.images for turn in scenario.turns[1:]):
        raise ValueError(
            f"scenario {scenario.id} shows a picture after turn 1, an RL row cannot say so; pass extras=True"
        )
    first, *rest = (_user(turn.text) for turn in scenario.turns)
    metadata: Row = {
        "question_id": scenario.id,
        "image": paths[0] if paths else "",
        "rest_messages": rest,
    }
    if extras:
        more = _extras(scenario)
        more.pop("kind")  # it is the label
        metadata[EXTRA] = more | {"category": scenario.category, "risks": [t.risk for t in scenario.turns]}
    return {"question": [first], "images": paths, "metadata": metadata, "label": scenario.kind}


def from_rl_row(row: Mapping[str, Any], images: Sequence[Image] = (), **defaults: str) -> Scenario:
    """Return the scenario of an RL row. Arguments and errors as `from_bench_row`."""
    _need(row, ("question", "metadata"))
    metadata = row["metadata"]
    if not isinstance(metadata, Mapping):
        raise SchemaError(f"metadata={metadata!r}, expected an object")
    if "images" not in row and "image" not in metadata:
        raise SchemaError(
            f"images is missing, and metadata has {list(metadata)}; expected either to name pictures"
        )
    _need(metadata, ("rest_messages", "question_id"), "metadata.")
    rest = metadata["rest_messages"] or ()
    texts = [
        *user_texts(row["question"], "question"),
        *(user_texts(rest, "metadata.rest_messages") if rest else ()),
    ]
    more = dict(metadata.get(EXTRA) or {})
    risks = more.pop("risks", None) or [0] * len(texts)
    label = row.get("label")
    fields = {"kind": "obfuscated", **defaults, **({"kind": label} if label in KINDS else {})}
    fields["category"] = more.pop("category", fields.get("category", ""))
    return _build(texts, risks, images, more, fields, metadata["question_id"])


def rl_images(row: Mapping[str, Any]) -> list[str]:
    """Return the paths of an RL row's pictures: `images`, else `metadata.image`."""
    paths = row.get("images")
    if isinstance(paths, str):
        paths = [paths]
    one = row.get("metadata", {}).get("image")
    return [p for p in (paths or ([one] if one else [])) if p]


def user_texts(messages: Any, where: str) -> list[str]:
    """Return the texts of the user's messages; a content is a string or a list of text parts.

    Raises:
        SchemaError: If the list, a role or a content has another shape, or nobody says anything.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise SchemaError(f"{where}={messages!r}, expected a list of messages")
    texts = []
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in ("user", "assistant", "system"):
            raise SchemaError(
                f"{where}[{i}]={message!r}, expected role user, assistant or system, and content"
            )
        if message["role"] == "user":
            text = _content(message.get("content"), f"{where}[{i}].content")
            if not text.strip():
                raise SchemaError(f"{where}[{i}].content is blank, expected what the user says")
            texts.append(text)
    if not texts:
        raise SchemaError(f"{where} has no user message, expected at least one")
    return texts


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(isinstance(p, Mapping) for p in content):
        kinds = [p.get("type") for p in content]
        if set(kinds) <= {"text", "image", "image_url"}:  # pictures are named in the row, and come first
            return " ".join(str(p.get("text", "")) for p in content if p["type"] == "text")
        raise SchemaError(f"{where} has parts of types {kinds}, expected text or image")
    raise SchemaError(f"{where}={content!r}, expected text or a list of parts")


def _risks(values: Any, messages: Sequence[Any], turns: int) -> list[int]:
    """Return a level 0..5 per user turn; numbers in [0, 1], one of them a fraction, are spread over 1..5."""
    values = list(values or ())
    if not values:
        return [0] * turns
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        raise SchemaError(f"risk_trajectory={values!r}, expected numbers")
    if len(values) != turns and len(values) == len(messages):
        values = [v for v, m in zip(values, messages, strict=True) if m["role"] == "user"]
    if len(values) != turns:
        raise SchemaError(
            f"risk_trajectory has {len(values)} values for {turns} user turns, expected one each"
        )
    if all(0 <= v <= 1 for v in values) and any(v != int(v) for v in values):
        return [1 + round(4 * v) for v in values]
    if not all(0 <= v <= 5 for v in values):
        raise SchemaError(f"risk_trajectory={values!r}, expected levels 0..5 or probabilities in [0, 1]")
    return [round(v) for v in values]


def _user(text: str) -> Row:
    return {"role": "user", "content": text}


def _paths(scenario: Scenario, images: Sequence[str]) -> list[str]:
    if len(images) != len(scenario.images):
        raise ValueError(f"images has {len(images)} paths, expected {len(scenario.images)} for {scenario.id}")
    return list(images)


def _extras(scenario: Scenario) -> Row:
    more: Row = {key: getattr(scenario, key) for key in _TEXTS if getattr(scenario, key)}
    if scenario.cells:
        more |= {"cell": scenario.cell, "cells": scenario.cells}
    if any(turn.goal for turn in scenario.turns):
        more["turn_goals"] = [turn.goal for turn in scenario.turns]
    if any(turn.images for turn in scenario.turns[1:]):
        more["turn_images"] = [len(turn.images) for turn in scenario.turns]
    recipes = [recipe_of(image) for image in scenario.images if truth_of(image) == scenario.truth]
    if len(scenario.images) == 1 and any(recipes):
        more["recipe"] = recipes[0]
    return more


def _build(
    texts: Sequence[str],
    risks: Sequence[int],
    images: Sequence[Image],
    more: Mapping[str, Any],
    fields: Mapping[str, str],
    name: Any,
) -> Scenario:
    goals = more.get("turn_goals") or [""] * len(texts)
    counts = more.get("turn_images") or [len(images)] + [0] * (len(texts) - 1)
    if not len(texts) == len(risks) == len(goals) == len(counts) or sum(counts) != len(images):
        raise SchemaError(
            f"{EXTRA} speaks of {len(goals)} turns and {sum(counts)} pictures, the row has {len(texts)} and "
            f"{len(images)}"
        )
    turns, start = [], 0
    for text, risk, goal, count in zip(texts, risks, goals, counts, strict=True):
        turns.append(DraftTurn(text, tuple(range(start, start + count)), risk, goal))
        start += count
    labels = {**fields, **{key: more[key] for key in (*_TEXTS, "cell", "cells") if key in more}}
    truth = Recipe.parse(more["recipe"]).truth if "recipe" in more else None
    return Scenario(tuple(turns), tuple(images), truth=truth, **labels, id=str(name or ""))


def _need(row: Mapping[str, Any], keys: Sequence[str], prefix: str = "") -> None:
    missing = [prefix + key for key in keys if key not in row]
    if missing:
        raise SchemaError(f"missing keys {missing}; found {[prefix + key for key in row]}")
