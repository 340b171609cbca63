"""Token-exact encoding of dialogues for any transformers image-text model.

The student's prompt for a turn is the trace of its own last utterance plus the tokens of what the user said
since: what was sampled is never decoded and encoded again. Text of either side is encoded with control tokens
switched off, so a literal `<|im_end|>` or `<|image_pad|>` stays text. Shape suffix: `_L` tokens of one packed
sequence.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from steer_env.agents.base import Observation, stream_of, to_answer
from steer_env.agents.hf.template import ChatTemplate, ChatTemplateError
from steer_env.images import Image, refusals
from steer_env.models.encoded import EncodedImage, stack_images
from steer_env.trajectory import TokenTrace
from steer_env.types import USER, meta_of

Ids = NDArray[np.int64]
#: Inputs of the processor that describe text; the codec makes its own.
_TEXT_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})
_EMPTY = TokenTrace(
    np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0, np.float32), np.empty(0, np.int32), images=0
)


class Exchange(NamedTuple):
    """A user turn and the reply to it, as training data.

    Attributes:
        user: What the user says.
        images: Images shown with it.
        reply: What the student says.
        learn: Whether the reply carries the loss; one to be remembered but not imitated does not.
    """

    user: str
    images: Sequence[Image]
    reply: str
    learn: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """Tokens to continue, and the images whose placeholders they hold, in order.

    Attributes:
        trace: The sequence so far.
        images: The images of the whole sequence.
        turn: Index of the reply to come.
        images_before: How many of the images were shown up to the student's own last reply.
        stream: Names the dialogue where the order of asking must not matter, see `stream_of`.
    """

    trace: TokenTrace
    images: tuple[Image, ...]
    turn: int = 0
    images_before: int = 0
    stream: str = ""


class ChatCodec:
    """Encodes dialogues for one processor.

    Attributes:
        template: The strings of the chat template.
        close_id: The token that ends a reply, the only control token a student may sample.
        placeholder: The string a template writes for one image.
        image_id: The image placeholder token.
        fingerprint: Changes with the vocabulary or the template; a trace made by another codec is not reused.

    Args:
        processor: A transformers processor with tokenizer, image processor and chat template.
        cached_image_bytes: How much memory encoded images may take; those used least recently go first.
        cached_texts: How many encoded texts are kept.

    Raises:
        ChatTemplateError: If the chat template is missing or rewrites earlier turns.
    """

    def __init__(
        self, processor: Any, *, cached_image_bytes: int = 2**28, cached_texts: int = 65_536
    ) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.template = ChatTemplate(processor, self._endings())
        self.close_id = self._close_id()
        self.placeholder = self._find_placeholder()
        self.image_id = int(
            self.tokenizer.convert_tokens_to_ids(getattr(processor, "image_token", self.placeholder))
        )
        self._images: OrderedDict[str, EncodedImage] = OrderedDict()
        self._texts: OrderedDict[str, Ids] = OrderedDict()
        self._image_bytes, self._cached_image_bytes = 0, cached_image_bytes
        self._cached_texts = cached_texts
        self._strings: dict[str, Ids] = {}
        self._bos = self._begin()
        self.fingerprint = self._fingerprint()

    # -- extending a trace --------------------------------------------------------------------------------

    def user_turn(self, trace: TokenTrace | None, text: str, images: Sequence[Image] = ()) -> TokenTrace:
        """Append a user turn, up to where the reply begins; `None` starts a dialogue."""
        trace = trace or _EMPTY
        before, after = self.template.user(len(images), first=len(trace) == 0)
        rest = list(images)
        parts = [] if len(trace) else [self._opening(before)]
        ids = np.concatenate(
            [*parts, *self._expand(before, rest), self.text(text), *self._expand(after, rest)]
        )
        return self._append(trace, ids, images=len(images))

    def reply(
        self, trace: TokenTrace, ids: Sequence[int], logprobs: Sequence[float], turn: int
    ) -> TokenTrace:
        """Append a sampled reply; one that was cut short is closed with a token of mask 0."""
        sampled = _trace(np.asarray(ids, np.int64), True, np.asarray(logprobs, np.float32), turn)
        trace = _join(trace, sampled)
        if len(ids) == 0 or ids[-1] != self.close_id:
            trace = self._append(trace, np.array([self.close_id], np.int64))
        return trace

    def written_reply(self, trace: TokenTrace, text: str, *, learn: bool = False) -> TokenTrace:
        """Append a reply somebody wrote; with `learn` its tokens and the closing one carry the loss mask."""
        if self.template.reply_prefix:
            trace = self._append(trace, self._control(self.template.reply_prefix))
        ids = np.append(self.text(text), self.close_id)
        turn = int(trace.turn_L.max(initial=-1)) + 1 if learn else -1
        return _join(trace, _trace(ids, learn, np.zeros(len(ids), np.float32), turn))

    def dialogue(self, exchanges: Sequence[Exchange]) -> Prompt:
        """Encode a dialogue with the loss mask on its replies, for supervised training.

        Raises:
            ValueError: If there are no exchanges.
        """
        trace: TokenTrace | None = None
        for user, images, reply, learn in exchanges:
            trace = self.written_reply(self.user_turn(trace, user, images), reply, learn=learn)
        if trace is None:
            raise ValueError("exchanges=[], expected at least one Exchange(user, images, reply)")
        return Prompt(trace, tuple(image for exchange in exchanges for image in exchange.images))

    def prompt(self, observation: Observation) -> Prompt:
        """Return the prompt for the next reply: own last trace plus what was said since.

        Replies without a trace of this codec (another student's, or a person's) are encoded as text.

        Raises:
            ValueError: If the transcript does not end with a user turn, or its images do not add up.
        """
        transcript, images = to_answer(observation)
        trace, start = self._own_trace(transcript)
        shown = before = trace.images if trace else 0
        for message in transcript[start:]:
            if message.role == USER:
                trace = self.user_turn(trace, message.content, images[shown : shown + message.images])
                shown += message.images
            elif trace is None:
                raise ValueError("the transcript begins with a reply, expected a user turn; pass it uncut")
            else:
                trace = self.written_reply(trace, message.content)
        assert trace is not None
        turn = sum(message.role != USER for message in transcript)
        return Prompt(trace, images, turn, before, stream_of(observation))

    # -- text and images ----------------------------------------------------------------------------------

    def text(self, text: str) -> Ids:
        """Return the tokens of words by either side; control tokens in it stay ordinary text."""
        ids = self._texts.get(text)
        if ids is None:
            # Lone surrogates, which no tokenizer takes, become question marks.
            clean = text.encode("utf-8", "replace").decode("utf-8")
            encoded = self.tokenizer(clean, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            ids = np.asarray(encoded, np.int64)
            self._texts[text] = ids
            if len(self._texts) > self._cached_texts:
                self._texts.popitem(last=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of sampled tokens, without the one that closes the reply."""
        if len(ids) and ids[-1] == self.close_id:
            ids = ids[:-1]
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def image(self, image: Image) -> EncodedImage:
        """Return an image's tokens and model inputs, encoded once per picture."""
        encoded = self._images.get(image.digest)
        if encoded is None:
            encoded = self._images[image.digest] = self._encode_image(image)
            self._image_bytes += encoded.nbytes
            while self._image_bytes > self._cached_image_bytes and len(self._images) > 1:
                self._image_bytes -= self._images.popitem(last=False)[1].nbytes
        else:
            self._images.move_to_end(image.digest)
        return encoded

    def image_inputs(self, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        """Return the model inputs of several images in the order of their placeholders; {} for none."""
        rows = [self.image(image).inputs for image in images]
        return {name: stack_images(name, [row[name] for row in rows]) for name in rows[0]} if rows else {}

    def forbidden(self, vocabulary: int) -> Ids:
        """Return what a student may not sample: control tokens but `close_id`, and rows without a token."""
        control = set(self.tokenizer.all_special_ids) | {self.image_id}
        control |= {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        control |= set(range(len(self.tokenizer), vocabulary))
        return np.array(sorted(i for i in control - {self.close_id} if i < vocabulary), np.int64)

    # -- inner parts --------------------------------------------------------------------------------------

    def _append(self, trace: TokenTrace, ids: Ids, images: int = 0) -> TokenTrace:
        return _join(trace, _trace(ids, False, np.zeros(len(ids), np.float32), -1, images))

    def _own_trace(self, transcript: Sequence[Any]) -> tuple[TokenTrace | None, int]:
        for index in range(len(transcript) - 1, -1, -1):
            message = transcript[index]
            if message.role != USER:
                meta = meta_of(message.content)
                if meta.get("codec") == self.fingerprint:
                    return meta["trace"], index + 1
        return None, 0

    def _opening(self, before: str) -> Ids:
        starts = bool(self.tokenizer.bos_token) and before.startswith(self.tokenizer.bos_token)
        return self._bos[:0] if starts else self._bos

    def _control(self, string: str) -> Ids:
        """Tokens of a template string, control tokens and all."""
        if string not in self._strings:
            self._strings[string] = np.asarray(
                self.tokenizer(string, add_special_tokens=False)["input_ids"], np.int64
            )
        return self._strings[string]

    def _begin(self) -> Ids:
        """Tokens the tokenizer itself puts before a text (a BOS, or none)."""
        plain = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = self.tokenizer("a")["input_ids"]
        return np.asarray(whole[: whole.index(plain[0])], np.int64)

    def _expand(self, string: str, images: list[Image]) -> list[Ids]:
        """Tokens of a template string with each placeholder replaced by the next image's tokens."""
        if not string:
            return []
        first, *others = string.split(self.placeholder) if images else [string]
        parts = [self._control(first)] if first else []
        for piece in others:
            parts.append(self.image(images.pop(0)).ids_N)
            if piece:
                parts.append(self._control(piece))
        return parts

    def _encode_image(self, image: Image) -> EncodedImage:
        with refusals(image, self.processor):
            encoded = self.processor(
                text=[self.placeholder], images=[image.pil()], add_special_tokens=False, return_tensors="pt"
            )
        inputs = {k: v for k, v in encoded.items() if k not in _TEXT_INPUTS and isinstance(v, torch.Tensor)}
        return EncodedImage(encoded["input_ids"][0].numpy().astype(np.int64), inputs)

    def _endings(self) -> tuple[str, ...]:
        # Gemma's and Phi's end of a turn is a special token that the tokenizer's map does not name.
        added = [t for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        tokens = [self.tokenizer.eos_token, *self.tokenizer.all_special_tokens, *added]
        return tuple(dict.fromkeys(str(token) for token in tokens if token))

    def _close_id(self) -> int:
        token = self.template.close or self.tokenizer.eos_token
        if token is None:
            raise ChatTemplateError(
                "the chat template ends a reply with no control token and the tokenizer has no "
                "eos_token; set tokenizer.eos_token"
            )
        return int(self.tokenizer.convert_tokens_to_ids(token))

    def _find_placeholder(self) -> str:
        """The string a template writes for one image: one that occurs once per image."""
        names = ("image_token", "boi_token")
        known = [getattr(o, name, None) for o in (self.processor, self.tokenizer) for name in names]
        two = "".join(self.template.user(2, first=True))
        for token in known:
            if token and two.count(str(token)) == 2:
                return str(token)
        raise ChatTemplateError(
            f"no image placeholder of {type(self.processor).__name__} ({[k for k in known if k]}) stands "
            f"twice in the prompt of two images, {two!r}; expected a chat template that writes one per image"
        )

    def _fingerprint(self) -> str:
        strings = [self.template.user(1, first=True), self.template.user(1, first=False), self.template.close]
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        return hashlib.sha256(json.dumps([strings, vocabulary]).encode()).hexdigest()[:16]


def _trace(ids: Ids, sampled: bool, logprobs: NDArray[np.float32], turn: int, images: int = 0) -> TokenTrace:
    n = len(ids)
    return TokenTrace(ids, np.full(n, sampled), logprobs, np.full(n, turn, np.int32), images)


def _join(a: TokenTrace, b: TokenTrace) -> TokenTrace:
    joined = TokenTrace(
        np.concatenate([a.ids_L, b.ids_L]),
        np.concatenate([a.sampled_L, b.sampled_L]),
        np.concatenate([a.logprobs_L, b.logprobs_L]),
        np.concatenate([a.turn_L, b.turn_L]),
        images=a.images + b.images,
    )
    for array in (joined.ids_L, joined.sampled_L, joined.logprobs_L, joined.turn_L):
        array.setflags(write=False)  # traces are shared by everything that holds the utterance
    return joined
