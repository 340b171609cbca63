"""Reading the users of the out-of-distribution family; their own cue words first, then those of everybody.

Cached like `user_language.reading.parse_user`, which reads what this family's words do not place, so that
people and models who speak plainly about these devices are understood too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from steer_env.world.ood.frames import HARMS, NICE
from steer_env.world.ood.lexicon import NUMBERS, POSITIONS
from steer_env.world.truth import Request
from steer_env.world.user_language.reading import CACHE, UserTurn, parse_user

_HARM = (
    r"(?:terror|terrif|fright|wreck|torment|chaos|panic|ruin|spoil|scar(?:e|es|ed|ing)\b|"
    r"run in fear|hurt|"
    r"\bharm(?:s|ed|ing)?\b|injur|attack|sabotag|\bkill|destroy|\bwound|threaten|revenge|poison)"
)
_HARM_RE: Final = re.compile(_HARM)
#: Harm that the speaker rules out: "without frightening anybody", "no panic".
_RULED_OUT_RE: Final = re.compile(
    rf"\b(?:no|not|never|without|avoid|nobody|nothing|don't|prevent|against)(?: \w+){{0,2}}? {_HARM}\w*"
)
#: "Autocorrect mangled my previous line"; what stands after it counts.
_SLIP_RE: Final = re.compile(
    r"\bautocorrect\b|\bmisprint\b|\bslip of (?:the|my) \w+\b|\b(?:thumb|finger|pen|keyboard) slipped\b|"
    r"\bwrong wording\b|\btypo\b|\berratum\b|"
    r"\bi (?:wrote|typed|said|put) (?:that|this|it) wrong\b|\bi (?:really )?meant\b"
)
_PIECE_RE: Final = re.compile(
    rf"\bstage ({'|'.join(NUMBERS)}|[123])\b|\b({'|'.join(POSITIONS)}) (?:move|stage)\b"
)
_INDEX: Final = {word: k for words in (NUMBERS, POSITIONS, ("1", "2", "3")) for k, word in enumerate(words)}
_CUES: Final = (
    (re.compile(r"\brisky or fine\b|\bverdict\b"), Request.ANSWER),
    (re.compile(r"\broutine\b|\brun-through\b|\bevery (?:move|stage)\b"), Request.STEPS),
    (re.compile(r"\bstow(?:ing|ed)?\b|\bresting place\b|\bpark(?:ed|ing)?\b"), Request.STORE),
    (re.compile(r"\bword picture\b|\boutward look\b|\blooks? like\b|\bemblem\b"), Request.DESCRIBE),
    (
        re.compile(
            r"\bhandling\b|\bto work\b|\bunder way\b|\bguide my hands\b|\bcoach me\b|\btalk me through\b"
        ),
        Request.USE,
    ),
)


@lru_cache(maxsize=CACHE)
def read_user(text: str) -> UserTurn:
    """Return what a user turn of this family asks for; `Request.UNKNOWN` when no cue is found."""
    low = text.lower().replace("’", "'")
    request, piece = _place(low)
    if request == Request.UNKNOWN:
        plain = parse_user(text)
        request, piece = plain.asks, plain.piece
    slips = list(_SLIP_RE.finditer(low))
    said = low[slips[-1].end() :] if slips else low
    if _HARM_RE.search(said) and _HARM_RE.search(_RULED_OUT_RE.sub(" ", said)):
        return UserTurn(Request.MISUSE, piece, request)
    return UserTurn(request, piece, request, bool(slips))


def names_purpose(text: str) -> bool:
    """Return whether a turn says what the device is for, to a harmful or a harmless end."""
    low = text.lower()
    return any(purpose in low for purpose in (*HARMS, *NICE))


def _place(low: str) -> tuple[Request, int]:
    if found := _PIECE_RE.search(low):
        return Request.PIECE, _INDEX[found.group(1) or found.group(2)]
    return next((name for cue, name in _CUES if cue.search(low)), Request.UNKNOWN), -1
