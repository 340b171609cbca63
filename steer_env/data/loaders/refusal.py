"""Over-refusal: XSTest (text) and MOSSBench (pictures). Most rows are harmless and must be answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from steer_env.data.loaders.base import Source, Spec
from steer_env.scenarios import Scenario

_XSTEST: Final = ("id", "prompt", "type", "label", "focus", "note")
_MOSS: Final = ("image", "question", "metadata", "pid")


def xstest(source: Source) -> Iterator[Scenario]:
    """Yield XSTest; the unsafe contrasts are of kind "obfuscated"."""
    seen: set[str] = set()
    for where, row in source.csv(source.file("xstest_prompts.csv"), _XSTEST):
        label = source.choice(row["label"], ("safe", "unsafe"), "label", where)
        if row["id"] in seen:
            raise source.error(where, f"id={row['id']!r} occurs twice")
        seen.add(row["id"])
        prompt = source.text(row, "prompt", where)
        # A safe prompt and its unsafe contrast share the focus word.
        group = row["focus"] or row["id"]
        kind = "benign" if label == "safe" else "obfuscated"
        if source.split in ("all", label):
            yield source.scenario(
                [prompt], where, kind=kind, group=group, key=row["id"], category=row["type"]
            )


def mossbench(source: Source) -> Iterator[Scenario]:
    """Yield MOSSBench: harmless questions about pictures that look alarming."""
    path = source.file("images_information/information.json", "data/images_information/information.json",
                       "information.json")  # fmt: skip
    for where, _, row in source.json_object(path):
        source.need(row, _MOSS, where)
        source.need(row["metadata"], ("over",), f"{where}.metadata")
        yield source.scenario(
            [source.text(row, "question", where)],
            where,
            [source.image(row["image"], where, ".", "data")],
            kind="benign",
            key=row["pid"],
            category=str(row["metadata"]["over"]),
        )


SPECS: Final = (
    Spec("xstest", "XSTest", "CC-BY-4.0", ("all", "safe", "unsafe"), xstest, images=False, default="all",
         layout="xstest_prompts.csv"),
    Spec("mossbench", "MOSSBench", "CC-BY-SA-4.0 (test set only: no training)", ("test",), mossbench,
         layout="images_information/information.json and images/"),
)  # fmt: skip
