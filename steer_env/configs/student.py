"""How a model runs in this process, and how it samples."""

from __future__ import annotations

from steer_env.configs.base import Amount, Natural, Positive, Share, config


@config(frozen=True)
class ModelConfig:
    """How a student in this process runs; options of others stand in their names: hf:PATH?device=cpu.

    Attributes:
        device: Where it runs, such as cpu or cuda; None is cuda if there is one.
        dtype: Type of its weights: float32, bfloat16, ...; None is as saved, in training float32.
        batch_size: Dialogues per forward pass; None is 64.
    """

    device: str | None = None
    dtype: str | None = None
    batch_size: Positive | None = None


@config(frozen=True)
class SamplingConfig:
    """How a model's replies are sampled; None is the model's own way.

    Attributes:
        temperature: Sampling temperature; 0 decodes greedily.
        max_new_tokens: Longest reply in tokens; None is 256.
        top_p: Only the likeliest tokens that hold this share are sampled; 1 for all.
        top_k: Only so many of the likeliest tokens are sampled; 0 for all.
        system: System prompt.
    """

    temperature: Amount | None = None
    max_new_tokens: Positive | None = None
    top_p: Share | None = None
    top_k: Natural | None = None
    system: str | None = None
