"""The prompt templates: versioned text files beside this module, and row texts as data beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from string import Template
from typing import Any, Final, NamedTuple

from steer_env.images import Image
from steer_env.judges.prompting import data_line, fence
from steer_env.models.base import ChatMessage

#: The templates that come with the package.
TEMPLATES: Final = ("benign", "obfuscated", "forensics", "rewriting", "planning", "grade")


class Prompt(NamedTuple):
    """A template and what identifies it.

    Attributes:
        text: The text, with `$name` where something is filled in.
        hash: First twelve hex digits of its SHA-256, written into the provenance of what it made.
    """

    text: str
    hash: str


@lru_cache
def prompt(name: str) -> Prompt:
    """Return a template of the package."""
    text = (files(__package__) / "prompts" / f"{name}.txt").read_text(encoding="utf-8")
    return Prompt(text, hashlib.sha256(text.encode()).hexdigest()[:12])


def chat(
    name: str, *data: Mapping[str, Any], images: tuple[Image, ...] = (), **slots: Any
) -> tuple[ChatMessage, ...]:
    """Return a template as a chat: instructions as the system's message, data as the user's.

    Args:
        name: Template.
        *data: What comes from rows and other models, a line of JSON each, between two marker lines that
            nothing in it can imitate.
        images: Pictures shown with the data.
        **slots: What is filled into the instructions; never anything from a row.
    """
    lines = [data_line(record) for record in data]
    marker = fence(lines)
    return (
        ChatMessage("system", Template(prompt(name).text).substitute(slots)),
        ChatMessage("user", "\n".join((marker, *lines, marker)), images),
    )
