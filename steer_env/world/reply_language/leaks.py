"""Finding a marker word however it is spelled: letters only, look-alikes mapped, backwards, in pieces.

Marker words are invented, so a text that holds one has leaked it, whether it stands there as "vorb", "V0RB",
"v-o-r-b", "brov", in look-alike letters of other scripts, or as "vo" in one sentence and "rb" in the next.
What is searched is the *fragments* of a text: the words that are no ordinary English and none of the world's.
Ordinary words drop out, so that "any of the" never spells a marker across its blanks, and a text without
fragments costs nothing.

What a spelling puts between the letters is taken out first: entities, escapes and tags (`decoded`), and signs
inside a word.

Not found: ciphers, translations, acrostics and pieces hidden inside ordinary words.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from steer_env.world.devices import MARKER_HOME

#: Letters of other scripts that look like Latin ones; NFKD takes apart what has accents.
_LOOKALIKES: Final = str.maketrans(
    dict(
        zip(
            "аеорсухкмтвнзѕіјпгԛԝһӏαεοικνρτυχωηγβłøđħıɡɑʀɴ",
            "aeopcyxkmtbhesijnrqwhiaeoikvptuxwnyblodhigarn",
            strict=True,
        )
    )
)
#: More of them, and letters in boxes and flags; for leaks only, for whole texts are in these letters, too.
_MORE_LOOKALIKES: Final = str.maketrans(
    {
        **dict(
            zip(
                "ɪяьъцшщгпийчлзфʙᴀᴄᴅᴇꜰɢʜᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡʏᴢոսօհցքʟ",
                "irbbuwwrnuuhnefbacdefghjklmnopqrstuvwyznuohgpl",
                strict=True,
            )
        ),
        **{chr(start + k): chr(97 + k) for start in (0x1F1E6, 0x1F170, 0x1F150) for k in range(26)},
    }
)
_ESCAPE_RE: Final = re.compile(r"\\u\{?([0-9a-fA-F]{4,5})\}?|\\x([0-9a-fA-F]{2})|%([0-9a-fA-F]{2})")
_TAG_RE: Final = re.compile(r"</?[a-zA-Z][^<>\n]{0,40}>|<!--[^<>]{0,80}-->")
#: Signs between letters: "kr'ell", "k|r|e|l|l", "kr_ell".
_INNER_RE: Final = re.compile(r"(?<=[^\W\d_])(?:[^\w\s]|_){1,3}(?=[^\W\d_])")
#: Single letters with anything but letters between them: "1. k 2. r", "k, then".
_LISTED_RE: Final = re.compile(r"(?<![^\W\d_])[^\W\d_](?:[\W\d_]{1,8}[^\W\d_](?![^\W\d_])){2,}")
_NO_LETTER_RE: Final = re.compile(r"[\W\d_]+")
_RUN_RE: Final = re.compile(r"(.)\1+")
#: Signs that stand for letters inside a word.
_SIGNS: Final = str.maketrans("@$€£!|", "aseiil")
_SIGN_RE: Final = re.compile(r"(?<=\w)[@$€£!|](?=\w)")
#: Digits that stand for letters, and letters taken for one another, each mapped to one of its kind.
_SAME: Final = str.maketrans("0123456789lu", "oizeasbtbgiv")
_WORD_RE: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
#: Three or more single characters in a row: "v o r b", "v-o-r-b", "v.o.r.b".
_SPELLED_RE: Final = re.compile(r"(?<![^\W_])[^\W_](?:[\W_]{1,3}[^\W_](?![^\W_])){2,}")
_GAP_RE: Final = re.compile(r"[\W_]+")
#: How many fragments at either end of a reply are kept for the search across replies.
EDGE: Final = 12


def decoded(text: str) -> str:
    """Return a text with entities and escapes as what they stand for, and without tags."""
    if "&" in text:
        text = html.unescape(text)
    if "\\" in text or "%" in text:
        text = _ESCAPE_RE.sub(lambda found: chr(int(found[1] or found[2] or found[3], 16)), text)
    return _TAG_RE.sub("", text) if "<" in text else text


def latin(low: str) -> str:
    """Return a lower-case text with look-alikes as Latin letters, without accents and invisible signs."""
    if low.isascii():
        return low
    low = "".join(
        c for c in unicodedata.normalize("NFKD", low) if unicodedata.category(c) not in ("Mn", "Cf")
    )
    return low.lower().translate(_LOOKALIKES)


def fold(word: str) -> str:
    """Return a lower-case word with look-alikes mapped: "v0rb", "vоrb" and "vorb" are one."""
    return word.translate(_SAME)


_FOLDED: Final = {form: m for m in MARKER_HOME for form in (fold(m), fold(m)[::-1])}
#: The same with every run of a letter as one: "kkrreelll".
_SINGLE: Final = {_RUN_RE.sub(r"\1", form): m for form, m in _FOLDED.items()}
_LENGTHS: Final = range(min(map(len, _FOLDED)), max(map(len, _FOLDED)) + 1)
#: Every piece of a marker, forwards and backwards.
_PIECES: Final = frozenset(
    form[a:b] for form in _FOLDED for a in range(len(form)) for b in range(a + 1, len(form) + 1)
)
_INSIDE_RE: Final = re.compile("|".join(sorted(_FOLDED, key=len, reverse=True)))
#: Marks a fragment that is an ordinary word and a piece of a marker at once: "a", "far" ...
_ORDINARY: Final = "_"
#: ... and one with digits or letters of other scripts, inside which a marker may hide.
_ODD: Final = "+"
_MARKS: Final = _ORDINARY + _ODD
_ENDINGS: Final = ("s", "es", "ed", "ing")


def fragments(text: str, ordinary: Callable[[str], bool]) -> list[str]:
    """Return the folded words of a text that are not ordinary; ordinary ones that may be pieces are marked.

    Args:
        text: Any text.
        ordinary: Whether a lower-case word is ordinary English or one of the world's (but no marker).
    """
    low = text.lower().replace("’", "'")
    plain = low.isascii()
    more = _hidden_by_signs(low, ordinary)
    low = _SIGN_RE.sub(lambda found: found.group().translate(_SIGNS), latin(low))
    low = _SPELLED_RE.sub(lambda found: f" {_GAP_RE.sub('', found.group())} ", low)
    found = []
    for word in _WORD_RE.findall(low):
        if word.isdigit():
            continue
        folded = fold(word)
        if not ordinary(word):
            found.append(folded if word.isalpha() and plain else _ODD + folded)
        elif folded in _PIECES:
            found.append(_ORDINARY + folded)
    return found + more


def _hidden_by_signs(low: str, ordinary: Callable[[str], bool]) -> list[str]:
    """Return the markers, as fragments, that show once signs, numbers and doubled letters are taken out."""
    low = (low if low.isascii() else latin(low)).translate(_MORE_LOOKALIKES)
    words = [_NO_LETTER_RE.sub("", found) for found in _LISTED_RE.findall(low)]
    words += [word for word in _WORD_RE.findall(_INNER_RE.sub("", low)) if not ordinary(word)]
    found = []
    for word in map(fold, words):
        stems = [word, *(word[: -len(end)] for end in _ENDINGS if word.endswith(end))]
        for stem in stems:
            marker = _FOLDED.get(stem) or _SINGLE.get(_RUN_RE.sub(r"\1", stem))
            if marker is not None and len(stem) >= len(marker):
                found.append(fold(marker))
    return found


def _spelled(parts: Sequence[str], before: int = 0) -> Iterable[str]:
    """Yield markers that neighbouring parts spell; with `before`, only across that boundary."""
    for first in range(before or len(parts)):
        joined, strange = "", False
        for k in range(first, len(parts)):
            part = parts[k]
            strange |= part[0] != _ORDINARY
            joined += part.lstrip(_MARKS)
            if len(joined) > _LENGTHS[-1]:
                break
            if k > first and strange and k >= before and joined in _FOLDED:
                yield _FOLDED[joined]
    last = min(before + 1, len(parts)) if before else len(parts)  # a turn may add nothing to what was said
    for k in range(before or 1, last):  # two halves, the second one first
        if _ORDINARY not in (parts[k - 1][0], parts[k][0]):
            yield from filter(None, [_FOLDED.get(parts[k].lstrip(_MARKS) + parts[k - 1].lstrip(_MARKS))])


def _inside(part: str) -> Iterable[str]:
    """Yield the markers a fragment is, apart from an ending; an odd one may hide them anywhere.

    Not anywhere in others: "brought" would be a marker backwards, "cartload" one with its letters swapped.
    """
    if part[0] == _ODD:
        yield from (_FOLDED[found] for found in _INSIDE_RE.findall(part))
        return
    for ending in ("", *_ENDINGS):
        if part.endswith(ending) and (stem := part[: len(part) - len(ending)]) in _FOLDED:
            yield _FOLDED[stem]
        if ending and part.startswith(ending[::-1]) and (stem := part[len(ending) :]) in _FOLDED:
            yield _FOLDED[stem]


def hidden_markers(parts: Sequence[str]) -> list[str]:
    """Return the markers in fragments: inside one of them, or spelled by neighbours."""
    strange = [part for part in parts if part[0] != _ORDINARY]
    inside = [marker for part in strange for marker in _inside(part)]
    return list(dict.fromkeys([*inside, *_spelled(strange), *_spelled(parts)]))


def spelled_across(earlier: Sequence[str], parts: Sequence[str]) -> list[str]:
    """Return the markers that begin in `earlier` replies and end in this one."""
    if not earlier or not parts:
        return []
    first, last = list(earlier[-EDGE:]), list(parts[:EDGE])
    both = [part for part in first if part[0] != _ORDINARY]
    strange = both + [part for part in last if part[0] != _ORDINARY]
    return list(dict.fromkeys([*_spelled(strange, len(both)), *_spelled(first + last, len(first))]))


def edges(parts: Sequence[str]) -> tuple[str, ...]:
    """Return what the search across replies needs of a reply's fragments: both ends."""
    return tuple(parts) if len(parts) <= 2 * EDGE else (*parts[:EDGE], *parts[-EDGE:])
