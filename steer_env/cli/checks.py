"""What a finished evaluation has to say about itself before anybody reads its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from steer_env.records import Row
from steer_env.trajectory import StopReason

#: Share of empty replies above which they are pointed out.
EMPTY = 0.05


class AllFailed(RuntimeError):
    """Not one dialogue of a run was played to its end."""


def check_played(rows: Sequence[Row]) -> None:
    """Point out empty replies in bulk, and refuse to call a run done in which every dialogue failed.

    Raises:
        AllFailed: With the commonest reason.
    """
    replies = [turn["reply"] for row in rows for turn in row["turns"]]
    empty = sum(not str(reply).strip() for reply in replies)
    if replies and empty > EMPTY * len(replies):
        print(
            f"warning: {empty} of {len(replies)} replies are empty ({empty / len(replies):.1%}); they do no "
            "harm and no good. Is the server alive, does the model's chat template fit, is --max-new-tokens "
            "large enough for its thinking?"
        )
    failed = Counter(str(row.get("error")) for row in rows if row.get("stop") == StopReason.FAILED)
    if rows and failed.total() == len(rows):
        reason, count = failed.most_common(1)[0]
        raise AllFailed(
            f"all {len(rows)} dialogues failed, expected some to be played; the commonest reason ({count}): "
            f"{reason}. Mend that, then --resume plays them again"
        )
