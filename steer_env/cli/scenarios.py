"""`steer-env scenarios`: check a scenario file, print the schema."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from steer_env.cli.legacy import command
from steer_env.render import visible
from steer_env.scenarios import Scenario

_VALIDATE = """example:
  steer-env scenarios validate my.jsonl

a line of such a file:
  {"turns": ["What is in the picture?", "Is it safe to eat?"], "images": ["photo.jpg"], "kind": "benign"}"""


def add(commands: Any) -> None:
    """Add the command and its two subcommands."""
    example = "  steer-env scenarios validate my.jsonl\n  steer-env scenarios schema > scenario.schema.json"
    parser = command(commands, "scenarios", "check your own scenario files", example, run)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "validate",
        help="list everything that is wrong with a file",
        description="List what is wrong with a scenario file, with line numbers; exit code 1 if anything is.",
        epilog=_VALIDATE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("file", metavar="FILE", help="JSON Lines, picture paths relative to it or absolute")
    check.add_argument(
        "--student",
        metavar="MODEL",
        help="model folder or hub id: try every picture on its processor, too, which may refuse thin ones",
    )
    schema = "print the JSON schema of a line"
    actions.add_parser("schema", help=schema, description=schema)


def run(args: argparse.Namespace) -> int:
    """Validate a file or print the schema."""
    from steer_env import scenario_files

    if args.action == "schema":
        print(json.dumps(scenario_files.json_schema(), indent=2))
        return 0
    try:
        scenarios = scenario_files.load_scenarios(args.file)
    except scenario_files.ScenarioFileError as error:
        for problem in error.problems:
            print(f"{args.file}: {problem}")
        print(f"{len(error.problems)} problem{'s' if len(error.problems) != 1 else ''}")
        return 1
    refused = [] if args.student is None else _refused(args.file, scenarios, args.student)
    for line in refused:
        print(visible(line))
    if refused:
        print(f"{len(refused)} picture{'s' if len(refused) != 1 else ''} that the model's processor refuses")
        return 1
    turns = sum(len(s) for s in scenarios)
    images = sum(len(s.images) for s in scenarios)
    print(f"{args.file}: fine. {len(scenarios)} scenarios, {turns} user turns, {images} images")
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
                found.append(f"{file}: line {lines[scenario.id]}: {error}")
    return found
