"""What a training step reports, and the guard that stops a run whose judge fails too often."""

from __future__ import annotations

import re
import warnings
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from scipy.special import bdtrc

from steer_env.judges.rule import NOT_ASKED, NOT_PLACED
from steer_env.trajectory import StopReason, Trajectory
from steer_env.types import Scored, Terms, Unscored
from steer_env.world.reply_language.reading import parse_reply

#: Why the rule judge has no number for words that are not the world's.
_UNREAD: Final = (NOT_PLACED, NOT_ASKED)
#: After so many turns it can be seen that a model does not speak the judge's language.
_EARLY: Final = 10
#: More unscored turns than the limit allows are more if chance would bring them, at the limit, less often.
_CHANCE: Final = 0.001


class TooManyUnscored(RuntimeError):
    """More turns than allowed had no verdict; going on would train on what happens to be left."""


class UnscoredGuard:
    """Watches the share of unscored turns over a window of steps.

    The share is above the limit once chance would bring so many unscored turns, each at the limit's
    probability, less often than once in a thousand (a binomial tail): 12 of 1000 at a limit of 1 % are
    no reason to stop. Where the rule judge cannot read a model's words, a `RuntimeWarning` says so before,
    after ten turns at the earliest.
    Its state holds the steps up to the last `commit`: one that breaks off is played and seen again.

    Args:
        limit: Highest share allowed, in [0, 1]; 1 never stops.
        window: Number of steps looked at, None for all of them.
        least: The share is judged once the window holds this many turns.
    """

    def __init__(self, limit: float = 0.05, window: int | None = 20, least: int = 50) -> None:
        if not 0 <= limit <= 1:
            raise ValueError(f"unscored_limit={limit!r}, expected a share in [0, 1]")
        self.limit, self.least = limit, least
        self._steps: deque[tuple[int, Counter[str]]] = deque(maxlen=window)
        self._told = False
        self._committed: list[tuple[int, Counter[str]]] = []
        self._span = f" in the last {window} steps" if window else ""

    def see(self, trajectories: Sequence[Trajectory]) -> None:
        """Count a step's turns; a dialogue that failed counts as one more turn, without a verdict.

        Raises:
            TooManyUnscored: If the share of unscored turns in the window is above the limit, beyond chance.
        """
        verdicts = [result.turn.verdict for trajectory in trajectories for result in trajectory.turns]
        reasons = [
            v.reason if isinstance(v, Unscored) else "no judge" for v in verdicts if not isinstance(v, Scored)
        ]
        lost = [trajectory.error for trajectory in trajectories if trajectory.stop == StopReason.FAILED]
        step = (len(verdicts) + len(lost), Counter(reasons + lost))
        if self._steps and self._steps.maxlen is None:  # one sum is enough where nothing is forgotten
            before, counts = self._steps.pop()
            step = (before + step[0], counts + step[1])
        self._steps.append(step)
        turns = sum(count for count, _ in self._steps)
        total: Counter[str] = Counter()
        for _, counts in self._steps:
            total.update(counts)
        unscored = total.total()
        if turns < min(_EARLY, self.least) or _tail(unscored, turns, self.limit) >= _CHANCE:
            return
        if turns >= self.least:
            listed = "; ".join(f"{count} x {reason}" for reason, count in alike(total).most_common(5))
            raise TooManyUnscored(
                f"{unscored} of {turns} turns ({unscored / turns:.1%}){self._span} "
                f"are unscored, expected at most {self.limit:.1%}: {listed}. {_remedy(total)}, or raise "
                "--unscored-limit (in Python unscored_limit=...)"
            )
        if not self._told and _speaks_freely(total):
            self._told = True
            warnings.warn(
                f"{unscored} of the first {turns} turns are unscored, and the limit is {self.limit:.1%}. "
                f"{_remedy(total)}",
                RuntimeWarning,
                stacklevel=2,
            )

    def commit(self) -> None:
        """Count the steps seen so far as done."""
        self._committed = list(self._steps)

    def state_dict(self) -> dict[str, Any]:
        """Return the window as of the last `commit`."""
        return {"steps": [[turns, dict(reasons)] for turns, reasons in self._committed]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the window back."""
        self._steps.clear()
        self._steps.extend((int(turns), Counter(reasons)) for turns, reasons in state["steps"])
        self.commit()


def _tail(count: int, n: int, share: float) -> float:
    """Probability of `count` or more among n, each with probability `share`: a binomial's upper tail."""
    return float(bdtrc(count - 1, n, share)) if count else 1.0


def _speaks_freely(reasons: Counter[str]) -> bool:
    return any(reason in _UNREAD for reason in reasons)


def _remedy(reasons: Counter[str]) -> str:
    """Say what helps against the most frequent reason."""
    if reasons and reasons.most_common(1)[0][0] in _UNREAD:
        return (
            "The rule judge reads the world's language and little else. For a model that speaks freely use "
            '--judge "cascade(rule, grounded(openai:MODEL@http://HOST:PORT/v1))" (in Python judge=...)'
        )
    return "Repair the judge or the agent that failed"


def alike(reasons: Counter[str]) -> Counter[str]:
    """Count reasons that differ in their numbers as one, under the wording of the most frequent.

    >>> alike(Counter({"5 tokens": 2, "7 tokens": 1, "timeout": 1}))
    Counter({'5 tokens': 3, 'timeout': 1})
    """
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for reason, count in reasons.most_common():
        counts[names.setdefault(re.sub(r"\d+", "#", reason), reason)] += count
    return counts


def dialogue_metrics(trajectories: Sequence[Trajectory], returns_GK: np.ndarray) -> dict[str, float | None]:
    """Summarise a step's dialogues: returns, verdicts, costs. A mean over nothing is None, never 0.

    Args:
        trajectories: The dialogues.
        returns_GK: Their returns in groups, NaN where undefined.
    """
    results = [result for trajectory in trajectories for result in trajectory.turns]
    scored = [r.turn.verdict.terms for r in results if isinstance(r.turn.verdict, Scored)]
    defined = returns_GK[~np.isnan(returns_GK)]
    lengths = np.array([len(trajectory.turns) for trajectory in trajectories]).reshape(returns_GK.shape)
    # Sums vary with the seeds' lengths more than with the policy; the mean per turn compares over steps.
    defined_per_turn = (returns_GK / np.maximum(lengths, 1))[~np.isnan(returns_GK)]
    spread = np.array([np.ptp(row[~np.isnan(row)]) if np.any(~np.isnan(row)) else 0.0 for row in returns_GK])
    metrics: dict[str, float | None] = {
        "return": _mean(defined),
        "return_std": float(defined.std()) if len(defined) else None,
        "return_per_turn": _mean(defined_per_turn),
        "turns": _mean([len(trajectory.turns) for trajectory in trajectories]),
        "unscored": 1 - len(scored) / len(results) if results else None,
        "failed": float(np.mean([t.stop == StopReason.FAILED for t in trajectories])),
        "flat_groups": float((spread < 1e-9).mean()),
        "cost": _mean(
            [r.info["cost"] for r in results if "cost" in r.info and isinstance(r.turn.verdict, Scored)]
        ),
    }
    replies = [r.turn.reply for t in trajectories if t.scenario.truth is not None for r in t.turns]
    metrics["well_formed"] = _mean([parse_reply(str(reply)).well_formed for reply in replies])
    for name in Terms._fields:
        metrics[name] = _mean([getattr(terms, name) for terms in scored])
    terms = [r.info.get("reward_terms", {}) for r in results if isinstance(r.turn.verdict, Scored)]
    for name in sorted({key for row in terms for key in row} - set(Terms._fields)):  # format, repetition, ...
        metrics[name] = _mean([row[name] for row in terms if name in row])
    last = [t.turns[-1].info["tcsr"] for t in trajectories if t.turns and "tcsr" in t.turns[-1].info]
    for name in ("min", "mean"):
        metrics[f"tcsr_{name}"] = _mean([value[name] for value in last])
    return metrics


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None
