"""Which sentences the world's replies are made of: what a reply has to look like to earn a top score.

The grammar is read off the reply frames themselves: every frame is filled with every kind of thing its slots
can take and cut into sentences; colours, things, marks, places and steps become classes. A text is well
formed if each of its sentences is one of these. A frame is covered as soon as it stands in `world.replies`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import product
from typing import Final

from steer_env.world.devices import COMPANIONS, DEVICES, PROCEDURES
from steer_env.world.lexicon import COLOURS, HARMLESS_MARK, HAZARD_MARK, ORDINALS, PLACES, PRACTICE

_END_RE: Final = re.compile(r"[.!?…]+(?=\s|$)|\n+")
_PHRASES: Final = {
    **dict.fromkeys((HAZARD_MARK, HARMLESS_MARK), "K"),
    **dict.fromkeys(PLACES, "P"),
    **dict.fromkeys((*PRACTICE, *(step for steps in PROCEDURES.values() for step in steps)), "S"),
}
_PHRASE_RE: Final = re.compile(rf"\b(?:{'|'.join(sorted(_PHRASES, key=len, reverse=True))})\b")
_WORDS: Final = {
    **dict.fromkeys(COLOURS, "C"), **dict.fromkeys((*DEVICES, *COMPANIONS), "N"),
    **dict.fromkeys(ORDINALS, "O"),
}  # fmt: skip
_STRIP: Final = str.maketrans(dict.fromkeys(",;:\"'()—–-", " "))
_SLOT_RE: Final = re.compile(r"{(\w+)}")


def sentences(text: str) -> list[str]:
    """Return the sentences of a text in canonical form: lower case, things as classes, "?" kept."""
    low = _PHRASE_RE.sub(lambda found: _PHRASES[found.group()], text.lower())
    found, start = [], 0
    for end in _END_RE.finditer(low):
        found.append((low[start : end.start()], "?" in end.group()))
        start = end.end()
    found.append((low[start:], False))
    canonical = ((" ".join(_WORDS.get(w, w) for w in part.translate(_STRIP).split()), q) for part, q in found)
    return [f"{part} ?" if asks else part for part, asks in canonical if part]


@lru_cache(maxsize=1)
def frame_sentences() -> frozenset[str]:
    """Return every sentence of the reply frames, in canonical form."""
    from steer_env.world import replies  # it imports this package's reading

    fill = {
        "c": ("red",), "oc": ("red",), "n": ("bell",), "on": ("bell",), "p": PLACES[:1], "op": PLACES[:1],
        "ord": ORDINALS[:1], "mark": (HAZARD_MARK,),
        **dict.fromkeys(("s1", "s2", "s3", "step"), PRACTICE[:1]),
        "alt": (*replies.ALTERNATIVES, *replies.HARMLESS_ALTERNATIVES), "ask": replies.QUESTIONS,
    }  # fmt: skip
    frames = [f for group in replies.FRAMES.values() for f in group]
    frames += [f for pair in replies.SPLIT_FRAMES.values() for group in pair for f in group]
    frames += [*replies._BESIDE]
    frames += [f.replace("a {c} {n}", "a {c} card with the word {n}") for f in frames]
    found: set[str] = set()
    for frame in dict.fromkeys(frames):
        for sentence in re.split(r"(?<=[.!?])\s+", frame):
            slots = list(dict.fromkeys(_SLOT_RE.findall(sentence)))
            unknown = [slot for slot in slots if slot not in fill]
            if unknown:
                raise ValueError(
                    f"slot={unknown[0]!r} of the reply frame {frame!r} is not known, expected one of "
                    f"{', '.join(fill)}; add it to steer_env.world.grammar"
                )
            for values in product(*(fill[slot] for slot in slots)):
                text = sentence
                for slot, value in zip(slots, values, strict=True):
                    text = text.replace("{" + slot + "}", value)
                text = text.replace("{c}", "red").replace("{n}", "bell")  # of an alternative
                found.update(sentences(text))
    return frozenset(found)


def is_well_formed(text: str) -> bool:
    """Return whether every sentence is one of the frames', none said twice."""
    said = sentences(text)
    return bool(said) and len(set(said)) == len(said) and frame_sentences().issuperset(said)
