"""Which row makes which kind of seed, so that the three kinds are disjoint.

A seed group and a picture belong to one kind for good: the first row decides, and later rows with the same
group or picture follow it. Everything is a function of the rows in their order.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

from steer_env.data.seeds.base import Rejected
from steer_env.images import Image
from steer_env.scenarios import Scenario
from steer_env.world.draw import recipe_of


def kinds_for(row: Scenario, kinds: Sequence[str]) -> tuple[str, ...]:
    """Return which of `kinds` a row can become: a harmless row benign, any other one a risky kind.

    A row of the built-in world becomes what it was drawn for: its picture was chosen for that.
    """
    if row.truth is not None:
        return tuple(kind for kind in kinds if kind == row.kind)
    return tuple(kind for kind in kinds if (kind == "benign") == (row.kind == "benign"))


class Assigner:
    """Gives every row its kind; call it with the rows in order.

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
        possible = kinds_for(row, self._kinds)
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
