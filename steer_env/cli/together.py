"""Errors of a command that several processes run: one of them says what happened, the others just stop."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

_KEY = "steer_env/failed"


class Silent(Exception):
    """Another process has told the user what went wrong; this one only has to end."""


@contextmanager
def together() -> Iterator[None]:
    """Run a block that several processes run; the first one that fails speaks for all.

    A process that waits for one that failed gets an error of its own, about a lost connection; it comes
    second. The launcher ends those that still wait once one has ended with an error.

    Raises:
        Silent: In place of any error but the first one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    try:
        yield
    except KeyboardInterrupt as error:
        if os.environ.get("RANK", "0") != "0":
            raise Silent from error
        raise
    except Exception as error:
        if not _is_first():
            raise Silent from error
        raise
    _leave()


def _is_first() -> bool:
    """Whether nobody failed before; twice the same message is better than none."""
    try:
        return int(_store().add(_KEY, 1)) == 1
    except Exception:
        return True


def _store() -> Any:
    """The launcher's key-value store, which outlives the processes."""
    distributed: Any = importlib.import_module("torch.distributed")
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return distributed.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
