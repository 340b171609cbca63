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


def pick(
    logits_BV: Tensor,
    uniform_B: Tensor,
    temperature: float | Tensor,
    top_p: float | Tensor = 1.0,
    top_k: int | Tensor = 0,
) -> tuple[Tensor, Tensor]:
    """Draw a token per row, and return it with its log-probability; the logits are overwritten.

    The log-probability is that before `top_p` and `top_k` cut the distribution: what a loss recomputes, and
    finite after an update that would have cut the token.

    Args:
        logits_BV: What must not be drawn is at minus infinity.
        uniform_B: Numbers in [0, 1).
        temperature: Of all rows, or of each; 0 takes the likeliest token, with log-probability 0.
        top_p: Of all rows, or of each; see `truncated`, as `top_k`.
        top_k: See there.
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
    whole = isinstance(top_p, float | int) and top_p >= 1 and isinstance(top_k, int) and top_k < 1
    drawn_BV = probability_BV if whole else truncated(probability_BV, top_p, top_k)
    # Inverse transform: the first token whose cumulated mass exceeds u; only tokens with mass can be it.
    mass_BV = drawn_BV.cumsum(1, dtype=torch.float64)
    target_B1 = (uniform_B * mass_BV[:, -1])[:, None]
    token_B = torch.searchsorted(mass_BV, target_B1, right=True).clamp_(max=mass_BV.shape[1] - 1)[:, 0]
    logprob_B = probability_BV.gather(1, token_B[:, None]).log_()[:, 0]
    if best_B is not None:
        token_B, logprob_B = torch.where(greedy_B, best_B, token_B), logprob_B.masked_fill(greedy_B, 0.0)
    return token_B, logprob_B


def truncated(probability_BV: Tensor, top_p: float | Tensor, top_k: int | Tensor) -> Tensor:
    """Return probabilities with the tail of each row at 0; rows are not normalised again.

    Of equally likely tokens those with lower ids stay.

    Args:
        probability_BV: Rows that sum to 1.
        top_p: The smallest set of likeliest tokens that holds this share of what `top_k` left stays
            (Holtzman et al. 2020, arXiv 1904.09751); 1 cuts nothing.
        top_k: So many of the likeliest tokens stay; 0 cuts nothing.
    """
    device, width = probability_BV.device, probability_BV.shape[1]
    share_B1 = torch.as_tensor(top_p, device=device, dtype=torch.float64).reshape(-1, 1)
    most_B1 = torch.as_tensor(top_k, device=device).reshape(-1, 1)
    sorted_BV, order_BV = probability_BV.sort(dim=1, descending=True, stable=True)
    keep_BV = torch.arange(width, device=device) < torch.where(most_B1 < 1, width, most_B1)
    mass_BV = sorted_BV.masked_fill(~keep_BV, 0.0).cumsum(1, dtype=torch.float64)
    before_BV = mass_BV - sorted_BV
    keep_BV = keep_BV & ((before_BV < share_B1 * mass_BV[:, -1:]) | (share_B1 >= 1))
    keep_BV[:, 0] = True
    return torch.zeros_like(probability_BV).scatter(1, order_BV, sorted_BV.masked_fill(~keep_BV, 0.0))
