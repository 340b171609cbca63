"""`steer-env data`: seeds, bootstrapped training data, the dataset, and audits of two datasets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from steer_env.cli import data_bootstrap, data_seeds
from steer_env.cli.legacy import claim, command, natural, positive

_EXAMPLE = """  steer-env data build --out data/steer
  steer-env data bootstrap --out boot --red tutor --blue constructive
  steer-env data audit data/steer/sft data/steer/bench"""

_BUILD_EXAMPLE = """examples:
  steer-env data build --out data/steer
  steer-env data build --out data/small --sft 300 --rl 60 --bench 90 --ood 60
killed or interrupted, the same command goes on where it stopped and ends with the same bytes"""


_AUDIT_EXAMPLE = """examples:
  steer-env data audit data/steer/sft data/steer/bench --json audit.json
  steer-env data audit my.jsonl vlsbench:path/to/vlsbench --plots audit
a set is a JSON-lines file (scenarios, bench or RL rows), a folder of them, or a dataset the library loads"""


def add(commands: Any) -> None:
    """Add the command and its subcommands."""
    parser = command(
        commands, "data", "make seeds, bootstrap training data, build datasets, audit overlap", _EXAMPLE, run
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    data_seeds.add(actions)
    build = actions.add_parser(
        "build",
        help="write STEER-SFT, STEER-RL, STEER-Bench and STEER-OOD from the built-in world",
        description="Write STEER-SFT, STEER-RL, STEER-Bench and STEER-OOD: JSON lines in the two schemas, "
        "pictures, Parquet, dataset card. Needs the extra `data`.",
        epilog=_BUILD_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build.add_argument("--out", type=Path, default=Path("data/steer"), help="folder (default: data/steer)")
    build.add_argument("--seed", type=natural, default=0, help="another seed takes other scenes (default: 0)")
    for name, size in (("sft", 12_934), ("rl", 2_000), ("bench", 3_227), ("ood", 1_000)):
        text = f"dialogues of STEER-{name} (default: {size:,})"
        build.add_argument(f"--{name}", type=positive, default=size, help=text)
    text = "dialogues of a Parquet file (default: 1024)"
    build.add_argument("--rows-per-shard", type=positive, default=1_024, help=text)

    audit = actions.add_parser(
        "audit",
        help="measure how much of set B is in set A",
        description="Measure how much of a held-out set B is in a training set A, against how much A's own "
        "groups resemble each other, and how varied both are. Exit code 1 if anything is above the limit.",
        epilog=_AUDIT_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.add_argument("a", metavar="A", help="training set: file, folder or NAME:[SPLIT:]ROOT")
    audit.add_argument("b", metavar="B", help="held-out set")
    audit.add_argument(
        "--limit", type=float, default=0.005, help="largest excess that passes (default: 0.005)"
    )
    audit.add_argument("--ngram", type=positive, default=8, help="words of an n-gram (default: 8)")
    audit.add_argument("--embed", default="tfidf", help="tfidf, or sentence:MODEL (default: tfidf)")
    audit.add_argument("--json", type=Path, metavar="FILE", help="write the verdict there")
    text = "write there how near each dialogue of B is to A, for steer-env report --leakage"
    audit.add_argument("--leakage", type=Path, metavar="FILE", help=text)
    audit.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the distributions there")
    data_bootstrap.add(actions)


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    actions = {"audit": _audit, "bootstrap": data_bootstrap.run, "build": _build}
    return actions[args.action](args)


def _audit(args: argparse.Namespace) -> int:
    from steer_env.cli.progress import Bars
    from steer_env.data.audit import audit, open_corpus
    from steer_env.files import write_json

    names = (_short(args.a), _short(args.b)) if _short(args.a) != _short(args.b) else (args.a, args.b)
    with Bars() as bars:
        found = audit(
            open_corpus(args.a), open_corpus(args.b), names, args.limit, args.ngram, args.embed, bars.update
        )
    print(found.table())
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.json, found.verdict())
    if args.leakage is not None:
        print(f"leakage of every dialogue: {found.write_leakage(args.leakage)}")
    if args.plots is not None:
        print(f"plots: {', '.join(map(str, found.plots(args.plots)))}")
    print(f"verdict: leak ({', '.join(found.leaks)})" if found.leaks else "verdict: passed")
    return 1 if found.leaks else 0


def _short(name: str) -> str:
    return Path(name.rpartition(":")[2] if ":" in name else name).stem


def _build(args: argparse.Namespace) -> int:
    from steer_env.cli.progress import Bars
    from steer_env.data.build import BuildConfig, build

    config = BuildConfig(
        args.sft, args.rl, args.bench, args.ood, seed=args.seed, rows_per_shard=args.rows_per_shard
    )
    claim(args, args.out)
    with Bars() as bars:
        manifest = build(args.out, config, bars.update)
    for name, split in manifest["splits"].items():
        print(
            f"STEER-{name}: {split['dialogues']} dialogues, {split['mean_turns']:.2f} turns in the mean, "
            f"{split['groups']} groups, {split['images']} pictures"
        )
    print(f"card: {args.out / 'README.md'}")
    return 0
