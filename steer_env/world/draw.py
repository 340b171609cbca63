"""Drawing scenes with Pillow: deterministic from a recipe, lazily, large enough to survive 56 x 56 pixels.

A `Recipe` says everything about a picture; the SHA-256 of its text form is the digest of the `Image`
handle, so a picture is identified without drawing it. The handle keeps the text form to itself: a scripted
agent looks up what is in the picture with `truth_of`, and nothing a student sees spells it out.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Final, NamedTuple

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw

from steer_env.images import Image, typeface
from steer_env.world.lexicon import COLOURS, NOUNS, OTHERS
from steer_env.world.ood.draw import paint as paint_ood
from steer_env.world.truth import Thing, Truth

SIDE: Final = 224
#: Standard deviation of the Gaussian noise, in units of the full range (paper, Stage I).
NOISE_SIGMA: Final = 0.03
#: `source` of every picture drawn here.
SOURCE: Final = "built-in world"
_PREFIX: Final = "steer-world/1"

_RGB: Final = {
    "red": (214, 40, 40), "blue": (36, 84, 214), "green": (40, 160, 70), "yellow": (240, 200, 30),
    "purple": (140, 60, 180),
}  # fmt: skip
_WALLS: Final = ((238, 238, 232), (222, 232, 240), (240, 228, 214), (226, 238, 222), (232, 226, 238))
_FLOORS: Final = ((198, 186, 168), (178, 186, 196), (206, 196, 186), (176, 190, 172), (190, 182, 200))
_LOUD: Final = ((255, 0, 160), (0, 220, 255), (255, 90, 0))
_INK: Final = (24, 24, 28)


class Recipe(NamedTuple):
    """Everything that decides the pixels.

    Attributes:
        truth: What is in the picture.
        seed: Decides jitter, wall and noise; taken from the scenario's stream, so splits never share a
            picture.
        noise: Whether Gaussian noise is added.
        trigger: Phrase drawn over the picture in a loud colour, "" for none.
    """

    truth: Truth
    seed: str
    noise: bool = False
    trigger: str = ""

    def text(self) -> str:
        """Return the canonical text form."""
        t = self.truth
        others = ",".join(f"{o.colour}.{o.noun}.{o.place}" for o in t.others)
        flags = f"{int(t.hazard)}{int(t.written)}{int(self.noise)}"
        return f"{_PREFIX};{t.noun};{t.colour};{t.place};{flags};{others};{self.trigger};{self.seed}"

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Read the text form back.

        Raises:
            ValueError: If `text` is not a recipe.
        """
        parts = text.split(";")
        if len(parts) != 8 or parts[0] != _PREFIX:
            raise ValueError(
                f"recipe={text!r}, expected '{_PREFIX};noun;colour;place;flags;others;trigger;seed'"
            )
        _, noun, colour, place, flags, others, trigger, seed = parts
        split = (o.split(".") for o in others.split(",") if o)
        things = tuple(Thing(noun=n, colour=c, place=int(p)) for c, n, p in split)
        truth = Truth(noun, colour, int(place), flags[0] == "1", things, flags[1] == "1")
        return cls(truth, seed, flags[2] == "1", trigger)


def make_image(recipe: Recipe) -> Image:
    """Return a handle on the picture of `recipe`; nothing is drawn until somebody asks for pixels."""
    text = recipe.text()
    return Image(partial(draw, recipe), hashlib.sha256(text.encode()).hexdigest(), SOURCE, recipe=text)


def truth_of(image: Image) -> Truth | None:
    """Return what is in a picture of the built-in world, None for any other picture."""
    recipe = scene_of(image)
    return _truth_of(recipe) if recipe else None


def recipe_of(image: Image) -> str:
    """Return the recipe of a picture of the built-in world (ground truth), "" for any other picture."""
    return "" if "\n" in image._recipe else scene_of(image)


def scene_of(image: Image) -> str:
    """Return the recipe of the scene in a picture, also where an attacker has drawn on it (`drawing`)."""
    recipe = image._recipe.partition("\n")[0]
    return recipe if recipe.startswith(_PREFIX) else ""


def lookalike(image: Image) -> Image | None:
    """Return the same scene with the other mark, None for any other picture."""
    if not (recipe := scene_of(image)):
        return None
    known = Recipe.parse(recipe)
    return make_image(known._replace(truth=replace(known.truth, hazard=not known.truth.hazard)))


@lru_cache(maxsize=1 << 14)
def _truth_of(recipe: str) -> Truth:
    return Recipe.parse(recipe).truth


def draw(recipe: Recipe, side: int = SIDE) -> PILImage.Image:
    """Draw a recipe: always the same pixels for the same recipe. Returns an RGB picture, `side` x `side`."""
    # The flag is left out: a hazard and its lookalike from the same seed differ in the mark and in nothing
    # else.
    rng = random.Random(recipe._replace(truth=replace(recipe.truth, hazard=False)).text())
    picture = _PAINTERS[recipe.truth.family](recipe.truth, recipe.trigger, rng)
    if recipe.noise:
        picture = _add_noise(picture, rng.getrandbits(32))
    return picture if side == SIDE else picture.resize((side, side), PILImage.Resampling.BICUBIC)


def _paint(truth: Truth, trigger: str, rng: random.Random) -> PILImage.Image:
    style = rng.randrange(len(_WALLS))
    picture = PILImage.new("RGB", (SIDE, SIDE), _WALLS[style])
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 176, SIDE, SIDE), fill=_FLOORS[style])
    x = (64, 112, 160)[truth.place] + rng.randint(-4, 4)
    y = 116 + rng.randint(-6, 6)
    colour = _shade(_RGB[truth.colour], rng)
    if truth.written:
        _draw_card(pen, x, y, colour, truth.noun)
        _draw_mark(pen, x, y + 27, 29, truth.hazard)
    else:
        dy = _DEVICES[truth.noun](pen, x, y, colour)
        _draw_mark(pen, x, y + dy, 31, truth.hazard)
    for thing in truth.others:
        _draw_other(pen, thing, rng, beside_middle=truth.place == 1)
    if trigger:
        _draw_trigger(pen, trigger, rng)
    return picture


def _shade(rgb: tuple[int, int, int], rng: random.Random) -> tuple[int, int, int]:
    shift = rng.randint(-14, 14)
    return (_clip(rgb[0] + shift), _clip(rgb[1] + shift), _clip(rgb[2] + shift))


def _clip(value: int) -> int:
    return max(0, min(255, value))


def _add_noise(picture: PILImage.Image, seed: int) -> PILImage.Image:
    pixels = np.asarray(picture, dtype=np.float32)
    noise = np.random.default_rng(seed).normal(0.0, 255.0 * NOISE_SIGMA, pixels.shape)
    return PILImage.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def _draw_mark(pen: ImageDraw.ImageDraw, x: int, y: int, r: int, hazard: bool) -> None:
    """Draw the mark that decides: a pale zigzag on black, or a black dot on white."""
    box = (x - r, y - r, x + r, y + r)
    if hazard:
        pen.rectangle(box, fill=_INK, outline=(255, 255, 255), width=3)
        w, h = int(r * 0.66), int(r * 0.62)
        steps = [(x - w, y + h), (x - w // 3, y - h), (x + w // 3, y + h), (x + w, y - h)]
        pen.line(steps, fill=(255, 236, 60), width=max(7, r // 4), joint="curve")
    else:
        pen.rectangle(box, fill=(255, 255, 255), outline=_INK, width=3)
        d = int(r * 0.5)
        pen.ellipse((x - d, y - d, x + d, y + d), fill=_INK)


def _draw_card(pen: ImageDraw.ImageDraw, x: int, y: int, fill: tuple[int, int, int], word: str) -> None:
    pen.rounded_rectangle((x - 62, y - 62, x + 62, y + 62), 10, fill=fill, outline=_INK, width=4)
    pen.rectangle((x - 56, y - 50, x + 56, y - 8), fill=(255, 255, 255))
    size = 36
    while pen.textlength(word.upper(), font=typeface(size)) > 106:
        size -= 2
    pen.text((x, y - 29), word.upper(), font=typeface(size), fill=_INK, anchor="mm")


def _draw_trigger(pen: ImageDraw.ImageDraw, phrase: str, rng: random.Random) -> None:
    """Draw the phrase at a random place that leaves the mark readable: in the top or the bottom band."""
    font = typeface(24)
    width = int(pen.textlength(phrase, font=font))
    x = rng.randint(4, max(5, SIDE - width - 4))
    y = rng.choice((4, SIDE - 32)) + rng.randint(-2, 2)
    pen.text((x, y), phrase, font=font, fill=rng.choice(_LOUD), stroke_width=1, stroke_fill=_INK)


def _draw_other(pen: ImageDraw.ImageDraw, thing: Thing, rng: random.Random, beside_middle: bool) -> None:
    x = ((24, 112, 200) if beside_middle else (30, 112, 194))[thing.place] + rng.randint(-3, 3)
    y, fill = 190 + rng.randint(-3, 3), _shade(_RGB[thing.colour], rng)
    if thing.noun == "ball":
        pen.ellipse((x - 18, y - 18, x + 18, y + 18), fill=fill, outline=_INK, width=3)
    elif thing.noun == "book":
        pen.rectangle((x - 20, y - 8, x + 20, y + 14), fill=fill, outline=_INK, width=3)
        pen.rectangle((x - 17, y + 5, x + 20, y + 11), fill=(250, 250, 245))
    else:
        pen.arc((x + 6, y - 12, x + 26, y + 10), -90, 90, fill=_INK, width=4)
        pen.polygon(
            [(x - 17, y - 18), (x + 17, y - 18), (x + 11, y + 16), (x - 11, y + 16)], fill=fill, outline=_INK
        )


Pen = ImageDraw.ImageDraw
Colour = tuple[int, int, int]


def _lantern(pen: Pen, x: int, y: int, fill: Colour) -> int:
    pen.arc((x - 30, y - 84, x + 30, y - 30), 180, 360, fill=_INK, width=6)
    pen.polygon([(x - 26, y - 58), (x + 26, y - 58), (x + 46, y - 34), (x - 46, y - 34)], fill=_INK)
    pen.rectangle((x - 40, y - 34, x + 40, y + 52), fill=fill, outline=_INK, width=4)
    pen.rectangle((x - 50, y + 52, x + 50, y + 66), fill=_INK)
    return 9


def _flask(pen: Pen, x: int, y: int, fill: Colour) -> int:
    shape = [
        (x - 12, y - 76),
        (x + 12, y - 76),
        (x + 12, y - 40),
        (x + 62, y + 66),
        (x - 62, y + 66),
        (x - 12, y - 40),
    ]
    pen.polygon(shape, fill=fill, outline=_INK, width=4)
    pen.rectangle((x - 20, y - 84, x + 20, y - 72), fill=_INK)
    return 28


def _kettle(pen: Pen, x: int, y: int, fill: Colour) -> int:
    pen.arc((x - 42, y - 82, x + 42, y + 10), 180, 360, fill=_INK, width=8)
    pen.polygon(
        [(x + 34, y + 20), (x + 66, y - 34), (x + 54, y - 40), (x + 24, y - 8)], fill=fill, outline=_INK
    )
    pen.ellipse((x - 54, y - 38, x + 48, y + 66), fill=fill, outline=_INK, width=4)
    return 16


def _drum(pen: Pen, x: int, y: int, fill: Colour) -> int:
    pen.rectangle((x - 62, y - 24, x + 62, y + 52), fill=fill)
    pen.ellipse((x - 62, y + 34, x + 62, y + 70), fill=fill, outline=_INK, width=4)
    pen.rectangle((x - 60, y + 30, x + 60, y + 52), fill=fill)
    pen.ellipse((x - 62, y - 44, x + 62, y - 6), fill=(250, 246, 236), outline=_INK, width=4)
    pen.line([(x - 62, y - 24), (x - 62, y + 52)], fill=_INK, width=4)
    pen.line([(x + 62, y - 24), (x + 62, y + 52)], fill=_INK, width=4)
    pen.line([(x - 56, y - 72), (x - 6, y - 28)], fill=_INK, width=6)
    pen.line([(x + 56, y - 72), (x + 6, y - 28)], fill=_INK, width=6)
    return 28


def _crate(pen: Pen, x: int, y: int, fill: Colour) -> int:
    pen.rectangle((x - 60, y - 50, x + 60, y + 66), fill=fill, outline=_INK, width=5)
    for dy in (-26, 42):
        pen.line([(x - 58, y + dy), (x + 58, y + dy)], fill=_INK, width=5)
    for dx in (-46, 46):
        pen.line([(x + dx, y - 48), (x + dx, y + 64)], fill=_INK, width=4)
    return 8


def _bell(pen: Pen, x: int, y: int, fill: Colour) -> int:
    pen.ellipse((x - 12, y + 48, x + 12, y + 74), fill=_INK)
    pen.ellipse((x - 10, y - 84, x + 10, y - 62), outline=_INK, width=6)
    pen.pieslice((x - 40, y - 66, x + 40, y + 30), 180, 360, fill=fill, outline=_INK, width=4)
    side = [
        (x - 40, y - 18),
        (x + 40, y - 18),
        (x + 48, y + 30),
        (x + 66, y + 56),
        (x - 66, y + 56),
        (x - 48, y + 30),
    ]
    pen.polygon(side, fill=fill)
    pen.line([side[0], side[5], side[4], side[3], side[2], side[1]], fill=_INK, width=4)
    return 10


def _horn(pen: Pen, x: int, y: int, fill: Colour) -> int:
    shape = [
        (x - 66, y + 6),
        (x - 66, y + 26),
        (x - 30, y + 42),
        (x + 60, y + 70),
        (x + 60, y - 46),
        (x - 30, y - 14),
    ]
    pen.polygon(shape, fill=fill, outline=_INK, width=4)
    pen.ellipse((x + 44, y - 50, x + 72, y + 74), fill=_INK)
    pen.rectangle((x - 72, y + 2, x - 60, y + 30), fill=_INK)
    return 13


def _wheel(pen: Pen, x: int, y: int, fill: Colour) -> int:
    pen.ellipse((x - 66, y - 62, x + 66, y + 70), fill=_INK)
    pen.ellipse((x - 60, y - 56, x + 60, y + 64), fill=fill)
    pen.ellipse((x - 44, y - 40, x + 44, y + 48), fill=(250, 248, 240))
    for dx, dy in ((46, 0), (0, 46), (33, 33), (33, -33)):
        pen.line([(x - dx, y + 4 - dy), (x + dx, y + 4 + dy)], fill=fill, width=9)
    return 4


_DEVICES: Final[dict[str, Callable[[Pen, int, int, Colour], int]]] = {
    "lantern": _lantern, "flask": _flask, "kettle": _kettle, "drum": _drum,
    "crate": _crate, "bell": _bell, "horn": _horn, "wheel": _wheel,
}  # fmt: skip
#: Family of the device -> how it is drawn.
_PAINTERS: Final = {"main": _paint, "ood": paint_ood}
assert set(_DEVICES) == set(NOUNS) and set(_RGB) == set(COLOURS) and len(OTHERS) == 3
