"""Entry point of `steer-env`: one module per command, which holds its `COMMAND` (`steer_env.cli.command`).

Exit codes: 0 done, 1 a check found problems, 2 bad input (one clear message, no traceback), 130 Ctrl-C.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from steer_env.checks import suggestion
from steer_env.cli.together import Silent
from steer_env.extras import with_remedy
from steer_env.render import visible

#: Command -> what it does; "data build" is in module `data_build` or, where there is none, in `data`.
COMMANDS = {
    "envs": "list the environment ids",
    "play": "be the student or the attacker",
    "serve": "the same on a local page, and label recorded turns",
    "sft": "fine-tune a model on good dialogues",
    "train": "train a model with multi-turn GRPO or another algorithm",
    "evaluate": "test a student",
    "rescore": "judge stored dialogues again",
    "calibrate": "hold a judge against labels",
    "compare": "test whether students differ",
    "report": "report files of recorded runs",
    "arena": "every attacker against every student",
    "fork": "say which turn did it, by playing dialogues on",
    "demo": "the whole method on a tiny model",
    "scenarios": "check your own scenario files",
    "new": "begin an environment, judge, attacker or algorithm of your own",
    "data": "make seeds, bootstrap training data, build datasets, audit overlap",
}

_HELP = """usage: steer-env [-h] [--version] COMMAND ...

Multi-turn, visual-text safety environments: play, train, evaluate.

commands:
{commands}

Each has --help. --config FILE reads its options from a YAML file, under the names of the flags.

examples:
  steer-env demo                                   the whole method on a tiny model, in minutes
  steer-env evaluate constructive                  evaluate a scripted student
  steer-env evaluate path/to/model --env SteerRedTeam-v0
  steer-env compare runs/base runs/grpo            test whether two students differ
  steer-env train --student path/to/model --out runs/mine
  steer-env play --as student                      sit in the student's seat

STEER_ENV_DEBUG=1 shows tracebacks."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        listed = "\n".join(f"  {name:10} {text}" for name, text in COMMANDS.items())
        print(_HELP.format(commands=listed), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        import steer_env

        print(f"steer-env {steer_env.__version__}")
        return 0
    # Threads of torch that spin while they wait take the processor from each other where it is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    name = words[0]
    if name not in COMMANDS:
        print(
            f"steer-env: error: command={visible(name)!r}, expected one of {', '.join(COMMANDS)}"
            f"{suggestion(name, COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        raw = _Output(sys.stdout.fileno(), "w", closefd=False)
        buffered = io.BufferedWriter(raw)
        sys.stdout = io.TextIOWrapper(
            buffered, sys.stdout.encoding, sys.stdout.errors, line_buffering=raw.isatty()
        )
    try:
        return _run(name, words[1:])
    except KeyboardInterrupt:
        print(
            "\ninterrupted: what was finished is on disk; the same command goes on from there, with --resume "
            "where it has that option",
            file=sys.stderr,
        )
        return 130
    except Silent:
        return 2
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get("STEER_ENV_DEBUG"):
            traceback.print_exc()
        print(
            f"steer-env {name}: error: {visible(with_remedy(error)) or type(error).__name__}", file=sys.stderr
        )
        return 2


class _Output(io.FileIO):
    """Standard output that goes nowhere once its reader is gone, as in `steer-env evaluate ... | head -1`.

    What a command writes beside it must not be lost by that.
    """

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(data)


def _run(name: str, words: Sequence[str]) -> int:
    from steer_env.cli.command import HELD, read

    module = importlib.import_module(f"steer_env.cli.{name}")
    command = module.COMMAND
    if isinstance(command, dict):  # a group, such as data: the next word is the command
        action = words[0] if words else "--help"
        if action in ("-h", "--help"):
            listed = "\n".join(f"  {one:10} {what.summary}" for one, what in command.items())
            print(
                f"usage: steer-env {name} ACTION ...\n\n{module.__doc__}\n\nactions:\n{listed}\n\nexamples:"
            )
            print("\n".join(what.examples for what in command.values()))
            return 0 if words else 2
        if action not in command:
            raise ValueError(
                f"action={action!r}, expected one of {', '.join(command)}{suggestion(action, command)}"
            )
        name, words, command = f"{name} {action}", words[1:], command[action]
    config = read(command, words, name)
    with HELD:
        code = int(command.run(config))
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
