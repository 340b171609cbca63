"""Preference data on pictures: BeaverTails-V, SafeRLHF-V, SPA-VL. One question and one picture a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from steer_env.data.loaders.base import Source, Spec
from steer_env.scenarios import Scenario

_BEAVERTAILS: Final = ("question", "image", "category", "image_severity", "response", "is_response_safe")
_SAFERLHF: Final = (
    "question", "image", "response_1", "response_2", "is_response_1_safe", "is_response_2_safe",
    "response_1_harmless_rate", "response_2_harmless_rate", "response_1_helpful_rate",
    "response_2_helpful_rate", "safer_response_id", "more_helpful_response_id",
)  # fmt: skip


def beavertails_v(source: Source) -> Iterator[Scenario]:
    """Yield BeaverTails-V; the same question comes with pictures of different severity."""
    paths = source.files(f"data/*/{source.split}-*.parquet", f"data/{source.split}-*.parquet",
                         f"*/{source.split}-*.parquet", f"{source.split}*.parquet")  # fmt: skip
    for where, row in source.parquet(paths, _BEAVERTAILS):
        source.choice(row["is_response_safe"], ("yes", "no", True, False), "is_response_safe", where)
        question = source.text(row, "question", where)
        # Pictures differ from row to row; what a split must not tear apart is the question.
        yield source.scenario(
            [question], where, [source.image(row["image"], where)],
            group=f"{row['category']}/{question}"[:80], category=str(row["category"] or ""),
        )  # fmt: skip


def saferlhf_v(source: Source) -> Iterator[Scenario]:
    """Yield the SafeRLHF-V variant of BeaverTails-V, with two rated responses a row.

    Its card types the preferences as texts, its authors' code reads them as numbers, and in some rows they
    name neither response; only the question and the picture become a scenario.
    """
    paths = source.files(f"data/*/{source.split}-*.parquet", f"data/*/{source.split}.parquet",
                         f"data/{source.split}-*.parquet", f"{source.split}*.parquet")  # fmt: skip
    for where, row in source.parquet(paths, _SAFERLHF):
        for key in ("safer_response_id", "more_helpful_response_id"):
            if not str(row[key]).lstrip("-").isdecimal():
                raise source.error(where, f"{key}={row[key]!r}, expected the number of a response")
        for key in ("is_response_1_safe", "is_response_2_safe"):
            source.choice(row[key], ("yes", "no", True, False), key, where)
        yield source.scenario(
            [source.text(row, "question", where)], where, [source.image(row["image"], where)],
            category=str(row.get("category") or ""),
        )  # fmt: skip


def spa_vl(source: Source) -> Iterator[Scenario]:
    """Yield SPA-VL; its test questions come without answers. `test/help` is harmless."""
    name = source.split.rpartition("/")[2]
    paths = source.files(f"{source.split}-*.parquet", f"data/{name}-*.parquet", f"{name}/{name}-*.parquet")
    answered = () if source.split.startswith("test") else ("chosen", "rejected")
    for where, row in source.parquet(paths, ("image", "question", *answered)):
        for key in answered:
            source.text(row, key, where)
        yield source.scenario(
            [source.text(row, "question", where)],
            where,
            [source.image(row["image"], where)],
            kind="benign" if name == "help" else "obfuscated",
        )


SPECS: Final = (
    Spec("beavertails-v", "BeaverTails-V", "CC-BY-NC-4.0 (non-commercial)", ("train", "evaluation"),
         beavertails_v, default="train", layout="data/<category>/{train,evaluation}-*.parquet"),
    Spec("saferlhf-v", "BeaverTails-V of SafeRLHF-V", "CC-BY-NC-4.0 (non-commercial)",
         ("train", "evaluation"), saferlhf_v, default="train",
         layout="data/<category>/{train,evaluation}-*.parquet"),
    Spec("spa-vl", "SPA-VL", "CC-BY-4.0", ("train", "validation", "test/harm", "test/help"), spa_vl,
         layout="data/train-*.parquet, validation/validation-*.parquet, test/{harm,help}-*.parquet"),
)  # fmt: skip
