"""Who speaks in a seat, and what it has been asked and not yet answered.

An agent with `submit` (`AsyncAgent`) gets its observations one by one and answers each in its own time; an
agent with only `act` gets everything that waits as one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from steer_env.agents.base import Acts, AsyncAgent, Failed, Observation
from steer_env.types import Utterance

#: Slots, and what was said there.
Answers = tuple[list[int], list[Utterance | Failed]]


class Seat:
    """A seat, its agent, and the requests under way.

    Attributes:
        name: "attacker_0" or "student_0".
        requests: Slot -> the answer to come.

    Args:
        name: The seat.
        agent: Its agent.
    """

    def __init__(self, name: str, agent: Acts) -> None:
        self.name, self.agent = name, agent
        self.requests: dict[int, Future[Utterance | Failed]] = {}

    def ask(self, ids: Sequence[int], observations: Sequence[Observation]) -> Answers:
        """Ask for slots that wait, and return the answers there are: all of a batch agent's, or what arrived.

        A slot is asked once until its answer is returned.

        Raises:
            ValueError: If `act` returns the wrong number of utterances.
            TypeError: If an answer is neither a string nor `Failed`, or `submit` returns no future.
        """
        if not isinstance(self.agent, AsyncAgent):
            return list(ids), checked_act(self.agent, self.name, observations) if ids else []
        for i, seen in zip(ids, observations, strict=True):
            if i not in self.requests:
                self.requests[i] = self._submit(self.agent, seen)
        arrived = sorted(i for i, future in self.requests.items() if future.done())
        answers = [_result(self.requests.pop(i)) for i in arrived]
        for answer in answers:
            if not isinstance(answer, str | Failed):
                raise TypeError(f"{self._method} gave {answer!r}, expected a str or Failed(reason)")
        return arrived, answers

    def _submit(self, agent: AsyncAgent, observation: Observation) -> Future[Utterance | Failed]:
        future = agent.submit(observation)
        if not isinstance(future, Future):
            raise TypeError(f"{self._method} returned {future!r}, expected a concurrent.futures.Future")
        return future

    @property
    def _method(self) -> str:
        return f"{type(self.agent).__name__}.submit() for {self.name}"


def _result(answer: Future[Utterance | Failed]) -> Utterance | Failed:
    """Return an answer; one that was waited for too long is a failure."""
    try:
        return answer.result()
    except TimeoutError as error:
        return Failed(f"timeout: {error}")


def checked_act(agent: Acts, seat: str, observations: Sequence[Observation]) -> list[Utterance | Failed]:
    """Call an agent and hold it to its contract: one string per observation, or `Failed`.

    Raises:
        ValueError: If it returns the wrong number of utterances.
        TypeError: If it returns no sequence of strings.
    """
    replies: Sequence[Any] = agent.act(observations)
    name = f"{type(agent).__name__}.act() for {seat}"
    if isinstance(replies, str) or not isinstance(replies, Sequence):
        raise TypeError(f"{name} returned {replies!r}, expected a list with one str per observation")
    if len(replies) != len(observations):
        raise ValueError(
            f"{name} returned {len(replies)} utterances for {len(observations)} observations, expected one "
            "each, in order; one call answers the whole batch"
        )
    for index, reply in enumerate(replies):
        if not isinstance(reply, str | Failed):
            raise TypeError(f"{name} returned {reply!r} at index {index}, expected a str or Failed(reason)")
    return list(replies)
