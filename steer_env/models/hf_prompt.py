"""Chats as tokens for any transformers model with a chat template, with or without pictures.

The template is rendered once around marks, so that what it writes and what people said are told apart: a
literal `<|im_end|>` in somebody's words stays text. Unlike the codec of students, this one takes system
prompts, models without pictures and templates that rewrite earlier turns: a judge's chat is not trained on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jinja2 import TemplateError
from numpy.typing import NDArray

from steer_env.images import Image, refusals
from steer_env.models.base import ChatMessage
from steer_env.models.encoded import EncodedImage, stack_images

#: Pictures kept encoded.
_CACHED_IMAGES = 256
#: Inputs of the processor that describe text.
_TEXT_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})


class ChatPrompt(NamedTuple):
    """A chat as tokens, ending where the answer begins, and its pictures in the order of their tokens."""

    ids_L: NDArray[np.int64]
    images: tuple[Image, ...]


class ChatEncoder:
    """Encodes chats for one model.

    Attributes:
        tokenizer: The tokenizer.
        image_id: The token that stands for a picture's features, -1 for a model without pictures.

    Args:
        processor: The model's processor, or its tokenizer if it takes no pictures.

    Raises:
        ValueError: If there is no chat template.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.takes_images = processor is not self.tokenizer
        if not (getattr(processor, "chat_template", None) or getattr(self.tokenizer, "chat_template", None)):
            raise ValueError(
                f"{type(processor).__name__} has no chat template; set chat_template to the one the model "
                "was trained with, or use an instruct model"
            )
        token = getattr(processor, "image_token", None) if self.takes_images else None
        self.image_id = -1 if token is None else int(self.tokenizer.convert_tokens_to_ids(token))
        self._images: OrderedDict[str, EncodedImage] = OrderedDict()

    def prompt(self, messages: Sequence[ChatMessage]) -> ChatPrompt:
        """Encode a chat.

        Raises:
            ValueError: If the chat shows pictures to a model without, or the template drops a message.
        """
        images = tuple(image for message in messages for image in message.images)
        if images and not self.takes_images:
            raise ValueError(
                f"{len(images)} pictures for a model that reads text only; use an image-text model"
            )
        rendered, texts = self._render(messages)
        placeholder = self._placeholder(rendered, len(images))
        parts, rest = [], list(images)
        for mark, text in texts:
            before, found, rendered = rendered.partition(mark)
            if not found:
                raise ValueError(
                    f"the chat template drops or moves a message: {text[:60]!r} is not in the prompt"
                )
            parts += [*self._control(before, placeholder, rest), self._words(text)]
        parts += self._control(rendered, placeholder, rest)
        return ChatPrompt(np.concatenate(parts), images)

    def image_inputs(self, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        """Return the model inputs of pictures in the order of their placeholders; {} for none."""
        rows = [self._image(image).inputs for image in images]
        return {name: stack_images(name, [row[name] for row in rows]) for name in rows[0]} if rows else {}

    def forbidden(self, vocabulary: int, closing: set[int]) -> list[int]:
        """Return what must not be sampled: control tokens but `closing`, and rows without a token."""
        control = set(self.tokenizer.all_special_ids) | {self.image_id}
        control |= {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        control |= set(range(len(self.tokenizer), vocabulary))
        return sorted(i for i in control - closing if 0 <= i < vocabulary)

    # -- inner parts --------------------------------------------------------------------------------------

    def _render(self, messages: Sequence[ChatMessage]) -> tuple[str, list[tuple[str, str]]]:
        """Return the template's text with a mark for each message's words, and (mark, words) in order."""
        texts = [(f"zqwords{index}qz", message.content) for index, message in enumerate(messages)]
        chat = [self._message(m, mark) for m, (mark, _) in zip(messages, texts, strict=True)]
        try:
            return self._template(chat), texts
        except TemplateError:
            if not messages or messages[0].role != "system":
                raise
        # Some templates (Gemma's) know no system role: its words then open the first user message.
        system, first, *rest = messages
        merged = first._replace(content=f"{system.content}\n\n{first.content}")
        return self._render([merged, *rest])

    def _message(self, message: ChatMessage, mark: str) -> dict[str, Any]:
        if not self.takes_images:
            return {"role": message.role, "content": mark}
        pictures = [{"type": "image"} for _ in message.images]
        return {"role": message.role, "content": [*pictures, {"type": "text", "text": mark}]}

    def _template(self, chat: list[dict[str, Any]]) -> str:
        rendered = self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return rendered if isinstance(rendered, str) else rendered[0]

    def _placeholder(self, rendered: str, images: int) -> str:
        """The string the template writes for one picture, "" if there is none."""
        names = ("image_token", "boi_token")
        known = [getattr(o, name, None) for o in (self.processor, self.tokenizer) for name in names]
        for token in known if images else ():
            if token and rendered.count(str(token)) == images:
                return str(token)
        if images:
            raise ValueError(
                f"no placeholder among {known} stands {images} times in the prompt of {images} pictures"
            )
        return ""

    def _control(self, text: str, placeholder: str, images: list[Image]) -> list[NDArray[np.int64]]:
        pieces = text.split(placeholder) if placeholder else [text]
        parts = []
        for index, piece in enumerate(pieces):
            if index:
                parts.append(self._image(images.pop(0)).ids_N)
            if piece:
                parts.append(self._ids(self.tokenizer(piece, add_special_tokens=False)))
        return parts

    def _words(self, text: str) -> NDArray[np.int64]:
        clean = text.encode("utf-8", "replace").decode()  # no tokenizer takes lone surrogates
        return self._ids(self.tokenizer(clean, add_special_tokens=False, split_special_tokens=True))

    @staticmethod
    def _ids(encoded: Mapping[str, Any]) -> NDArray[np.int64]:
        return np.asarray(encoded["input_ids"], np.int64)

    def _image(self, image: Image) -> EncodedImage:
        encoded = self._images.get(image.digest)
        if encoded is None:
            names = (getattr(self.processor, "image_token", None), getattr(self.processor, "boi_token", None))
            with refusals(image, self.processor):
                made = self.processor(
                    text=[next(n for n in names if n)],
                    images=[image.pil()],
                    add_special_tokens=False,
                    return_tensors="pt",
                )
            inputs = {k: v for k, v in made.items() if k not in _TEXT_INPUTS and isinstance(v, torch.Tensor)}
            encoded = EncodedImage(made["input_ids"][0].numpy().astype(np.int64), inputs)
            self._images[image.digest] = encoded
            if len(self._images) > _CACHED_IMAGES:
                self._images.popitem(last=False)
        self._images.move_to_end(image.digest)
        return encoded
