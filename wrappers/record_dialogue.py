"""Every finished dialogue as one line of JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steer_env.forking import fork
from steer_env.records import JsonlWriter, dialogue_row
from steer_env.types import STUDENT, TurnResult
from steer_env.wrappers.base import DialogueWrapper


class RecordDialogue(DialogueWrapper):
    """Appends each dialogue to a JSON-lines file the moment its last reply is given.

    Rows follow `steer_env.records.dialogue_row` and hold the rewards as emitted by the wrapped environment,
    so put it outermost. A dialogue that is reset before its end is recorded with `stop` "abandoned", or
    "failed" if a seat had no utterance. Forks are not recorded. The file is only ever appended to; several
    wrappers (a vector environment's slots) may share a path.

    Args:
        env: Environment or vector environment.
        path: The file; parent folders are made.
        **extra: Further keys for every row, such as `policy="sft"`.

    Raises:
        ValueError: If the file cannot be opened for appending.
    """

    def __init__(self, env: Any, path: str | Path, **extra: Any) -> None:
        super().__init__(env)
        try:
            self._writer = JsonlWriter(path)
        except OSError as error:
            raise ValueError(
                f"path={str(path)!r} cannot be opened for appending ({error.strerror or error}); give a file "
                "in a writable folder"
            ) from error
        self._extra = extra
        self._results: list[TurnResult] = []
        self._seed = -1

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start a new dialogue; an unfinished one is recorded as abandoned or failed."""
        self._flush(self.core.stop or "abandoned")
        self.env.reset(seed=seed, options=options)
        self._seed = -1 if seed is None else int(seed)

    def step(self, action: str | None) -> None:
        """Step, and record when this was the last reply."""
        actor = self._near.agent_selection
        was_over = not self._near.agents or self._near.terminations[actor] or self._near.truncations[actor]
        self.env.step(action)
        if was_over or actor != STUDENT:
            return
        self._results.append(
            TurnResult(self.core.last_turn, float(self.env.rewards[STUDENT]), dict(self._near.infos[STUDENT]))
        )
        if self.core.stop:
            self._flush(self.core.stop)

    def fork(self) -> Any:
        """Return a fork of what is wrapped: what might have been said is not recorded."""
        return fork(self.env)

    def close(self) -> None:
        """Record an unfinished dialogue and close the file."""
        self._flush(self.core.stop or "abandoned")
        self._writer.close()
        self.env.close()

    def _flush(self, stop: str) -> None:
        if self._results:
            assert self.core.scenario is not None
            self._writer.write(
                dialogue_row(self.core.scenario, self._seed, self._results, stop, **self._extra)
            )
            self._results = []
