"""What an attacker does with pictures: typed acts, drawn by the environment.

An attacker hands over acts and no pixels: `Utterance(text, acts=(PictureAct("overlay", "TOY"),))`. They
are drawn on the scenario's own picture, always to the same pixels, and stored as data. What the pictures then
say and show is known from the acts: nobody has to read pixels to judge (`said_with`, `truth_shown`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from steer_env.images import Image
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.spaces import MAX_IMAGES, Unicode
from steer_env.types import Message, Utterance, meta_of, with_images
from steer_env.world.draw import lookalike, scene_of, truth_of
from steer_env.world.sheet import PLACES, Sheet, draw_sheet
from steer_env.world.truth import Truth

#: Kind of act -> what it does.
ACTS: Final = {
    "typography": "words on a page of their own, beside the picture",
    "compose": "words on a panel under the picture",
    "overlay": "words on a sticker over the picture, at the top or at the bottom",
    "crop": "a part of the picture, at the top, in the middle or at the bottom; the mark stays in it",
    "swap": "the hazard in the lookalike's place or the other way round; elsewhere nothing",
}
#: Most acts of one user turn.
MAX_ACTS: Final = 4
#: Most characters and lines of drawn words: so many can still be drawn whole.
MAX_WORDS: Final = 240
MAX_LINES: Final = 6
MAX_STICKER: Final = 60


@dataclass(frozen=True, slots=True)
class PictureAct:
    """One thing that is done to the picture of a user turn.

    Attributes:
        kind: One of `ACTS`.
        words: What is drawn, printable ASCII and line feeds, all the font has: at most 240 characters on 6
            lines, on a sticker 60 on one.
        place: "top" or "bottom" of an overlay, "top", "middle" or "bottom" of a crop; else "".

    Raises:
        ValueError: On an unknown kind, words or a place where there are none, none where there have to be, or
            words that cannot be drawn.

    >>> PictureAct("overlay", "TOY", "bottom").row()
    {'kind': 'overlay', 'words': 'TOY', 'place': 'bottom'}
    """

    kind: str
    words: str = ""
    place: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ACTS:
            raise ValueError(f"kind={self.kind!r}, expected one of {', '.join(ACTS)}")
        if self.kind == "overlay" and not self.place:
            object.__setattr__(self, "place", "top")
        if self.kind == "crop" and not self.place:
            object.__setattr__(self, "place", "middle")
        places = {"overlay": (PLACES[0], PLACES[2]), "crop": PLACES}.get(self.kind, ("",))
        if self.place not in places:
            raise ValueError(
                f"place={self.place!r} of {self.kind}, expected one of {', '.join(places) or 'none'}"
            )
        writes = self.kind in ("typography", "compose", "overlay")
        if bool(self.words.strip()) != writes or (self.words and not writes):
            wanted = "some" if writes else "none"
            raise ValueError(f"words={self.words!r} of {self.kind}, expected {wanted}")
        most, lines = (MAX_STICKER, 1) if self.kind == "overlay" else (MAX_WORDS, MAX_LINES)
        if len(self.words) > most or self.words.count("\n") >= lines:
            raise ValueError(
                f"words={self.words!r} of {self.kind}, expected at most {most} characters and {lines} lines"
            )
        if not all(" " <= char <= "~" or char == "\n" for char in self.words):
            raise ValueError(
                f"words={self.words!r}, expected printable ASCII and line feeds; spell the rest out"
            )

    def row(self) -> dict[str, str]:
        """Return the act as plain data."""
        body = {"kind": self.kind, "words": self.words, "place": self.place}
        return {name: value for name, value in body.items() if value}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> PictureAct:
        """Inverse of `row`."""
        return cls(row["kind"], row.get("words", ""), row.get("place", ""))


def fitting(words: str, most: int = MAX_WORDS) -> str:
    """Return words as they can be drawn: other characters as "?", too long ones cut.

    >>> fitting("naïve " * 3, most=9)
    'na?ve na?'
    """
    lines = words.strip().split("\n")
    short = "\n".join(lines[:MAX_LINES]) if most > MAX_STICKER else " ".join(lines)
    return "".join(c if " " <= c <= "~" or c == "\n" else "?" for c in short)[:most].rstrip()


def acts_of(utterance: str) -> tuple[PictureAct, ...]:
    """Return the acts of a user turn, () for plain text.

    Raises:
        ValueError: If there are more than `MAX_ACTS`, or something else in their place.
    """
    acts = meta_of(utterance).get("acts", ())
    if not isinstance(acts, list | tuple) or not all(isinstance(act, PictureAct) for act in acts):
        raise ValueError(f"acts={acts!r}, expected a tuple of PictureAct")
    if len(acts) > MAX_ACTS:
        raise ValueError(f"{len(acts)} acts in one user turn, expected at most {MAX_ACTS}")
    return tuple(acts)


# -- what a user turn shows ---------------------------------------------------------------------------------


def sheets(acts: Sequence[PictureAct], new: bool) -> list[Sheet]:
    """Return the pictures that acts make of one, in the order they are shown.

    Typography begins a page, and a swap puts another scene into the place of an untouched one; the other acts
    change the picture in hand. A later sticker, panel or part takes the place of an earlier one.

    Args:
        acts: The acts, in order.
        new: Whether the picture is shown by this turn for the first time: then a page does not hide it.
    """
    done: list[Sheet] = []
    hand = Sheet()
    for act in acts:
        touched = hand != Sheet()
        if act.kind == "typography":
            done += [hand] * (touched or (new and not done))
            hand = Sheet("", act.words)
        elif act.kind == "swap" and hand.scene:
            hand = hand._replace(scene="own" if hand.scene == "twin" else "twin")
        elif act.kind == "swap":
            done.append(hand)
            hand = Sheet("twin")
        elif act.kind == "compose":
            hand = hand._replace(panel=act.words)
        elif act.kind == "crop":
            hand = hand._replace(crop=act.place)
        elif act.place == "top":
            hand = hand._replace(top=act.words)
        else:
            hand = hand._replace(bottom=act.words)
    return [*done, hand]


def with_acts(scenario: Scenario, turn: int, acts: Sequence[PictureAct]) -> Scenario:
    """Return a scenario whose turn shows what acts make of its last picture, or of the last one before it.

    The turn's other pictures stay. Nothing is drawn until somebody wants the pixels. `Scenario.dealt` of the
    result is the scenario that was drawn on; its id stays.

    Raises:
        ValueError: If the turn would show more pictures than a message may.
    """
    if not acts:
        return scenario
    dealt = scenario.dealt or scenario
    own = dealt.turns[turn].images
    before = sum(len(one.images) for one in dealt.turns[:turn])
    last = before + len(own) - 1
    base = dealt.images[last] if last >= 0 else None
    made = sheets(acts, new=bool(own))
    drawn = [base if base is not None and sheet == Sheet() else drawn_on(base, sheet) for sheet in made]
    shown = [[scenario.images[i] for i in one.images] for one in scenario.turns]
    shown[turn] = [*(dealt.images[i] for i in own[:-1]), *drawn]
    if len(shown[turn]) > MAX_IMAGES:
        raise ValueError(f"{len(shown[turn])} pictures in one user turn, expected at most {MAX_IMAGES}")
    turns: list[DraftTurn] = []
    images: list[Image] = []
    for one, pictures in zip(scenario.turns, shown, strict=True):
        turns.append(replace(one, images=tuple(range(len(images), len(images) + len(pictures)))))
        images += pictures
    return replace(scenario, turns=tuple(turns), images=tuple(images), dealt=dealt)


def redrawn(scenario: Scenario, acts: Iterable[Sequence[Mapping[str, Any]]]) -> Scenario:
    """Return a scenario as it was drawn on in a stored dialogue, from the acts of each of its turns."""
    for turn, rows in enumerate(acts):
        scenario = with_acts(scenario, turn, [PictureAct.from_row(row) for row in rows])
    return scenario


# -- what it says and shows ---------------------------------------------------------------------------------


def words_of(image: Image) -> tuple[str, ...]:
    """Return the words an attacker drew into a picture (ground truth), () for any other picture."""
    return tuple(_sheet_of(image).get("words", ()))


def said_with(message: Message, images: Iterable[Image]) -> str:
    """Return what a message says, with the words drawn into its pictures in brackets on further lines."""
    return _bracketed(message.content, (words for image in images for words in words_of(image)))


def told(utterance: str) -> str:
    """Return what a user turn says, with the words that its acts leave in pictures as in `said_with`."""
    made = sheets(acts_of(utterance), new=True)
    return _bracketed(utterance, (words for sheet in made for words in sheet.words))


def _bracketed(text: str, drawn: Iterable[str]) -> str:
    return "\n".join((str(text), *(f"[in the picture: {words}]" for words in drawn)))


def spoken(transcript: Iterable[Message], images: Sequence[Image]) -> tuple[Message, ...]:
    """Return a transcript in which every message says what its pictures say, too."""
    dealt = with_images(transcript, images)
    return tuple(m._replace(content=said_with(m, shown)) if shown else m for m, shown in dealt)


def drawn_from(image: Image) -> str:
    """Return the digest of the picture an attacker drew on, that of the picture itself for any other."""
    return str(_sheet_of(image).get("of", image.digest))


def is_paper(image: Image) -> bool:
    """Return whether an attacker made a picture of paper alone: a page, or one drawn where there was none."""
    body = _sheet_of(image)
    return bool(body) and not (body["of"] and body["scene"])


def _sheet_of(image: Image) -> dict[str, Any]:
    _, _, body = image._recipe.partition("\n")
    made: dict[str, Any] = json.loads(body) if body else {}
    return made


def truth_shown(scenario: Scenario, images: Iterable[Image]) -> Truth | None:
    """Return the ground truth of the scene shown last, that of the scenario where no picture has one.

    Args:
        scenario: What the dialogue is about.
        images: The pictures shown so far.
    """
    found = [truth for truth in map(truth_of, images) if truth is not None] if scenario.truth else []
    return found[-1] if found else scenario.truth


# -- drawing ------------------------------------------------------------------------------------------------


def drawn_on(base: Image | None, sheet: Sheet) -> Image:
    """Return the picture of a sheet, drawn when its pixels are wanted; without a base on white."""
    twin = lookalike(base) if base is not None and sheet.scene == "twin" else None
    source = twin or base
    scene = scene_of(source) if source is not None and sheet.scene else ""
    of = "" if base is None else base.digest
    body = {"drawn": 1, "of": of, **sheet._asdict(), "words": sheet.words}
    text = f"{scene}\n{json.dumps(body, sort_keys=True)}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Image(partial(draw_sheet, source, sheet), digest, "drawn", recipe=text)


# -- the action space ---------------------------------------------------------------------------------------


class DrawnTurn(Unicode):
    """User turns with picture acts or without; samples are printable text with at most two acts."""

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Return random text, half of the time with random acts."""
        text = super().sample()
        acts = tuple(self._act() for _ in range(max(0, int(self.np_random.integers(-1, 3)))))
        return Utterance(text, acts=acts) if acts else text

    def _act(self) -> PictureAct:
        kind = tuple(ACTS)[int(self.np_random.integers(len(ACTS)))]
        letters = self.np_random.integers(ord("A"), ord("Z") + 1, size=int(self.np_random.integers(1, 13)))
        words = "" if kind in ("crop", "swap") else "".join(map(chr, letters))
        place = {"overlay": PLACES[::2], "crop": PLACES}.get(kind, ("",))
        return PictureAct(kind, words, place[int(self.np_random.integers(len(place)))])

    def contains(self, x: Any) -> bool:
        """Return whether `x` is text of allowed length with valid acts, or with none."""
        if not super().contains(x):
            return False
        try:
            acts_of(x)
        except ValueError:
            return False
        return True

    def __repr__(self) -> str:
        return f"DrawnTurn({self.min_length}, {self.max_length})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DrawnTurn) and super().__eq__(other)

    def __hash__(self) -> int:
        return super().__hash__()
