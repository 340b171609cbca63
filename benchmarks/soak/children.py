"""Commands in forked children of a process that has imported everything: harm meets work, not imports."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from steer_env.cli.main import main as steer

PATIENCE = 240.0  # seconds after which a command hangs


class Child:
    """A command under way in a forked process, its output in a file."""

    def __init__(self, words: list[str], log: Path, before: Callable[[], None] = lambda: None) -> None:
        self.log = log
        self.pid = os.fork()
        if self.pid:
            return
        code = 70
        try:
            os.chdir(log.parent)
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(file, stream)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            before()
            code = steer(words)
        except SystemExit as error:  # of argparse
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def wait(self, counts: Counter[str]) -> int:
        """Wait, count what must not be (a hang, a traceback), and return the exit code, -1 if killed."""
        end = time.monotonic() + PATIENCE
        done, status = os.waitpid(self.pid, os.WNOHANG)
        while not done and time.monotonic() < end:
            time.sleep(0.02)
            done, status = os.waitpid(self.pid, os.WNOHANG)
        if not done:
            counts["hangs"] += 1
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            return -1
        said = self.log.read_text(errors="replace") if self.log.exists() else ""
        if "Traceback" in said:
            counts["tracebacks"] += 1
            print(f"--- traceback in {self.log}\n{said[-3000:]}", flush=True)
        return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else -1
