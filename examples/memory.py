"""Memory and compute of a training step of a model like Qwen2.5-VL, computed and not measured.

    python examples/memory.py

Sources: mixed precision with Adam, Rajbhandari et al. 2020 (arXiv 1910.02054, sec. 3.1); activations of a
layer and of checkpointing, Korthikanti et al. 2022 (arXiv 2205.05198, sec. 4, flash attention: without the
term of the scores); floating point operations, Kaplan et al. 2020 (arXiv 2001.08361, sec. 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What counts of a model.

    Attributes:
        weights: Number of weights.
        layers: Layers of the language model.
        hidden: Its width.
        kv_width: Key heads times their width.
        vocabulary: Rows of the language head.
        adapters: Weights of LoRA adapters of rank 16.
    """

    weights: float
    layers: int
    hidden: int
    kv_width: int
    vocabulary: int
    adapters: float


SHAPES = {
    "3B": Shape(3.75e9, 36, 2048, 256, 151_936, 0.045e9),
    "7B": Shape(8.29e9, 28, 3584, 512, 152_064, 0.05e9),
}


def memory(
    shape: Shape,
    *,
    lora: bool,
    reference: bool,
    cached_tokens: int,
    pass_tokens: int,
    reply_tokens: int,
    weight_bytes: int = 4,
    gpus: int = 1,
) -> dict[str, float]:
    """Return bytes on each GPU, by what they are for.

    Args:
        shape: The model.
        lora: Only adapters learn.
        reference: Another copy of the weights for the KL penalty; adapters need none.
        cached_tokens: Tokens of all dialogues that are played at once, in the KV cache in bfloat16.
        pass_tokens: Tokens of a forward pass of the update.
        reply_tokens: Those of them that carry a loss.
        weight_bytes: 4 for float32, 2 for bfloat16.
        gpus: Over which weights, gradients and moments are cut up (FSDP, ZeRO-3); 1 if each has all.
    """
    learned = shape.adapters if lora else shape.weights
    layers = 2 * pass_tokens * shape.hidden * shape.layers  # what checkpointing keeps: each layer's input
    one = 34 * pass_tokens * shape.hidden  # a layer's own activations, made anew in the backward pass
    logits = 12 * reply_tokens * shape.vocabulary  # logits, log-probabilities, gradient; float32
    return {
        "weights": shape.weights * weight_bytes / gpus + (shape.adapters * 4 if lora else 0),
        "gradients": 4 * learned / gpus,
        "moments": 8 * learned / gpus,
        "reference": shape.weights * weight_bytes / gpus if reference and not lora else 0.0,
        "kv cache": 2 * 2 * shape.layers * shape.kv_width * cached_tokens,
        "activations": layers + one + logits,
    }


def operations(shape: Shape, *, prompt_tokens: float, reply_tokens: float, reference: bool) -> float:
    """Return floating point operations of a step: playing, reference, and the update with checkpointing.

    Args:
        shape: The model.
        prompt_tokens: Tokens of all dialogues of the step but those of the replies.
        reply_tokens: Those of the replies.
        reference: Whether a reference is asked.
    """
    tokens = prompt_tokens + reply_tokens
    return shape.weights * tokens * (2 + 8 + 2 * reference)


def main() -> None:
    """Print both models on one GPU, with LoRA and with all weights: the table of the recipes."""
    step = {"cached_tokens": 40 * 2000, "pass_tokens": 2048, "reply_tokens": 1024, "reference": True}
    print("| GB per GPU | " + " | ".join(memory(SHAPES["3B"], lora=True, **step)) + " | sum |")
    print("|---" * 8 + "|")
    for name, shape in SHAPES.items():
        for kind, options in (("LoRA", {"lora": True}), ("all, 8 GPUs", {"lora": False, "gpus": 8})):
            parts = memory(shape, **step, **options)
            cells = [f"{value / 1e9:.1f}" for value in (*parts.values(), sum(parts.values()))]
            print(f"| {name}, {kind} | {' | '.join(cells)} |")
    for name, shape in SHAPES.items():
        flops = operations(shape, prompt_tokens=320 * 3000, reply_tokens=320 * 2000, reference=True)
        hours = flops / (0.3 * 312e12) / 3600
        print(
            f"{name}: {flops / 1e15:.0f} PFLOP a step of 320 dialogues of 5,000 tokens, {hours:.2f} hours of"
        )
        print("an A100 at 30 % of its peak.")


if __name__ == "__main__":
    main()
