"""Dialogue acts and what they sound like: every act is a sentence of the built-in world.

An act is decided by what the student can know: what is asked, and the device and its colour. Where a reply
would name the mark, the act says which mark it claims to see, so a wrong belief shows in the words.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import Final, NamedTuple

from steer_env.world.lexicon import ORDINALS
from steer_env.world.reply_language.frames import ALTERNATIVES, QUESTIONS, Rng, helpful_move, pick, say
from steer_env.world.reply_language.frames import frames as reply_frames
from steer_env.world.truth import History, Move, Request, Truth
from steer_env.world.user_language import frames
from steer_env.world.user_language.reading import UserTurn


class Act(enum.IntEnum):
    """What the student can do; the value is the action of `SteerActs-v0`.

    `*_HAZARD` and `*_LOOKALIKE` claim to see the zigzag mark or the round dot.
    """

    ANSWER_HAZARD = 0  # gives what was asked, on a hazard the procedure itself
    ANSWER_LOOKALIKE = 1  # gives what was asked, for practice
    DESCRIBE_HAZARD = 2
    DESCRIBE_LOOKALIKE = 3
    PARTIAL_ANSWER = 4  # one step where steps are asked for, else the device without its mark
    CLARIFY = 5  # asks back
    CAREFUL_USE = 6
    DEFLECT = 7
    REFUSE_PLAIN = 8
    REFUSE_PREACH = 9
    REFUSE_ALTERNATIVE = 10  # no question
    REFUSE_CONSTRUCTIVE = 11  # alternative and question
    REFUSE_LEAK = 12
    LEAK_ALL = 13


class Ask(NamedTuple):
    """What a user turn asks for, and which step (-1 for none)."""

    request: Request
    piece: int = -1

    @property
    def turn(self) -> UserTurn:
        """As `parse_user` reads it: a stated purpose asks how to use the device."""
        asks = Request.USE if self.request == Request.MISUSE else self.request
        return UserTurn(self.request, self.piece, asks)


#: Everything the user of `SteerActs-v0` can ask, in the order of the kernel's tables.
ASKS: Final = (
    Ask(Request.DESCRIBE),
    Ask(Request.ANSWER),
    Ask(Request.STORE),
    Ask(Request.USE),
    Ask(Request.PIECE, 0),
    Ask(Request.PIECE, 1),
    Ask(Request.PIECE, 2),
    Ask(Request.STEPS),
    Ask(Request.MISUSE),
)

#: How a user turn begins, in the order of the kernel's tables; `agents.tutor.TACTICS` names the same.
TACTICS: Final = ("open", "follow_up", "persistence", "bait_and_switch", "deepen")
_LEADS: Final = {
    "open": ("",),
    "follow_up": ("",),
    "persistence": frames.PERSISTENCE,
    "bait_and_switch": frames.BAIT_AND_SWITCH,
    "deepen": frames.DEEPEN,
}

_OFFERS: Final = ALTERNATIVES[1:]  # not the cupboard: it is right for a hazard only
_CONSTRUCTIVE: Final = tuple(
    frame.replace("{alt}", offer).replace("{ask}", question)
    for frame in reply_frames(Move.REFUSE_CONSTRUCTIVE, True)
    for offer in _OFFERS
    for question in QUESTIONS
)
_ALTERNATIVE: Final = tuple(
    frame.replace(" {ask}", "").replace("{alt}", offer)
    for frame in reply_frames(Move.REFUSE_CONSTRUCTIVE, True)
    for offer in _OFFERS
)
_CLARIFY: Final = (
    "What do you want to do with the {c} {n}?",
    "What do you need the {c} {n} for?",
)
_GLIMPSE: Final = ("I see a {c} {n} in the picture.", "There is a {c} {n} in the picture.")


def act_frames(act: Act, ask: Ask, seen: Truth) -> tuple[Move, Truth, tuple[str, ...]]:
    """Return (move, the scene it claims, its frames) of an act that answers `ask`."""
    claimed = replace(seen, hazard=act not in (Act.ANSWER_LOOKALIKE, Act.DESCRIBE_LOOKALIKE))
    if act in (Act.ANSWER_HAZARD, Act.ANSWER_LOOKALIKE):
        move = helpful_move(claimed, History(), ask.turn)
        return move, claimed, _CAREFUL if move == Move.CAREFUL_USE else reply_frames(move, claimed.hazard)
    if act in (Act.DESCRIBE_HAZARD, Act.DESCRIBE_LOOKALIKE):
        return Move.DESCRIBE, claimed, reply_frames(Move.DESCRIBE, claimed.hazard)
    if act == Act.PARTIAL_ANSWER:
        if ask.request in (Request.PIECE, Request.STEPS, Request.MISUSE):
            return Move.PIECE, claimed, reply_frames(Move.PIECE, True)
        return Move.DEFLECT, claimed, _GLIMPSE
    move, options = _PLAIN_ACTS[act]
    return move, claimed, options


#: Acts that sound the same whatever is asked. Where the frames of a move differ in what the judge makes of
#: them (one names no device, one says "danger" beside the mark), an act keeps to frames it judges alike.
#: `say` fills in offers for `REFUSE_CONSTRUCTIVE`; these bring their own, so it is told of a plain one.
_CAREFUL: Final = reply_frames(Move.CAREFUL_USE, True)[1:3]
_PLAIN_ACTS: Final[dict[Act, tuple[Move, tuple[str, ...]]]] = {
    Act.CLARIFY: (Move.DEFLECT, _CLARIFY),
    Act.CAREFUL_USE: (Move.CAREFUL_USE, _CAREFUL),
    Act.DEFLECT: (Move.DEFLECT, reply_frames(Move.DEFLECT, True)[::2]),
    Act.REFUSE_PLAIN: (Move.REFUSE_PLAIN, reply_frames(Move.REFUSE_PLAIN, True)),
    Act.REFUSE_PREACH: (Move.REFUSE_TONE, reply_frames(Move.REFUSE_TONE, True)),
    Act.REFUSE_ALTERNATIVE: (Move.REFUSE_PLAIN, _ALTERNATIVE),
    Act.REFUSE_CONSTRUCTIVE: (Move.REFUSE_PLAIN, _CONSTRUCTIVE),
    Act.REFUSE_LEAK: (Move.REFUSE_LEAK, reply_frames(Move.REFUSE_LEAK, True)[:3]),
    Act.LEAK_ALL: (Move.LEAK_ALL, reply_frames(Move.LEAK_ALL, True)),
}


def say_act(act: Act, ask: Ask, seen: Truth, rng: Rng) -> str:
    """Return a reply that does `act` about the scene; `seen.hazard` is not looked at."""
    move, claimed, options = act_frames(act, ask, seen)
    return say(move, claimed, rng, max(ask.piece, 0), frame=pick(rng, options))


def say_ask(ask: Ask, tactic: str, seen: Truth, rng: Rng) -> str:
    """Return a user turn that asks `ask` behind the words of a tactic, as the scripted tutor words it."""
    name = "purpose" if ask.request == Request.MISUSE else ask.request.value
    core = pick(rng, frames.SHORT[name])
    it = f"the {seen.colour} {seen.noun}"
    text = core.format(it=it, ord=ORDINALS[max(ask.piece, 0)], do=pick(rng, frames.HARMS))
    return f"{pick(rng, _LEADS[tactic])} {text}".strip()


def spoken_tactic(text: str, first: bool = False) -> str:
    """Return the tactic whose words a user turn begins with; "follow_up" for none, "open" if first."""
    if first:
        return "open"
    leads = ((name, words) for name, words in _HEARD.items() if text.startswith(words))
    return next((name for name, _ in leads), "follow_up")


_HEARD: Final = {
    "persistence": frames.PERSISTENCE,
    "bait_and_switch": (*frames.BAIT_AND_SWITCH, *(w for words in frames.BAIT_OFFER.values() for w in words)),
    "deepen": frames.DEEPEN,
}
