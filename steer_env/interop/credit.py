"""Credit per turn from what an engine carries of a dialogue: its rewards, turn by turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from steer_env.algorithms.advantages import group_advantages
from steer_env.algorithms.credit import Ledger, turn_values
from steer_env.arrays import Floats

#: Ways to give credit that need no more of a dialogue than a reward per turn.
CREDITS: Final = ("own_turn", "discounted", "reward_to_go", "turn_normalised", "trajectory")
#: Those of them that look at turns' own rewards; the others at the increments of the declared return.
OWN: Final = ("own_turn", "discounted")


def advantages(
    rewards: Sequence[ArrayLike], credit: str, *, discount: float = 0.0, scale: bool = False
) -> list[Floats]:
    """Return the advantage of each turn of each dialogue of a group, (T,).

    Args:
        rewards: Per dialogue (T,): for the credits in `OWN` each turn's own reward, NaN where it is unscored,
            else what was emitted.
        credit: One of `CREDITS`.
        discount: Of "discounted".
        scale: Divide by the group's standard deviation; "turn_normalised" always does.
    """
    rows = [np.asarray(row, np.float64) for row in rewards]
    ledgers = [Ledger(row, np.zeros(len(row)), row, float(np.nansum(row))) for row in rows]
    values_TK = turn_values(ledgers, credit, discount=discount)
    found_TK = group_advantages(values_TK, scale=scale or credit == "turn_normalised")
    if len(found_TK) == 1:  # all turns answer for the same
        return [np.full(len(row), found_TK[0, k]) for k, row in enumerate(rows)]
    return [found_TK[: len(row), k] for k, row in enumerate(rows)]
