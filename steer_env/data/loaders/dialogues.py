"""Datasets that are dialogues already. Only the user's turns are taken: the student gives its own answers."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from steer_env.data import schemas
from steer_env.data.loaders.base import At, Entry, Source, Spec
from steer_env.data.loaders.table import each_row
from steer_env.scenarios import Scenario

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_HH: Final = tuple(
    f"{subset}/{part}"
    for subset in ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
    for part in ("train", "test")
)


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


def _safemt(source: Source, row: Entry, at: At) -> Iterator[Scenario]:
    """Yield a row of SafeMT; the hidden goal is the original single-turn `question`."""
    question = source.text(row, "question", at.where)
    # Without a dialogue the question is all there is.
    turns = _user(source, row["dialogue"], at.where) if row["dialogue"] else [question]
    image = source.image(row["image_path"], at.where, "Data", ".")
    yield source.scenario(turns, at.where, [image], key=row["id"], goal=question, category=row["scenario"])


def _mtmcs(source: Source, row: Entry, at: At, variants: bool = False) -> Iterator[Scenario]:
    """Yield the dialogues of a row of MTMCS-Bench: safe and unsafe, with the picture and without.

    Each has three turns. In `type_a` (escalation) the variants differ in turn 3, in `type_b` (change of
    context) in turn 1; a blank variant falls back to the plain turn, as in the authors' code.

    Args:
        source: The dataset.
        row: The row.
        at: Its place.
        variants: Whether to add the picture dialogues once more for each of `variant_images`.
    """
    pictures = [row["image"], *((row["variant_images"] or ()) if variants else ())]
    images = [source.image(picture, at.where) for picture in pictures]
    for modality, shown in (("multimodal", images), ("unimodal", [None])):
        where = f"{at.where}.{modality}_dialogue"
        dialogue = row[f"{modality}_dialogue"]
        source.need(dialogue, ("r1", "r2", "r3"), where)
        for safety in ("safe", "unsafe"):
            turns = _mtmcs_turns(source, dialogue, safety, where)
            for i, image in enumerate(shown):
                yield source.scenario(
                    turns,
                    at.where,
                    [image] if image else (),
                    kind="benign" if safety == "safe" else "obfuscated",
                    group=str(row["id"]),
                    key=f"{row['id']}/{modality}/{safety}" + (f"/{i}" if i else ""),
                    mechanism=source.split,
                )


def _mtmcs_turns(source: Source, dialogue: Mapping[str, Any], safety: str, where: str) -> list[str]:
    differs = "r3" if source.split == "type_a" else "r1"
    source.need(dialogue, ("safe_" + differs, "unsafe_" + differs), where)
    turns = []
    for key in ("r1", "r2", "r3"):
        own = f"{safety}_{key}"
        turns.append(source.text(dialogue, own if key == differs and dialogue.get(own) else key, where))
    return turns


def _safemtdata(source: Source, row: Entry, at: At) -> Iterator[Scenario]:
    """Yield a row of SafeMTData: Attack_600 (`multi_turn_queries`) or 1K (`conversations`)."""
    key = "multi_turn_queries" if source.split == "Attack_600" else "conversations"
    source.need(row, (key,), at.where)
    turns = row[key]
    if key == "conversations":
        turns = _user(source, turns, at.where, {"human": "user", "gpt": "assistant"})
    elif not isinstance(turns, list) or not all(isinstance(t, str) and t.strip() for t in turns):
        raise source.error(at.where, f"{key}={str(turns)[:60]!r}, expected a list of texts")
    # `query_id` is not one key across the two files; the plain query is.
    plain = source.text(row, "plain_query", at.where)
    yield source.scenario(
        turns,
        at.where,
        kind="red_team",
        group=plain[:80],
        key=row.get("id", at.where),
        goal=plain,
        category=str(row["category"]),
    )


def _safedialbench(source: Source, row: Entry, at: At) -> Iterator[Scenario]:
    """Yield a row of SafeDialBench, in English or Chinese."""
    if not isinstance(row["history"], list):
        raise source.error(at.where, f"history is a {type(row['history']).__name__}, expected a list")
    for turn in row["history"]:
        source.need(turn, ("user", "bot"), at.where)
    yield source.scenario(
        [source.text(turn, "user", at.where) for turn in row["history"]],
        at.where,
        kind="red_team",
        key=f"{at.file}/{row['id']}",
        category=f"{row['task']}/{row['scene']}",
        mechanism=str(row["method"]),
    )


def _cosafe(source: Source, row: Any, at: At) -> Iterator[Scenario]:
    """Yield a line of CoSafe: a list of messages, one file a category."""
    if not isinstance(row, list):
        raise source.error(at.where, f"is a {type(row).__name__}, expected a list of messages")
    yield source.scenario(_user(source, row, at.where), at.where, kind="red_team", category=at.file)


def _hh_rlhf(source: Source, row: Entry, at: At) -> Iterator[Scenario]:
    """Yield a row of hh-rlhf; the user's turns are those of `chosen`. Helpful subsets are benign."""
    subset = source.split.split("/")[0]
    yield source.scenario(
        _hh_turns(source, source.text(row, "chosen", at.where), at.where),
        at.where,
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


def _mhj(source: Source, row: Entry, at: At) -> Iterator[Scenario]:
    """Yield a row of MHJ, dialogues of human red-teamers, without system prompts."""
    yield source.scenario(
        _user(source, _mhj_messages(source, row, at.where), at.where),
        at.where,
        kind="red_team",
        group=str(row.get("question_id") or at.where),
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


def _mmds(source: Source, row: Entry, at: At) -> Iterator[Scenario]:
    """Yield a row of MMDS (LLaVAShield); pictures come with the turns that name them.

    `user_rating` says whether the user asks for harm. It is null where only the assistant was rated; what the
    user wants is not known then. The layout is that of the hub's card (leost233/MMDS at 76a3496) and of
    GuanWang096/rggpbft-llm-safety-evaluation at af0b10d, which reads the release.
    """
    if str(row["set"]).strip().lower() != source.split:
        return
    rating = str(row["user_rating"] or "null").strip().lower()
    source.choice(rating, tuple(_MMDS_KINDS), "user_rating", at.where)
    turns = _user(source, row["conversations"], at.where)
    named = [message.get("image") or [] for message in row["conversations"] if message["role"] == "user"]
    pictures = [[names] if isinstance(names, str) else names for names in named]
    label = str(row.get("user_dimension") or row.get("assistant_dimension") or "null").strip()
    yield source.scenario(
        turns,
        at.where,
        [source.image(name, at.where) for names in pictures for name in names],
        kind=_MMDS_KINDS[rating],
        key=f"{row['id']} ({at.where})",  # two rows share their id with another one
        category="" if label == "null" or label.startswith("NA") else label,
        shown=[len(names) for names in pictures],
    )


_MMDS_KINDS: Final = {"safe": "benign", "unsafe": "red_team", "null": "obfuscated"}


def _red_queen(source: Source, row: Entry, at: At) -> Iterator[Scenario]:
    """Yield a row of Red Queen: a concealed request in one to five turns, and in the ablation openly.

    Of its files those of gpt_4o are read, which hold messages; those of other models hold the same turns in
    the chat template of each. Layout: kriti-hippo/red_queen at c2910b5, `red_queen_attack_generation.py` and
    the files of `Red_Queen_Ablation`; `Data/Red_Queen_Attack.zip` has to be unpacked.
    """
    yield source.scenario(
        _user(source, row["query"], at.where),
        at.where,
        kind="red_team",
        group=source.text(row, "action", at.where)[:80],
        goal=row["action"],
        category=str(row["category"]),
        mechanism=str(row.get("type", "")),
    )


#: Stands in the turn that comes with the picture.
_REVEAL_PICTURE: Final = "<img_turn>"


def _reveal(source: Source, row: Entry, at: At) -> Iterator[Scenario]:
    """Yield a row of REVEAL; the hidden goal is the single-turn seed that the dialogue was made of.

    Layout: Madhur-1/RevealVLLMSafetyEval at a91a582, `SetCreationPipeline/Data`; `GenConv` is a list written
    in Python.
    """
    written = source.text(row, "GenConv", at.where)
    try:
        turns = ast.literal_eval(written)
    except (SyntaxError, ValueError) as error:
        raise source.error(
            at.where, f"GenConv={written[:40]!r}, expected a list in Python ({error})"
        ) from error
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise source.error(at.where, f"GenConv={written[:40]!r}, expected a list of texts")
    shown = [int(_REVEAL_PICTURE in turn) for turn in turns]
    if sum(shown) != 1:
        raise source.error(at.where, f"GenConv has {sum(shown)} turns with {_REVEAL_PICTURE}, expected one")
    said = [turn.replace(_REVEAL_PICTURE, "").strip() for turn in turns]
    if not all(said):
        raise source.error(at.where, "GenConv has a blank turn")
    yield source.scenario(
        said,
        at.where,
        [source.image(row["MinedImages"], at.where)],
        kind="red_team",
        key=f"{at.file}/{row['Index']}",
        goal=source.text(row, "GeneratedSeed", at.where),
        category=row["PolicyName"],
        shown=shown,
    )


SPECS: Final = (
    Spec(
        "safemt", "SafeMT", "CC-BY-NC-4.0 (non-commercial)", ("1_turn", "2_turn", "4_turn"),
        each_row(
            ("Data/{split}.json", "{split}.json"), ("id", "scenario", "image_path", "dialogue", "question"),
            _safemt,
        ),
        layout="Data/{1,2,4}_turn.json and Data/images/",
    ),
    Spec(
        "mtmcs-bench", "MTMCS-Bench", "not stated in the release", ("type_a", "type_b"),
        each_row(
            ("data/{split}-*.parquet", "{split}*.parquet", "*/{split}-*.parquet"),
            ("id", "image", "variant_images", "multimodal_dialogue", "unimodal_dialogue"), _mtmcs,
        ),
        layout="data/{type_a,type_b}-*.parquet",
    ),
    Spec(
        "safemtdata", "SafeMTData", "MIT", ("Attack_600", "1K"),
        each_row(
            ("SafeMTData/{name}.json", "{name}.json"), ("plain_query", "category"), _safemtdata,
            {"Attack_600": "Attack_600", "1K": "SafeMTData_1K"},
        ),
        images=False, layout="SafeMTData/{Attack_600,SafeMTData_1K}.json",
    ),
    Spec(
        "safedialbench", "SafeDialBench", "not stated in the release", ("en", "zh"),
        each_row(
            ("data/complete/datasets_{split}.jsonl", "datasets_{split}.jsonl", "data/by_task/{name}/*.jsonl",
             "by_task/{name}/*.jsonl"),
            ("task", "method", "model_type", "scene", "id", "history"), _safedialbench,
            {"en": "english", "zh": "chinese"},
        ),
        images=False, default="en", layout="data/complete/datasets_{en,zh}.jsonl",
    ),
    Spec(
        "cosafe", "CoSafe", "not stated in the release", ("test",),
        each_row(("CoSafe datasets/*.json", "*.json"), (), _cosafe, lines=True),
        images=False, layout="CoSafe datasets/<category>.json",
    ),
    Spec(
        "hh-rlhf", "hh-rlhf", "MIT", _HH,
        each_row(("{split}.jsonl.gz", "{split}.jsonl"), ("chosen", "rejected"), _hh_rlhf),
        images=False, layout="<subset>/{train,test}.jsonl.gz",
    ),
    Spec(
        "mhj", "MHJ", "CC-BY-NC-4.0 (non-commercial)", ("test",),
        each_row(("harmbench_behaviors.csv", "*.csv"), ("message_0",), _mhj, one=True),
        images=False, layout="harmbench_behaviors.csv (or one other .csv)",
    ),
    Spec(
        "mmds", "MMDS", "CC-BY-NC-4.0 (non-commercial)", ("train", "val", "test"),
        each_row(
            ("mmds.jsonl",), ("id", "set", "conversations", "user_rating"), _mmds,
        ),
        layout="mmds.jsonl and images/",
    ),
    Spec(
        "red-queen", "Red Queen", "not stated in the release", ("attack", "ablation"),
        each_row(
            ("**/gpt_4o_{split}_data.json",), ("action", "query", "turn", "category"), _red_queen,
            one=True,
        ),
        images=False, default="attack",
        layout="gpt_4o_attack_data.json in any folder (Data/Red_Queen_Attack.zip unpacked), "
               "Red_Queen_Ablation/gpt_4o_ablation_data.json",
    ),
    Spec(
        "reveal", "REVEAL", "Apache-2.0; pictures mined from the web, their rights not stated",
        ("misinformation", "sexual", "violence"),
        each_row(
            ("SetCreationPipeline/Data/ConvGen/{split}_harm.tsv",),
            ("PolicyName", "MinedImages", "Index", "GeneratedSeed", "GenConv"), _reveal,
        ),
        layout="SetCreationPipeline/Data/ConvGen/{misinformation,sexual,violence}_harm.tsv and MinedImages/",
    ),
)  # fmt: skip
