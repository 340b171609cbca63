"""`steer-env compare`: test whether students differ on the same dialogues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from steer_env.cli.command import Command, Positional
from steer_env.cli.common import named
from steer_env.configs.base import Positive, Switch, config

_EXAMPLES = """  steer-env compare runs/base runs/sft runs/grpo
  steer-env compare runs/base runs/grpo --by mechanism --by strategy --out differences.json
  steer-env compare base.eval tuned.eval
  steer-env compare base.csv tuned.csv --out differences.json
  steer-env compare sft=runs/sft-0,runs/sft-1,runs/sft-2 grpo=runs/grpo-0,runs/grpo-1,runs/grpo-2"""


@config(frozen=True, kw_only=True)
class Compare:
    """Compare run folders of `evaluate`, the first with each other one, paired by seed.

    Each difference comes with its interval, an exact McNemar test where it holds, p-values adjusted by Holm,
    and how many dialogues it needs. Runs of other dialogues, judges or versions of world and judge are
    refused. A method trained with several seeds is given as its run folders with commas between them,
    optionally named. Of suites each part is compared with its like.

    Files of scores are compared too, whoever made them: logs of Inspect AI (.eval, .json), .csv or .parquet
    with columns sample and score, and optionally epoch, measure and cluster. They are paired by sample and
    epoch, and samples of a cluster count as one; unscored pairs are left out and counted.

    Attributes:
        methods: At least two, as [NAME=]RUN[,RUN...]; the first is the reference.
        by: Also compare within each level of kind, mechanism, strategy, technique, category, length,
            distribution or leakage.
        measure: twin (pass, of whole contrast groups), joint, safety, helpfulness, harm or over-refusal; all
            unless it is given.
        scores: Compare the scores of logs that hold our dialogues as they are, not the dialogues.
        common: Compare on the seeds all runs share.
        leakage: File leakage.jsonl of `steer-env data audit`: results by how much was in the training data.
        replicates: Bootstrap samples.
        out: File to write the results to as well, as JSON.
    """

    methods: Positional[tuple[str, ...]]
    by: tuple[str, ...] = ()
    measure: tuple[str, ...] = ()
    scores: Switch = False
    common: Switch = False
    leakage: Path | None = None
    replicates: Positive = 2000
    out: Path | None = None

    def __post_init__(self) -> None:
        if len(self.methods) < 2:
            raise ValueError(f"methods={list(self.methods)!r}, expected at least two run folders of evaluate")


def run(config: Compare) -> int:
    """Compare and print the table."""
    from steer_env.evaluation.leakage import load_leakage
    from steer_env.files import write_json
    from steer_env.play import compare, logs
    from steer_env.report.verdict import sentence

    files = [named(text) for text in config.methods]
    if all(logs.is_scores(path) for _, path in files) and (
        config.scores or not all(logs.holds_dialogues(path) for _, path in files)
    ):
        return _scores([(name or Path(path).stem, path) for name, path in files], config.out)
    parts = _arms(config.methods)
    if config.leakage is not None:
        bins = load_leakage(config.leakage)
        parts = {part: _with_leakage(arms, bins) for part, arms in parts.items()}
    measures = tuple(config.measure or compare.MEASURES)
    results = {
        part: compare.compare(
            arms, measures=measures, by=config.by, common=config.common, replicates=config.replicates
        )
        for part, arms in parts.items()
    }
    adjusted = iter(compare.adjust([r for some in results.values() for r in some]))
    results = {part: [next(adjusted) for _ in some] for part, some in results.items()}
    for part, some in results.items():
        print("\n".join([*([f"{part}:"] if part else []), compare.table(some)]))
        for name in list(parts[part])[1:]:
            if said := sentence(r for r in some if r.b == name and r.subset == "all"):
                print(said)
        if part:
            print()
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        runs = {
            name: [dict(one.meta) for arms in parts.values() for one in arms[name]]
            for name in next(iter(parts.values()))
        }
        told = [{"suite": part, **r.to_dict()} for part, some in results.items() for r in some]
        write_json(config.out, {"runs": runs, "results": told})
        print(f"\nresults: {config.out}")
    return 0


def _scores(files: Sequence[tuple[str, str]], out: Path | None) -> int:
    """Compare the first file of scores with each other one, and print the tables."""
    from steer_env.files import write_json
    from steer_env.play.logs import compare_scores, read_scores, score_table

    (first, reference), *others = files
    rows, told = read_scores(reference), []
    for name, path in others:
        results = compare_scores(rows, read_scores(path))
        print(score_table(results, first, name))
        told += [{"methods": [first, name], **asdict(result)} for result in results]
    if out is not None:
        write_json(out, {"results": told})
        print(f"\nresults: {out}")
    return 0


def _arms(methods: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """Part of the suite ("" for plain runs) -> name of the method -> its runs.

    Raises:
        ValueError: If a method is given twice, or the methods have different parts.
    """
    from steer_env.play.recorded import NotComparable, Run, load_parts

    arms: dict[str, list[dict[str, Run]]] = {}
    for text in methods:
        name, folders = named(text)
        paths = [folders] if Path(folders).is_dir() else folders.split(",")
        label = name or (Path(paths[0]).name if len(paths) == 1 else folders)
        if label in arms:
            # Folders of one name, as runs/a/eval and runs/b/eval: the path tells them apart.
            label = folders
        if label in arms:
            raise ValueError(f"method {label!r} is given twice, expected different names; use NAME=RUN")
        arms[label] = [load_parts(path) for path in paths]
    played = {name: tuple(runs[0]) for name, runs in arms.items()}
    if any(tuple(run) != next(iter(played.values())) for runs in arms.values() for run in runs):
        what = ", ".join(
            f"{name} has {' and '.join(filter(None, p)) or 'none'}" for name, p in played.items()
        )
        raise NotComparable(f"the runs are not comparable: parts of a suite differ: {what}")
    parts = next(iter(played.values()))
    return {part: {name: [run[part] for run in runs] for name, runs in arms.items()} for part in parts}


def _with_leakage(arms: dict[str, list[Any]], bins: dict[str, str]) -> dict[str, list[Any]]:
    from steer_env.evaluation.leakage import with_leakage

    return {
        name: [replace(run, rows=with_leakage(run.rows, bins)) for run in runs] for name, runs in arms.items()
    }


COMMAND = Command(Compare, run, _EXAMPLES)
