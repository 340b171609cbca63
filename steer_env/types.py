"""The words the whole library speaks: messages, utterances, verdicts, turns.

Everything here is immutable, so that observations, records and trajectories can share it freely:
a long dialogue costs no more per turn than a short one, and nothing a caller does to an observation
can reach into the environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

_T = TypeVar("_T")

ATTACKER = "attacker_0"
STUDENT = "student_0"

#: Roles in a transcript, as integers so that they fit `gymnasium.spaces.Discrete(2)`.
USER, ASSISTANT = 0, 1

_NO_META: Mapping[str, Any] = MappingProxyType({})


class Utterance(str):
    """A string that carries what its speaker knows about it.

    It is an ordinary ``str`` to every space, wrapper and environment. `meta` rides along: a student
    back end keeps its sampled token ids and log-probabilities there, a tutor the strategy it chose. Of an
    attacker's `meta` the environment reads `acts` alone, what is to be drawn (`steer_env.drawing`), and it
    never shows an attacker's `meta` to the student.

    >>> Utterance("hello", strategy="roleplay").meta["strategy"]
    'roleplay'
    """

    meta: Mapping[str, Any]

    def __new__(cls, text: str = "", /, **meta: Any) -> Utterance:
        """Make an utterance of `text` that carries the keyword arguments as `meta`."""
        self = super().__new__(cls, text)
        self.meta = MappingProxyType(meta) if meta else _NO_META
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Mapping proxies cannot be pickled or deep-copied; rebuild from plain values instead.
        return _rebuild_utterance, (str(self), dict(self.meta))


def _rebuild_utterance(text: str, meta: dict[str, Any]) -> Utterance:
    return Utterance(text, **meta)


def meta_of(text: str) -> Mapping[str, Any]:
    """Return the `meta` of an utterance, empty for a plain string."""
    return getattr(text, "meta", _NO_META)


class Message(NamedTuple):
    """One utterance in a transcript.

    Attributes:
        role: `USER` (0, the attacker's seat) or `ASSISTANT` (1, the student's seat).
        content: The text. A student's own message may be an `Utterance` that carries its token ids.
        images: How many of the observation's images, in order, are shown with this message.
    """

    role: int
    content: str
    images: int = 0


def with_images(transcript: Iterable[Message], images: Sequence[_T]) -> list[tuple[Message, tuple[_T, ...]]]:
    """Return each message with the images it shows, which are dealt in order.

    >>> with_images([Message(0, "See these.", 2), Message(1, "Seen.")], ("a", "b"))[0][1]
    ('a', 'b')

    Raises:
        ValueError: If there are fewer images than the messages show.
    """
    dealt, shown = [], 0
    for message in transcript:
        dealt.append((message, tuple(images[shown : shown + message.images])))
        shown += message.images
    if shown > len(images):
        raise ValueError(
            f"{len(images)} images for a transcript that shows {shown}, expected those of its messages"
        )
    return dealt


class Terms(NamedTuple):
    """A judge's three integer scores, each 1..10 (paper, Sec. "Objects"); (0, 0, 0) means "none yet"."""

    safety: int
    usefulness: int
    faithfulness: int


NO_TERMS = Terms(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Scored:
    """A verdict with numbers.

    Attributes:
        terms: Safety, usefulness and faithfulness, integers 1..10; kept as plain `int`.
        move: What the reply did, in one word (see `steer_env.judges.rule.Move`), "" if the judge
            does not say.
        leaked: Marker words of a fictional payload the reply disclosed against the rules; empty when
            nothing leaked or the judge cannot tell.
        rationale: One line for people.
        judge: Name of the judge.
        prompt_hash: Hash of the rubric prompt, "" for rule judges.
        cached: Whether the verdict came from a cache.
        disagreement: Largest difference in safety between the members of an ensemble, 0..9; 0 elsewhere.
        leaks_known: Whether leaks were looked for by the world's rules: no `leaked` words means none then.
    """

    terms: Terms
    move: str = ""
    leaked: tuple[str, ...] = ()
    rationale: str = ""
    judge: str = ""
    prompt_hash: str = ""
    cached: bool = False
    disagreement: int = 0
    leaks_known: bool = False

    def __post_init__(self) -> None:
        for name, value in zip(Terms._fields, self.terms, strict=True):
            if isinstance(value, bool) or not hasattr(value, "__index__") or not 1 <= value <= 10:
                raise ValueError(
                    f"{name}={value!r}, expected an integer in 1..10; return Unscored(reason) where there is "
                    "no ground to judge"
                )
        # NumPy's integers cannot be written as JSON.
        object.__setattr__(self, "terms", Terms(*map(index, self.terms)))


@dataclass(frozen=True, slots=True)
class Unscored:
    """No verdict, and why. It never becomes a number: wrappers mask the turn."""

    reason: str
    judge: str = ""


Verdict = Scored | Unscored


@dataclass(frozen=True, slots=True)
class Turn:
    """One finished cycle: a user turn and the reply to it.

    Attributes:
        index: 0-based cycle.
        user: What the attacker said.
        reply: What the student said.
        verdict: The judge's verdict, None when the environment has no judge.
        risk: The seed's risk level for this turn, 1..5, 0 if unknown.
        images: How many images were shown with the user turn.
    """

    index: int
    user: str
    reply: str
    verdict: Verdict | None
    risk: int = 0
    images: int = 0


@dataclass(frozen=True, slots=True)
class TurnResult:
    """What a wrapper stack made of one turn: the reward as emitted and the student's info."""

    turn: Turn
    reward: float
    info: Mapping[str, Any] = field(default_factory=dict)
