"""The prompt templates: versioned text files beside this module, and row texts as data inside them."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib.resources import files
from string import Template
from typing import Any, Final, NamedTuple

from steer_env.agents.backends.base import ChatMessage
from steer_env.images import Image

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
    name: str, images: tuple[Image, ...] = (), *, data: dict[str, Any], **slots: Any
) -> tuple[ChatMessage, ...]:
    """Return a template as a chat: instructions as the system's message, the row as the user's.

    Args:
        name: Template.
        images: Pictures shown with the data.
        data: What comes from rows and other models. It is handed over as data, see `as_data`.
        **slots: What is filled into the instructions; never anything from a row.
    """
    return (
        ChatMessage("system", Template(prompt(name).text).substitute(slots)),
        ChatMessage("user", as_data(data), images),
    )


def as_data(values: dict[str, Any]) -> str:
    """Return values as JSON between two tags that no text inside can close or open."""
    body = json.dumps(values, ensure_ascii=False, indent=1)
    # Escapes keep the JSON the same and leave no tag in it.
    body = body.replace("<", "\\u003c").replace(">", "\\u003e")
    return f"<data>\n{body}\n</data>"
