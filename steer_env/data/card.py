"""The dataset card: what was built, how, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
