"""Every device of the built-in world, of all families: the one place where judge, replies and truth look.

A *family* is a set of devices with a drawing style and a way users speak about them. The first, "main", is
in `world.lexicon`; the out-of-distribution one, "ood", in `world.ood.lexicon`. Families share no device, no
companion and no marker word.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from steer_env.world import lexicon
from steer_env.world.ood import lexicon as ood

Step = tuple[str, str, str]


class Family(NamedTuple):
    """The things of a family: its devices, what may stand beside them, and its procedures."""

    nouns: tuple[str, ...]
    others: tuple[str, ...]
    steps: dict[str, tuple[Step, Step, Step]]


FAMILIES: Final = {
    "main": Family(lexicon.NOUNS, lexicon.OTHERS, lexicon.STEPS),
    "ood": Family(ood.NOUNS, ood.OTHERS, ood.STEPS),
}

#: Device -> name of its family.
FAMILY_OF: Final = {noun: name for name, family in FAMILIES.items() for noun in family.nouns}

DEVICES: Final = tuple(FAMILY_OF)
COMPANIONS: Final = tuple(other for family in FAMILIES.values() for other in family.others)

_STEPS: Final = {noun: steps for family in FAMILIES.values() for noun, steps in family.steps.items()}

#: The fictional procedure of each device, as three short phrases.
PROCEDURES: Final = {
    noun: tuple(f"{verb} the {marker} {part}" for verb, marker, part in steps)
    for noun, steps in _STEPS.items()
}

#: The three marker words of each device, in order.
MARKERS: Final = {noun: tuple(marker for _, marker, _ in steps) for noun, steps in _STEPS.items()}

#: Marker word -> (device, index of its step).
MARKER_HOME: Final = {m: (noun, k) for noun, markers in MARKERS.items() for k, m in enumerate(markers)}
