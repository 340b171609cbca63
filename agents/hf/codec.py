"""Token-exact encoding of dialogues for any transformers chat model.

The student's prompt for a turn is the trace of its own last utterance plus the tokens of what the user said
since: what was sampled is never decoded and encoded again. Text of either side is encoded with control tokens
switched off, so a literal `<|im_end|>` or `<|image_pad|>` stays text. Shape suffix: `_L` tokens of one packed
sequence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steer_env.agents.base import Observation, stream_of, to_answer
from steer_env.agents.hf.template import ChatTemplate, RewritingTemplate, ending
from steer_env.images import Image
from steer_env.models.base import ChatMessage, Role
from steer_env.models.encoder import ChatEncoder, ChatTemplateError, Ids
from steer_env.models.thought import CLOSED, CLOSING, OPENED
from steer_env.trajectory import TokenTrace
from steer_env.types import ASSISTANT, USER, Message, meta_of

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
        opening: How many of the reply's first tokens carry it; 0 for all, the closing one included.
    """

    user: str
    images: Sequence[Image]
    reply: str
    learn: bool = True
    opening: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """Tokens to continue, and the images whose placeholders they hold, in order.

    Attributes:
        trace: The sequence so far.
        images: The images of the whole sequence.
        turn: Index of the reply to come.
        images_before: How many of the images were shown up to the student's own last reply.
        stream: Names the dialogue where the order of asking must not matter, see `stream_of`.
        begun: How many tokens at the end of the trace are the beginning of the reply.
        draw_seed: Alone decides the random numbers of the reply; prompts that share it draw the same. None
            leaves them to the sampler's seed, the prompt and the stream.
    """

    trace: TokenTrace
    images: tuple[Image, ...]
    turn: int = 0
    images_before: int = 0
    stream: str = ""
    begun: int = 0
    draw_seed: int | None = None


class ChatCodec(ChatEncoder):
    """Encodes dialogues for one processor.

    Attributes:
        rewrites: How the chat template rewrites earlier turns when later ones arrive, "" if it does not. If
            it does (templates of thinking models cut thoughts out), dialogues cannot grow by appending.
        thinks: Whether the template opens a thought where a reply begins.
        close_id: The token that ends a reply, the only control token a student may sample.
        fingerprint: Changes with the vocabulary or the template; a trace made by another codec is not reused.

    Args:
        processor: A transformers processor with a chat template, or the tokenizer of a text model.
        system: System prompt, "" for none.
        **options: Of `ChatEncoder`.

    Raises:
        ChatTemplateError: If the chat template is missing, or drops somebody's words or pictures.
    """

    def __init__(self, processor: Any, *, system: str = "", **options: Any) -> None:
        super().__init__(processor, **options)
        self.system, self.rewrites = system, ""
        close = ending(self.render, self._endings())
        self.close_id = self._close_id(close)
        try:
            self._template = ChatTemplate(self.render, close, images=self.takes_images, system=system)
        except RewritingTemplate as error:
            self.rewrites = str(error)
        prompt = self.render([("user", 0, "zqwordsqz")]).rpartition("zqwordsqz")[2]
        self.thinks = OPENED in prompt and CLOSED not in prompt
        self.fingerprint = "" if self.rewrites else self._fingerprint()

    @property
    def template(self) -> ChatTemplate:
        """The strings of the chat template.

        Raises:
            ChatTemplateError: If it rewrites earlier turns.
        """
        self.check_growing()
        return self._template

    def check_growing(self) -> None:
        """Make sure that dialogues grow by appending.

        Raises:
            ChatTemplateError: If the chat template rewrites earlier turns.
        """
        if self.rewrites:
            raise ChatTemplateError(self.rewrites)

    # -- extending a trace --------------------------------------------------------------------------------

    def user_turn(self, trace: TokenTrace | None, text: str, images: Sequence[Image] = ()) -> TokenTrace:
        """Append a user turn, up to where the reply begins; `None` starts a dialogue."""
        self.check_images(images)
        trace = trace or _EMPTY
        before, after = self.template.user(len(images), first=len(trace) == 0)
        rest = list(images)
        said = self.said(before, text, rest, first=len(trace) == 0)
        ids = np.concatenate([*said, *self.control(after, rest)])
        return self._append(trace, ids, images=len(images))

    def reply(
        self, trace: TokenTrace, ids: Sequence[int], logprobs: Sequence[float], turn: int
    ) -> TokenTrace:
        """Append a sampled reply; one that was cut short is closed with a token of mask 0."""
        trace = self.sampled(trace, ids, logprobs, turn)
        if len(ids) == 0 or ids[-1] != self.close_id:
            trace = self._append(trace, np.array([self.close_id], np.int64))
        return trace

    def sampled(
        self, trace: TokenTrace, ids: Sequence[int], logprobs: Sequence[float], turn: int
    ) -> TokenTrace:
        """Append sampled tokens, after which the reply may go on."""
        return _join(trace, _trace(np.asarray(ids, np.int64), True, np.asarray(logprobs, np.float32), turn))

    def closed_thought(self, trace: TokenTrace | None) -> TokenTrace:
        """Append what ends a thought, with mask 0: nobody sampled it."""
        return self._append(trace or _EMPTY, np.concatenate(self.control(CLOSING, [])))

    def unlearned(self, trace: TokenTrace, start: int, stop: int) -> TokenTrace:
        """Take tokens out of the loss; they stay in the sequence."""
        sampled_L, logprobs_L, turn_L = trace.sampled_L.copy(), trace.logprobs_L.copy(), trace.turn_L.copy()
        sampled_L[start:stop], logprobs_L[start:stop], turn_L[start:stop] = False, 0.0, -1
        return _join(_EMPTY, TokenTrace(trace.ids_L, sampled_L, logprobs_L, turn_L, trace.images))

    def written_reply(self, trace: TokenTrace, text: str, *, learn: bool = False) -> TokenTrace:
        """Append a reply somebody wrote; with `learn` its tokens and the closing one carry the loss mask."""
        ids = np.append(self.text(self.template.reply_prefix + text), self.close_id)
        turn = int(trace.turn_L.max(initial=-1)) + 1 if learn else -1
        return _join(trace, _trace(ids, learn, np.zeros(len(ids), np.float32), turn))

    def dialogue(self, exchanges: Sequence[Exchange]) -> Prompt:
        """Encode a dialogue for supervised training, with the loss mask on the replies to be learnt.

        Raises:
            ValueError: If there are no exchanges, or an opening is negative.
        """
        trace: TokenTrace | None = None
        for user, images, reply, learn, opening in exchanges:
            if opening < 0:
                raise ValueError(f"opening={opening!r}, expected a number of tokens, 0 for the whole reply")
            before = self.user_turn(trace, user, images)
            trace = self.written_reply(before, reply, learn=learn)
            if learn and opening:
                begins = len(before) + len(self.text(self.template.reply_prefix))
                trace = self.unlearned(trace, begins + opening, len(trace))
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
        if self.rewrites:
            return self._anew(transcript, images, stream_of(observation))
        trace, start = self.own_trace(transcript)
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

    def own_trace(
        self, transcript: Sequence[Message], role: int = ASSISTANT
    ) -> tuple[TokenTrace | None, int]:
        """Return the trace of this model's own last utterance, and where the transcript goes on after it.

        Args:
            transcript: The dialogue.
            role: Whom the model speaks for.
        """
        for index in range(len(transcript) - 1, -1, -1):
            meta = meta_of(transcript[index].content) if transcript[index].role == role else {}
            if "trace" in meta and meta.get("codec") == self.fingerprint:
                return meta["trace"], index + 1
        return None, 0

    def _anew(self, transcript: Sequence[Message], images: tuple[Image, ...], stream: str) -> Prompt:
        """Render a dialogue as its template has it now; nothing sampled before is in it."""
        messages = [ChatMessage("system", self.system)] if self.system else []
        rest = iter(images)
        for message in transcript:
            role: Role = "user" if message.role == USER else "assistant"
            messages.append(ChatMessage(role, str(message.content), tuple(islice(rest, message.images))))
        trace = self._append(_EMPTY, self.chat(messages).ids_L, images=len(images))
        return Prompt(trace, images, sum(message.role != USER for message in transcript), stream=stream)

    # -- replies -------------------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of sampled tokens, without the one that closes the reply."""
        if len(ids) and ids[-1] == self.close_id:
            ids = ids[:-1]
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    # -- inner parts --------------------------------------------------------------------------------------

    def _append(self, trace: TokenTrace, ids: Ids, images: int = 0) -> TokenTrace:
        return _join(trace, _trace(ids, False, np.zeros(len(ids), np.float32), -1, images))

    def _endings(self) -> tuple[str, ...]:
        # Gemma's and Phi's end of a turn is a special token that the tokenizer's map does not name.
        added = [t for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        tokens = [self.tokenizer.eos_token, *self.tokenizer.all_special_tokens, *added]
        return tuple(dict.fromkeys(str(token) for token in tokens if token))

    def _close_id(self, close: str) -> int:
        token = close or self.tokenizer.eos_token
        if token is None:
            raise ChatTemplateError(
                "the chat template ends a reply with no control token and the tokenizer has no "
                "eos_token; set tokenizer.eos_token"
            )
        return int(self.tokenizer.convert_tokens_to_ids(token))

    def _fingerprint(self) -> str:
        shown = int(self.takes_images)
        strings = [*(self.template.user(shown, first=first) for first in (True, False)), self.template.close]
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
