"""Tasks for the worker processes of `test_pool`, which import this file by its name."""

import os
import signal
import time
from pathlib import Path


def write(folder, job, tell):
    """Write a file; job "bad" raises, job "dies" is killed, job "waits" sleeps and says its process id."""
    if job == "bad":
        raise ValueError("no good")
    if job == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "waits":
        (Path(folder) / "pid").write_text(str(os.getpid()))
        time.sleep(60)
    tell("trained", None)
    (Path(folder) / job).write_text(str(time.monotonic()))
    return job.upper()
