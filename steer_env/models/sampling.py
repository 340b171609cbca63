"""Drawing tokens, the same way in every loop: each row has a random stream of its own.

A row's numbers depend on its key (seed, prompt, who asks) and never on what else is in the batch or on global
state. Shape suffixes: `_BV` batch and vocabulary, `_T` steps.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steer_env.images import Image


def prompt_hash(ids_L: NDArray[np.int64], images: Sequence[Image]) -> hashlib.blake2b:
    """Return a hash of a prompt, to be added to."""
    digest = hashlib.blake2b(ids_L.tobytes(), digest_size=16)
    digest.update(str(tuple(image.digest for image in images)).encode())
    return digest


class Streams:
    """Uniform numbers for prompts; one that is asked again without a name of its own gets others."""

    def __init__(self) -> None:
        self._asked: Counter[bytes] = Counter()

    def draw(
        self, ids_L: NDArray[np.int64], images: Sequence[Image], key: str, steps: int, *, named: bool
    ) -> NDArray[np.float64]:
        """Return the numbers of one reply, shape (T,), in [0, 1).

        Args:
            ids_L: The prompt.
            images: Its pictures.
            key: The seed, and who asks if somebody says so.
            steps: How many.
            named: Whether `key` tells this request from others with the same prompt. Otherwise it is counted
                how often the prompt was asked.
        """
        digest = prompt_hash(ids_L, images)
        if not named:
            asked = digest.digest()
            key = f"{key}/{self._asked[asked]}"
            self._asked[asked] += 1
        digest.update(key.encode())
        philox = np.random.Philox(key=int.from_bytes(digest.digest(), "little"))
        return np.random.Generator(philox).random(steps)

    def restart(self) -> None:
        """Forget how often each prompt was asked."""
        self._asked.clear()


def pick(logits_BV: Tensor, uniform_B: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Draw a token per row, and return it with its log-probability; the logits are overwritten.

    Args:
        logits_BV: What must not be drawn is at minus infinity.
        uniform_B: Numbers in [0, 1).
        temperature: Of all rows, or of each; 0 takes the likeliest token, with log-probability 0.
    """
    greedy_B = torch.as_tensor(temperature, device=logits_BV.device) == 0
    if greedy_B.all():
        token_B = logits_BV.argmax(1)
        return token_B, torch.zeros_like(token_B, dtype=torch.float32)
    best_B = logits_BV.argmax(1) if greedy_B.any() else None
    if isinstance(temperature, Tensor):
        logits_BV /= temperature.where(~greedy_B, 1.0)[:, None]
    elif temperature != 1:
        logits_BV /= temperature
    probability_BV = logits_BV.softmax(1)
    # Inverse transform: the first token whose cumulated mass exceeds u; only tokens with mass can be it.
    mass_BV = probability_BV.cumsum(1, dtype=torch.float64)
    target_B1 = (uniform_B * mass_BV[:, -1])[:, None]
    token_B = torch.searchsorted(mass_BV, target_B1, right=True).clamp_(max=mass_BV.shape[1] - 1)[:, 0]
    logprob_B = probability_BV.gather(1, token_B[:, None]).log_()[:, 0]
    if best_B is not None:
        token_B, logprob_B = torch.where(greedy_B, best_B, token_B), logprob_B.masked_fill(greedy_B, 0.0)
    return token_B, logprob_B
