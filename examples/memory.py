"""Memory and compute of a training step of a model like Qwen2.5-VL, computed and not measured on a GPU.

    python examples/memory.py

Sources: mixed precision with Adam, Rajbhandari et al. 2020 (arXiv 1910.02054, sec. 3.1); what a layer keeps,
counted as Korthikanti et al. 2022 (arXiv 2205.05198, sec. 4) count it, for these layers (RMS norms, a gated
MLP, attention that keeps no scores) under autocast, whose sums stay in float32; floating point operations,
Kaplan et al. 2020 (arXiv 2001.08361, sec. 2.1).
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
        mlp: Width inside its MLPs.
        kv_width: Key heads times their width.
        vocabulary: Rows of the language head.
        adapters: Weights of LoRA adapters of rank 16.
    """

    weights: float
    layers: int
    hidden: int
    mlp: int
    kv_width: int
    vocabulary: int
    adapters: float

    @property
    def layer(self) -> int:
        """Weights of a layer's matrices."""
        return self.hidden * (2 * self.hidden + 2 * self.kv_width + 3 * self.mlp)


#: Bytes that a layer made anew in the backward pass holds, for each token and each of the layer's widths:
#: measured on one layer of the 3B's shape, bfloat16 autocast on a CPU, gradients in flight included. Some 85
#: are what its norms, attention and MLP save; 34 in Korthikanti et al., whose MLP has no gate.
ONE_LAYER = 110

SHAPES = {
    "3B": Shape(3.75e9, 36, 2048, 11_008, 256, 151_936, 0.045e9),
    "7B": Shape(8.29e9, 28, 3584, 18_944, 512, 152_064, 0.05e9),
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
        weight_bytes: 4 for float32 under bfloat16 autocast, 2 for bfloat16.
        gpus: Over which weights, gradients and moments are cut up (FSDP, ZeRO-3); 1 if each has all.
    """
    learned = shape.adapters if lora else shape.weights
    layers = weight_bytes * pass_tokens * shape.hidden * shape.layers  # each layer's input, checkpointed
    logits = 12 * reply_tokens * shape.vocabulary  # log-probabilities and two gradients; float32
    # What autocast casts stays until the gradient has passed: of weights that learn, all; else the layer's
    # at hand, and the head's.
    copied = shape.weights if gpus == 1 and not lora else shape.layer + shape.vocabulary * shape.hidden
    return {
        "weights": shape.weights * weight_bytes / gpus + (shape.adapters * 4 if lora else 0),
        "gradients": 4 * learned / gpus,
        "moments": 8 * learned / gpus,
        "reference": shape.weights * weight_bytes / gpus if reference and not lora else 0.0,
        "kv cache": 2 * 2 * shape.layers * shape.kv_width * cached_tokens,
        "activations": layers + ONE_LAYER * pass_tokens * shape.hidden + logits,
        "copies": 2 * copied if weight_bytes == 4 else 0.0,
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
    head = list(memory(SHAPES["3B"], lora=True, **step))
    print("| GB per GPU | " + " | ".join(head) + " | sum |")
    print("|---" * (len(head) + 2) + "|")
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
