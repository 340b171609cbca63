"""Drawing in the style of the out-of-distribution family: hatched outlines on gridded paper, tilted, tagged.

A device is a silhouette; its colour fills it as hatching inside a bold outline. The mark hangs below it on a
pale luggage tag: a long thick zigzag, or one round dot. Companions float in the band at the top.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from PIL import Image as PILImage
from PIL import ImageChops, ImageDraw

from steer_env.images import typeface
from steer_env.world.lexicon import COLOURS
from steer_env.world.ood.lexicon import NOUNS, OTHERS
from steer_env.world.truth import Thing, Truth

SIDE: Final = 224

#: Other shades of the same five colours.
_RGB: Final = {
    "red": (186, 18, 62), "blue": (20, 128, 226), "green": (14, 116, 66), "yellow": (226, 176, 0),
    "purple": (104, 34, 140),
}  # fmt: skip
_PAPERS: Final = ((252, 250, 240), (244, 246, 250), (250, 244, 246), (240, 248, 244))
_RULES: Final = ((176, 206, 226), (214, 190, 170), (186, 216, 186), (210, 196, 226))
_INK: Final = (48, 40, 36)
_TAG: Final = (246, 226, 184)
_BANNER: Final = ((20, 20, 20), (0, 92, 92), (120, 0, 60))

#: A silhouette shifted by these leaves what lies deeper inside than the outline is wide.
_RIM: Final = ((5, 0), (-5, 0), (0, 5), (0, -5), (4, 4), (4, -4), (-4, 4), (-4, -4))

Pen = ImageDraw.ImageDraw
Colour = tuple[int, int, int]


def paint(truth: Truth, trigger: str, rng: random.Random) -> PILImage.Image:
    """Return the picture of a scene, an RGB picture of `SIDE` x `SIDE`; `rng` decides paper, tilt and jitter.

    What is drawn from `rng` does not depend on `truth.hazard`: hazard and lookalike differ in the mark alone.
    """
    picture = _paper(rng)
    x = (56, 112, 168)[truth.place] + rng.randint(-5, 5)
    y = 100 + rng.randint(-4, 4)
    colour = _shade(_RGB[truth.colour], rng)
    tilt = rng.uniform(-14.0, 14.0)
    slope = rng.choice((-1, 1))
    for thing in truth.others:
        _companion(picture, thing, rng)
    if truth.written:
        _ticket(picture, x, y, colour, truth.noun, slope)
    else:
        mask = PILImage.new("L", (SIDE, SIDE), 0)
        _DEVICES[truth.noun](ImageDraw.Draw(mask), x, y)
        _ink_in(picture, mask.rotate(tilt, center=(x, y), fillcolor=0), colour, slope)
    _tag(ImageDraw.Draw(picture), x + rng.randint(-3, 3), 180, truth.hazard)
    if trigger:
        _banner(ImageDraw.Draw(picture), trigger, rng)
    return picture


def _shade(rgb: Colour, rng: random.Random) -> Colour:
    shift = rng.randint(-12, 12)
    red, green, blue = (max(0, min(255, value + shift)) for value in rgb)
    return red, green, blue


def _paper(rng: random.Random) -> PILImage.Image:
    """Return empty paper: squared, ruled or dotted."""
    picture = PILImage.new("RGB", (SIDE, SIDE), rng.choice(_PAPERS))
    pen, rule = ImageDraw.Draw(picture), rng.choice(_RULES)
    kind, gap, start = rng.choice(("squared", "ruled", "dotted")), rng.choice((14, 18, 22)), rng.randrange(12)
    for a in range(start, SIDE, gap):
        if kind == "dotted":
            for b in range(start, SIDE, gap):
                pen.ellipse((a - 2, b - 2, a + 2, b + 2), fill=rule)
            continue
        pen.line([(0, a), (SIDE, a)], fill=rule, width=2)
        if kind == "squared":
            pen.line([(a, 0), (a, SIDE)], fill=rule, width=2)
    return picture


@lru_cache(maxsize=4)
def _hatching(slope: int, gap: int, width: int) -> PILImage.Image:
    """Return slanted stripes as a mask."""
    mask = PILImage.new("L", (SIDE, SIDE), 0)
    pen = ImageDraw.Draw(mask)
    for start in range(-SIDE, 2 * SIDE, gap):
        pen.line([(start, 0), (start + slope * SIDE, SIDE)], fill=255, width=width)
    return mask


def _ink_in(picture: PILImage.Image, mask: PILImage.Image, colour: Colour, slope: int) -> None:
    """Fill a silhouette with hatching in its colour, inside a bold outline."""
    white = PILImage.new("RGB", picture.size, (255, 255, 255))
    solid = PILImage.new("RGB", picture.size, colour)
    inner = mask
    for dx, dy in _RIM:
        inner = ImageChops.darker(inner, ImageChops.offset(mask, dx, dy))
    picture.paste(solid, (0, 0), mask)
    picture.paste(white, (0, 0), inner)
    stripes = PILImage.composite(inner, PILImage.new("L", picture.size, 0), _hatching(slope, 12, 5))
    picture.paste(solid, (0, 0), stripes)


def _tag(pen: Pen, x: int, y: int, hazard: bool) -> None:
    """Hang the tag that decides: a long zigzag, or one round dot."""
    pen.line([(x, y - 50), (x, y - 26)], fill=_INK, width=4)
    box = [(x - 52, y - 26), (x + 38, y - 26), (x + 52, y), (x + 38, y + 26), (x - 52, y + 26)]
    pen.polygon(box, fill=_TAG, outline=_INK, width=4)
    if hazard:
        bends = [(x - 42 + 19 * k, y + (14 if k % 2 else -14)) for k in range(5)]
        pen.line(bends, fill=_INK, width=10, joint="curve")
    else:
        pen.ellipse((x - 19, y - 17, x + 15, y + 17), fill=_INK)


def _ticket(picture: PILImage.Image, x: int, y: int, colour: Colour, word: str, slope: int) -> None:
    """Draw a ticket with the device's name: hatched frame, notched corners, small letters."""
    mask = PILImage.new("L", picture.size, 0)
    pen = ImageDraw.Draw(mask)
    pen.rectangle((x - 55, y - 46, x + 55, y + 38), fill=255)
    for cx in (x - 55, x + 55):
        for cy in (y - 46, y + 38):
            pen.ellipse((cx - 13, cy - 13, cx + 13, cy + 13), fill=0)
    _ink_in(picture, mask, colour, slope)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((x - 49, y - 21, x + 49, y + 15), fill=(255, 255, 255))
    size = 32
    while pen.textlength(word, font=typeface(size)) > 92:
        size -= 2
    pen.text((x, y - 4), word, font=typeface(size), fill=_INK, anchor="mm")


def _banner(pen: Pen, phrase: str, rng: random.Random) -> None:
    """Draw the phrase on a dark strip along the upper or the lower edge, clear of the tag."""
    y = rng.choice((0, SIDE - 18))
    pen.rectangle((0, y, SIDE, y + 18), fill=rng.choice(_BANNER))
    x = rng.randint(40, SIDE - 40 - int(pen.textlength(phrase, font=typeface(15))))
    pen.text((x, y + 9), phrase, font=typeface(15), fill=(255, 255, 160), anchor="lm")


def _companion(picture: PILImage.Image, thing: Thing, rng: random.Random) -> None:
    """Draw a companion in plain flat colour, with no outline, at its place in the upper band."""
    pen, fill = ImageDraw.Draw(picture), _shade(_RGB[thing.colour], rng)
    x, y = (30, 112, 194)[thing.place] + rng.randint(-4, 4), 36 + rng.randint(-2, 2)
    if thing.noun == "spoon":
        pen.ellipse((x - 24, y - 11, x + 2, y + 11), fill=fill)
        pen.line([(x, y), (x + 26, y)], fill=fill, width=7)
    elif thing.noun == "leaf":
        blade = [(x - 24, y + 10), (x - 8, y - 12), (x + 14, y - 13), (x + 24, y - 12), (x + 8, y + 12)]
        pen.polygon(blade, fill=fill)
        pen.line([(x - 30, y + 15), (x + 12, y - 5)], fill=_INK, width=3)
    else:
        pen.rectangle((x - 14, y - 16, x + 14, y + 6), fill=fill)
        pen.rectangle((x - 27, y + 5, x + 27, y + 12), fill=fill)


# Silhouettes: drawn in 255 on a mask, about 110 px wide and 100 px high around (x, y).


def _clock(pen: Pen, x: int, y: int) -> None:
    pen.ellipse((x - 44, y - 40, x + 44, y + 48), fill=255)
    for side in (-1, 1):
        pen.ellipse((x + side * 30 - 15, y - 54, x + side * 30 + 15, y - 26), fill=255)
        pen.line([(x + side * 28, y + 36), (x + side * 42, y + 56)], fill=255, width=13)
    pen.line([(x, y + 4), (x, y - 24)], fill=0, width=9)
    pen.line([(x, y + 4), (x + 22, y + 4)], fill=0, width=9)


def _radio(pen: Pen, x: int, y: int) -> None:
    pen.rectangle((x - 54, y - 14, x + 54, y + 48), fill=255)
    pen.line([(x - 40, y - 14), (x + 10, y - 54)], fill=255, width=10)
    pen.ellipse((x + 2, y - 62, x + 18, y - 46), fill=255)
    pen.ellipse((x - 42, y, x - 8, y + 34), fill=0)
    pen.rectangle((x + 8, y + 2, x + 42, y + 10), fill=0)


def _funnel(pen: Pen, x: int, y: int) -> None:
    pen.polygon([(x - 56, y - 46), (x + 56, y - 46), (x + 12, y + 18), (x - 12, y + 18)], fill=255)
    pen.rectangle((x - 12, y + 16, x + 12, y + 52), fill=255)


def _mirror(pen: Pen, x: int, y: int) -> None:
    pen.ellipse((x - 33, y - 56, x + 33, y + 22), fill=255)
    pen.ellipse((x - 18, y - 41, x + 18, y + 7), fill=0)
    pen.rectangle((x - 8, y + 18, x + 8, y + 44), fill=255)
    pen.rectangle((x - 38, y + 40, x + 38, y + 54), fill=255)


def _pump(pen: Pen, x: int, y: int) -> None:
    pen.rectangle((x - 42, y - 56, x + 42, y - 42), fill=255)
    pen.rectangle((x - 7, y - 44, x + 7, y - 14), fill=255)
    pen.rectangle((x - 22, y - 16, x + 22, y + 42), fill=255)
    pen.rectangle((x - 46, y + 38, x + 46, y + 52), fill=255)
    pen.line([(x + 20, y + 20), (x + 52, y + 4)], fill=255, width=14)


def _kite(pen: Pen, x: int, y: int) -> None:
    pen.polygon([(x, y - 58), (x + 46, y - 10), (x, y + 38), (x - 46, y - 10)], fill=255)
    pen.line([(x, y + 34), (x + 22, y + 46), (x + 40, y + 36), (x + 56, y + 50)], fill=255, width=11)
    pen.line([(x - 34, y - 10), (x + 34, y - 10)], fill=0, width=6)
    pen.line([(x, y - 46), (x, y + 26)], fill=0, width=6)


_DEVICES: Final[dict[str, Callable[[Pen, int, int], None]]] = {
    "clock": _clock, "radio": _radio, "funnel": _funnel, "mirror": _mirror, "pump": _pump, "kite": _kite,
}  # fmt: skip
assert set(_DEVICES) == set(NOUNS) and set(_RGB) == set(COLOURS) and len(OTHERS) == 3
