"""`steer-env scenarios`: check a scenario file, print the schema."""

from __future__ import annotations

import json
from collections.abc import Sequence

from steer_env.cli.command import Command, Positional
from steer_env.configs.base import config
from steer_env.render import counted, visible
from steer_env.scenarios import Scenario

_VALIDATE = """  steer-env scenarios validate my.jsonl

a line of such a file:
  {"turns": ["What is in the picture?", "Is it safe to eat?"], "images": ["photo.jpg"], "kind": "benign"}"""


@config(frozen=True, kw_only=True)
class Validate:
    """List what is wrong with a scenario file, with line numbers; exit code 1 if anything is.

    Attributes:
        file: JSON Lines, picture paths relative to it or absolute; or DATASET:[SPLIT:]ROOT.
        student: Model folder or hub id: try every picture on its processor, too, which may refuse thin ones.
    """

    file: Positional[str]
    student: str | None = None


@config(frozen=True, kw_only=True)
class Schema:
    """Print the JSON schema of a line."""


def validate(config: Validate) -> int:
    """Validate a file."""
    from steer_env import scenario_files

    try:
        scenarios = scenario_files.load_scenarios(config.file)
    except scenario_files.ScenarioFileError as error:
        for problem in error.problems:
            print(f"{config.file}: {problem}")
        print(f"{counted(len(error.problems), 'problem')}")
        return 1
    refused = [] if config.student is None else _refused(config.file, scenarios, config.student)
    for line in refused:
        print(visible(line))
    if refused:
        print(f"{counted(len(refused), 'picture')} that the model's processor refuses")
        return 1
    counts = {
        "scenario": len(scenarios),
        "user turn": sum(len(s) for s in scenarios),
        "image": sum(len(s.images) for s in scenarios),
    }
    told = ", ".join(counted(count, what) for what, count in counts.items())
    print(f"{config.file}: fine. {told}")
    return 0


def schema(_: Schema) -> int:
    """Print the schema."""
    from steer_env import scenario_files

    print(json.dumps(scenario_files.json_schema(), indent=2))
    return 0


def _refused(file: str, scenarios: Sequence[Scenario], student: str) -> list[str]:
    """Return a line for every picture that a model's processor refuses."""
    from steer_env.agents.hf.codec import ChatCodec
    from steer_env.images import ImageError
    from steer_env.models import tiny
    from steer_env.scenario_files import lines_of

    codec = ChatCodec(tiny.load_processor(student))
    lines = lines_of(file)
    found = []
    for scenario in scenarios:
        for image in scenario.images:
            try:
                codec.image(image)
            except ImageError as error:
                place = f"line {lines[scenario.id]}" if scenario.id in lines else scenario.provenance
                found.append(f"{file}: {place}: {error}")
    return found


COMMAND = {
    "validate": Command(Validate, validate, _VALIDATE),
    "schema": Command(Schema, schema, "  steer-env scenarios schema > scenario.schema.json"),
}
