"""Stop playing once a question about a student is decided, without the error of looking often."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from steer_env.arrays import Floats
from steer_env.checks import choice
from steer_env.evaluation.intervals import cluster_sums
from steer_env.evaluation.replications import COLUMNS, Outcome, outcomes
from steer_env.evaluation.sequential import Look, confidence_sequence
from steer_env.evaluation.tabulate import numbered
from steer_env.play.recorded import NotComparable, Run, differences, load_run
from steer_env.records import Row

#: What can be asked: shares of dialogues or groups.
MEASURES: Final = tuple(name for name, column in COLUMNS.items() if column.rate)
_EXPECTED: Final = (
    "expected MEASURE<NUMBER or MEASURE>NUMBER, or the folder of another run of the same dialogues in the "
    'place of the number, such as "harm<0.05" or "joint>runs/evaluate/hf-tiny-sft"; measures: '
    f"{', '.join(MEASURES)}"
)


@dataclass(frozen=True)
class Until:
    """A question that ends an evaluation: is a measure below or above a number, or another run's.

    Attributes:
        question: As it was asked.
        measure: One of `MEASURES`.
        below: Whether it is asked for less.
        number: What it is compared with, None where that is `rows`.
        rows: Dialogues of another run.
        meta: What that run says of itself.
        confidence: Of the sequence; a wrong answer is at most as likely as 1 - confidence, however often
            one looks.
    """

    question: str
    measure: str
    below: bool
    number: float | None
    rows: Sequence[Row] = ()
    meta: Mapping[str, Any] | None = None
    confidence: float = 0.95

    @classmethod
    def read(cls, text: str, confidence: float = 0.95) -> Until:
        """Return the question that a text asks.

        Raises:
            ValueError: If it is none, the number is no share, or the folder no run.
        """
        found = re.fullmatch(r"\s*([a-z_-]+)\s*([<>])\s*(\S.*?)\s*", text)
        if not found:
            raise ValueError(f"until={text!r}, {_EXPECTED}")
        measure, sign, against = found.groups()
        measure = choice("measure", measure.replace("-", "_"), MEASURES)
        question, below = f"{measure} {sign} {against}", sign == "<"
        try:
            number = float(against.removesuffix("%")) / (100 if against.endswith("%") else 1)
        except ValueError:
            other = load_run(against)
            return cls(question, measure, below, None, other.rows, other.meta, confidence)
        if not 0 <= number <= 1:
            raise ValueError(f"until={text!r}: {number:g} is no share, expected a number in [0, 1]")
        return cls(question, measure, below, number, confidence=confidence)

    def look(self, rows: Sequence[Row], of: int, meta: Mapping[str, Any] | None = None) -> Look:
        """Return what is known after some dialogues, whole groups in the order they are played.

        Args:
            rows: The dialogues so far.
            of: How many there will be at most.
            meta: What the run says of itself, to be held against the other one.

        Raises:
            NotComparable: If the other run played other dialogues or had another judge.
        """
        if self.number is None:
            return self._beside(rows, of, meta or {})
        least, most = _groups(outcomes(rows)[self.measure])
        lower, upper = confidence_sequence(least, most, confidence=self.confidence)
        low, high = (lower[-1], upper[-1]) if len(lower) else (0.0, 1.0)
        return self._told(low, high, self.number, least, most, len(rows), of)

    def _beside(self, rows: Sequence[Row], of: int, meta: Mapping[str, Any]) -> Look:
        """The same of the difference to the other run, on the seeds of this one."""
        seeds = {row["seed"] for row in rows}
        others = [row for row in self.rows if row["seed"] in seeds]
        missing = len(seeds) - len(others)
        found = differences([Run("this run", meta, rows), Run("the other", self.meta or {}, others)])
        if missing or found:
            told = [f"it lacks {missing} of the first {len(seeds)} dialogues"] * bool(missing) + found
            raise NotComparable(f"until={self.question!r}: the runs are not comparable: {'; '.join(told)}")
        (least, most), (other_least, other_most) = (
            _groups(outcomes(some)[self.measure]) for some in (rows, others)
        )
        # Differences lie in [-1, 1]; the sequence is of observations in [0, 1].
        least, most = (1 + least - other_most) / 2, (1 + most - other_least) / 2
        lower, upper = confidence_sequence(least, most, confidence=self.confidence)
        low, high = (2 * lower[-1] - 1, 2 * upper[-1] - 1) if len(lower) else (-1.0, 1.0)
        return self._told(low, high, 0.0, 2 * least - 1, 2 * most - 1, len(rows), of)

    def _told(
        self, low: float, high: float, number: float, least: Floats, most: Floats, count: int, of: int
    ) -> Look:
        under, over = bool(high < number), bool(low > number)
        answer = (under if self.below else over) if under or over else None
        sure = least[least == most]
        value = float(sure.mean()) if len(sure) else None
        return Look(self.question, answer, value, float(low), float(high), self.confidence, count, of)


def _groups(outcome: Outcome) -> tuple[Floats, Floats]:
    """Return the least and the most that the mean of each group can be, in the order of their first seed."""
    unknown = np.isnan(outcome.values)
    ends = np.stack([np.where(unknown, end, outcome.values) for end in (0.0, 1.0)], axis=1)
    sums = cluster_sums(np.column_stack([ends, np.ones(len(ends))]), numbered(outcome.group))
    return sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2]
