"""Labelling in the browser: a sheet of `calibrate`, filled by people who do not see each other's labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from steer_env.evaluation.intervals import Estimate
from steer_env.evaluation.labelling import COLUMNS, Labels, Unit, agreement, drawn_turns, load_labels
from steer_env.files import cell, write_text
from steer_env.records import Row


@dataclass
class Sheet:
    """The turns of a run that are labelled, and what people said of them.

    Attributes:
        path: The CSV file, as `steer-env calibrate RUN --labels` reads it; written after every label.
        turns: (row, turn counted from 1), in order.
        draw: How they were drawn.
        votes: Turn -> annotator -> whether the event happened.
    """

    path: Path
    turns: Sequence[tuple[Row, int]]
    draw: str
    votes: dict[Unit, dict[str, bool]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, rows: Sequence[Row], path: Path, count: int, *, unit: str = "dialogue", seed: int = 0
    ) -> Sheet:
        """Draw a sheet, with the labels that its file holds already.

        Raises:
            ValueError: If no turn was judged, or the file is of another draw.
        """
        turns, draw = drawn_turns(rows, count, unit=unit, seed=seed)
        votes: dict[Unit, dict[str, bool]] = {}
        if path.exists():
            labels = load_labels(path)
            if labels.draw != draw:
                raise ValueError(
                    f"labels={str(path)!r} are of another draw or run, expected {draw!r}; move the file away"
                )
            votes = {one: dict(said) for one, said in labels.votes.items()}
        return cls(path, turns, draw, votes)

    def next(self, annotator: str) -> tuple[Row, int] | None:
        """Return the first turn that a person has not labelled, None at the end."""
        for row, number in self.turns:
            if annotator not in self.votes.get((int(row["seed"]), number), {}):
                return row, number
        return None

    def done(self, annotator: str) -> int:
        """Return how many turns a person has labelled."""
        return sum(annotator in said for said in self.votes.values())

    def record(self, annotator: str, unit: Unit, label: bool) -> None:
        """Keep a label, in place of an earlier one of the same person.

        Raises:
            ValueError: If the turn is not in the sheet, or the person has no name.
        """
        if unit not in {(int(row["seed"]), number) for row, number in self.turns}:
            raise ValueError(f"seed={unit[0]!r}, turn={unit[1]!r}, expected a turn of the sheet")
        if not annotator.strip():
            raise ValueError("annotator='', expected a name, to tell people's labels apart")
        self.votes.setdefault(unit, {})[annotator] = label
        write_text(self.path, self._text())

    def _text(self) -> str:
        file = io.StringIO(newline="")
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row, number in self.turns:
            turn = row["turns"][number - 1]
            said: Mapping[str, bool | None] = self.votes.get((int(row["seed"]), number)) or {"": None}
            for who, label in said.items():
                vote = "" if label is None else int(label)
                texts = cell(turn["user"]), cell(turn["reply"])
                writer.writerow([row["seed"], number, cell(who), vote, *texts, self.draw])
        return file.getvalue()

    def agreement(self) -> Estimate:
        """Return Krippendorff's alpha between the people."""
        return agreement(Labels(self.votes, self.draw), replicates=200)

    def apart(self, annotator: str) -> list[tuple[Row, int, bool, list[str]]]:
        """Return where others disagree with a person, of turns that this person has labelled.

        Each as row, turn, the person's label, and the names of those who say otherwise.
        """
        found = []
        for row, number in self.turns:
            said = self.votes.get((int(row["seed"]), number), {})
            if annotator in said:
                others = [who for who, label in said.items() if label != said[annotator]]
                if others:
                    found.append((row, number, said[annotator], others))
        return found
