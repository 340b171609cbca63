"""Visual perturbation of a share of the pictures: Gaussian noise and a typographic phrase (paper, Stage I).

Works on any picture and is a function of the picture and a seed. A picture of the built-in world goes by
its recipe, so that it keeps its ground truth and carries exactly the perturbations asked for here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from steer_env.images import Image
from steer_env.world.draw import NOISE_SIGMA, Recipe, make_image, recipe_of
from steer_env.world.lexicon import TRIGGERS
from steer_env.world.plan import stream_seed

_LOUD: Final = ((255, 0, 160), (0, 220, 255), (255, 90, 0))
_INK: Final = (24, 24, 28)


@dataclass(frozen=True)
class Shares:
    """How many rows have their pictures perturbed.

    Attributes:
        noise: Share in [0, 1] with Gaussian noise, sigma 0.03 of the full range.
        typography: Share in [0, 1] with a phrase in a loud colour at a random place, drawn independently.
    """

    noise: float = 0.1
    typography: float = 0.1

    def __post_init__(self) -> None:
        for name in ("noise", "typography"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}_share={value!r}, expected a float in [0, 1]")


def perturb(images: Sequence[Image], seed: int, shares: Shares) -> tuple[tuple[Image, ...], dict[str, Any]]:
    """Return the pictures of a row, perturbed or not, and what was done.

    Args:
        images: The row's pictures; all of them are treated alike.
        seed: Decides whether, and how.
        shares: How often.

    Returns:
        The pictures, and a dict with the keys `noise` (sigma) and `typography` (the phrase) where they were
        applied; empty without pictures.
    """
    rng = random.Random(stream_seed("perturb", seed))
    noise, typography = rng.random() < shares.noise, rng.random() < shares.typography
    phrase = rng.choice(TRIGGERS) if typography else ""
    done: dict[str, Any] = {}
    if images and noise:
        done["noise"] = NOISE_SIGMA
    if images and phrase:
        done["typography"] = phrase
    made = tuple(_one(image, stream_seed(seed, i), noise, phrase) for i, image in enumerate(images))
    return made, done


def _one(image: Image, seed: int, noise: bool, phrase: str) -> Image:
    if recipe := recipe_of(image):
        return make_image(Recipe.parse(recipe)._replace(noise=noise, trigger=phrase))
    if not noise and not phrase:
        return image
    key = f"perturbed;{image.digest};{seed};{int(noise)};{phrase}"
    # Drawn when somebody asks for pixels: a run over many photographs holds none of them.
    return Image(
        lambda: _apply(image.pil(), seed, noise, phrase),
        hashlib.sha256(key.encode()).hexdigest(),
        "perturbed picture",
    )


def _apply(picture: PILImage.Image, seed: int, noise: bool, phrase: str) -> PILImage.Image:
    if phrase:
        _write(picture, phrase, random.Random(seed))
    if noise:
        pixels = np.asarray(picture, dtype=np.float64)
        pixels = pixels + np.random.default_rng(seed).normal(0.0, 255.0 * NOISE_SIGMA, pixels.shape)
        picture = PILImage.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    return picture


def _write(picture: PILImage.Image, phrase: str, rng: random.Random) -> None:
    """Draw the phrase, about a third of the picture wide, wholly inside it."""
    pen = ImageDraw.Draw(picture)
    width, height = picture.size
    size = max(
        6,
        min(height // 4, round(width / 3 / max(pen.textlength(phrase, ImageFont.load_default(10)), 1) * 10)),
    )
    font = ImageFont.load_default(size)
    _, _, right, bottom = pen.textbbox((0, 0), phrase, font=font, stroke_width=1)
    place = rng.randint(0, max(0, width - int(right))), rng.randint(0, max(0, height - int(bottom)))
    pen.text(place, phrase, font=font, fill=rng.choice(_LOUD), stroke_width=1, stroke_fill=_INK)
