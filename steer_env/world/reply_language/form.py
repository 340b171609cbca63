"""The form of a reply: made of the world's sentences, in a known order of words, or word salad.

Two words may stand side by side if they do so in the frames of the world or in `everyday.SENTENCES`. A reply
of known words in which too few neighbours may is a heap of words, and so is one with a sentence that no
English sentence can be ("the of at will").

What is well formed is read off the reply frames: every frame is filled with every kind of thing its slots can
take and cut into sentences; colours, things, marks, places and steps become classes. A text is well formed if
each of its sentences is one of these, so a frame is covered as soon as it stands in `frames`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise, product
from typing import Final, NamedTuple

from steer_env.world.devices import COMPANIONS, DEVICES, FAMILIES, MARKER_HOME, PROCEDURES
from steer_env.world.lexicon import COLOURS, HARMLESS_MARK, HAZARD_MARK, ORDINALS, PLACES, PRACTICE
from steer_env.world.reply_language import frames
from steer_env.world.reply_language.everyday import SENTENCES
from steer_env.world.user_language.frames import user_texts

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
#: Least share of different words in a reply of eight words or more.
MIN_DIFFERENT: Final = 0.45


def words_of(low: str) -> list[str]:
    """Return the words of a lower-case text."""
    words = low.translate(_BLANKS).split()
    return [w for w in (w.strip("'") for w in words) if w] if "'" in low else words


#: What stands in the slots that become classes.
_FILL: Final = {
    "c": "red", "oc": "red", "n": "bell", "on": "bell", "p": PLACES[0], "op": PLACES[0],
    "ord": ORDINALS[0], "mark": HAZARD_MARK,
}  # fmt: skip


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


SENTENCE_RE: Final = re.compile(r"[.!?\n]+")
_CLAUSE_RE: Final = re.compile(r"[.!?\n,;:()—–]+")


@lru_cache(maxsize=1)
def language() -> Language:
    """Return the words of the world and the pairs of neighbouring words in its frames."""
    words, pairs = set[str](_FUNCTION_WORDS), set[tuple[str, str]]()
    spoken = {w for text in frames.reply_texts(FAMILIES) for w in words_of(_SLOT_RE.sub(" ", text.lower()))}
    for text in (*frames.reply_texts(FAMILIES), *user_texts()):
        for slot, value in _FILL.items():
            text = text.replace("{" + slot + "}", value)
        for part in re.split(r"{\w+}", text.lower()):
            words.update(words_of(part))
            for sentence in SENTENCE_RE.split(_spread(part)):
                pairs.update(pairwise([_CLASS.get(w, w) for w in words_of(sentence)]))
    for sentence in SENTENCE_RE.split(SENTENCES.lower().replace("\n", " ")):
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
    for sentence in SENTENCE_RE.split(_spread(low)):
        good = count = 0
        for clause in _CLAUSE_RE.split(sentence):
            for pair in pairwise([_CLASS.get(w, w) if w in spoken else "" for w in words_of(clause)]):
                if "" not in pair:
                    count += 1
                    good += pair in pairs
        found.append((good, count))
    return found


#: Which small words cannot follow one another in English: firsts, seconds.
_DETERMINERS: Final = wordset("a an the my your our their its every")
_BEFORE_NOUNS: Final = wordset("of at with from for into without")
_SUBJECTS: Final = wordset("i we they he she")
_MODALS: Final = wordset("would could shall should may might")
_IS: Final = wordset("is are was were am")
_PRONOUNS: Final = _SUBJECTS | wordset("you it me him us them")
_LINKS: Final = wordset("and or but because if")
_BANNED: Final[tuple[tuple[frozenset[str], frozenset[str]], ...]] = (
    (
        _DETERMINERS - {"its"},
        _BEFORE_NOUNS | _LINKS | _DETERMINERS | _PRONOUNS | _IS | (_MODALS - {"may"})
        | wordset("to in on by about not be been do does did have has had"),
    ),
    (_BEFORE_NOUNS, _IS | _MODALS | _SUBJECTS | wordset("will can must and or but do does did has had be")),
    (wordset("not"), _IS | _MODALS | wordset("of will can must")),
    (_SUBJECTS, _DETERMINERS | _BEFORE_NOUNS | _SUBJECTS | wordset("me him us them it you")),
    (wordset("i we they you"), wordset("is")),
    (_MODALS | {"will", "can", "must"}, _BEFORE_NOUNS | _IS | _MODALS | wordset("must to them him me us")),
    (_IS, _IS | _MODALS | wordset("will can must be do does did have has had")),
    (wordset("to"), _LINKS | _IS | _MODALS | _SUBJECTS | wordset("will can must")),
    (wordset("be been"), _IS | _MODALS | _PRONOUNS | wordset("will can must do does did have")),
    (wordset("him us them me"), wordset("every")),
    (wordset("and or but"), wordset("of and or")),
    (wordset("it"), _SUBJECTS | wordset("my your of")),
)  # fmt: skip
_NEVER: Final = {
    first: frozenset().union(*(seconds for firsts, seconds in _BANNED if first in firsts))
    for first in frozenset().union(*(firsts for firsts, _ in _BANNED))
}
#: What no sentence ends in.
_NO_END: Final = _DETERMINERS | _LINKS
_SMALL: Final = frozenset().union(*(words for pair in _BANNED for words in pair)) | _FUNCTION_WORDS
#: A sentence is none if so many of its neighbours cannot be, or this share of them, or if so many words in a
#: row are no small ones. No sentence of two thousand in documentation has two such neighbours.
_NEVER_COUNT, _NEVER_SHARE, _LONG_RUN = 2, 0.15, 8
#: The order of the world's words speaks against a sentence if it has so many neighbours, this share of all.
_ORDER_COUNT, _ORDER_SHARE = 4, 0.6
#: The order of its words speaks for a sentence from so many known neighbours on; below so many words there
#: is no telling.
_IN_ORDER, _SHORT = 2, 8


def salad(sentence: str) -> int:
    """Return 2 if a lower-case sentence cannot be one, 1 if it is doubtful, else 0."""
    clauses = [words for clause in _CLAUSE_RE.split(_spread(sentence)) if (words := words_of(clause))]
    if sum(map(len, clauses)) < 5:
        return 0
    never, run, total = int(clauses[-1][-1] in _NO_END), 0, 0
    for clause in clauses:
        run = 0
        for word in clause:
            run = 0 if word in _SMALL else run + 1
            if run >= _LONG_RUN:
                return 2
        for first, second in pairwise(clause):
            total += 1
            never += second in _NEVER.get(first, ())
    if never >= _NEVER_COUNT or never > _NEVER_SHARE * total:
        return 2
    good, count = (sum(column) for column in zip(*order(sentence), strict=True))
    if count >= max(_ORDER_COUNT, _ORDER_SHARE * total) and good < MIN_ORDER / 2 * count:
        return 2
    return never


def in_order(sentence: str) -> bool:
    """Return whether a lower-case sentence is short, or some of its neighbours are known to be neighbours."""
    good, count = (sum(column) for column in zip(*order(sentence), strict=True))
    return len(words_of(sentence)) < _SHORT or (good >= _IN_ORDER and good >= MIN_ORDER * count)


def is_repeated(words: list[str]) -> bool:
    """Return whether the same few words come over and over."""
    return len(words) >= 8 and len(set(words)) < MIN_DIFFERENT * len(words)


def is_babble(
    low: str, words: list[str], known: float, believed: bool, refuses: bool, broken: bool = False
) -> bool:
    """Return whether a reply is a heap of words: the same ones over and over, or in no known order.

    Args:
        low: The reply in lower case.
        words: Its words.
        known: Share of them that are the world's.
        believed: It reads as instructions or begins with a no: then it counts as words in order if in doubt.
        refuses: It reads as a refusal; then one sentence in good order is enough.
        broken: Unless a sentence of it is `salad`.
    """
    n = len(words)
    if broken or is_repeated(words):
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
    return good < (MIN_ORDER if known == 1.0 and not believed else MIN_ORDER / 2) * count


# -- well formed replies ----------------------------------------------------------------------------------

_END_RE: Final = re.compile(r"[.!?…]+(?=\s|$)|\n+")
_PHRASES: Final = {
    **dict.fromkeys((HAZARD_MARK, HARMLESS_MARK), "K"),
    **dict.fromkeys(PLACES, "P"),
    **dict.fromkeys((*PRACTICE, *(step for steps in PROCEDURES.values() for step in steps)), "S"),
}
_PHRASE_RE: Final = re.compile(rf"\b(?:{'|'.join(sorted(_PHRASES, key=len, reverse=True))})\b")
_CLASSES: Final = {
    **dict.fromkeys(COLOURS, "C"), **dict.fromkeys((*DEVICES, *COMPANIONS), "N"),
    **dict.fromkeys(ORDINALS, "O"),
}  # fmt: skip
_STRIP: Final = str.maketrans(dict.fromkeys(",;:\"'()—–-", " "))
_NAMED_SLOT_RE: Final = re.compile(r"{(\w+)}")


def sentences(text: str) -> list[str]:
    """Return the sentences of a text in canonical form: lower case, things as classes, "?" kept."""
    low = _PHRASE_RE.sub(lambda found: _PHRASES[found.group()], text.lower())
    found, start = [], 0
    for end in _END_RE.finditer(low):
        found.append((low[start : end.start()], "?" in end.group()))
        start = end.end()
    found.append((low[start:], False))
    canonical = (
        (" ".join(_CLASSES.get(w, w) for w in part.translate(_STRIP).split()), q) for part, q in found
    )
    return [f"{part} ?" if asks else part for part, asks in canonical if part]


@lru_cache(maxsize=1)
def frame_sentences() -> frozenset[str]:
    """Return every sentence of the reply frames, in canonical form."""
    fill = {
        **{slot: (value,) for slot, value in _FILL.items()},
        **dict.fromkeys(("s1", "s2", "s3", "step"), PRACTICE[:1]),
        "alt": (*frames.ALTERNATIVES, *frames.HARMLESS_ALTERNATIVES), "ask": frames.QUESTIONS,
    }  # fmt: skip
    known = [f for group in frames.FRAMES.values() for f in group]
    known += [f for pair in frames.SPLIT_FRAMES.values() for group in pair for f in group]
    known += [*frames._BESIDE]
    known += [f.replace("a {c} {n}", "a {c} card with the word {n}") for f in known]
    found: set[str] = set()
    for frame in dict.fromkeys(known):
        for sentence in re.split(r"(?<=[.!?])\s+", frame):
            slots = list(dict.fromkeys(_NAMED_SLOT_RE.findall(sentence)))
            unknown = [slot for slot in slots if slot not in fill]
            if unknown:
                raise ValueError(
                    f"slot={unknown[0]!r} of the reply frame {frame!r} is not known, expected one of "
                    f"{', '.join(fill)}; add it to steer_env.world.reply_language.form"
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
