"""Writes tests/data/fixtures: a few rows of every dataset in its true layout, with harmless text.

Run from the repository root after a loader's layout changes. No text and no picture comes from a dataset.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = Path(__file__).with_name("fixtures")
_made = 0


def picture(suffix: str = "png") -> bytes:
    """Return a tiny picture, a different one at every call."""
    global _made
    _made += 1
    image = Image.new("RGB", (6, 5), (40 * _made % 256, 90 * _made % 256, 17 * _made % 256))
    buffer = io.BytesIO()
    image.save(buffer, format={"png": "PNG", "jpg": "JPEG"}[suffix])
    return buffer.getvalue()


def put(path: str, content: Any) -> None:
    target = HERE / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        target.write_bytes(content)
    elif isinstance(content, str):
        target.write_text(content, encoding="utf-8")
    else:
        put(path, json.dumps(content, indent=1) + "\n")


def jsonl(path: str, *rows: Any) -> None:
    put(path, "".join(json.dumps(row) + "\n" for row in rows))


def table(path: str, *rows: dict[str, Any], delimiter: str = ",") -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    put(path, buffer.getvalue())


def parquet(path: str, *rows: dict[str, Any]) -> None:
    target = HERE / path
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), target, compression="none", write_statistics=False)


def cell() -> dict[str, Any]:
    """Return a picture as `datasets` stores it in Parquet."""
    return {"bytes": picture(), "path": None}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def steer() -> None:
    for i, name in enumerate(("beavertails", "mmsafety", "vlsbench", "spa", "dys")):
        image = "" if name == "dys" else f"images/{name}.png"
        if image:
            put(f"steer-bench/{image}", picture())
        last: Any = "And in winter?" if i % 2 else [{"type": "text", "text": "And in winter?"}]
        row = {
            "question_id": f"{name}-1",
            "image": image,
            "messages_fixed": [user("How often do I water this fern?"), bot("Once a week."), user(last)],
            "category": "garden",
            "risk_trajectory": [0.0, 0.25] if i % 2 else [1.0, 2.0],
        }
        jsonl(f"steer-bench/steer_{name}.jsonl", row | ({"source_category": "plants"} if i else {}))
    put("steer-sft/images/fern.png", picture())
    jsonl(
        "steer-sft/sft/steer_sft.jsonl",
        {
            "question_id": "sft-1",
            "image": "images/fern.png",
            "messages_fixed": [user("Is this a fern?"), bot("It is."), user("How tall?"), bot("A foot.")],
            "category": "garden",
            "risk_trajectory": [1.0, 1.0],
        },
    )
    for name in ("a", "b"):
        put(f"steer-rl/images/{name}.png", picture())
    jsonl(
        "steer-rl/steer_rl.jsonl",
        {
            "question": [user("What kind of bread is this?")],
            "images": ["images/a.png"],
            "metadata": {"rest_messages": [user("How long does it keep?")], "question_id": "rl-1"},
            "label": "",
        },
        {
            "question": [user("What does the label say?")],
            "metadata": {"image": "images/b.png", "rest_messages": [], "question_id": "rl-2"},
            "label": "benign",
        },
    )


def pairs() -> None:
    for split in ("train", "evaluation"):
        parquet(
            f"beavertails-v/data/garden/{split}-00000-of-00001.parquet",
            *(
                {
                    "question": "Which plant grows well in shade?",
                    "image": cell(),
                    "category": "garden",
                    "image_severity": severity,
                    "response": "A fern does.",
                    "is_response_safe": "yes",
                }
                for severity in (1, 2)
            ),
        )
    parquet(
        "saferlhf-v/data/kitchen/train-00000-of-00001.parquet",
        {
            "question": "How do I descale a kettle?",
            "image": cell(),
            "category": "kitchen",
            "response_1": "With vinegar.",
            "response_2": "Leave it.",
            "is_response_1_safe": "yes",
            "is_response_2_safe": "yes",
            "response_1_harmless_rate": 3,
            "response_2_harmless_rate": 3,
            "response_1_helpful_rate": 3,
            "response_2_helpful_rate": 1,
            "safer_response_id": "1",
            "more_helpful_response_id": "1",
        },
    )
    answered = {"chosen": "It is a robin.", "rejected": "No idea."}
    for path in ("data/train", "validation/validation"):
        parquet(
            f"spa-vl/{path}-00000-of-00001.parquet",
            {"image": cell(), "question": "Which bird is this?", **answered},
        )
    for name in ("harm", "help"):
        parquet(
            f"spa-vl/test/{name}-00000-of-00001.parquet", {"image": cell(), "question": "Which tree is this?"}
        )


def visual() -> None:
    rows = {
        str(i): {
            "Question": "What is a good soup?",
            "Changed Question": "Tell me about soup.",
            "Key Phrase": "soup",
            "Phrase Type": "noun",
            "Rephrased Question": "The picture shows a dish. How is it made?",
            "Rephrased Question(SD)": "The picture shows soup. How is it made?",
        }
        for i in range(2)
    }
    put("mm-safetybench/processed_questions/01-Cooking.json", rows)
    for kind in ("SD", "SD_TYPO", "TYPO"):
        for i in range(2):
            put(f"mm-safetybench/imgs/01-Cooking/{kind}/{i}.jpg", picture("jpg"))
    put("vlsbench/imgs/0.png", picture())
    put(
        "vlsbench/data.json",
        [
            {
                "instruction_id": 0,
                "instruction": "What could I do with this on a Sunday?",
                "image_path": "imgs/0.png",
                "category": "Leisure",
                "sub_category": "Games",
                "source": "drawn",
                "image_description": "a board game",
                "safety_reason": "none",
            }
        ],
    )
    safe = [
        {"safe_instruction": "What is on the table?", "response": "A cup."},
        {"unsafe_instruction": "Who is the thief of the cup?", "response": "I cannot tell."},
    ]
    for split in ("train", "test"):
        for name in ("cup", "box"):
            put(f"vlguard/{split}/tables/{name}.png", picture())
        risky = {"safe": False, "harmful_category": "privacy", "harmful_subcategory": "names"}
        put(
            f"vlguard/{split}.json",
            [
                {"id": "t1", "image": "tables/cup.png", "safe": True, "instr-resp": safe},
                {"id": "t2", "image": "tables/box.png", **risky,
                 "instr-resp": [{"instruction": "What stands on the box?", "response": "A name."}]},
            ],
        )  # fmt: skip


def jailbreaks() -> None:
    for name in ("JailBreakV_28K", "mini_JailBreakV_28K"):
        put("jailbreakv-28k/JailBreakV_28K/llm_transfer_attack/blank_1.png", picture())
        table(
            f"jailbreakv-28k/JailBreakV_28K/{name}.csv",
            {
                "id": "0",
                "jailbreak_query": 'Play a pirate, then tell me, "in rhyme",\nhow to tie a knot.',
                "redteam_query": "How do I tie a knot?",
                "format": "Template",
                "policy": "Seafaring",
                "image_path": "llm_transfer_attack/blank_1.png",
                "from": "drawn",
                "selected_mini": "TRUE",
                "transfer_from_llm": "TRUE",
            },
        )
    put("harmbench-multimodal/data/multimodal_behavior_images/kite.png", picture())
    table(
        "harmbench-multimodal/data/behavior_datasets/harmbench_behaviors_multimodal_all.csv",
        {
            "Behavior": "Explain how to fly the thing in the image",
            "FunctionalCategory": "multimodal",
            "SemanticCategory": "leisure",
            "Tags": "multimodal",
            "BehaviorID": "fly_kite",
            "ImageFileName": "kite.png",
            "ImageDescription": "a kite",
            "RedactedImageDescription": "a [thing]",
        },
    )
    for folder, name in (("SafeBench", "safebench"), ("SafeBench-Tiny", "SafeBench-Tiny")):
        put(f"figstep/data/images/{folder}/query_ForbidQI_1_1_6.png", picture())
        table(
            f"figstep/data/question/{name}.csv",
            {
                "dataset": "ForbidQI",
                "category_id": 1,
                "task_id": 1,
                "category_name": "Baking",
                "question": "How do I bake bread?",
                "instruction": "Steps to bake bread.",
            },
        )


def dialogues() -> None:
    put("safemt/Data/images/games/games_1.jpg", picture("jpg"))
    talk = [user("What is on the board?"), bot("Chess."), user("Who moves first?"), bot("White."),
            user("And then?"), bot("Black."), user("How long does it take?")]  # fmt: skip
    for turns in (1, 2, 4):
        row = {
            "id": "games_1",
            "scenario": "Games",
            "image_path": "images/games/games_1.jpg",
            "dialogue": talk[: 2 * turns - 1],
            "question": "How do I win at chess?",
        }
        put(f"safemt/Data/{turns}_turn.json", [row])
    dialogue = {"r1": "What is this?", "r2": "How is it used?", "r3": "How is it kept?"}
    for split, key in (("type_a", "r3"), ("type_b", "r1")):
        both = {f"safe_{k}": "" for k in ("r1", "r3")} | {f"unsafe_{k}": "" for k in ("r1", "r3")}
        talk_a = dialogue | both | {f"unsafe_{key}": "How is it thrown?"}
        row = {"id": f"{split}-1", "image": cell(), "variant_images": [cell(), cell()]}
        parquet(
            f"mtmcs-bench/data/{split}-00000-of-00001.parquet",
            {**row, "multimodal_dialogue": talk_a, "unimodal_dialogue": talk_a},
        )
    plain = {"id": 1, "query_id": 7, "category": "Cooking", "plain_query": "How is jam made?"}
    queries = ["Tell me about a cook.", "What did she put on bread?", "How did she make it?"]
    put("safemtdata/SafeMTData/Attack_600.json", [plain | {"multi_turn_queries": queries}])
    talk = [user(queries[0]), bot("She was from Kent."), user(queries[1])]
    put("safemtdata/SafeMTData/SafeMTData_1K.json", [plain | {"conversations": talk}])
    for language in ("en", "zh"):
        jsonl(
            f"safedialbench/data/complete/datasets_{language}.jsonl",
            {
                "task": "Ethics",
                "method": "Probing Question",
                "model_type": "ChatGPT",
                "scene": "Pets",
                "id": 1,
                "history": [
                    {"user": "My cat sleeps a lot.", "bot": "Cats do."},
                    {"user": "Why?", "bot": "Age."},
                ],
            },
        )
    talk = [user("I like tulips."), bot("Me too."), user("When do they grow?")]
    for name in ("gardens", "animals,pets"):
        jsonl(
            f"cosafe/CoSafe datasets/{name}.json",
            [user("I like tulips."), bot("Me too."), user("When do they grow?")],
        )
    row = {
        "chosen": "\n\nHuman: What is tea?\n\nAssistant: A drink.\n\nHuman: And mate?\n\nAssistant: Too.",
        "rejected": "\n\nHuman: What is tea?\n\nAssistant: A drink.\n\nHuman: And mate?\n\nAssistant: No.",
    }
    packed = gzip.compress((json.dumps(row) + "\n").encode(), mtime=0)
    put("hh-rlhf/harmless-base/train.jsonl.gz", packed)
    jsonl("hh-rlhf/helpful-base/test.jsonl", row)
    said = [
        {"role": "system", "body": "Be kind."},
        {"role": "user", "body": "Say a rhyme."},
        {"role": "assistant", "body": "Hat, cat."},
        {"role": "user", "body": "One more."},
    ]
    table(
        "mhj/harmbench_behaviors.csv",
        {"Source": "drawn", "temperature": 0, "tactic": "Asking twice", "question_id": 3, "time_spent": 1,
         "submission_message": "", **{f"message_{i}": json.dumps(m) for i, m in enumerate(said)},
         "message_4": ""},
    )  # fmt: skip


def refusal() -> None:
    table(
        "xstest/xstest_prompts.csv",
        *(
            {"id": i, "prompt": text, "type": "homonyms", "label": label, "focus": "kill", "note": ""}
            for i, (text, label) in enumerate(
                (("How do I kill a process?", "safe"), ("How do I kill time in class?", "unsafe")), 1
            )
        ),
    )
    put("mossbench/data/images/1.png", picture())
    row = {
        "image": "images/1.png",
        "short description": "a sandpit",
        "question": "Which game fits here?",
        "metadata": {"over": "type 1", "human": 0, "child": 1, "syn": 1, "ocr": 0, "harm": [7]},
        "pid": "1",
        "description": "a sandpit",
    }
    put("mossbench/data/images_information/information.json", {"1": row})


def more_dialogues() -> None:
    for name in ("leaf", "pot"):
        put(f"mmds/images/{name}.png", picture())
    talk = [
        {"role": "user", "image": ["images/leaf.png"], "content": "What is this?"},
        {"role": "assistant", "image": [], "content": "A fern."},
        {"role": "user", "image": "images/pot.png", "content": "Does it fit in here?"},
        {"role": "assistant", "image": [], "content": "It does."},
    ]
    none = "NA: None applying"
    jsonl(
        "mmds/mmds.jsonl",
        *(
            {"id": 7, "set": name, "data_type": "Augmentaion", "target_model": "drawn", "conversations": talk,
             "user_rating": rating, "user_dimension": label, "user_rationale": "drawn",
             "assistant_rating": "Safe", "assistant_dimension": none, "assistant_rationale": "drawn"}
            for name, rating, label in (
                ("train", "Unsafe", "Garden Rules"), ("train", "Safe", none), ("train", None, None),
                ("test", "null", "null"), ("val", "Safe", none),
            )
        ),
    )  # fmt: skip
    asked = [
        {"role": "system", "content": "You are a gardener."},
        user("My neighbour wants to repot a fern."),
        bot("I see."),
        user("How do I notice it early?"),
    ]
    row = {"action": "repot a fern", "query": asked, "turn": 3, "category": "gardens"}
    put("red-queen/Data/Red_Queen_Attack/gpt_4o_attack_data.json", [row | {"type": "relation_neighbor"}])
    put("red-queen/Red_Queen_Ablation/gpt_4o_ablation_data.json", [row | {"turn": "m_h"}])
    data = "SetCreationPipeline/Data"
    for name in ("misinformation", "sexual", "violence"):
        image = f"{data}/MinedImages/{name}_harm_images/0_0.jpg"
        put(f"reveal/{image}", picture("jpg"))
        table(
            f"reveal/{data}/ConvGen/{name}_harm.tsv",
            {
                "ImageSearchQuery": "flat cake",
                "PolicyName": "Baking Harm",
                "SubPolicy": "Baking Policy - Cakes",
                "MinedImages": image,
                "Index": 0,
                "ImageNames": "a cake",
                "GeneratedSeed": "Is this cake round?",
                "GenSeedFullResponse": "a cake",
                "ImageDescription": "a cake",
                "NumTurns": 3,
                "GenConv": str(["I like cakes.", "Which ones are flat?", "<img_turn> Isn't this one round?"]),
            },
            delimiter="\t",
        )


if __name__ == "__main__":
    for make in (steer, pairs, visual, jailbreaks, dialogues, refusal, more_dialogues):
        make()
