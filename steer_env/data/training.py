"""Dialogues with answers, read for supervised fine-tuning: kept by `bootstrap`, or the built STEER-SFT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from steer_env.data import schemas
from steer_env.data.licences import check_training_allowed
from steer_env.data.loaders.base import DatasetError, Source
from steer_env.data.loaders.steer import SPECS, bench_row
from steer_env.images import Image
from steer_env.scenarios import Scenario

_SFT = next(spec for spec in SPECS if spec.name == "steer-sft")


class TrainingDialogue(NamedTuple):
    """A dialogue to imitate.

    Attributes:
        scenario: The user's turns as they were said, pictures, provenance and licence.
        replies: One per user turn.
    """

    scenario: Scenario
    replies: tuple[str, ...]

    def turns(self) -> list[tuple[str, tuple[Image, ...], str]]:
        """Return (user's words, pictures shown with them, reply) of every turn."""
        images = self.scenario.images
        return [
            (turn.text, tuple(images[i] for i in turn.images), reply)
            for turn, reply in zip(self.scenario.turns, self.replies, strict=True)
        ]


def load_training_dialogues(
    *paths: str | Path, allow: Sequence[str] = (), check_licence: bool = True
) -> list[TrainingDialogue]:
    """Read dialogues to train on; pictures are opened, and decoded again when they are needed.

    Args:
        *paths: JSON-lines files of bench rows with answers, or folders that hold them directly or in `sft/`.
        allow: Licence gates that are opened, see `steer_env.data.check_training_allowed`.
        check_licence: Whether to hold the rows to their licences; False only to look at them.

    Raises:
        DatasetError: If there are no such files or rows, with the place and what was found.
        LicenceGate: If a licence keeps rows out of training.
    """
    found: list[TrainingDialogue] = []
    for path in paths:
        for file in _files(Path(path)):
            found += _read(file)
    if not found:
        raise DatasetError(
            f"data={[str(p) for p in paths]} holds no dialogue, expected at least one with answers"
        )
    if check_licence:
        check_training_allowed((dialogue.scenario for dialogue in found), allow)
    return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(path.glob("sft/*.jsonl")) or sorted(path.glob("*.jsonl"))
    if not found:
        what = "has no .jsonl file in it or in sft/" if path.is_dir() else "does not exist"
        raise DatasetError(
            f"data={str(path)!r} {what}, expected a folder of steer-env data bootstrap or data build, or a "
            "file of bench rows with answers"
        )
    return found


def _read(path: Path) -> list[TrainingDialogue]:
    # Pictures lie beside the file or in the folder that holds the split's folder.
    root = path.parent if (path.parent / "images").is_dir() else path.parent.parent
    source = Source(_SFT, root, "train")
    return [_dialogue(source, at.where, row) for at, row in source.rows(path)]


def _dialogue(source: Source, where: str, row: Any) -> TrainingDialogue:
    scenario = bench_row(source, where, row)
    messages: Sequence[Mapping[str, Any]] = row["messages_fixed"]
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise source.error(
            where, f"messages_fixed has roles {roles}, expected user and assistant in turn, an answer to each"
        )
    return TrainingDialogue(scenario, tuple(_replies(source, where, messages)))


def _replies(source: Source, where: str, messages: Sequence[Mapping[str, Any]]) -> list[str]:
    as_user = [{**m, "role": "user"} for m in messages if m["role"] == "assistant"]
    try:
        return schemas.user_texts(as_user, "messages_fixed")
    except ValueError as error:
        raise source.error(where, f"of the answers, {error}") from error
