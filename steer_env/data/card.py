"""The dataset card: what was built, how, and what it must not be used for. For programs it is Croissant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from steer_env.data.table import fields

#: Name of the Croissant file in the folder of a build.
CROISSANT: Final = "croissant.json"
#: The context that Croissant 1.0 prescribes (Appendix 1 of docs.mlcommons.org/croissant).
_CONTEXT: Final = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

_FRONT = """---
license: apache-2.0
language: [en]
pretty_name: STEER (built-in world)
task_categories: [visual-question-answering]
tags: [safety, multi-turn, multimodal, red-teaming, synthetic]
configs:
{configs}---
"""

_BODY = """
# STEER from the built-in world

Multi-turn dialogues about a picture, made by `steer-env data build` (seed {seed}). Everything in them is
invented: devices, marks and procedures exist nowhere, and a "leak" is a made-up marker word. There is no
operational harm in any row.

{table}

Every dialogue has 2 to 10 user turns. Of each group (one scene) there is a benign, an obfuscated and a
red-team dialogue. Splits are made by group and picture: no group and no picture is in two splits (checked at
build time). SFT, RL and bench share one generator, so wording and drawing style are alike. The split `ood`
has another one: other devices, words, strategies, techniques, pictures and planner. `steer-env data audit`
measures how much any two have in common.

## Bench subsets

The five subsets mirror how risk is hidden; the names are those of the paper's files.

| file | mechanism | dialogues |
|---|---|---|
{subsets}

## Files

- `sft/steer_sft.jsonl`: bench schema; `messages_fixed` has the answers too, those of the world's ideal
  policy.
- `rl/steer_rl.jsonl`: RL schema, user turns only.
- `bench/steer_*.jsonl`: bench schema, user turns only.
- `ood/steer_ood.jsonl`: bench schema, user turns only.
- `images/<split>/`: the pictures the rows name, relative to this folder.
- `data/*.parquet`: the same rows as one table, pictures inside, for `datasets.load_dataset`.
- `manifest.json`: settings, counts, SHA-256 of every file.
- `croissant.json`: the Parquet files for programs, in MLCommons' Croissant 1.0.

What the paper's schemas have no place for is under the key `steer_env`. Ids are hashes of the content, the
same in every process. `steer_env.data.load_dataset_scenarios("steer-bench", folder)` (also `steer-sft`,
`steer-rl`) reads the rows back, ground truth included.

## Canary

Every row holds this line:

    {canary}

## Intended use and limits

For testing and demonstrating training and evaluation of multi-turn safety on small models. Bench and ood are
held out: their licence texts say so, and `check_training_allowed` refuses to train on them. Results on this
world say nothing about safety on real content. The language is a small closed set of sentence frames, so
n-grams repeat far more than in text written by people.

Licence: Apache-2.0.
"""

#: Splits of the card that have several files.
_ORDER = ("sft", "rl", "bench", "ood")


def text(manifest: Mapping[str, Any]) -> str:
    """Return the card of a build, from its manifest."""
    splits = manifest["splits"]
    rows = [
        "| split | dialogues | mean turns | groups | pictures | benign / obfuscated / red team |",
        "|---|---|---|---|---|---|",
    ]
    for name in _ORDER:
        s = splits[name]
        kinds = " / ".join(str(s["kinds"].get(kind, 0)) for kind in ("benign", "obfuscated", "red_team"))
        cells = (
            name,
            f"{s['dialogues']:,}",
            f"{s['mean_turns']:.2f}",
            f"{s['groups']:,}",
            f"{s['images']:,}",
            kinds,
        )
        rows.append(f"| {' | '.join(cells)} |")
    bench = splits["bench"]
    subsets = [
        f"| steer_{subset}.jsonl | {mechanism} | {count:,} |"
        for (subset, count), mechanism in zip(bench["subsets"].items(), _MECHANISMS, strict=True)
    ]
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n"
        f"  - split: {'test' if name in ('bench', 'ood') else 'train'}\n"
        f"    path: data/{name}-*.parquet\n"
        for name in _ORDER
    )
    return _FRONT.format(configs=configs) + _BODY.format(
        seed=manifest["settings"]["seed"],
        table="\n".join(rows),
        subsets="\n".join(subsets),
        canary=manifest["canary"],
    )


_MECHANISMS = (
    "category: a plain question about what is in the picture",
    "typography: the object is a word on a card, the text only points at it",
    "image_only: the danger is only in the picture",
    "mixed: harmful and helpful requests side by side",
    "late_risk: risk at an arbitrary turn after a safe opening",
)


def croissant(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Croissant 1.0 description of a build, from its manifest: files, columns and licence.

    Each split is a record set. There is no date, so that the same settings give the same bytes.
    """
    files = sorted(name for name in manifest["files"] if name.startswith("data/"))
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "steer",
        "description": "Multi-turn dialogues about a picture, made from a built-in, invented world.",
        "license": "https://www.apache.org/licenses/LICENSE-2.0",
        "citeAs": "SaFeR-Steer: Evolving Multi-Turn MLLMs via Synthetic Bootstrapping and Feedback Dynamics "
        "(arXiv 2604.16358), whose data this follows",
        "version": "1.0.0",
        "isLiveDataset": False,
        "distribution": [
            *(_file(name, manifest["files"][name]) for name in files),
            *({"@type": "cr:FileSet", "@id": _set(split), **_names(split)} for split in _ORDER),
        ],
        "recordSet": [_records(split) for split in _ORDER],
    }


def _file(name: str, sha256: str) -> dict[str, Any]:
    about = {"encodingFormat": "application/x-parquet", "sha256": sha256}
    return {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, **about}


def _set(split: str) -> str:
    return f"{split}-files"


def _names(split: str) -> dict[str, str]:
    pattern = f"data/{split}-*.parquet"
    return {"name": _set(split), "encodingFormat": "application/x-parquet", "includes": pattern}


def _records(split: str) -> dict[str, Any]:
    found = []
    for column, (kind, parts) in fields().items():
        field = _field(f"{split}/{column}", split, column, kind.removesuffix("[]"))
        if parts:
            field.pop("dataType")
            field["subField"] = [
                _field(f"{split}/{column}/{part}", split, column, "sc:Text", part) for part in parts
            ]
        found.append({**field, "repeated": True} if kind.endswith("[]") else field)
    return {"@type": "cr:RecordSet", "@id": split, "name": split, "field": found}


def _field(id: str, split: str, column: str, kind: str, part: str = "") -> dict[str, Any]:
    part = "bytes" if kind == "sc:ImageObject" else part
    source: dict[str, Any] = {"fileSet": {"@id": _set(split)}, "extract": {"column": column}}
    source |= {"transform": {"jsonPath": part}} if part else {}
    return {"@type": "cr:Field", "@id": id, "name": id, "dataType": kind, "source": source}
