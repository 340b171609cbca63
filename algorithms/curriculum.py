"""A schedule of environments: short dialogues first, then long ones; few strategies, then all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steer_env.configs.train import Stage
from steer_env.records import Row
from steer_env.vector import VectorDialogueEnv


class Curriculum:
    """Environments that change as training goes on.

    Args:
        stages: In order; the last one lasts to the end.
        make: Makes the vector environment of a stage from its options, such as
            `functools.partial(steer_env.make_vec, "SteerEscalation-v0", 48)`.

    Raises:
        ValueError: If there is no stage, or one that never ends comes before another.
    """

    def __init__(self, stages: Sequence[Stage], make: Callable[..., VectorDialogueEnv]) -> None:
        if not stages:
            raise ValueError("stages=[], expected at least one")
        for number, stage in enumerate(stages[:-1]):
            if not stage.steps and stage.until is None:
                raise ValueError(
                    f"stage {number} never ends (steps=0, until=None), expected one of them to be set"
                )
        self.stages, self._make = tuple(stages), make
        self._stage, self._done = 0, 0
        self._env: tuple[int, VectorDialogueEnv] | None = None

    def check(self) -> None:
        """Make every stage's environment once, so that bad options are refused before training.

        Raises:
            ValueError: If a stage has an option that is unknown or out of its range.
        """
        for number, stage in enumerate(self.stages):
            try:
                self._make(**stage.options)
            except (TypeError, ValueError) as error:
                raise ValueError(f"stage {number} of the curriculum: {error}") from error

    @property
    def env(self) -> VectorDialogueEnv:
        """The present stage's environment."""
        if self._env is None or self._env[0] != self._stage:
            self._env = (self._stage, self._make(**self.stages[self._stage].options))
        return self._env[1]

    def finish(self, row: Mapping[str, Any]) -> Row:
        """Go on to the next stage if this one is over; `row` has the step's metrics."""
        stage, number = self.stages[self._stage], self._stage
        self._done += 1
        reached = row.get("return_per_turn")
        over = self._done == stage.steps or (
            stage.until is not None and reached is not None and reached >= stage.until
        )
        if over and self._stage + 1 < len(self.stages):
            self._stage, self._done = self._stage + 1, 0
        return {"curriculum_stage": number}

    def describe(self) -> list[Row]:
        """Return the stages as plain values."""
        stages: list[Row] = json.loads(json.dumps([asdict(stage) for stage in self.stages]))
        return stages

    def state_dict(self) -> dict[str, Any]:
        """Return how far it is."""
        return {"stage": self._stage, "done": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where a run broke off."""
        self._stage, self._done = int(state["stage"]), int(state["done"])


def read_stages(path: str | Path) -> list[Stage]:
    """Read stages from a JSON file: a list of objects with "options", "steps" and "until".

    Raises:
        ValueError: If the file holds something else.
    """
    rows = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"curriculum={str(path)!r}, expected a JSON list of objects such as "
            '{"options": {"max_turns": 2}, "steps": 20}'
        )
    for row in rows:
        unknown = sorted(set(row) - {"options", "steps", "until"})
        if unknown:
            raise ValueError(
                f"curriculum={str(path)!r} has {unknown}, expected options, steps and until only"
            )
    return [Stage(**row) for row in rows]
