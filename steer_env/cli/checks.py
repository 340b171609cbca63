"""What a finished evaluation has to say about itself before anybody reads its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from steer_env.records import Row
from steer_env.trajectory import StopReason


class AllFailed(RuntimeError):
    """Not one dialogue of a run was played to its end."""


def check_played(rows: Sequence[Row]) -> None:
    """Refuse to call a run done in which every dialogue failed: it has no numbers, and no controls.

    Raises:
        AllFailed: With the commonest reason.
    """
    failed = Counter(str(row.get("error")) for row in rows if row.get("stop") == StopReason.FAILED)
    if rows and failed.total() == len(rows):
        reason, count = failed.most_common(1)[0]
        raise AllFailed(
            f"all {len(rows)} dialogues failed, expected some to be played; the commonest reason ({count}): "
            f"{reason}. Mend that, then --resume plays them again"
        )
