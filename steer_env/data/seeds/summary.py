"""What a run gave: counts by kind, strategy, technique, grade and reason, read from its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from steer_env.data.seeds.base import details_in
from steer_env.records import REJECTED, Row, read_jsonl


def details_of(row: Mapping[str, Any]) -> Row:
    """Return how the seed of a line was made."""
    return details_in(row["provenance"], row["id"])


def summarise(out: Path, kinds: Sequence[str]) -> Row:
    """Return the summary of a folder of seeds: what was kept, what it is like, and why rows fell out."""
    lost = list(_rows(out / REJECTED))
    by_kind: Row = {}
    perturbed: Counter[str] = Counter()
    for kind in kinds:
        rejected = Counter(f"{row['stage']}: {row['reason']}" for row in lost if row["kind"] == kind)
        by_kind[kind] = _kind(_rows(out / f"{kind}.jsonl"), rejected, perturbed)
    kept = sum(one["kept"] for one in by_kind.values())
    return {
        "rows": kept + len(lost),
        "kept": kept,
        "keep_rate": _share(kept, kept + len(lost)),
        "kinds": by_kind,
        "reasons": _sorted(Counter(f"{row['stage']}: {row['reason']}" for row in lost)),
        "perturbed": {
            name: {"seeds": perturbed[name], "share": _share(perturbed[name], perturbed["pictured"])}
            for name in ("noise", "typography")
        },
    }


def _kind(rows: Iterator[Row], rejected: Counter[str], perturbed: Counter[str]) -> Row:
    """Count the seeds of one kind; a row is held in memory at a time."""
    counts: dict[str, Counter[str]] = {
        key: Counter() for key in ("strategy", "technique", "mechanism", "grade")
    }
    risks: Counter[int] = Counter()
    lengths: Counter[int] = Counter()
    for row in rows:
        details = details_of(row)
        lengths[len(row["turns"])] += 1
        risks.update(turn.get("risk", 0) for turn in row["turns"])
        values = {**row, "grade": str(details.get("grade", ""))}
        for key, counter in counts.items():
            counter.update([values[key]] if values.get(key) else [])
        perturbed["pictured"] += any(turn.get("images") for turn in row["turns"])
        perturbed.update(name for name in ("noise", "typography") if name in details)
    kept = lengths.total()
    turns = sum(n * count for n, count in lengths.items())
    return {
        "rows": kept + rejected.total(),
        "kept": kept,
        "keep_rate": _share(kept, kept + rejected.total()),
        "mean_turns": round(turns / kept, 4) if kept else None,
        "risks": {str(level): risks[level] for level in sorted(risks)},
        **{key: _sorted(counter) for key, counter in counts.items() if counter},
        "rejected": _sorted(rejected),
    }


def _rows(path: Path) -> Iterator[Row]:
    if path.is_file():
        yield from read_jsonl(path)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))
