"""Datasets that are dialogues already. Only the user's turns are taken: the student gives its own answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from steer_env.data import schemas
from steer_env.data.loaders.base import Source, Spec
from steer_env.scenarios import Scenario

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_HH: Final = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")


def _user(source: Source, messages: Any, where: str, rename: Mapping[str, str] | None = None) -> list[str]:
    """Return the user's texts of a message list, or raise with the place."""
    if rename and isinstance(messages, list):
        messages = [
            {"role": rename.get(str(m.get("role")), m.get("role")), "content": m.get("content")}
            if isinstance(m, dict)
            else m
            for m in messages
        ]
    try:
        return schemas.user_texts(messages, "messages")
    except ValueError as error:
        raise source.error(where, str(error)) from error


def safemt(source: Source) -> Iterator[Scenario]:
    """Yield SafeMT; the hidden goal is the original single-turn `question`."""
    path = source.file(f"Data/{source.split}.json", f"{source.split}.json")
    for where, row in source.json_list(path):
        source.need(row, ("id", "scenario", "image_path", "dialogue", "question"), where)
        question = source.text(row, "question", where)
        # Without a dialogue the question is all there is.
        turns = _user(source, row["dialogue"], where) if row["dialogue"] else [question]
        yield source.scenario(
            turns,
            where,
            [source.image(row["image_path"], where, "Data", ".")],
            key=row["id"],
            goal=question,
            category=row["scenario"],
        )


def mtmcs(source: Source, variants: bool = False) -> Iterator[Scenario]:
    """Yield MTMCS-Bench: a safe and an unsafe dialogue of three turns, with the picture and without.

    In `type_a` (escalation) the variants differ in turn 3, in `type_b` (change of context) in turn 1; a blank
    variant falls back to the plain turn, as in the authors' code.

    Args:
        source: The dataset.
        variants: Whether to add the picture dialogues once more for each of `variant_images`.
    """
    paths = source.files(
        f"data/{source.split}-*.parquet", f"{source.split}*.parquet", f"*/{source.split}-*.parquet"
    )
    columns = ("id", "image", "variant_images", "multimodal_dialogue", "unimodal_dialogue")
    for where, row in source.parquet(paths, columns):
        pictures = [row["image"], *((row["variant_images"] or ()) if variants else ())]
        images = [source.image(picture, where) for picture in pictures]
        for modality in ("multimodal", "unimodal"):
            dialogue = row[f"{modality}_dialogue"]
            source.need(dialogue, ("r1", "r2", "r3"), f"{where}.{modality}_dialogue")
            for safety in ("safe", "unsafe"):
                turns = _mtmcs_turns(source, dialogue, safety, f"{where}.{modality}_dialogue")
                for i, image in enumerate(images if modality == "multimodal" else [None]):
                    yield source.scenario(
                        turns,
                        where,
                        [image] if image else (),
                        kind="benign" if safety == "safe" else "obfuscated",
                        group=str(row["id"]),
                        key=f"{row['id']}/{modality}/{safety}" + (f"/{i}" if i else ""),
                        mechanism=source.split,
                    )


def _mtmcs_turns(source: Source, dialogue: Mapping[str, Any], safety: str, where: str) -> list[str]:
    differs = "r3" if source.split == "type_a" else "r1"
    keys = ("safe_" + differs, "unsafe_" + differs)
    if not all(key in dialogue for key in keys):
        raise source.error(where, f"missing {list(keys)}; found {list(dialogue)}")
    turns = []
    for key in ("r1", "r2", "r3"):
        own = f"{safety}_{key}"
        turns.append(source.text(dialogue, own if key == differs and dialogue.get(own) else key, where))
    return turns


def safemtdata(source: Source) -> Iterator[Scenario]:
    """Yield SafeMTData: Attack_600 (`multi_turn_queries`) or 1K (`conversations`)."""
    if source.split == "Attack_600":
        path, key = source.file("SafeMTData/Attack_600.json", "Attack_600.json"), "multi_turn_queries"
    else:
        path, key = source.file("SafeMTData/SafeMTData_1K.json", "SafeMTData_1K.json"), "conversations"
    for where, row in source.json_list(path):
        source.need(row, ("plain_query", "category", key), where)
        turns = row[key]
        if key == "conversations":
            turns = _user(source, turns, where, {"human": "user", "gpt": "assistant"})
        elif not isinstance(turns, list) or not all(isinstance(t, str) and t.strip() for t in turns):
            raise source.error(where, f"{key}={str(turns)[:60]!r}, expected a list of texts")
        # `query_id` is not one key across the two files; the plain query is.
        plain = source.text(row, "plain_query", where)
        yield source.scenario(
            turns,
            where,
            kind="red_team",
            group=plain[:80],
            key=row.get("id", where),
            goal=plain,
            category=str(row["category"]),
        )


def safedialbench(source: Source) -> Iterator[Scenario]:
    """Yield SafeDialBench in English or Chinese."""
    language = {"en": "english", "zh": "chinese"}[source.split]
    paths = source.files(
        f"data/complete/datasets_{source.split}.jsonl",
        f"datasets_{source.split}.jsonl",
        f"data/by_task/{language}/*.jsonl",
        f"by_task/{language}/*.jsonl",
    )
    for path in paths:
        for where, row in source.jsonl(path):
            source.need(row, ("task", "method", "model_type", "scene", "id", "history"), where)
            if not isinstance(row["history"], list):
                raise source.error(where, f"history is a {type(row['history']).__name__}, expected a list")
            for turn in row["history"]:
                source.need(turn, ("user", "bot"), where)
            yield source.scenario(
                [source.text(turn, "user", where) for turn in row["history"]],
                where,
                kind="red_team",
                key=f"{path.stem}/{row['id']}",
                category=f"{row['task']}/{row['scene']}",
                mechanism=str(row["method"]),
            )


def cosafe(source: Source) -> Iterator[Scenario]:
    """Yield CoSafe: a list of messages a line, one file a category."""
    for path in source.files("CoSafe datasets/*.json", "*.json"):
        for where, messages in source.jsonl(path):
            if not isinstance(messages, list):
                raise source.error(where, f"is a {type(messages).__name__}, expected a list of messages")
            yield source.scenario(_user(source, messages, where), where, kind="red_team", category=path.stem)


def hh_rlhf(source: Source) -> Iterator[Scenario]:
    """Yield hh-rlhf; the user's turns are those of `chosen`. Helpful subsets are benign."""
    subset, split = source.split.split("/")
    path = source.file(f"{subset}/{split}.jsonl.gz", f"{subset}/{split}.jsonl")
    for where, row in source.jsonl(path):
        source.need(row, ("chosen", "rejected"), where)
        yield source.scenario(
            _hh_turns(source, source.text(row, "chosen", where), where),
            where,
            kind="obfuscated" if subset.startswith("harmless") else "benign",
            category=subset,
        )


def _hh_turns(source: Source, text: str, where: str) -> list[str]:
    if not text.startswith(_HUMAN) or _ASSISTANT not in text:
        raise source.error(where, f"chosen={text[:40]!r}, expected {_HUMAN!r} first and then {_ASSISTANT!r}")
    turns = [part.split(_ASSISTANT, 1)[0].strip() for part in text.split(_HUMAN)[1:]]
    if not all(turns):
        raise source.error(where, "chosen has a blank human turn")
    return turns


def mhj(source: Source) -> Iterator[Scenario]:
    """Yield MHJ, dialogues of human red-teamers. System prompts, which scenarios lack, are left out."""
    paths = source.files("harmbench_behaviors.csv", "*.csv")
    if len(paths) > 1:
        raise source.error(str(source.root), f"several CSV files {[p.name for p in paths]}, expected one")
    for where, row in source.csv(paths[0], ("message_0",)):
        messages = _mhj_messages(source, row, where)
        yield source.scenario(
            _user(source, messages, where),
            where,
            kind="red_team",
            group=str(row.get("question_id") or where),
            category=str(row.get("tactic") or ""),
        )


def _mhj_messages(source: Source, row: Mapping[str, Any], where: str) -> Sequence[Mapping[str, Any]]:
    keys = sorted((k for k in row if k.startswith("message_")), key=lambda k: int(k.removeprefix("message_")))
    cells = [row[key].strip() for key in keys]
    while cells and cells[-1] in ("", "nan"):
        cells.pop()
    messages = []
    for key, cell in zip(keys, cells, strict=False):
        try:
            message = json.loads(cell)
        except ValueError as error:
            raise source.error(where, f"{key}={cell[:40]!r} is not JSON ({error})") from error
        source.need(message, ("role", "body"), f"{where}.{key}")
        messages.append({"role": message["role"], "content": message["body"]})
    return messages


SPECS: Final = (
    Spec("safemt", "SafeMT", "CC-BY-NC-4.0 (non-commercial)", ("1_turn", "2_turn", "4_turn"), safemt,
         layout="Data/{1,2,4}_turn.json and Data/images/"),
    Spec("mtmcs-bench", "MTMCS-Bench", "not stated in the release", ("type_a", "type_b"), mtmcs,
         layout="data/{type_a,type_b}-*.parquet"),
    Spec("safemtdata", "SafeMTData", "MIT", ("Attack_600", "1K"), safemtdata, images=False,
         layout="SafeMTData/{Attack_600,SafeMTData_1K}.json"),
    Spec("safedialbench", "SafeDialBench", "not stated in the release", ("en", "zh"), safedialbench,
         images=False, default="en", layout="data/complete/datasets_{en,zh}.jsonl"),
    Spec("cosafe", "CoSafe", "not stated in the release", ("test",), cosafe, images=False,
         layout="CoSafe datasets/<category>.json"),
    Spec("hh-rlhf", "hh-rlhf", "MIT", tuple(f"{s}/{p}" for s in _HH for p in ("train", "test")), hh_rlhf,
         images=False, layout="<subset>/{train,test}.jsonl.gz"),
    Spec("mhj", "MHJ", "CC-BY-NC-4.0 (non-commercial)", ("test",), mhj, images=False,
         layout="harmbench_behaviors.csv (or one other .csv)"),
)  # fmt: skip
