"""Rows on their way in: where they come from, which kind of seed each makes, and what is done to pictures."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count as count_up
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from steer_env.data.build import SEED_STRIDE
from steer_env.data.licences import check_training_allowed
from steer_env.data.loaders import EXPECTED, DatasetError, dataset_of
from steer_env.data.seeds.base import Rejected
from steer_env.images import Image
from steer_env.scenario_files import load_scenarios
from steer_env.scenarios import KINDS, Scenario, content_id
from steer_env.world.draw import NOISE_SIGMA, Recipe, make_image, recipe_of
from steer_env.world.lexicon import TRIGGERS
from steer_env.world.plan import stream_seed
from steer_env.world.source import WorldSource

#: Rows taken from the built-in world, which has no end, unless told otherwise.
WORLD_ROWS: Final = 300
#: Streams of the built-in world that seeds may come from; "bench" is behind a licence gate.
WORLD_SPLITS: Final = ("train", "sft", "bench")

# -- sources ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowSource:
    """Single-turn rows that can be gone through again, always the same ones in the same order.

    Attributes:
        name: What was asked for.
        total: Number of rows.
        digest: Hash of the rows' ids and contents.
        open: Starts going through them.
    """

    name: str
    total: int
    digest: str
    open: Callable[[], Iterator[Scenario]]


def open_source(
    name: str,
    count: int | None = None,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    allow: Sequence[str] = (),
) -> RowSource:
    """Open a source and look at every row once, so that what is wrong with it shows before any work.

    Args:
        name: "world" or "world:SPLIT" for the built-in world, `DATASET:[SPLIT:]ROOT` for one of
            `steer_env.data.DATASETS`, else the path of a scenario file.
        count: Most rows to take; None for all, and `WORLD_ROWS` of the built-in world.
        kinds: Kinds of seeds wanted; the built-in world hands out rows of these kinds in turn.
        seed: Which groups of the built-in world; of no meaning elsewhere.
        allow: Licence gates or datasets to override, see `steer_env.data.check_training_allowed`.

    Raises:
        ValueError: If the name is none of these.
        DatasetError, ScenarioFileError: If the data is not what is expected.
        LicenceGate: If a licence keeps rows out of training data.
    """
    head, _, rest = name.partition(":")
    if head == "world":
        split = rest or "train"
        if split not in WORLD_SPLITS:
            raise ValueError(
                f"source={name!r}, expected world or world:SPLIT with one of {', '.join(WORLD_SPLITS)}"
            )
        size = WORLD_ROWS if count is None else count
        check_training_allowed(islice(_world(split, kinds, seed), 1), allow)
        digest = hashlib.sha256(f"{split} {seed} {size} {','.join(kinds)}".encode()).hexdigest()[:16]
        return RowSource(name, size, digest, lambda: islice(_world(split, kinds, seed), size))
    dataset = dataset_of(name)
    if dataset is not None:

        def rows() -> Iterator[Scenario]:
            return islice(dataset.scenarios(), count)
    elif Path(name).is_file():
        scenarios = load_scenarios(name)[:count]

        def rows() -> Iterator[Scenario]:
            return iter(scenarios)
    else:
        raise ValueError(f"source={name!r} is neither world, nor an existing scenario file, nor {EXPECTED}")
    total, digest = _look(rows, name, allow)
    return RowSource(name, total, digest, rows)


def _world(split: str, kinds: Sequence[str], seed: int) -> Iterator[Scenario]:
    """Yield one row of every group: the whole intent in one turn, of the kinds in turn."""
    sources = {kind: WorldSource((kind,), split=split, single_turn=True) for kind in kinds}
    held_out = "; no training: held-out benchmark" if split == "bench" else ""
    for number in count_up():
        row = sources[kinds[number % len(kinds)]].scenario(seed * SEED_STRIDE + number)
        yield replace(row, licence=row.licence + held_out)


def _look(rows: Callable[[], Iterator[Scenario]], name: str, allow: Sequence[str]) -> tuple[int, str]:
    """Go through all rows once, past the licence gates; return their number and a hash of them."""
    digest, total = hashlib.sha256(), 0

    def counted() -> Iterator[Scenario]:
        nonlocal total
        for row in rows():
            digest.update(f"{row.id} {content_id(row)}\n".encode("utf-8", "surrogatepass"))
            total += 1
            yield row

    check_training_allowed(counted(), allow)
    if not total:
        raise DatasetError(f"source={name!r} has no rows, expected at least one")
    return total, digest.hexdigest()[:16]


# -- kinds --------------------------------------------------------------------------------------------------


class Assigner:
    """Gives every row its kind, so that the kinds are disjoint; call it with the rows in order.

    A seed group and a picture belong to one kind for good: the first row decides, and later rows with the
    same group or picture follow it.

    Args:
        kinds: The kinds wanted.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = tuple(kinds)
        self._kind_of: dict[str, str] = {}
        self._seen: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def assign(self, row: Scenario, images: Sequence[Image]) -> str | Rejected:
        """Return the kind of seed that a row is to become.

        Args:
            row: The row as it was read.
            images: Its pictures as they will be stored.

        Returns:
            A kind, or a rejection of a row that is no single-turn row, is there twice, fits none of the
            wanted kinds, or shares its group or a picture with rows of another kind.
        """
        if len(row) != 1:
            return Rejected("input", "not_single_turn", f"has {len(row)} user turns, expected one")
        first = self._seen.setdefault(_content(row), row.id)
        if first != row.id:
            return Rejected("input", "duplicate", f"the same text and pictures as row {first}")
        possible = [kind for kind in self._kinds if _fits(row, kind)]
        if not possible:
            wanted = ", ".join(self._kinds)
            return Rejected("input", "other_kind", f"a row of kind {row.kind} makes none of {wanted}")
        units = list(_units(row, images))
        taken = {self._kind_of[unit] for unit in units if unit in self._kind_of}
        if len(taken) > 1 or not taken <= set(possible):
            what = " and ".join(sorted(taken))
            return Rejected("input", "shared_unit", f"its group or a picture is already in use for {what}")
        kind = taken.pop() if taken else min(possible, key=lambda k: (self._counts[k], possible.index(k)))
        self._kind_of |= dict.fromkeys(units, kind)
        self._counts[kind] += 1
        return kind


def _fits(row: Scenario, kind: str) -> bool:
    """Say whether a row can become a kind: a harmless row benign, any other one a risky kind.

    A row of the built-in world becomes what it was drawn for: its picture was chosen for that.
    """
    return kind == row.kind if row.truth is not None else (kind == "benign") == (row.kind == "benign")


def _content(row: Scenario) -> str:
    parts = (row.turns[0].text, *(image.digest for image in row.images))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _units(row: Scenario, images: Sequence[Image]) -> Iterator[str]:
    if row.group:
        yield f"group {row.group}"
    for image in row.images:
        yield f"picture {image.digest}"
    for image in images:
        if recipe_of(image):  # two scenes of the built-in world can come out alike to the pixel
            yield f"pixels {hashlib.sha256(image.decode().tobytes()).hexdigest()}"


# -- pictures: visual perturbation (paper, Stage I) ---------------------------------------------------------

_LOUD: Final = ((255, 0, 160), (0, 220, 255), (255, 90, 0))
_INK: Final = (24, 24, 28)


def perturb(
    images: Sequence[Image], seed: int, noise_share: float, typography_share: float
) -> tuple[tuple[Image, ...], dict[str, Any]]:
    """Return the pictures of a row, perturbed or not, and what was done.

    A picture of the built-in world goes by its recipe, so that it keeps its ground truth and carries exactly
    the perturbations asked for here.

    Args:
        images: The row's pictures; all of them are treated alike.
        seed: Decides whether, and how.
        noise_share: Share of seeds in [0, 1] with Gaussian noise, sigma 0.03 of the full range.
        typography_share: Share in [0, 1] with a phrase in a loud colour at a random place, drawn
            independently.

    Returns:
        The pictures, and a dict with the keys `noise` (sigma) and `typography` (the phrase) where they were
        applied; empty without pictures.
    """
    rng = random.Random(stream_seed("perturb", seed))
    noise, typography = rng.random() < noise_share, rng.random() < typography_share
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
    of_ten = max(pen.textlength(phrase, ImageFont.load_default(10)), 1)
    font = ImageFont.load_default(max(6, min(height // 4, round(width / 3 / of_ten * 10))))
    _, _, right, bottom = pen.textbbox((0, 0), phrase, font=font, stroke_width=1)
    place = rng.randint(0, max(0, width - int(right))), rng.randint(0, max(0, height - int(bottom)))
    pen.text(place, phrase, font=font, fill=rng.choice(_LOUD), stroke_width=1, stroke_fill=_INK)
