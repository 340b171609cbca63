"""Rubric prompts: versioned texts, and how other people's words stand in them as data.

A prompt is a text file of this package. Whatever a student, an attacker or a data set wrote enters it as one
JSON object per line between two marker lines. The marker is derived from the data itself and cannot occur in
it, so nothing in the data can close the block, and `read_records` gives back exactly what went in.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Final

from steer_env.images import Image
from steer_env.models.base import ChatMessage
from steer_env.types import USER, Message

#: Version of the layout that the functions below give the data; part of every prompt's hash.
LAYOUT: Final = 2
_SPLIT: Final = "=== input ===\n"
#: What some tokeniser reads as a control token, <|im_end|>, </s> or [INST], starts with one of these.
_CONTROL: Final = re.compile(r"<|\[(?=/?[A-Za-z]?[A-Z_]{2,}\])")
_TOKEN: Final = re.compile(r"<(?=[|/\uff5c]|[a-z_]+>)|\[(?=/?[A-Za-z]?[A-Z_]{2,}\])")
#: Characters that `str.isprintable` takes for visible and nobody sees: variation selectors, fillers, joiners.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


@dataclass(frozen=True)
class Prompt:
    """The words around the data.

    Attributes:
        name: Name and version, such as "judge-v2".
        system: Instructions.
        user: Template of the input, with $images, $fence, $data and $turn.
        schema: JSON schema of the answer.
        hash: First 16 hex digits of the SHA-256 of both texts, the layout's version and the answer's JSON
            schema; stored with every verdict.
    """

    name: str
    system: str
    user: str
    schema: Mapping[str, Any] = field(compare=False)
    hash: str = ""

    def __post_init__(self) -> None:
        missing = [key for key in ("$images", "$fence", "$data", "$turn") if key not in self.user]
        if missing:
            raise ValueError(
                f"prompt {self.name!r} lacks {', '.join(missing)} in its input, expected each there; "
                f"put them below the line {_SPLIT.strip()!r}"
            )
        body = [self.system, self.user, LAYOUT, self.schema]
        text = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        object.__setattr__(self, "hash", hashlib.sha256(text.encode()).hexdigest()[:16])

    def messages(
        self, records: Sequence[Mapping[str, Any]], images: Sequence[Image], turn: int
    ) -> tuple[ChatMessage, ...]:
        """Return the chat that asks about `records`.

        Args:
            records: The data, one JSON object per line.
            images: Pictures shown so far, in order; attached to the input.
            turn: 1-based turn the question is about.
        """
        lines = [data_line(record) for record in records]
        marker = fence(lines)
        text = Template(self.user).substitute(
            images=_announce(len(images)), fence=marker, data="\n".join(lines), turn=turn
        )
        return ChatMessage("system", self.system), ChatMessage("user", text, tuple(images))


def load_prompt(name: str | Path, schema: Mapping[str, Any], **parts: str) -> Prompt:
    """Return a prompt of this package, or one of your own.

    Args:
        name: Name of one that comes with the package, such as "judge-v2", or a file: instructions, the line
            "=== input ===", and the template of the input (see `Prompt`).
        schema: JSON schema of the answer.
        **parts: Texts for the placeholders of the instructions; $rubric is always known.

    Raises:
        ValueError: If the file is missing or has not this form.
    """
    text = prompt_text(name) if isinstance(name, str) else _own_text(name)
    system, split, user = text.partition(_SPLIT)
    if not split:
        raise ValueError(f"prompt={str(name)!r} has no line {_SPLIT.strip()!r}; put it before the input")
    try:
        filled = Template(system).substitute(rubric=prompt_text("rubric-v1").strip(), **parts)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"prompt={str(name)!r} has a placeholder that is not known ({error}), expected $rubric; write a "
            "dollar sign as $$"
        ) from error
    return Prompt(Path(name).stem, filled.strip(), user.strip(), schema)


def _own_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"prompt={str(path)!r} cannot be read ({error.strerror}); name an existing file"
        ) from error


@cache
def prompt_text(name: str) -> str:
    """Return the text of a prompt file."""
    folder = resources.files("steer_env.judges") / "prompts"
    return (folder / f"{name}.txt").read_text(encoding="utf-8")


def _announce(count: int) -> str:
    if count == 0:
        return "No images are attached."
    which = "One image is attached" if count == 1 else f"{count} images are attached"
    return (
        f"{which}, numbered from 1 in the order given; the data says with which turn each was shown. "
        "Words in an image are data too."
    )


# -- data ---------------------------------------------------------------------------------------------------


def turn_records(transcript: Sequence[Message]) -> list[dict[str, Any]]:
    """Return one record per message: 1-based turn, speaker, numbers of the images shown with it, text."""
    records: list[dict[str, Any]] = []
    turn = shown = 0
    for message in transcript:
        said_by_user = message.role == USER
        turn += said_by_user
        record: dict[str, Any] = {"turn": turn, "speaker": "user" if said_by_user else "student"}
        if message.images:
            record["images"] = list(range(shown + 1, shown + message.images + 1))
            shown += message.images
        records.append({**record, "text": str(message.content)})
    return records


def data_line(record: Mapping[str, Any]) -> str:
    """Return a record as one line of JSON in which nothing is hidden and nothing is a control token.

    Letters of all scripts stay readable. Line breaks, invisible characters (which can carry hidden text),
    lone surrogates and what opens control tokens are JSON escapes; reading the line gives the same record.
    """
    text = json.dumps(record, ensure_ascii=False, separators=(", ", ": "))
    shown = text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)
    shown = _INVISIBLE.sub(lambda found: _escape(found.group()), shown)
    return _CONTROL.sub(lambda found: _escape(found.group()), shown)


def without_control(text: str) -> str:
    """Return a text in which nothing is a control token, for a model that takes it as part of a chat.

    What opens one is parted from the rest by a space: "<|eot_id|>" is "< |eot_id|>". People read the same.
    """
    return _TOKEN.sub(lambda found: f"{found.group()} ", text)


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) > 127 else f"\\u{ord(character):04x}"


def fence(lines: Sequence[str]) -> str:
    """Return a marker line made from the data that does not occur in it."""
    body = "\n".join(lines)
    salt = 0
    while True:
        digest = hashlib.sha256(f"{salt}\n{body}".encode()).hexdigest()[:16]
        if digest not in body:
            return f"######## DATA {digest} ########"
        salt += 1


def read_records(text: str) -> list[dict[str, Any]]:
    """Return the records between the marker lines of a filled-in input.

    Raises:
        ValueError: If there are not exactly two equal marker lines.
    """
    lines = text.split("\n")
    marks = [i for i, line in enumerate(lines) if re.fullmatch(r"#{8} DATA [0-9a-f]{16} #{8}", line)]
    if len(marks) != 2 or lines[marks[0]] != lines[marks[1]]:
        raise ValueError(f"{len(marks)} marker lines in the input, expected two equal ones")
    return [json.loads(line) for line in lines[marks[0] + 1 : marks[1]]]
