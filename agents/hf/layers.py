"""The layers of a Llama-like language model, run without the bookkeeping of transformers' forward passes.

For a small model that bookkeeping (masks, positions, configuration look-ups, module wrappers) is most of a
decoding step. Qwen2.5-VL, Qwen3-VL, LLaVA, Idefics3 and SmolVLM share one kind of layer: RMS norm, rotary
attention, RMS norm, gated MLP. `Layers.of` knows such a model by its modules and then compares logits with
the model's own; a model that differs in anything is run by transformers. Besides, the last layer computes
queries, attention and MLP only where logits are wanted.

Shape suffixes: `_BLH` batch, length and hidden width, `_BHCD` batch, heads, columns, head width, `_NCD` the
same with batch and heads as one, `_BC` cache columns of each row, `_BLD` positions and head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

#: Added to the scores of what must not be seen. Finite, so that padding that sees nothing makes no NaN.
HIDDEN = torch.finfo(torch.float32).min

#: Kinds of rotary positions whose angles depend on the position alone, not on the sequence's length.
_STEADY_ROPE = ("default", "linear", "llama3", "yarn")
#: The two ways must agree to this share of the largest logit: float32 sums in another order.
_TOLERANCE = 1e-4

_Run = Callable[[Tensor], Tensor]
#: Takes the positions whose logits are wanted out of (B, L, ...).
Select = Callable[[Tensor], Tensor]
#: Whether a model's layers give its own logits, found out once per model.
_AGREES: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


class Rotary(NamedTuple):
    """Rotary angles of every token, (B, L, 1, D): cosines, and sines with the sign of their half."""

    cos: Tensor
    sin: Tensor


class _Layer(NamedTuple):
    """What one layer is made of, ready to be called."""

    norm: _Run
    q: _Run
    k: _Run
    v: _Run
    q_norm: _Run | None
    k_norm: _Run | None
    o: _Run
    mlp_norm: _Run
    gate: _Run
    up: _Run
    down: _Run
    act: _Run
    width: int
    groups: int
    scale: float


class Layers:
    """Runs the language model of an image-text model; make it with `of`.

    Args:
        model: The image-text model.
        text: Its language model.
    """

    def __init__(self, model: PreTrainedModel, text: Any) -> None:
        self._model, self._text = model, text
        self._table: Rotary | None = None
        self._layers: list[_Layer] = []
        self._embedding: _Run = model.get_input_embeddings()
        self._head: _Run = _not_ready
        self._norm: _Run = _not_ready

    @classmethod
    @torch.no_grad()
    def of(cls, model: PreTrainedModel) -> Layers | None:
        """Return the layers of a model, None where they are of another kind or give other logits."""
        try:
            layers = cls(model, model.get_decoder())
            if layers.ready() and model not in _AGREES:
                _AGREES[model] = layers._agree()
        except (AttributeError, IndexError, TypeError, ValueError, RuntimeError):  # other names or shapes
            _AGREES[model] = False
        return layers if _AGREES.get(model) else None

    def ready(self) -> bool:
        """Look the modules up anew; False where somebody hooked into one or replaced its forward pass."""
        model, text = self._model, self._text
        if any(map(_hooked, (model, getattr(model, "model", None) or model))):
            return False
        modules = [text, *text.layers, *(m for layer in text.layers for m in (layer.self_attn, layer.mlp))]
        if text.rotary_emb.rope_type not in _STEADY_ROPE or not all(map(_untouched, modules)):
            return False
        self._layers = [_layer(layer) for layer in text.layers]
        self._norm = _norm(text.norm)
        self._embedding = self._model.get_input_embeddings()
        self._head = _linear(self._model.get_output_embeddings())
        return True

    def embed(self, ids_BL: Tensor) -> Tensor:
        """Return the embeddings of tokens."""
        return self._embedding(ids_BL)

    def logits(self, hidden_BLH: Tensor) -> Tensor:
        """Return logits."""
        return self._head(hidden_BLH)

    def rotary(self, positions: Tensor) -> Rotary:
        """Return the angles of positions (B, L), or of multimodal ones (3, B, L)."""
        return _signed(*self._text.rotary_emb(self._text.norm.weight, positions))

    def reserve(self, positions: int) -> None:
        """Have the angles of this many positions ready for `looked_up`."""
        device = self._model.device
        if self._table is None or positions > len(self._table.cos) or self._table.cos.device != device:
            cos, sin = self.rotary(torch.arange(2 * positions, device=device)[None])
            self._table = Rotary(cos[0], sin[0])

    def looked_up(self, positions_BL: Tensor) -> Rotary:
        """Return the angles of plain positions below what was reserved, without computing them anew."""
        assert self._table is not None
        return Rotary(self._table.cos[positions_BL], self._table.sin[positions_BL])

    def run(
        self,
        hidden_BLH: Tensor,
        rotary: Rotary,
        bias_BC: Tensor | None,
        cache: DynamicCache | None,
        select: Select | None = None,
    ) -> Tensor:
        """Run all layers and the last norm.

        Args:
            hidden_BLH: Embeddings.
            rotary: Their angles.
            bias_BC: 0 for columns that hold a token of the row, `HIDDEN` for others, those of these tokens
                included; None for rows without a cache, padded at the right only.
            cache: Keys and values so far; these tokens' are added.
            select: Takes the positions out that are wanted after the last layer; None wants all.

        Returns:
            Hidden states (B, M, H) of the wanted positions.
        """
        length = hidden_BLH.shape[1]
        bias = None if bias_BC is None else bias_BC[:, None, None]
        if bias is not None and length > 1:
            bias = bias + _later(length, bias.shape[3], bias.device)
        for number, layer in enumerate(self._layers):
            wanted = select if number == len(self._layers) - 1 else None
            hidden_BLH = _attention(layer, number, hidden_BLH, rotary, bias, cache, wanted)
            x_BLH = layer.mlp_norm(hidden_BLH)
            hidden_BLH = hidden_BLH + layer.down(layer.act(layer.gate(x_BLH)) * layer.up(x_BLH))
        return self._norm(hidden_BLH)

    def _agree(self) -> bool:
        """Whether the model's own forward pass gives the same logits, on a few tokens.

        Some of them stand at the end of the context: attention may depend on the position itself.
        """
        head: Tensor = self._model.get_output_embeddings().weight
        ids_BL = torch.arange(14, device=head.device).view(2, 7) * 97 % len(head)
        reach = getattr(self._text.config, "max_position_embeddings", 0) or 7
        first_B1 = torch.tensor([[0], [max(0, reach - 7)]], device=head.device)
        positions_BL = first_B1 + torch.arange(7, device=head.device)
        mask_BL = torch.ones_like(ids_BL)
        own = self._text(
            input_ids=ids_BL, attention_mask=mask_BL, position_ids=positions_BL, use_cache=False
        )[0]
        ours = self.run(self.embed(ids_BL), self.rotary(positions_BL), None, None)
        return same_logits(self.logits(own), self.logits(ours))


def same_logits(own: Tensor, other: Tensor) -> bool:
    """Whether logits agree but for the rounding of float32."""
    return bool((own - other).abs().max() <= _TOLERANCE * own.abs().max().clamp(min=1.0))


def _attention(
    layer: _Layer,
    number: int,
    hidden_BLH: Tensor,
    rotary: Rotary,
    bias: Tensor | None,
    cache: DynamicCache | None,
    select: Select | None,
) -> Tensor:
    """Hidden states after a layer's attention, at the wanted positions."""
    rows, length, _ = hidden_BLH.shape
    x_BLH = layer.norm(hidden_BLH)
    k, v = (run(x_BLH).view(rows, length, -1, layer.width) for run in (layer.k, layer.v))
    if layer.k_norm is not None:
        k = layer.k_norm(k)
    k_BHCD, v_BHCD = _rotated(k, rotary).transpose(1, 2), v.transpose(1, 2)
    if cache is not None:
        kept: Any = cache.layers[number]
        k_BHCD, v_BHCD = kept.update(k_BHCD, v_BHCD)
    if select is not None:
        if bias is None:
            bias = _later(length, length, x_BLH.device)[None].expand(rows, -1, -1)[:, None]
        if length > 1:
            bias = select(bias.transpose(1, 2)).transpose(1, 2)
        rotary = Rotary(select(rotary.cos), select(rotary.sin))
        hidden_BLH, x_BLH = select(hidden_BLH), select(x_BLH)
        length = x_BLH.shape[1]
    q = layer.q(x_BLH).view(rows, length, -1, layer.width)
    if layer.q_norm is not None:
        q = layer.q_norm(q)
    q = _rotated(q, rotary)
    if length == 1 and bias is not None and not q.requires_grad:
        mixed = _one_query(q, k_BHCD, v_BHCD, bias, layer)
    else:
        mixed = _many_queries(q, k_BHCD, v_BHCD, bias, layer)
    return hidden_BLH + layer.o(mixed)


def _one_query(q: Tensor, k_BHCD: Tensor, v_BHCD: Tensor, bias: Tensor, layer: _Layer) -> Tensor:
    """Attention of one token per row: two plain products, several times as fast on a CPU as the fused kernel.

    Query heads that share keys are the rows of one product, so that no key is copied.
    """
    rows, _, heads, width = q.shape
    k_NCD, v_NCD = k_BHCD.flatten(0, 1), v_BHCD.flatten(0, 1)
    scores = torch.bmm(q.view(len(k_NCD), layer.groups, width) * layer.scale, k_NCD.transpose(1, 2))
    scores = scores.view(rows, heads, -1).add_(bias[:, 0])
    weights = scores.softmax(-1).view(len(k_NCD), layer.groups, -1)
    return torch.bmm(weights, v_NCD).view(rows, 1, heads * width)


def _many_queries(q: Tensor, k_BHCD: Tensor, v_BHCD: Tensor, bias: Tensor | None, layer: _Layer) -> Tensor:
    rows, length, _, _ = q.shape
    if layer.groups > 1:
        k_BHCD, v_BHCD = (x.repeat_interleave(layer.groups, 1) for x in (k_BHCD, v_BHCD))
    mixed = functional.scaled_dot_product_attention(
        q.transpose(1, 2), k_BHCD, v_BHCD, bias, is_causal=bias is None, scale=layer.scale
    )
    return mixed.transpose(1, 2).reshape(rows, length, -1)


def _rotated(x_BLHD: Tensor, rotary: Rotary) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864) of (B, L, H, D), halves as in Llama."""
    first, second = x_BLHD.chunk(2, -1)
    return torch.addcmul(x_BLHD * rotary.cos, torch.cat((second, first), -1), rotary.sin)


def _signed(cos_BLD: Tensor, sin_BLD: Tensor) -> Rotary:
    first, second = sin_BLD.chunk(2, -1)
    return Rotary(cos_BLD[:, :, None], torch.cat((-first, second), -1)[:, :, None])


def _later(length: int, columns: int, device: torch.device) -> Tensor:
    """Bias (L, C) that hides from each of the last `length` columns the ones after it."""
    full = torch.full((length, columns), HIDDEN, device=device)
    return full.triu(columns - length + 1)


def _layer(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        _norm(layer.input_layernorm),
        _linear(attention.q_proj),
        _linear(attention.k_proj),
        _linear(attention.v_proj),
        _norm(attention.q_norm) if hasattr(attention, "q_norm") else None,
        _norm(attention.k_norm) if hasattr(attention, "k_norm") else None,
        _linear(attention.o_proj),
        _norm(layer.post_attention_layernorm),
        _linear(mlp.gate_proj),
        _linear(mlp.up_proj),
        _linear(mlp.down_proj),
        functional.silu if type(mlp.act_fn).__name__ in ("SiLU", "SiLUActivation") else mlp.act_fn,
        attention.head_dim,
        attention.num_key_value_groups,
        attention.scaling,
    )


def _not_ready(x: Tensor) -> Tensor:
    raise RuntimeError("layers were not looked up, call ready() first")


def _linear(module: nn.Module) -> _Run:
    """A linear layer without the module call around it; anything else (such as LoRA's) as it is."""
    if type(module) is nn.Linear and _untouched(module):
        return partial(functional.linear, weight=module.weight, bias=module.bias)
    return module


def _norm(module: Any) -> _Run:
    if not _untouched(module):
        return module
    weight, eps = module.weight, module.variance_epsilon
    return lambda x: functional.rms_norm(x, weight.shape, weight, eps)


def _untouched(module: nn.Module) -> bool:
    """Whether nobody hooked into a module or put another forward pass into it, as some loaders do."""
    return not (_hooked(module) or "forward" in module.__dict__)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
