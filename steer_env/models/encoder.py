"""Chats as tokens, for any transformers model with a chat template, with or without pictures.

The template is rendered around marks, so that what it writes and what people said are told apart: a literal
`<|im_end|>` in somebody's words stays text. Judges' chats are rendered whole (`ChatEncoder.chat`); students'
dialogues grow by appending (`steer_env.agents.hf.codec`), with the same strings, words and pictures.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jinja2 import TemplateError
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from steer_env.images import Image, refusals
from steer_env.models.base import ChatMessage, Role
from steer_env.render import counted

Ids = NDArray[np.int64]
#: Inputs of the processor that describe text.
_TEXT_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})
#: Two pictures and a word, to find out what a template writes for a picture.
_LOOK: tuple[Role, int, str] = ("user", 2, "zqlookqz")

#: How much memory encoded images may take; those used least recently go first.
_CACHED_IMAGE_BYTES = 2**28
#: How many encoded texts are kept.
_CACHED_TEXTS = 65_536


class ChatTemplateError(ValueError):
    """A chat template that is missing, or cannot be used for what it is asked to."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """An image as tokens and as model inputs.

    Attributes:
        ids_N: The tokens that stand for it.
        inputs: What the model needs beside the tokens (`pixel_values`, `image_grid_thw`, ...), batch of one.
    """

    ids_N: Ids
    inputs: Mapping[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        """Memory of the model inputs."""
        return sum(value.nbytes for value in self.inputs.values())


class ChatPrompt(NamedTuple):
    """A chat as tokens, ending where the answer begins, and its pictures in the order of their tokens."""

    ids_L: Ids
    images: tuple[Image, ...]


class ChatEncoder:
    """Encodes chats for one model.

    Attributes:
        processor: See below.
        tokenizer: Its tokenizer.
        takes_images: Whether it takes pictures.
        placeholder: The string a template writes for one picture, "" for a model without.
        image_id: The token that stands for a picture's features, -1 for a model without.

    Args:
        processor: The model's processor, or its tokenizer if it takes no pictures.
        template_options: Further arguments of the chat template, such as `{"enable_thinking": False}`.

    Raises:
        ChatTemplateError: If there is no chat template, or it writes no placeholder for a picture.
    """

    def __init__(
        self,
        processor: Any,
        *,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.takes_images = processor is not self.tokenizer
        self.template_options = dict(template_options or {})
        if not (getattr(processor, "chat_template", None) or getattr(self.tokenizer, "chat_template", None)):
            raise ChatTemplateError(
                f"{type(processor).__name__} has no chat template; set chat_template to the one the model "
                "was trained with, or use an instruct model"
            )
        self._words = _continuing(self.tokenizer)
        self._images: OrderedDict[str, EncodedImage] = OrderedDict()
        self._image_bytes = 0
        self._texts: OrderedDict[str, Ids] = OrderedDict()
        self._strings: dict[str, Ids] = {}
        self.placeholder, self.image_id = "", -1
        if self.takes_images:
            self.placeholder = self._find_placeholder()
            token = getattr(processor, "image_token", self.placeholder)
            self.image_id = int(self.tokenizer.convert_tokens_to_ids(token))

    # -- chats --------------------------------------------------------------------------------------------

    def render(self, messages: Sequence[tuple[Role, int, str]]) -> str:
        """Return the template's text of messages, up to where the next reply begins.

        Args:
            messages: Role, number of pictures and words of each. A system prompt opens the first user message
                where the template knows no such role (Gemma's).

        Raises:
            ChatTemplateError: If the template fails.
        """
        chat = [self._message(*message) for message in messages]
        try:
            rendered = self.processor.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True, **self.template_options
            )
        except Exception as error:  # whatever a template does with what it did not expect
            if isinstance(error, TemplateError) and len(messages) > 1 and messages[0][0] == "system":
                (_, _, told), (role, images, said), *rest = messages
                return self.render([(role, images, f"{told}\n\n{said}"), *rest])
            kind = "a list of parts" if self.takes_images else "a string"
            raise ChatTemplateError(
                f"the chat template cannot render messages whose content is {kind} "
                f"({type(error).__name__}: {error}); set processor.chat_template to one that can"
            ) from error
        return rendered if isinstance(rendered, str) else rendered[0]

    def chat(self, messages: Sequence[ChatMessage]) -> ChatPrompt:
        """Encode a whole chat; the template may rewrite earlier turns.

        Raises:
            ValueError: If the chat shows pictures to a model without, or the template drops a message.
        """
        images = tuple(image for message in messages for image in message.images)
        self.check_images(images)
        marks = [f"zqwords{index}qz" for index in range(len(messages))]
        rendered = self.render([(m.role, len(m.images), k) for m, k in zip(messages, marks, strict=True)])
        parts, rest, first = [], list(images), True
        for mark, message in zip(marks, messages, strict=True):
            before, found, rendered = rendered.partition(mark)
            if not found:
                raise ValueError(
                    f"the chat template drops or moves a message: {message.content[:60]!r} is not in the "
                    "prompt"
                )
            parts += self.said(before, message.content, rest, first=first)
            first = False
        parts += self.control(rendered, rest)
        return ChatPrompt(np.concatenate(parts), images)

    def said(self, before: str, words: str, images: list[Image], *, first: bool) -> list[Ids]:
        """Return the tokens of a string of the template and of the words behind it.

        Args:
            before: The template's.
            words: Somebody's.
            images: Pictures to come; those whose placeholders are in `before` are taken out.
            first: Whether this opens the chat.
        """
        # A space before a word is part of the word's token.
        control = before.rstrip(" ")
        return [*self.control(control, images, first=first), self.text(before[len(control) :] + words)]

    # -- text and images ----------------------------------------------------------------------------------

    def text(self, text: str) -> Ids:
        """Return the tokens of words by either side; control tokens in it stay ordinary text."""
        ids = self._texts.get(text)
        if ids is None:
            # Lone surrogates, which no tokenizer takes, become question marks.
            clean = text.encode("utf-8", "replace").decode("utf-8")
            encoded = self._words(clean, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            ids = self._texts[text] = np.asarray(encoded, np.int64)
            if len(self._texts) > _CACHED_TEXTS:
                self._texts.popitem(last=False)
        return ids

    def control(self, string: str, images: list[Image], *, first: bool = False) -> list[Ids]:
        """Return the tokens of a template's string, control tokens and all.

        Each placeholder in it takes the next of `images`. `first` is for the string that opens a chat.
        """
        start, *others = string.split(self.placeholder) if images else [string]
        parts = [self._control(start, first)] if start or first else []
        for piece in others:
            parts.append(self.image(images.pop(0)).ids_N)
            if piece:
                parts.append(self._control(piece, False))
        return parts

    def image(self, image: Image) -> EncodedImage:
        """Return an image's tokens and model inputs, encoded once per picture.

        Raises:
            ImageError: If the processor refuses the picture.
        """
        encoded = self._images.get(image.digest)
        if encoded is None:
            encoded = self._images[image.digest] = self._encode_image(image)
            self._image_bytes += encoded.nbytes
            while self._image_bytes > _CACHED_IMAGE_BYTES and len(self._images) > 1:
                self._image_bytes -= self._images.popitem(last=False)[1].nbytes
        else:
            self._images.move_to_end(image.digest)
        return encoded

    def image_inputs(self, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        """Return the model inputs of several images in the order of their placeholders; {} for none."""
        return stack_images([self.image(image).inputs for image in images])

    def forbidden(self, vocabulary: int, closing: set[int]) -> list[int]:
        """Return what must not be sampled: control tokens but `closing`, and rows without a token."""
        control = set(self.tokenizer.all_special_ids) | {self.image_id}
        control |= {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        control |= set(range(len(self.tokenizer), vocabulary))
        return sorted(i for i in control - closing if 0 <= i < vocabulary)

    def check_images(self, images: Sequence[Image]) -> None:
        """Refuse pictures that the model cannot be shown.

        Raises:
            ValueError: If there is one, and the model reads text only.
        """
        if images and not self.takes_images:
            raise ValueError(
                f"{counted(len(images), 'picture')} for a model that reads text only; pass images='caption' "
                "(in a name: ?images=caption) to tell it what is in those of the built-in world, images='no' "
                "to leave them out, or use an image-text model"
            )

    # -- inner parts --------------------------------------------------------------------------------------

    def _message(self, role: Role, images: int, words: str) -> dict[str, Any]:
        if not self.takes_images:
            return {"role": role, "content": words}
        pictures = [{"type": "image"} for _ in range(images)]
        return {"role": role, "content": [*pictures, {"type": "text", "text": words}]}

    def _find_placeholder(self) -> str:
        rendered = self.render([_LOOK])
        names = ("image_token", "boi_token")
        known = [getattr(o, name, None) for o in (self.processor, self.tokenizer) for name in names]
        for token in known:
            if token and rendered.count(str(token)) == 2:
                return str(token)
        raise ChatTemplateError(
            f"no image placeholder of {type(self.processor).__name__} ({[k for k in known if k]}) stands "
            f"twice in the prompt of two images, {rendered!r}; expected a chat template that writes one per "
            "image"
        )

    def _control(self, string: str, first: bool) -> Ids:
        key = f"{first}{string}"
        if key not in self._strings:
            tokenizer = self.tokenizer if first else self._words
            # The opening string brings what the tokenizer puts before a text (a BOS) if it does not say it.
            bos = self.tokenizer.bos_token
            says = bool(bos) and string.startswith(bos)
            encoded = tokenizer(string, add_special_tokens=False)["input_ids"]
            self._strings[key] = np.asarray(encoded, np.int64)
            if first and not says:
                self._strings[key] = np.concatenate([self._begin(), self._strings[key]])
        return self._strings[key]

    def _begin(self) -> Ids:
        plain = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = self.tokenizer("a")["input_ids"]
        return np.asarray(whole[: whole.index(plain[0])], np.int64)

    def _encode_image(self, image: Image) -> EncodedImage:
        with refusals(image, self.processor):
            encoded = self.processor(
                text=[self.placeholder], images=[image.pil()], add_special_tokens=False, return_tensors="pt"
            )
        inputs = {k: v for k, v in encoded.items() if k not in _TEXT_INPUTS and isinstance(v, torch.Tensor)}
        return EncodedImage(encoded["input_ids"][0].numpy().astype(np.int64), inputs)


def stack_images(rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the model inputs of several pictures as those of one batch; {} for none."""
    if not rows:
        return {}
    sized = "image_sizes" in rows[0]
    return {name: _stack(name, [row[name] for row in rows], sized) for name in rows[0]}


def _stack(name: str, values: list[torch.Tensor], sized: bool) -> torch.Tensor:
    if sized and name == "pixel_values":
        # LLaVA-NeXT's tiles and Pixtral's sides differ from picture to picture; with the sizes at hand the
        # models cut off what is added here.
        most = [max(sides) for sides in zip(*(value.shape[1:] for value in values), strict=True)]
        padded = [value.new_zeros(len(value), *most) for value in values]
        for into, value in zip(padded, values, strict=True):
            into[tuple(slice(side) for side in value.shape)] = value
        return torch.cat(padded)
    # Some processors (Idefics3, SmolVLM) nest the pictures of one text: (1, tiles, ...). The models flatten
    # them again in order, so all pictures of a batch can go as tiles of one text.
    nested = values[0].ndim >= (4 if "mask" in name else 5)
    return torch.cat(values, dim=1 if nested else 0)


def _continuing(tokenizer: Any) -> Any:
    """Return a tokenizer for text in the middle of a chat.

    SentencePiece puts a space before every text it is given, which is right for the first one only: template
    and words are encoded piece by piece.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer
    state = json.loads(backend.to_str())
    if not _without_dummy_space(state):
        return tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))


def _without_dummy_space(state: Any) -> bool:
    """Take the space out of a tokenizer's parts, in place; whether there was one."""
    found = False
    for holder in ("normalizer", "pre_tokenizer"):
        part = state.get(holder) or {}
        inner = part.get("normalizers" if holder == "normalizer" else "pretokenizers")
        for one in [part, *(inner or [])]:
            if one.get("type") == "Metaspace" and one.get("prepend_scheme") != "never":
                one["prepend_scheme"], found = "never", True
            if one.get("type") == "Prepend":
                one["prepend"], found = "", True
    return found
