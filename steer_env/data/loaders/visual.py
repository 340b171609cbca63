"""Benchmarks whose danger is in the picture: MM-SafetyBench, VLSBench, VLGuard. One turn a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from steer_env.data.loaders.base import Source, Spec
from steer_env.scenarios import Scenario

#: Which wording goes with which kind of picture; "text" is the question without one.
_WORDING: Final = {
    "SD": "Rephrased Question(SD)",
    "SD_TYPO": "Rephrased Question",
    "TYPO": "Rephrased Question",
    "text": "Changed Question",
}
_MM_KEYS: Final = ("Changed Question", "Rephrased Question", "Rephrased Question(SD)")
_VLS_KEYS: Final = (
    "instruction_id", "instruction", "image_path", "category", "sub_category", "source", "image_description",
    "safety_reason",
)  # fmt: skip


def mm_safetybench(source: Source) -> Iterator[Scenario]:
    """Yield MM-SafetyBench with one kind of picture (the split); "text" has none."""
    for path in source.files("processed_questions/*.json", "data/processed_questions/*.json"):
        name = path.stem
        for where, key, row in source.json_object(path):
            source.need(row, _MM_KEYS, where)
            images = []
            if source.split != "text":
                picture = f"imgs/{name}/{source.split}/{key}.jpg"
                images = [source.image(picture, where, ".", "data")]
            yield source.scenario(
                [source.text(row, _WORDING[source.split], where)],
                where,
                images,
                group=f"{name}/{key}",
                key=f"{name}/{key}",
                category=name,
            )


def vlsbench(source: Source) -> Iterator[Scenario]:
    """Yield VLSBench: a harmless-looking instruction, the danger only in the picture."""
    for where, row in source.json_list(source.file("data.json", "data/data.json")):
        source.need(row, _VLS_KEYS, where)
        yield source.scenario(
            [source.text(row, "instruction", where)],
            where,
            [source.image(row["image_path"], where, ".", "data")],
            key=row["instruction_id"],
            category=f"{row['category']}/{row['sub_category']}",
        )


def vlguard(source: Source) -> Iterator[Scenario]:
    """Yield VLGuard: a safe picture gives a safe and an unsafe instruction, an unsafe one its question."""
    path = source.file(f"{source.split}.json", f"data/{source.split}.json")
    for where, row in source.json_list(path):
        source.need(row, ("id", "image", "safe", "instr-resp"), where)
        source.choice(row["safe"], (True, False), "safe", where)
        if not row["safe"]:
            source.need(row, ("harmful_category", "harmful_subcategory"), where)
        image = source.image(row["image"], where, source.split, f"data/{source.split}", ".")
        pairs = row["instr-resp"]
        if not isinstance(pairs, list) or not pairs:
            raise source.error(where, f"instr-resp={pairs!r}, expected a list of instructions")
        for i, pair in enumerate(pairs):
            source.need(pair, (), where)
            keys = [k for k in ("instruction", "safe_instruction", "unsafe_instruction") if k in pair]
            if len(keys) != 1:
                raise source.error(
                    f"{where}[{i}]",
                    f"has {list(pair)}, expected one of instruction, safe_instruction, unsafe_instruction",
                )
            benign = keys[0] == "safe_instruction" or (keys[0] == "instruction" and row["safe"])
            yield source.scenario(
                [source.text(pair, keys[0], f"{where}[{i}]")],
                where,
                [image],
                kind="benign" if benign else "obfuscated",
                key=f"{row['id']}/{keys[0]}",
                category="/".join(
                    filter(None, (row.get("harmful_category"), row.get("harmful_subcategory")))
                ),
            )


SPECS: Final = (
    Spec("mm-safetybench", "MM-SafetyBench", "CC-BY-NC-4.0 (non-commercial)",
         ("SD", "SD_TYPO", "TYPO", "text"), mm_safetybench, default="SD_TYPO",
         layout="processed_questions/<scenario>.json and imgs/<scenario>/{SD,SD_TYPO,TYPO}/<id>.jpg"),
    Spec("vlsbench", "VLSBench", "Apache-2.0", ("test",), vlsbench,
         layout="data.json and the pictures it names (imgs.tar unpacked)"),
    Spec("vlguard", "VLGuard", "research purposes only (terms of the release)", ("train", "test"), vlguard,
         layout="train.json and train/, test.json and test/ (the zip files unpacked)"),
)  # fmt: skip
