"""A supervised term beside a reward: what the policy could say before it must not be forgotten.

A group whose siblings all do the same teaches nothing, whether they are all right or all wrong: what a policy
has unlearnt it does not find again. So each update adds the gradient of a batch of demonstrations to that of
the reward (Ouyang et al. 2022, arXiv 2203.02155, eq. 2: "PPO-ptx", there with pretraining data).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steer_env.agents.hf.codec import Prompt
from steer_env.agents.hf.packed import packed_logprobs
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.forward import Forward
from steer_env.algorithms.sft import Dialogue, encode
from steer_env.records import Row

__all__ = ["Demonstrations"]


@dataclass(frozen=True)
class Demonstrations:
    """Dialogues to imitate while training on a reward.

    Attributes:
        dialogues: What to imitate, see `sft.train`.
        weight: Weight of their mean negative log-likelihood per token (nats, at temperature 1) in the loss.
        batch_size: Dialogues per update.

    Raises:
        ValueError: If there are no dialogues, or a number is not positive.
    """

    dialogues: Sequence[Dialogue]
    weight: float = 0.3
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not self.dialogues:
            raise ValueError("dialogues is empty, expected at least one demonstration")
        for name in ("weight", "batch_size"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}, expected a number above 0")

    def encoded(self, student: HFStudent) -> list[Prompt]:
        """Return the dialogues as a student reads them, without those too long for it.

        Raises:
            ValueError: If none fits.
        """
        fitting, left_out = encode(student, self.dialogues)
        if not fitting:
            raise ValueError(f"all {left_out} demonstrations are longer than the student's context")
        return fitting

    def settings(self, encoded: Sequence[Prompt]) -> Row:
        """Return what a run with them depends on."""
        digest = hashlib.sha256()
        for prompt in encoded:
            digest.update(prompt.trace.ids_L.tobytes() + prompt.trace.sampled_L.tobytes())
        return {"weight": self.weight, "batch_size": self.batch_size, "sha256": digest.hexdigest()[:16]}

    def imitate(
        self, forward: Forward, encoded: Sequence[Prompt], seed: int, step: int, number: int
    ) -> float:
        """Add the gradient of a batch; returns this process's part of its mean loss, in nats per token.

        Args:
            forward: The policy, and the processes that share the batch.
            encoded: All demonstrations.
            seed: The run's; it decides the batch together with
            step: the step in it and
            number: the update in the step.
        """
        rng = np.random.default_rng([seed, step, number, 4])
        drawn = rng.choice(len(encoded), min(self.batch_size, len(encoded)), replace=False)
        batch = [encoded[int(i)] for i in drawn]
        total, value = sum(int(prompt.trace.sampled_L.sum()) for prompt in batch), 0.0
        for indices in forward.dealt(batch):
            with forward.precision():
                packed = packed_logprobs(forward.student.decoder.adapter, [batch[i] for i in indices])
            loss = -packed.logprobs_N.sum() / total
            (self.weight * loss).backward()
            value += loss.item()
        return value
