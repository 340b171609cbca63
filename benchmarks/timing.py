"""What benchmarks share: a stopwatch, and what their figures depend on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: (turns, seconds by the clock, seconds of this process on a CPU)
Timed = tuple[int, float, float]
#: Plays about as many turns as asked.
Case = Callable[[int], Timed]


class Stopwatch:
    """Measures by the clock and by the CPU time of this process, which other work disturbs less."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, turns: int) -> Timed:
        """Return turns and both times."""
        return turns, time.perf_counter() - self._wall, time.process_time() - self._cpu


PACKAGES = ("steer-env", "numpy", "gymnasium", "pettingzoo", "pillow", "pydantic", "textarena")


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Return what the figures depend on."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
    }
