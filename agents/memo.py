"""Answers that are asked for once: by key, also while they are still under way."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future
from threading import Lock
from typing import Any

from steer_env.models.structured import NoAnswer


class CallMemo:
    """Answers by key, those under way included, the least recently used forgotten first.

    Safe to use from several threads.

    Attributes:
        begun: Questions that were new.

    Args:
        size: Answers kept; those under way are never dropped.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.begun = 0
        self._lock = Lock()
        self._known: OrderedDict[str, Future[Any]] = OrderedDict()

    def claim(self, key: str, *, again: bool) -> tuple[Future[Any], bool]:
        """Return the answer to come, and whether the caller has to bring it.

        Args:
            key: Digest of the question.
            again: Ask anew where an earlier answer failed; otherwise a failure counts as the answer.
        """
        with self._lock:
            known = self._known.get(key)
            if known is not None and not (again and known.done() and isinstance(known.result(), NoAnswer)):
                self._known.move_to_end(key)
                return known, False
            new: Future[Any] = Future()
            new.set_running_or_notify_cancel()  # shared: nobody may cancel it for the others
            self._known[key] = new
            self._known.move_to_end(key)
            self.begun += 1
            if len(self._known) > self._size:
                oldest = next((k for k, v in self._known.items() if v.done()), None)
                if oldest is not None:  # what is under way stays, or it would be asked twice
                    del self._known[oldest]
            return new, True

    def forget(self, key: str) -> None:
        """Ask anew the next time."""
        with self._lock:
            self._known.pop(key, None)

    def __deepcopy__(self, memo: dict[int, Any]) -> CallMemo:
        return CallMemo(self._size)  # a lock cannot be copied, and answers can be asked again
