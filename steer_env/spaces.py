"""Observation and action spaces for text and pictures.

`gymnasium.spaces.Text` needs a charset (its default has no space, full Unicode takes seconds to build), and
pictures of any size fit no `Box`; hence two small spaces of our own. Everything else is Gymnasium's.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import create_shared_memory
from numpy.typing import NDArray

from steer_env.images import Image
from steer_env.types import NO_TERMS

_SURROGATE = re.compile("[\ud800-\udfff]")

#: Longest utterance in characters unless an environment is told otherwise.
MAX_LENGTH = 4096
#: Longest reply of a model in tokens unless it is told otherwise: the same everywhere.
MAX_NEW_TOKENS = 256
#: Most images one message may show.
MAX_IMAGES = 16


class Unicode(spaces.Text):
    """Any Unicode text without lone surrogates, up to a length; samples are printable ASCII.

    >>> Unicode(10).contains("grüße 😀")
    True
    >>> Unicode(3).contains("long text")
    False
    """

    def __init__(
        self, max_length: int, *, min_length: int = 0, seed: int | np.random.Generator | None = None
    ) -> None:
        super().__init__(max_length, min_length=min_length, charset=string.printable, seed=seed)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Return random printable ASCII of random length, at most 64 characters."""
        length = int(self.np_random.integers(self.min_length, min(self.max_length, self.min_length + 64) + 1))
        picks = self.np_random.integers(len(string.printable), size=length)
        return "".join(string.printable[i] for i in picks)

    def contains(self, x: Any) -> bool:
        """Return whether `x` is a string of allowed length without lone surrogates."""
        return isinstance(x, str) and self.min_length <= len(x) <= self.max_length and not has_surrogate(x)

    def __repr__(self) -> str:
        return f"Unicode({self.min_length}, {self.max_length})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unicode) and (self.min_length, self.max_length) == (
            other.min_length,
            other.max_length,
        )

    def __hash__(self) -> int:
        return hash((type(self), self.min_length, self.max_length))


def has_surrogate(text: str) -> bool:
    """Return whether `text` holds a lone surrogate, which no encoder can write."""
    return not text.isascii() and _SURROGATE.search(text) is not None


class Picture(spaces.Space[Image]):
    """An immutable `Image` handle of any size; samples are small noise pictures."""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Pictures of different sizes have no common flat form."""
        return False

    def sample(self, mask: Any = None, probability: Any = None) -> Image:
        """Return an 8 x 8 picture of noise."""
        return Image.from_array(self.np_random.integers(0, 256, (8, 8, 3), dtype=np.uint8), source="sample")

    def contains(self, x: Any) -> bool:
        """Return whether `x` is an `Image`."""
        return isinstance(x, Image)

    def __repr__(self) -> str:
        return "Picture()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture)

    def __hash__(self) -> int:
        return hash(type(self))


@create_shared_memory.register(Unicode)
@create_shared_memory.register(Picture)
def _no_shared_memory(space: spaces.Space[Any], n: int = 1, ctx: Any = None) -> Any:
    raise TypeError(
        f"{space!r} cannot live in shared memory (Gymnasium would hand back frozen values); "
        "use AsyncVectorEnv(..., shared_memory=False), or steer_env.make_vec, which needs no processes"
    )


def transcript_space(max_length: int) -> spaces.Sequence:
    """Return the space of transcripts: tuples of `Message(role, content, images)`."""
    message = spaces.Tuple((spaces.Discrete(2), Unicode(max_length), spaces.Discrete(MAX_IMAGES + 1)))
    return spaces.Sequence(message)


def student_space(max_length: int) -> spaces.Dict:
    """Return what the student sees: pictures shown so far and the transcript, nothing else."""
    return spaces.Dict({"images": spaces.Sequence(Picture()), "transcript": transcript_space(max_length)})


def attacker_space(max_length: int) -> spaces.Dict:
    """Return what the attacker sees: the student's view, the hidden goal, the draft and the last verdict.

    "verdict" is `Terms(safety, usefulness, faithfulness)`, each 1..10, or zeros with "scored" 0.
    """
    term = spaces.Discrete(11)
    return spaces.Dict(
        {
            "images": spaces.Sequence(Picture()),
            "transcript": transcript_space(max_length),
            "goal": Unicode(max_length),
            "draft": Unicode(max_length),
            "kind": Unicode(64),
            "strategy": Unicode(64),
            "technique": Unicode(64),
            "verdict": spaces.Tuple((term,) * len(NO_TERMS)),
            "scored": spaces.Discrete(2),
        }
    )


def reset_mask(options: Mapping[str, Any] | None, count: int) -> NDArray[np.bool_] | None:
    """Return the mask of dialogues to start, None if the options have none.

    Raises:
        ValueError: If it is not `count` booleans, at least one of them true.
    """
    if options is None or "reset_mask" not in options:
        return None
    mask = np.asarray(options["reset_mask"])
    if mask.shape != (count,) or mask.dtype != bool or not mask.any():
        raise ValueError(f"reset_mask={mask!r}, expected {count} booleans, at least one of them true")
    return mask
