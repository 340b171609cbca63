"""The learning rate over a run."""

from __future__ import annotations

import math
from typing import Final, get_args

from steer_env.configs.train import Schedule

#: Names of the ways the rate goes on after its warm-up.
SCHEDULES: Final = get_args(Schedule)


def rate_share(
    step: int, steps: int, *, warmup: int = 0, schedule: str = "constant", final: float = 0.0
) -> float:
    r"""Return the share of the peak learning rate that a step has, in [0, 1].

    It rises linearly over `warmup` steps. Then, with $p$ the share of the steps left that is done, it is 1
    ("constant"), $1 - (1 - f) p$ ("linear") or $f + (1 - f)(1 + \cos \pi p) / 2$ ("cosine", Loshchilov and
    Hutter 2017, arXiv 1608.03983, eq. 5, without restarts). The last step is the last one before $p = 1$: it
    still learns where $f$ is 0.

    Args:
        step: Counted from 0; beyond the last one it keeps the final rate.
        steps: Number of steps.
        warmup: Steps of warm-up.
        schedule: One of `SCHEDULES`.
        final: $f$, the share at the end.

    Example:
        >>> [rate_share(step, 5, warmup=1, schedule="linear") for step in range(5)]
        [0.5, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    if schedule == "linear":
        return 1.0 - (1.0 - final) * done
    if schedule == "cosine":
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0
