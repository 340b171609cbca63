"""What a judge is: a batch of requests in, one verdict each out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from steer_env.drawing import spoken, truth_shown
from steer_env.scenarios import Scenario
from steer_env.types import Message, Scored, Unscored, Verdict
from steer_env.world.truth import Truth

#: Seconds after which an answer that is under way, a verdict or a reply, counts as lost. Back ends give up
#: sooner, each with its own reason; this is for futures that somebody forgot.
DEADLINE: Final = 3600.0


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """One reply to judge, with everything the judge may look at.

    Attributes:
        scenario: Images, hidden goal, ground truth.
        transcript: All messages so far; the last one is the reply to judge, the one before it the user
            turn it answers.
        context: A scratch dict that lives as long as the dialogue and starts empty. A judge may keep what
            it worked out about earlier turns there, so that cost per turn does not grow with history; it
            must give the same verdict when handed an empty one.
    """

    scenario: Scenario
    transcript: tuple[Message, ...]
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def spoken(self) -> tuple[Message, ...]:
        """The transcript with the words that an attacker drew into pictures: what a judge of text reads."""
        scenario = self.scenario
        return self.transcript if scenario.dealt is None else spoken(self.transcript, scenario.images)

    @property
    def truth(self) -> Truth | None:
        """Ground truth of the scene that was shown last, None where there is none."""
        scenario = self.scenario
        if scenario.dealt is None:
            return scenario.truth
        return truth_shown(scenario, scenario.images[: sum(m.images for m in self.transcript)])


@runtime_checkable
class Judge(Protocol):
    """Scores replies. A judge that fails returns `Unscored(reason)`; it never invents a number."""

    name: str

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """Return one verdict per request, in order."""
        ...


@runtime_checkable
class AsyncJudge(Judge, Protocol):
    """A judge whose verdicts come back one by one, such as a model behind a server."""

    def submit(self, request: JudgeRequest) -> Future[Verdict]:
        """Start one verdict and return at once; the future never raises, failures are `Unscored`."""
        ...


def give_up(waiting: Iterable[Future[Any]], since: dict[Future[Any], float], deadline: float) -> None:
    """Sleep until one of these is done, and end those that have been waited for longer than the deadline.

    Args:
        waiting: Futures that are not done.
        since: When each was first waited for; kept up to date here. Starts empty.
        deadline: Seconds; a future over it raises `TimeoutError` from then on.
    """
    now = time.monotonic()
    known = {future: since.get(future, now) for future in waiting}
    since.clear()
    since.update(known)
    wait(known, timeout=max(0.0, min(known.values()) + deadline - now), return_when=FIRST_COMPLETED)
    for future, start in known.items():
        if not future.done() and time.monotonic() - start >= deadline:
            with suppress(InvalidStateError):  # it came at the last moment
                future.set_exception(TimeoutError(f"no answer within {deadline:g} s, given up"))


def judge_batch(judge: Judge, requests: list[JudgeRequest]) -> list[Verdict]:
    """Call a judge and hold it to its contract.

    An exception becomes `Unscored` for every request of the batch, never a number; the run goes on and the
    unscored rate tells.

    Raises:
        TypeError: If the judge returns anything but one `Scored` or `Unscored` per request.
    """
    try:
        verdicts = judge.judge(requests)
    except Exception as error:
        return [_broken(judge, error, len(requests))] * len(requests)
    if (
        not isinstance(verdicts, list | tuple)
        or len(verdicts) != len(requests)
        or not all(isinstance(verdict, Scored | Unscored) for verdict in verdicts)
    ):
        raise TypeError(
            f"judge {judge.name!r} returned {verdicts!r} for {len(requests)} requests, expected one Scored "
            "or Unscored each, in order"
        )
    return list(verdicts)


def read_verdict(judge: Judge, future: Future[Verdict]) -> Verdict:
    """Return the verdict of an asynchronous judge, waiting for it, by the rules of `judge_batch`.

    A verdict that takes longer than `DEADLINE` is `Unscored` as well.

    Raises:
        TypeError: If it is neither `Scored` nor `Unscored`.
    """
    try:
        verdict = future.result(timeout=DEADLINE)
    except Exception as error:
        return _broken(judge, error, 1)
    if not isinstance(verdict, Scored | Unscored):
        raise TypeError(f"judge {judge.name!r} gave {verdict!r}, expected Scored or Unscored")
    return verdict


def _broken(judge: Judge, error: Exception, turns: int) -> Unscored:
    reason = f"judge {judge.name!r} raised {type(error).__name__}: {error}"
    are = "1 turn is" if turns == 1 else f"{turns} turns are"
    warnings.warn(f"{reason}; {are} unscored", RuntimeWarning, stacklevel=3)
    return Unscored(reason, judge.name)
