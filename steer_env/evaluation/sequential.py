r"""Intervals that may be looked at after every dialogue: to stop as soon as a question is decided.

An ordinary 95 % interval is right for a number of dialogues fixed beforehand. Who looks at it again and again
and stops once it excludes a threshold is wrong far more often than in one case of twenty. A *confidence
sequence* holds at all times at once: P(for some t the mean is outside) <= 1 - confidence, whenever one stops
and for whatever reason (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by
betting", JRSS B 86, arXiv 2010.09686).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from steer_env.arrays import Floats

#: Candidate means that bounds are found among; a bound is rounded outwards to one of them.
GRID: Final = 1001
#: Most of the capital that one observation may cost.
_STAKE: Final = 0.75


@dataclass(frozen=True)
class Look:
    """What is known after some dialogues.

    Attributes:
        question: As it was asked.
        answer: True, False, or None while it is open.
        value: Mean over groups so far, or, beside another run, the mean difference; undecided ones left out.
        low: Lower end of the confidence sequence, of the measure or of the difference.
        high: Its upper end.
        confidence: Of the sequence.
        dialogues: Played so far.
        of: That would have been played.
    """

    question: str
    answer: bool | None
    value: float | None
    low: float
    high: float
    confidence: float
    dialogues: int
    of: int

    def __str__(self) -> str:
        said = {True: "yes", False: "no", None: "not decided"}[self.answer]
        saved = f", {self.of - self.dialogues} saved" if self.dialogues < self.of else ""
        shown = "-" if self.value is None else f"{self.value:.1%}"
        return (
            f"{self.question}: {said} after {self.dialogues} of {self.of} dialogues{saved}; {shown}, "
            f"{self.confidence:.0%} confidence sequence [{self.low:.1%}, {self.high:.1%}]"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def confidence_sequence(
    low: ArrayLike, high: ArrayLike | None = None, *, confidence: float = 0.95
) -> tuple[Floats, Floats]:
    r"""Return lower and upper bounds of a mean after each observation, valid at all of them together.

    For each candidate mean $m$ a gambler bets on observations above it, another on those below it; with the
    true mean both games are fair, so that by Ville's inequality no capital ever reaches $2 / (1 - c)$ with
    probability above $(1 - c) / 2$. Excluded are the means against which one did. The capital against means
    that are too small is $\prod_i (1 + \lambda_i(m) (x_i - m))$, $\lambda_i(m) = \min(\lambda_i, s / m)$, and
    $\lambda_i = \sqrt{2 \log(2 / (1 - c)) / (\hat\sigma^2_{i-1}\, i \log(i + 1))}$ knows earlier observations
    only (arXiv 2010.09686, eq. 24 to 26, with the mean and variance of $\{1/2, x_1 \dots x_{i-1}\}$).

    Observations must be independent draws with one mean: means of scenario groups, not members of them.

    Args:
        low: Observations in [0, 1], in the order they came, shape (T,).
        high: The most they can be where they are known within bounds only; `low` unless it is given. The
            lower bound is that of `low`, the upper one that of `high`.
        confidence: In (0, 1).

    Returns:
        Lower and upper bounds, each (T,) in [0, 1]; the first never falls, the second never rises.

    Raises:
        ValueError: If a value is outside [0, 1] or no number, the shapes differ, or an observation's least is
            above its most.

    Example:
        Of forty dialogues none did harm.

        >>> lower, upper = confidence_sequence(np.zeros(40))
        >>> [round(float(bound), 3) for bound in (lower[-1], upper[9], upper[-1])]
        [0.0, 0.373, 0.115]
    """
    least = np.asarray(low, np.float64)
    most = least if high is None else np.asarray(high, np.float64)
    if least.ndim != 1 or least.shape != most.shape:
        raise ValueError(f"shapes {least.shape} and {most.shape}, expected both (T,)")
    if not (np.all(least >= 0) and np.all(most <= 1) and np.all(least <= most)):
        raise ValueError("expected observations in [0, 1], none with its least above its most")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r}, expected a number in (0, 1)")
    lower = _lower(least, (1 - confidence) / 2)
    upper = 1 - _lower(1 - most, (1 - confidence) / 2)
    return lower, upper


def _lower(x: Floats, error: float) -> Floats:
    """Return the lower bounds, (T,): the largest mean such that it and all smaller ones are excluded."""
    if not len(x):
        return x
    means = np.linspace(0, 1, GRID)
    count = np.arange(1, len(x) + 1)
    seen = (0.5 + np.cumsum(x)) / (count + 1)
    spread = (0.25 + np.cumsum(np.square(x - seen))) / (count + 1)
    before = np.concatenate(([0.25], spread[:-1]))
    bets = np.sqrt(2 * np.log(1 / error) / (before * count * np.log1p(count)))
    stakes = np.minimum(bets[:, None], _STAKE / np.maximum(means, 1e-12))
    capital = np.cumsum(np.log1p(stakes * (x[:, None] - means)), axis=0)
    out = np.maximum.accumulate(capital, axis=0) >= np.log(1 / error)
    kept = np.argmin(out, axis=1)  # the smallest mean that is not excluded
    return np.asarray(means[np.maximum(kept - 1, 0)])
