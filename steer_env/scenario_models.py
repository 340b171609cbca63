"""The shape of one line of a scenario file, as pydantic models.

Kept apart from `steer_env.scenario_files` so that importing the library does not import pydantic. The
JSON schema shipped as `scenario.schema.json` is generated from these models; a test keeps them equal.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from steer_env.scenarios import KINDS
from steer_env.spaces import MAX_LENGTH

Kind = Literal["benign", "obfuscated", "red_team"]

#: At least one character that is not white space, and no longer than an utterance may be.
Text = Annotated[str, StringConstraints(pattern=r"\S", max_length=MAX_LENGTH)]
ImagePath = Annotated[str, StringConstraints(min_length=1)]


def _writable(text: str) -> str:
    """Refuse lone surrogates, which no file and no report can hold."""
    if text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text):
        return text
    raise PydanticCustomError("string_unicode", "lone surrogates")


Words = Annotated[str, AfterValidator(_writable)]

_CONFIG = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class TurnRow(BaseModel):
    """One user turn in full; a plain string stands for a turn with only `text`."""

    model_config = _CONFIG

    text: Text
    """What the user says; an attacker that adapts takes it as a draft."""
    images: list[ImagePath] = Field(default_factory=list)
    """Pictures shown with this turn: absolute paths, or relative to the scenario file."""
    risk: int = Field(default=0, ge=0, le=5)
    """Risk level 1 (harmless) to 5; 0 if unknown."""
    goal: Words = ""
    """What this turn is to achieve; only the attacker sees it."""


class ScenarioRow(BaseModel):
    """One scenario: pictures, the user's turns, and what only the attacker and the judge may know."""

    model_config = ConfigDict(**{**_CONFIG, "title": "steer_env scenario"})

    turns: list[Text | TurnRow] = Field(min_length=1)
    """The user's turns, in order: strings, or objects when a turn has pictures, a risk or a goal."""
    images: list[ImagePath] = Field(default_factory=list)
    """Pictures: absolute paths, or relative to the scenario file. They are shown with the first turn,
    except those that a turn lists itself."""
    kind: Kind = "benign"
    """benign: a harmless task; obfuscated: a risk spread over harmless-looking turns; red_team: the same
    under a strategy."""
    goal: Words = Field(default="", max_length=MAX_LENGTH)
    """The hidden goal; the student never sees it."""
    strategy: Words = ""
    """How the user argues, by a name of the library or one of your own; empty if in no special way."""
    technique: Words = ""
    """How the user escalates, likewise."""
    category: Words = ""
    """Topic, for reports."""
    mechanism: Words = ""
    """How the risk is hidden, for reports."""
    group: Words = ""
    """Scenarios that belong together; splits and confidence intervals go by group."""
    cell: Words = ""
    """Which member of its contrast group it is, such as hazard/calm."""
    cells: int = Field(default=0, ge=0)
    """How many members the whole contrast group has, 0 if there is none; `twin_pass` counts whole groups."""
    provenance: Words = ""
    """Where the scenario comes from."""
    licence: Words = ""
    """Licence of text and pictures."""
    recipe: Words = ""
    """How the built-in world drew the one picture; the rule judge's ground truth. Written by the library."""
    id: Words = ""
    """Name of the scenario, unique in its file; a hash of the content if left out."""


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of one line of a scenario file."""
    schema = ScenarioRow.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


# The literal above is written out for type checkers and for the schema; it must not drift.
if get_args(Kind) != KINDS:
    raise ImportError(f"scenario_models.Kind differs from steer_env.scenarios: {get_args(Kind)}")


def explain(body: Mapping[str, Any], error: ValidationError) -> Iterator[tuple[str, str, str, str]]:
    """Yield (key, offending value, what was expected, remedy) for everything pydantic found in `body`."""
    told: set[tuple[str, str]] = set()
    for one in error.errors():
        place = _place(one["loc"])
        # A turn may be a string or an object. Pydantic complains about both; the branch meant is enough.
        if _other_branch(body, one["loc"]) or (place, one["type"]) in told:
            continue
        told.add((place, one["type"]))
        value = "missing" if one["type"] == "missing" else _show(one["input"])
        yield place, value, *_advice(one)


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= 60 else text[:60] + "..."


def _other_branch(body: Mapping[str, Any], loc: tuple[int | str, ...]) -> bool:
    if len(loc) < 3 or loc[0] != "turns":
        return False
    turn = body["turns"][loc[1]]
    return isinstance(turn, dict) != (loc[2] == "TurnRow")


def _place(loc: tuple[int | str, ...]) -> str:
    parts = [p for i, p in enumerate(loc) if not (i == 2 and loc[0] == "turns")]  # without the branch's name
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")


_TYPES = {
    "string_type": ("a string", "put it in quotation marks"),
    "int_type": ("an integer", "write a whole number without quotation marks"),
    "list_type": ("a list", "put it in square brackets"),
    "string_pattern_mismatch": ("text that is not blank", "write what the user says, or remove the turn"),
    "string_too_long": (
        f"at most {MAX_LENGTH} characters",
        "shorten it, or spread it over several turns",
    ),
    "string_too_short": ("a path", "write the picture's path, or remove the entry"),
    "string_unicode": ("text without lone surrogates", "repair the \\uD8xx escape or remove it"),
    "too_short": ("at least one user turn", "add a turn"),
    "missing": ("this key", "add it"),
    "greater_than_equal": ("an integer 0..5", "0 means unknown, 1 harmless, 5 the highest risk"),
    "less_than_equal": ("an integer 0..5", "0 means unknown, 1 harmless, 5 the highest risk"),
}


def _advice(error: Mapping[str, Any]) -> tuple[str, str]:
    """Return what was expected and the remedy, for one pydantic error."""
    kind = error["type"]
    if kind == "extra_forbidden":
        known = list(TurnRow.model_fields if "TurnRow" in error["loc"] else ScenarioRow.model_fields)
        return f"one of the keys {', '.join(known)}", _nearest(str(error["loc"][-1]), known, "remove it")
    if kind == "literal_error":
        known = list(KINDS)
        return f"one of {', '.join(map(repr, known))}", _nearest(str(error["input"]), known, "choose one")
    if error["loc"][-1] == "cells" and kind == "greater_than_equal":
        return "0 or more", "give the number of members of the whole contrast group, or leave it out"
    if kind == "string_type" and len(error["loc"]) == 3:  # ("turns", i, "str")
        return "a string or an object", 'write "text" or {"text": "text"}'
    return _TYPES.get(kind, (str(error["msg"]), "see steer_env/scenario.schema.json"))


def _nearest(word: str, known: list[str], otherwise: str) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise
