"""Pictures through the vision tower, each once however many dialogues show it.

The members of a group see the same pictures. Where a transformers model takes ready image features
(`mm_encoder_outputs`), they are made once per picture and repeated; elsewhere the model gets the pixels.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steer_env.agents.hf.codec import ChatCodec
from steer_env.images import Image


class Features(NamedTuple):
    """What the language model needs of one picture.

    Attributes:
        pooled: One row per placeholder token.
        deepstack: The same for deeper layers, where the model has them (Qwen3-VL's).
        stacked: Whether the model wants the pictures of a batch as one tensor and not as a list.
    """

    pooled: Tensor
    deepstack: tuple[Tensor, ...]
    stacked: bool


class FeatureStore:
    """Features of the pictures used last; clear it when the weights change.

    Attributes:
        encoded: Pictures sent through the vision tower so far.

    Args:
        size: Most pictures kept, 0 for none.
    """

    def __init__(self, size: int = 64) -> None:
        self.size, self.encoded = size, 0
        self._kept: OrderedDict[str, Features] = OrderedDict()

    def clear(self) -> None:
        """Forget all features."""
        self._kept.clear()

    def get(self, digest: str) -> Features | None:
        """Return a picture's features, None if they are not kept."""
        if digest in self._kept:
            self._kept.move_to_end(digest)
        return self._kept.get(digest)

    def put(self, digest: str, features: Features) -> None:
        """Keep a picture's features."""
        self.encoded += 1
        if self.size:
            self._kept[digest] = features
            if len(self._kept) > self.size:
                self._kept.popitem(last=False)


class VisionTower:
    """Makes the model inputs of pictures.

    Args:
        model: An image-text model.
        codec: The codec of its processor.
    """

    def __init__(self, model: PreTrainedModel, codec: ChatCodec) -> None:
        self.model, self.codec = model, codec
        self._encode = getattr(getattr(model, "model", None), "get_image_features", None)
        takes = "mm_encoder_outputs" in inspect.signature(model.forward).parameters
        if not takes:
            self._encode = None
        self._accepts = set(inspect.signature(self._encode).parameters) if self._encode else set()

    def inputs(self, images: Sequence[Image], store: FeatureStore | None) -> dict[str, Any]:
        """Return keyword arguments of the model for the pictures of a batch, in order.

        Args:
            images: Pictures, repeated as they are shown.
            store: Counts and keeps what is encoded here; one of size 0 where gradients are wanted. None
                leaves the encoding to the model and gives plain tensors, for code that moves batches about.
        """
        if not images:
            return {}
        if store is None or self._encode is None:
            if store is not None:
                store.encoded += len(images)
            return self._pixels(images)
        shown = self._shown(images, store)
        pooled: Any = [features.pooled for features in shown]
        deepstack = [list(layer) for layer in zip(*(features.deepstack for features in shown), strict=True)]
        if shown[0].stacked:
            pooled = torch.stack(pooled)
        return {
            "mm_encoder_outputs": {
                "image": SimpleNamespace(pooler_output=pooled, deepstack_features=deepstack)
            }
        }

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the weights that only pictures go through."""
        base = self.model.model
        text = {id(parameter) for parameter in getattr(base, "language_model", base).parameters()}
        return (parameter for parameter in base.parameters() if id(parameter) not in text)

    def _shown(self, images: Sequence[Image], store: FeatureStore) -> list[Features]:
        """Features of pictures as they are shown; new ones are made and kept."""
        found = {image.digest: store.get(image.digest) for image in images}
        new = [image for image in {i.digest: i for i in images}.values() if found[image.digest] is None]
        for image, made in zip(new, self._features(new), strict=True):
            found[image.digest] = made
            store.put(image.digest, made)
        return [features for image in images if (features := found[image.digest]) is not None]

    def _pixels(self, images: Sequence[Image]) -> dict[str, Any]:
        device, dtype = self.model.device, self.model.dtype
        return {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in self.codec.image_inputs(images).items()
        }

    def _features(self, images: Sequence[Image]) -> list[Features]:
        if not images:
            return []
        assert self._encode is not None
        pixels = {name: value for name, value in self._pixels(images).items() if name in self._accepts}
        output = self._encode(**pixels, return_dict=True)
        pooled = output.pooler_output
        if len(pooled) != len(images):
            if len(images) == 1:  # a picture that was cut into tiles
                return [Features(torch.cat(list(pooled)), (), False)]
            # Some models return the tiles of all pictures as those of one text.
            return [features for image in images for features in self._features([image])]
        layers = [list(layer) for layer in getattr(output, "deepstack_features", None) or ()]
        stacked = isinstance(pooled, Tensor)
        return [Features(one, tuple(layer[i] for layer in layers), stacked) for i, one in enumerate(pooled)]
