"""The audit as a table, as plots, and as a verdict a build can fail on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from steer_env.data.audit.corpus import items
from steer_env.data.audit.overlap import Embedder, Measure, measures
from steer_env.data.audit.variety import diversity
from steer_env.extras import need
from steer_env.files import replacing, write_text
from steer_env.scenarios import Scenario

LIMIT = 0.005
#: Bins of leakage: the share of the training set's own dialogues that are less like the others.
BINS: Final = (
    (0.99, "above 99 % of null"),
    (0.9, "90-99 % of null"),
    (0.5, "50-90 % of null"),
    (0.0, "0-50 % of null"),
)
#: Bin of a dialogue whose text, or text and pictures, are in the training set.
COPY: Final = "copy"


@dataclass(frozen=True)
class Audit:
    """The audit of a held-out set against a training set.

    Attributes:
        names: Of both sets.
        sizes: Dialogues in both.
        shared_groups: Seed groups that both name.
        overlap: The measures.
        diversity: Of both sets.
        limit: Largest excess that passes.
        ids: Of the dialogues of B, in their order.
    """

    names: tuple[str, str]
    sizes: tuple[int, int]
    shared_groups: int
    overlap: tuple[Measure, ...]
    diversity: tuple[dict[str, float | None], dict[str, float | None]]
    limit: float
    ids: tuple[str, ...] = ()

    @property
    def leaks(self) -> tuple[str, ...]:
        """Names of the measures above the limit, and "groups" if the sets share one."""
        found = [m.name for m in self.overlap if m.leaks(self.limit)]
        return tuple((["groups"] if self.shared_groups else []) + found)

    def verdict(self) -> dict[str, Any]:
        """Return everything as JSON values; `passed` is what a build looks at."""
        return {
            "passed": not self.leaks,
            "leaks": list(self.leaks),
            "limit": self.limit,
            "sets": [{"name": n, "dialogues": s} for n, s in zip(self.names, self.sizes, strict=True)],
            "shared_groups": self.shared_groups,
            "overlap": [
                {
                    "measure": m.name,
                    "threshold": m.threshold,
                    "share": m.share,
                    "null_share": m.null_share,
                    "excess": m.excess,
                    "standard_error": m.error,
                    "mean": float(m.bench.mean()),
                    "null_mean": float(m.null.mean()),
                    "leak": m.leaks(self.limit),
                }
                for m in self.overlap
            ],
            "diversity": dict(zip(("a", "b"), self.diversity, strict=True)),
        }

    def leakage(self) -> list[dict[str, Any]]:
        """Return how near each dialogue of B is to the training set: id, score, bin, and all measures.

        The score is the cosine with the nearest training dialogue, 1 for a copy; the bin compares it with the
        null, so that it says how unusual that is, whatever the embedding.
        """
        (near,) = (m for m in self.overlap if m.name.endswith("cosine"))
        copies = [m.bench >= 1 for m in self.overlap if m.name in ("exact text", "exact dialogue")]
        copied = np.logical_or.reduce(copies)
        null = np.sort(near.null)
        below = np.searchsorted(null, near.bench, side="left") / len(null)
        return [
            {
                "id": name,
                "score": 1.0 if copied[i] else float(near.bench[i]),
                "bin": COPY if copied[i] else next(label for least, label in BINS if below[i] >= least),
                "scores": {m.name: float(m.bench[i]) for m in self.overlap},
            }
            for i, name in enumerate(self.ids)
        ]

    def write_leakage(self, path: str | Path) -> Path:
        """Write `leakage` as JSON lines, for results by leakage (`steer-env report --leakage`)."""
        path = Path(path)
        write_text(path, "".join(json.dumps(row) + "\n" for row in self.leakage()))
        return path

    def table(self) -> str:
        """Return the tables as Markdown."""
        a, b = self.names
        lines = [
            f"Overlap of {b} ({self.sizes[1]:,} dialogues) with {a} ({self.sizes[0]:,}), limit {self.limit}",
            "",
            f"| measure | counts from | share of {b} | within {a} | excess | verdict |",
            "|---|---|---|---|---|---|",
        ]
        for m in self.overlap:
            word = "LEAK" if m.leaks(self.limit) else "ok"
            least = "mean" if m.threshold is None else f"{m.threshold:.2f}"
            cells = (m.name, least, f"{m.share:.2%}", f"{m.null_share:.2%}",
                     f"{m.excess:+.2%} ± {m.error:.2%}", word)  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
        lines += [
            "",
            f"Within {a}: between its seed groups, in dialogues as long as those of {b}.",
            f"Seed groups in both: {self.shared_groups}",
            "",
            f"| diversity | {a} | {b} |",
            "|---|---|---|",
        ]
        for key in self.diversity[0]:
            values = [key, *(_number(d[key]) for d in self.diversity)]
            lines.append(f"| {' | '.join(values)} |")
        return "\n".join(lines)

    def plots(self, folder: str | Path) -> list[Path]:
        """Draw the scores of every graded measure, B against the null, as PNG files in `folder`."""
        need("matplotlib").use("Agg")
        pyplot = need("matplotlib.pyplot")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        made = []
        for m in self.overlap:
            if m.name.startswith(("exact", "copied")):  # 0 or 1
                continue
            figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
            bins = [i / 40 for i in range(41)]
            for scores, label in ((m.null, f"within {self.names[0]}"), (m.bench, self.names[1])):
                axes.hist(scores, bins=bins, density=True, histtype="step", label=label)
            axes.axvline(m.threshold, linestyle=":", color="black")
            axes.set_xlabel(f"{m.name} with the nearest of {self.names[0]}")
            axes.set_ylabel("density")
            axes.legend(loc="upper left")
            path = folder / f"{m.name.replace(' ', '-').lower()}.png"
            with replacing(path) as part:
                figure.savefig(part, dpi=120, format="png")
            pyplot.close(figure)
            made.append(path)
        return made


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3g}"


def audit(
    a: Sequence[Scenario],
    b: Sequence[Scenario],
    names: tuple[str, str] = ("A", "B"),
    limit: float = LIMIT,
    ngram: int = 8,
    embed: str | Embedder = "tfidf",
    tell: Callable[[str, int, int], None] | None = None,
) -> Audit:
    """Audit a held-out set against a training set.

    Args:
        a: The training set.
        b: The held-out set.
        names: What they are called in the report.
        limit: Largest excess over the within-train null that passes, a share of B.
        ngram: Words of an n-gram for containment.
        embed: "tfidf", "sentence:FOLDER", or a function that turns a list of texts into rows of numbers.
        tell: Called with (what, done, total).

    Raises:
        ValueError: If a set is empty or the limit is no share.
    """
    if not 0 <= limit < 1:
        raise ValueError(f"limit={limit!r}, expected a share in [0, 1)")
    if ngram < 1:
        raise ValueError(f"ngram={ngram!r}, expected a positive number of words")
    of_a, of_b = items(a), items(b)
    found = measures(of_a, of_b, ngram, embed, tell)
    shared = {s.group for s in a if s.group} & {s.group for s in b if s.group}
    varied = diversity(of_a), diversity(of_b)
    ids = tuple(item.id for item in of_b)
    return Audit(names, (len(a), len(b)), len(shared), tuple(found), varied, limit, ids)
