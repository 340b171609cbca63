"""Pictures as a model takes them: tokens and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """An image as tokens and as model inputs.

    Attributes:
        ids_N: The tokens that stand for it.
        inputs: What the model needs beside the tokens (`pixel_values`, `image_grid_thw`, ...), batch of one.
    """

    ids_N: Ids
    inputs: Mapping[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        """Memory of the model inputs."""
        return sum(value.nbytes for value in self.inputs.values())


def stack_images(name: str, rows: list[torch.Tensor]) -> torch.Tensor:
    """Return the model input `name` of several pictures as one batch."""
    # Some processors (Idefics3, SmolVLM) nest the pictures of one text: (1, tiles, ...). The models flatten
    # them again in order, so all pictures of a batch can go as tiles of one text.
    nested = rows[0].ndim >= (4 if "mask" in name else 5)
    return torch.cat(rows, dim=1 if nested else 0)
