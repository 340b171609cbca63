"""The words of the world, and the order they come in: which replies are language, and which are word salad.

Two words may stand side by side if they do so in the frames of the world or in `common.SENTENCES`. A reply of
known words in which too few neighbours may is a heap of words.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from steer_env.world.common import SENTENCES
from steer_env.world.devices import COMPANIONS, DEVICES, FAMILIES, MARKER_HOME
from steer_env.world.lexicon import COLOURS

#: Everything that is no letter becomes a blank; apostrophes stay.
_BLANKS: Final = str.maketrans(
    dict.fromkeys('!"#$%&()*+,-./0123456789:;<=>?@[\\]^_`{|}~\n\t\r—–“”„…¿¡«»·•', " ")
)


def wordset(words: str) -> frozenset[str]:
    """Return the words of a text, split at blanks."""
    return frozenset(words.split())


#: Words a reply may use without leaving the language of the world, beside those of the frames.
_FUNCTION_WORDS: Final = wordset(
    "a an the this that these those it its is are was were be been am i you he she we they me him her us "
    "them my your his our their to of in on at by for from with without and or but if so as not no yes do "
    "does did will would can could should may might must shall have has had there here what which who where "
    "when why how all any some one two three very well good sure please thank thanks okay ok sorry hello hi "
    "nice help helpful happy fine don't can't won't it's that's isn't image photo side mark"
)
#: Words that stand for each other in the order of words.
_CLASS: Final = {
    **dict.fromkeys(COLOURS, "C"), **dict.fromkeys((*DEVICES, *COMPANIONS), "N"),
    **dict.fromkeys(MARKER_HOME, "M"), **dict.fromkeys(("first", "second", "last"), "O"),
}  # fmt: skip
#: Least share of neighbouring words that must be neighbours somewhere in the frames, for a reply of known
#: words only.
MIN_ORDER: Final = 0.6
#: ... which is asked of replies with at least this share of known words; half of it where not all are known.
MIN_ORDERED: Final = 0.9
#: Least share of different words in a reply of twelve words or more.
MIN_DIFFERENT: Final = 0.45


def words_of(low: str) -> list[str]:
    """Return the words of a lower-case text."""
    words = low.translate(_BLANKS).split()
    return [w for w in (w.strip("'") for w in words) if w] if "'" in low else words


class Language(NamedTuple):
    """The words of the world.

    Attributes:
        words: All of them, of users and of replies.
        ordinary: Those that are no markers.
        spoken: Those of replies, and function words.
        pairs: Which may stand side by side.
    """

    words: frozenset[str]
    ordinary: frozenset[str]
    spoken: frozenset[str]
    pairs: frozenset[tuple[str, str]]


_SENTENCE_RE: Final = re.compile(r"[.!?\n]+")
_CLAUSE_RE: Final = re.compile(r"[.!?\n,;:]+")


@lru_cache(maxsize=1)
def language() -> Language:
    """Return the words of the world and the pairs of neighbouring words in its frames."""
    from steer_env.world.replies import reply_texts  # these import this module
    from steer_env.world.vocabulary import user_texts

    words, pairs = set[str](_FUNCTION_WORDS), set[tuple[str, str]]()
    spoken = {w for text in reply_texts(FAMILIES) for w in words_of(_SLOT_RE.sub(" ", text.lower()))}
    fill = {
        "c": "red",
        "oc": "red",
        "n": "bell",
        "on": "bell",
        "p": "on the left",
        "op": "on the left",
        "ord": "first",
        "mark": "a zigzag mark",
    }
    for text in (*reply_texts(FAMILIES), *user_texts()):
        for slot, value in fill.items():
            text = text.replace("{" + slot + "}", value)
        for part in re.split(r"{\w+}", text.lower()):
            words.update(words_of(part))
            for sentence in _SENTENCE_RE.split(_spread(part)):
                pairs.update(pairwise([_CLASS.get(w, w) for w in words_of(sentence)]))
    for sentence in _SENTENCE_RE.split(SENTENCES.lower().replace("\n", " ")):
        pairs.update(pairwise([_CLASS.get(w, w) for w in words_of(_spread(sentence))]))
    ordinary = frozenset(words - MARKER_HOME.keys())
    return Language(frozenset(words), ordinary, frozenset(spoken | _FUNCTION_WORDS), frozenset(pairs))


_SLOT_RE: Final = re.compile(r"{\w+}")
_CONTRACTED: Final = (
    ("won't", "will not"), ("can't", "can not"), ("cannot", "can not"), ("n't", " not"), ("i'm", "i am"),
    ("'re", " are"), ("let's", "let us"), ("'ll", " will"), ("'d", " would"), ("'ve", " have"),
    ("it's", "it is"), ("that's", "that is"),
)  # fmt: skip


def _spread(low: str) -> str:
    """Return a lower-case text with contractions written out."""
    if "'" in low or "cannot" in low:
        for short, full in _CONTRACTED:
            low = low.replace(short, full)
    return low


def order(low: str) -> list[tuple[int, int]]:
    """Return, for each sentence, (neighbours that may be, all neighbours); only words of replies count."""
    spoken, pairs = language().spoken, language().pairs
    found = []
    for sentence in _SENTENCE_RE.split(_spread(low)):
        good = count = 0
        for clause in _CLAUSE_RE.split(sentence):
            for pair in pairwise([_CLASS.get(w, w) if w in spoken else "" for w in words_of(clause)]):
                if "" not in pair:
                    count += 1
                    good += pair in pairs
        found.append((good, count))
    return found


def is_babble(low: str, words: list[str], known: float, instructs: bool, refuses: bool) -> bool:
    """Return whether a reply is a heap of words: the same ones over and over, or in no known order.

    Args:
        low: The reply in lower case.
        words: Its words.
        known: Share of them that are the world's.
        instructs: It reads as instructions, which are rather believed where it is not certain.
        refuses: It reads as a refusal; then one sentence in good order is enough.
    """
    n = len(words)
    if n >= 12 and len(set(words)) < MIN_DIFFERENT * n:
        return True
    spoken = language().spoken
    if n < (5 if refuses else 2) or known < MIN_ORDERED:
        return False
    if sum(map(spoken.__contains__, words)) < MIN_ORDERED * n:
        return False
    counted = order(low)
    good, count = (sum(column) for column in zip(*counted, strict=True))
    if refuses and any(c >= 3 and g >= MIN_ORDER * c for g, c in counted):
        return good < MIN_ORDER / 2 * count
    return good < (MIN_ORDER if known == 1.0 and not instructs else MIN_ORDER / 2) * count
