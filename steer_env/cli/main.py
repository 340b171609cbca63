"""Entry point of `steer-env`: one module per command, each with `add(commands)` and `run(args) -> int`.

Exit codes: 0 done, 1 a check found problems, 2 bad input (one clear message, no traceback), 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack

from steer_env.cli.together import Silent
from steer_env.render import visible

COMMANDS = (
    "envs", "play", "sft", "train", "evaluate", "rescore", "calibrate", "compare", "report", "demo",
    "scenarios", "data",
)  # fmt: skip

_DESCRIPTION = "Multi-turn, visual-text safety environments: play, train, evaluate."
_EPILOG = """examples:
  steer-env demo                                   the whole method on a tiny model, in minutes
  steer-env evaluate constructive                  evaluate a scripted student
  steer-env evaluate path/to/model --env SteerRedTeam-v0
  steer-env compare runs/base runs/grpo            test whether two students differ
  steer-env train --student path/to/model --out runs/mine
  steer-env play --as student                      sit in the student's seat

STEER_ENV_DEBUG=1 shows tracebacks."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all commands."""
    import steer_env

    parser = argparse.ArgumentParser(
        "steer-env",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"steer-env {steer_env.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"steer_env.cli.{name}").add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    args = argparse.Namespace(command="")
    try:
        build_parser().parse_args(argv, args)
        with ExitStack() as args.held:  # run folders, see `steer_env.cli.common.claim`
            code: int = args.run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\ninterrupted: what was finished is on disk; --resume goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `steer-env envs | head -1` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if getattr(args, "resume", None) is None:
            return 0
        print("nobody reads the output any more, so the command stopped; --resume goes on", file=sys.stderr)
        return 2
    except Silent:
        return 2
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get("STEER_ENV_DEBUG"):
            traceback.print_exc()
        print(
            f"steer-env {args.command}: error: {visible(str(error)) or type(error).__name__}", file=sys.stderr
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
