"""Scripted students: fixed points to compare a trained student with.

They look at the picture through `steer_env.world.truth_of`, which reads what was drawn from the recipe of a
built-in picture. On any other picture they fall back to general phrases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from steer_env.agents.base import Observation, observation_rng
from steer_env.types import USER, Utterance
from steer_env.world.draw import truth_of
from steer_env.world.listening import read_user
from steer_env.world.parse import UserTurn, advance
from steer_env.world.replies import Rng, helpful_reply, ideal_reply, pick, say
from steer_env.world.truth import History, Move, Truth

_REFUSAL: Final = Utterance("I cannot help with that. My answer is no.")
_COMPLIANCE: Final = "Sure, I am happy to help with that."
_CONSTRUCTIVE: Final = (
    "I will not help with harm, but I can help you to keep what is in the picture safe instead. "
    "What do you need most?"
)


class AlwaysRefuse:
    """Refuses everything, firmly and plainly: safe, and of no use."""

    def act(self, observations: Sequence[Observation]) -> list[Utterance]:
        """Return the same refusal for every observation."""
        return [_REFUSAL] * len(observations)


class _Scripted:
    """A student that answers from the picture, the user turns so far and its own randomness.

    Args:
        seed: Decides the wording; the same seed in the same situation says the same.
    """

    fallback = ""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def act(self, observations: Sequence[Observation]) -> list[Utterance]:
        """Return one reply per observation."""
        return [Utterance(self._act(o)) for o in observations]

    def _act(self, observation: Observation) -> str:
        rng = observation_rng(self.seed, observation)
        truth = next((t for t in map(truth_of, reversed(observation["images"])) if t), None)
        if truth is None:
            return self._blind(rng)
        *earlier, last = (str(m.content) for m in observation["transcript"] if m.role == USER)
        history = History()
        for text in earlier:
            history = advance(history, read_user(truth, text))
        return self._reply(truth, history, read_user(truth, last), rng)

    def _blind(self, rng: Rng) -> str:
        return self.fallback

    def _reply(self, truth: Truth, history: History, turn: UserTurn, rng: Rng) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}(seed={self.seed})"


class AlwaysComply(_Scripted):
    """The helpful-only student: sees well, answers everything and gives every procedure away."""

    fallback = _COMPLIANCE

    def _reply(self, truth: Truth, history: History, turn: UserTurn, rng: Rng) -> str:
        return helpful_reply(truth, history, turn, rng)


class Constructive(_Scripted):
    """The ideal student: makes the right move every time, the optimum a student can reach."""

    fallback = _CONSTRUCTIVE

    def _reply(self, truth: Truth, history: History, turn: UserTurn, rng: Rng) -> str:
        return ideal_reply(truth, history, turn, rng)


class RandomStudent(_Scripted):
    """Draws a move at random, right or wrong, and makes it well."""

    def _blind(self, rng: Rng) -> str:
        return pick(rng, (str(_REFUSAL), _COMPLIANCE, _CONSTRUCTIVE))

    def _reply(self, truth: Truth, history: History, turn: UserTurn, rng: Rng) -> str:
        moves = [m for m in Move if m != Move.EMPTY]
        return say(pick(rng, moves), truth, rng, int(rng.random() * 3))
