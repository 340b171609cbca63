"""What differs between transformers' image-text models, in one place: inputs, positions, hidden states.

Shape suffixes: `_BL` batch and length, `_NH` selected positions and hidden width, `_NV` and vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steer_env.agents.hf.codec import ChatCodec
from steer_env.agents.hf.vision import FeatureStore, VisionTower
from steer_env.images import Image


class ModelAdapter:
    """Runs a transformers image-text model on token rows with masks and images.

    Args:
        model: An image-text model with a causal language head.
        codec: The codec of its processor.
    """

    def __init__(self, model: PreTrainedModel, codec: ChatCodec) -> None:
        if getattr(model.config.get_text_config(), "cross_attention_layers", None):
            raise ValueError(
                f"model {type(model).__name__} looks at pictures through cross-attention, expected one that "
                "reads them as tokens of its text (Qwen-VL, LLaVA, SmolVLM, ...); use it behind a server "
                "(openai:MODEL@URL)"
            )
        self._accepts = set(inspect.signature(model.forward).parameters)
        if codec.takes_images and "pixel_values" not in self._accepts:
            raise ValueError(
                f"model {type(model).__name__} takes no pixel_values, expected a model that does; use it "
                "behind a server (openai:MODEL@URL), or with its tokenizer alone and images='caption' or 'no'"
            )
        self.model, self.codec = model, codec
        self.vision = VisionTower(model, codec)
        base = getattr(model, "model", None)
        #: Multimodal rotary positions, where the model has them (Qwen's).
        self._rope = getattr(base, "get_rope_index", None)
        self._base = base if self._plain_head() else None

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        return self.model.device

    @property
    def vocabulary(self) -> int:
        """Number of rows of the language head."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def max_length(self) -> int:
        """Longest sequence the model can take, in tokens."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0) or 2**31)

    def positions(self, ids_BL: Tensor, mask_BL: Tensor, images: Sequence[Image]) -> tuple[Tensor, Tensor]:
        """Return positions counted from 0 in each row, and how far each row's positions reach.

        Multimodal rotary positions are shift-invariant, so a chunk's own positions plus an offset are the
        positions of the chunk in its sequence.

        Returns:
            Positions of shape (3, B, L) for models with multimodal rotary positions, else (B, L); and (B,).
        """
        is_image_BL = (ids_BL == self.codec.image_id) & mask_BL
        if self._rope is not None and len(images):
            positions, _ = self._rope(
                ids_BL,
                mm_token_type_ids=is_image_BL.long(),
                image_grid_thw=self.codec.image_inputs(images)["image_grid_thw"].to(ids_BL.device),
                attention_mask=mask_BL.long(),
            )
            positions = positions.masked_fill(~mask_BL, -1)  # padding must not count as the furthest position
            reach_B = positions.amax((0, 2)) + 1
            return positions.clamp(min=0), reach_B
        # One sampled token per row, the case that counts: its position in the chunk is 0.
        plain_BL = (
            torch.zeros_like(ids_BL) if ids_BL.shape[1] == 1 else (mask_BL.long().cumsum(1) - 1).clamp(min=0)
        )
        if self._rope is not None:
            return plain_BL.expand(3, -1, -1), mask_BL.sum(1)
        return plain_BL, mask_BL.sum(1)

    def inputs(
        self,
        ids_BL: Tensor,
        attention_BC: Tensor | None,
        positions: Tensor,
        images: Sequence[Image],
        store: FeatureStore | None = None,
    ) -> dict[str, Any]:
        """Return the model's keyword arguments.

        Args:
            ids_BL: Token ids.
            attention_BC: Which columns hold a token, those of a cache included. None for rows padded at the
                right only: causal attention never sees that padding, and is faster without a mask.
            positions: See `positions`.
            images: Images whose placeholders are among the ids, in order.
            store: Encodes each picture once, see `VisionTower.inputs`; None gives the pixels.
        """
        device = self.device
        inputs: dict[str, Any] = {
            "input_ids": ids_BL.to(device),
            "position_ids": positions.to(device),
        }
        if attention_BC is not None:
            inputs["attention_mask"] = attention_BC.to(device, torch.long)
        if "mm_token_type_ids" in self._accepts:
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.codec.image_id).long()
        if "token_type_ids" in self._accepts:
            inputs["token_type_ids"] = (inputs["input_ids"] == self.codec.image_id).long()
        return inputs | self.vision.inputs(images, store)

    def selected_logits(
        self, ids_BL: Tensor, positions: Tensor, images: Sequence[Image], rows_N: Tensor, columns_N: Tensor
    ) -> Tensor:
        """Run one pass over rows padded at the right; returns logits at the selected positions, (N, V).

        Most positions of a dialogue belong to the user; their logits are not computed where the head allows
        it. In float32; pictures that siblings share are encoded once.
        """
        inputs = self.inputs(ids_BL, None, positions, images, FeatureStore(0))
        if self._base is None:
            return self.model(**inputs, use_cache=False).logits[rows_N, columns_N].float()
        hidden_NH = self._base(**inputs, use_cache=False)[0][rows_N, columns_N]
        return self.model.get_output_embeddings()(hidden_NH).float()

    def _plain_head(self) -> bool:
        """Whether logits are just the head applied to the base model's hidden states."""
        text = self.model.config.get_text_config()
        scaled = any(
            getattr(text, name, None) not in (None, 1, 1.0)
            for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")
        )
        return not scaled and hasattr(self.model, "model") and self.model.get_output_embeddings() is not None
