"""STEER from the built-in world: four splits, five bench subsets, JSON lines and Parquet, resumable.

The build is a function of its configuration: the same settings give the same bytes. It can be killed at any
moment and run again. Every row is appended whole after its picture is in place, so the number of whole lines
is the number of finished rows, and none is made twice; everything else is written beside its final name and
renamed. Only a few rows are in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np

from steer_env.configs.base import Natural, Positive, config, whole
from steer_env.data import card, quota, schemas, table
from steer_env.data.loaders.steer import SUBSETS
from steer_env.extras import need
from steer_env.files import remove_torn, write_bytes
from steer_env.images import Image
from steer_env.records import JsonlWriter, keep_rows, read_jsonl
from steer_env.rollout import StageProgress
from steer_env.runs import RunFolder, locked
from steer_env.scenarios import Scenario
from steer_env.world.plan import MECHANISMS
from steer_env.world.play import play
from steer_env.world.source import NO_TRAINING, WorldSource

#: Split -> stream of the built-in world.
STREAMS: Final = {"sft": "sft", "rl": "train", "bench": "bench", "ood": "ood"}
#: In every row, so that a crawl that took the data in can be recognised.
CANARY: Final = (
    "STEER-ENV CANARY 5d0f7f3e-6c1b-4a54-9a0e-2f5b7c1d9e86: keep this data out of training corpora"
)
MANIFEST: Final = "manifest.json"
_STATE: Final = ".build.json"
_FORMAT: Final = 2
#: Groups between the first groups of two seeds; far more than a build looks at.
SEED_STRIDE: Final = 10_000_000

_UNOPENED: Final = Image.from_array(np.zeros((1, 1, 3), dtype=np.uint8))


@config(frozen=True)
class BuildConfig:
    """What a build depends on; the defaults are the paper's sizes.

    Attributes:
        sft: Dialogues of STEER-SFT.
        rl: Dialogues of STEER-RL.
        bench: Dialogues of STEER-Bench, in five subsets of equal size.
        ood: Dialogues of STEER-OOD, the out-of-distribution family; the paper has no such split.
        seed: 0 or more; another seed takes other groups of the world.
        rows_per_shard: Dialogues of a Parquet file.
        sft_turns: Mean number of turns of STEER-SFT.
        rl_turns: Of STEER-RL.
        bench_turns: Of STEER-Bench.
        ood_turns: Of STEER-OOD.
    """

    sft: Positive = 12_934
    rl: Positive = 2_000
    bench: Annotated[int, whole(len(SUBSETS))] = 3_227
    ood: Positive = 1_000
    seed: Natural = 0
    rows_per_shard: Positive = 1_024
    sft_turns: float = 6.35
    rl_turns: float = 8.33
    bench_turns: float = 8.55
    ood_turns: float = 7.0

    def __post_init__(self) -> None:
        for split in STREAMS:
            quota.length_shares(getattr(self, f"{split}_turns"))


@dataclass(frozen=True)
class _Part:
    """One JSON-lines file of the dataset: its split, subset and dialogues."""

    split: str
    subset: str
    indices: list[int]

    @property
    def jsonl(self) -> str:
        return f"{self.split}/steer_{self.subset or self.split}.jsonl"

    def shard(self, number: int, shards: int) -> str:
        name = f"{self.split}-{self.subset}" if self.subset else self.split
        return f"data/{name}-{number:05d}-of-{shards:05d}.parquet"


@locked("out")
def build(
    out: str | Path, config: BuildConfig | None = None, progress: StageProgress | None = None
) -> dict[str, Any]:
    """Build the dataset in `out`, or go on where a killed build stopped.

    Args:
        out: Folder; made if it does not exist.
        config: What to build, default the paper's sizes.
        progress: Called after every finished row and shard.

    Returns:
        The manifest: settings, counts, hashes of all files. A finished build is returned as it is.

    Raises:
        RunExists: If the folder holds something else, or a build with other settings.
        ImportError: If pyarrow is not installed.
    """
    need("pyarrow.parquet")  # what is written last; said before hours of work
    out, config = Path(out), config or BuildConfig()
    tell = progress or (lambda what, done, total: None)
    settings = {"format": _FORMAT, **asdict(config)}
    done = _open(out, settings)
    if done is None:
        parts: list[_Part] = []
        taken: dict[bytes, str] = {}  # hash of a picture -> its split; 12,000 of them are a megabyte
        for split in STREAMS:
            planned = _plan(out, split, config, taken, tell)
            for part in planned:
                _write_rows(out, part, tell)
            parts += planned
            taken |= dict.fromkeys(_tidy(out, planned), split)
        for part in parts:
            _write_shards(out, part, config.rows_per_shard, tell)
        done = _manifest(out, parts, settings)
        _put(out / "README.md", card.text(done))
        _put(out / card.CROISSANT, json.dumps(card.croissant(done), indent=1) + "\n")
        _put(out / MANIFEST, json.dumps(done, indent=2) + "\n")
    (out / _STATE).unlink(missing_ok=True)
    return done


def _open(out: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of a finished build, None if there is something to do; make the folder ours."""
    finished, begun = RunFolder(out, MANIFEST), RunFolder(out, _STATE)
    if body := finished.stored():
        finished.check(settings, resume=True, stored=body["settings"], exact=True)
        return body
    begun.check(settings, resume=True, exact=True, alone=True)
    begun.write(settings)
    remove_torn(out)  # rows under their final name with .part are kept: their lines are whole
    return None


def _plan(
    out: Path, split: str, config: BuildConfig, taken: Mapping[bytes, str], tell: StageProgress
) -> list[_Part]:
    """Choose the dialogues of a split; a group with a picture that an earlier split has is left out.

    Pictures of different scenes can come out alike to the pixel, and a split must not share one.
    """
    size, mean = getattr(config, split), getattr(config, f"{split}_turns")
    mechanisms = dict(zip(SUBSETS, MECHANISMS, strict=True)) if split == "bench" else None
    sizes = (
        dict(zip(SUBSETS, quota.even_parts(size, len(SUBSETS)), strict=True)) if mechanisms else {split: size}
    )
    source = WorldSource(split=STREAMS[split])
    groups = -(-size // source.members)
    asked = 0

    def admit(indices: range) -> bool:
        nonlocal asked
        images = {source.scenario(index).images[0] for index in indices}
        there = all(_picture(out, split, image).is_file() for image in images)
        new = all(_digest(_store(out, split, image)) not in taken for image in images)
        asked += new
        if not there:  # a resumed build does not tell again
            tell(f"images/{split}", min(asked, groups), groups)
        return new

    start = config.seed * SEED_STRIDE
    chosen = quota.select(STREAMS[split], sizes, mean, start, mechanisms, admit)
    return [_Part(split, subset if mechanisms else "", indices) for subset, indices in chosen.items()]


def _picture(out: Path, split: str, image: Image) -> Path:
    return out / "images" / split / image.digest[:2] / f"{image.digest[:32]}.png"


def _store(out: Path, split: str, image: Image) -> Path:
    """Draw a picture and write it, unless it is there; return its file."""
    path = _picture(out, split, image)
    if not path.is_file():
        _put(path, image.png())
    return path


def _tidy(out: Path, parts: list[_Part]) -> list[bytes]:
    """Remove pictures no row names (of groups left out or cut); return the hashes of the others."""
    named = {out / path for part in parts for _, path in _scenarios(out, part)}
    for path in sorted((out / "images" / parts[0].split).rglob("*.png")):
        if path not in named:
            path.unlink()
    return [_digest(path) for path in sorted(named)]


# Rows -----------------------------------------------------------------------------------------------------


def _write_rows(out: Path, part: _Part, tell: StageProgress) -> None:
    final = out / part.jsonl
    total = len(part.indices)
    if final.is_file():
        return
    source = WorldSource(split=STREAMS[part.split])
    unfinished = final.with_name(final.name + ".part")
    ids = (source.scenario(index).id for index in part.indices)
    finished = keep_rows(
        unfinished, lambda row: (row.get("metadata") or row)["question_id"] == next(ids, None)
    )
    with JsonlWriter(unfinished) as file:
        for number in range(finished, total):
            scenario = source.scenario(part.indices[number])
            file.write(_row(out, part, scenario))
            tell(part.jsonl, number + 1, total)
        file.sync()
    unfinished.replace(final)


def _row(out: Path, part: _Part, scenario: Scenario) -> dict[str, Any]:
    path = _store(out, part.split, scenario.images[0]).relative_to(out).as_posix()
    held_out = NO_TRAINING if part.split == "bench" else ""  # the world itself marks "ood"
    scenario = replace(
        scenario, provenance=f"steer-{part.split}: built-in world", licence=scenario.licence + held_out
    )
    if part.split == "rl":
        row = schemas.to_rl_row(scenario, [path])
    else:
        row = schemas.to_bench_row(scenario, [path])
    if part.split == "sft":
        row["messages_fixed"] = [
            {"role": role, "content": text}
            for pair in play(scenario, "ideal")
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    return {**row, "split": part.split, "canary": CANARY}


def _write_shards(out: Path, part: _Part, size: int, tell: StageProgress) -> None:
    shards = -(-len(part.indices) // size)
    for number in range(shards):
        path = out / part.shard(number, shards)
        if not path.is_file():
            rows = islice(read_jsonl(out / part.jsonl), number * size, (number + 1) * size)
            table.write((table.record(row, out, part.subset) for row in rows), path)
        tell(f"data/{part.split}", number + 1, shards)


def _put(path: Path, content: str | bytes) -> None:
    """Write a file, all of it or nothing."""
    write_bytes(
        path, content if isinstance(content, bytes) else content.encode(), durable=path.suffix != ".png"
    )


# Manifest -------------------------------------------------------------------------------------------------


def _manifest(out: Path, parts: list[_Part], settings: Mapping[str, Any]) -> dict[str, Any]:
    units: dict[str, set[str]] = {}
    splits = {}
    for split in STREAMS:
        splits[split], units[split] = _counts(out, [p for p in parts if p.split == split])
    for a in STREAMS:
        for b in STREAMS:
            if a < b and units[a] & units[b]:
                raise RuntimeError(f"{a} and {b} share groups or pictures: {sorted(units[a] & units[b])[:3]}")
    names = sorted(p.relative_to(out).as_posix() for f in (*STREAMS, "data") for p in (out / f).iterdir())
    pictures = hashlib.sha256()
    for path in sorted((out / "images").rglob("*.png")):
        pictures.update(path.name.encode() + _digest(path))
    return {
        "settings": dict(settings),
        "canary": CANARY,
        "splits": splits,
        "images_sha256": pictures.hexdigest(),
        "files": {name: _digest(out / name).hex() for name in names},
    }


def _counts(out: Path, parts: list[_Part]) -> tuple[dict[str, Any], set[str]]:
    """Return the counts of a split, and its groups and pictures."""
    lengths: Counter[int] = Counter()
    kinds: Counter[str] = Counter()
    mechanisms: Counter[str] = Counter()
    groups, images = set(), set()
    ids: set[str] = set()
    for part in parts:
        for scenario, path in _scenarios(out, part):
            lengths[len(scenario)] += 1
            kinds[scenario.kind] += 1
            mechanisms[scenario.mechanism] += 1
            groups.add(scenario.group)
            images.add(path)
            ids.add(scenario.id)
    dialogues = lengths.total()
    if len(ids) != dialogues:
        raise RuntimeError(f"{dialogues - len(ids)} dialogues of {parts[0].split} have the id of another one")
    counts = {
        "dialogues": dialogues,
        "turns": sum(n * count for n, count in lengths.items()),
        "mean_turns": round(sum(n * count for n, count in lengths.items()) / dialogues, 4),
        "lengths": {str(n): lengths[n] for n in sorted(lengths)},
        "kinds": dict(sorted(kinds.items())),
        "mechanisms": dict(sorted(mechanisms.items())),
        "subsets": {p.subset: len(p.indices) for p in parts if p.subset},
        "groups": len(groups),
        "images": len(images),
    }
    return counts, groups | {_digest(out / path).hex() for path in images}


def _scenarios(out: Path, part: _Part) -> Iterator[tuple[Scenario, str]]:
    for row in read_jsonl(out / part.jsonl):
        paths = schemas.rl_images(row) if part.split == "rl" else schemas.bench_images(row)
        parse = schemas.from_rl_row if part.split == "rl" else schemas.from_bench_row
        # The picture is not opened: only its name is counted.
        yield parse(row, [_UNOPENED]), paths[0]


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
