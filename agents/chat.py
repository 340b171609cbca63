"""A student behind a chat back end: any model that can chat, whether or not it returns tokens.

It cannot be trained: replies carry no trace. For training use `HFStudent` or `VLLMStudent`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final

from steer_env.agents.base import Failed, Observation, Sampler, observation_rng, to_answer
from steer_env.checks import integer
from steer_env.models.base import (
    AsyncChatBackend,
    ChatBackend,
    ChatFailure,
    ChatMessage,
    ChatReply,
    ChatRequest,
    ChatResult,
    Role,
)
from steer_env.models.thought import UNFINISHED, split_thought
from steer_env.spaces import MAX_LENGTH
from steer_env.types import USER, Utterance, with_images

#: What a person reads where a filter or a refusal left no words; every judge knows it for a plain refusal.
FILTERED: Final = "I can't help with that."
#: What of a reply's meta rides along with the utterance.
_META = ("token_ids", "attempts", "seconds", "thought")


class ChatStudent(Sampler):
    """Plays the student with a chat back end; see `chat_student`.

    Each reply is an `Utterance` whose `meta` holds `finish`, and `attempts`, `seconds`, `token_ids` and the
    `thought` before the reply where the back end tells. What could not be had is `Failed(reason)`.

    What a content filter or the model's refusal field stopped is an answer of a kind: the dialogue goes on
    with the words there were, or with `FILTERED`, judged as any reply, and `finish` is "filtered".

    Attributes:
        backend: Where the model runs.
        name: For reports.
        weights: Identity of the weights.

    Args:
        backend: See above.
        max_length: Longest reply in characters; what goes beyond is cut off, as with `max_new_tokens`.
        **sampling: Of `Sampler`.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(self, backend: ChatBackend, *, max_length: int = MAX_LENGTH, **sampling: Any) -> None:
        super().__init__(**sampling)
        self.backend, self.name, self.weights = backend, backend.name, backend.weights
        self.max_length = integer("max_length", max_length, 1)

    def act(self, observations: Sequence[Observation]) -> list[Utterance | Failed]:
        """Return one reply per observation, in order, or why there is none."""
        return [
            utterance(r, self.max_length)
            for r in self.backend.complete([self.request(o) for o in observations])
        ]

    def request(self, observation: Observation) -> ChatRequest:
        """Return the completion to make: every message with the pictures it shows.

        Raises:
            ValueError: If the transcript does not end with a user turn, or its images do not add up.
        """
        transcript, images = to_answer(observation)
        messages = [ChatMessage("system", self.system)] if self.system else []
        for message, pictures in with_images(transcript, images):
            role: Role = "user" if message.role == USER else "assistant"
            messages.append(ChatMessage(role, str(message.content), pictures))
        return ChatRequest(
            tuple(messages),
            max_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=self._seed(observation),
            top_p=self.top_p,
            top_k=self.top_k,
        )

    def close(self) -> None:
        """Close the back end."""
        self.backend.close()

    def _seed(self, observation: Observation) -> int:
        """Return a seed of 31 bits (servers keep it in 32 with a sign).

        Siblings of a group see the same; a rollout that names its dialogues tells them apart by `stream`.
        """
        state = int(observation_rng(self.seed, observation).integers(2**31))
        return (state + zlib.crc32(getattr(observation, "stream", "").encode())) % 2**31


class AsyncChatStudent(ChatStudent):
    """A `ChatStudent` whose replies come back one by one: no dialogue waits for another one's server."""

    backend: AsyncChatBackend

    def submit(self, observation: Observation) -> Future[Utterance | Failed]:
        """Start one reply and return at once; the future never raises, failures are values."""
        said: Future[Utterance | Failed] = Future()
        said.set_running_or_notify_cancel()

        def hand_over(done: Future[ChatResult]) -> None:
            try:
                said.set_result(utterance(done.result(), self.max_length))
            except BaseException as error:  # a bug must not leave the caller waiting for ever
                said.set_exception(error)

        self.backend.submit(self.request(observation)).add_done_callback(hand_over)
        return said


def chat_student(backend: ChatBackend, **options: Any) -> ChatStudent:
    """Return a student over a back end, asynchronous where the back end is.

    Args:
        backend: Where the model runs.
        **options: Of `ChatStudent`.
    """
    if isinstance(backend, AsyncChatBackend):
        return AsyncChatStudent(backend, **options)
    return ChatStudent(backend, **options)


def utterance(result: ChatResult, max_length: int = MAX_LENGTH) -> Utterance | Failed:
    """Return what a result means as a reply of at most so many characters; see `ChatStudent`."""
    if isinstance(result, ChatFailure):
        if result.kind != "refused":
            return Failed(f"{result.kind}: {result.reason} ({_times(result.attempts)})")
        result = ChatReply(result.text, "filtered", {"attempts": result.attempts})
    meta = {name: result.meta[name] for name in _META if name in result.meta}
    thought, text = split_thought(result.text)
    if result.finish == "filtered" and not (text and text.strip()):
        text = FILTERED
    if text is None:
        return Failed(UNFINISHED)
    if thought:
        meta["thought"] = thought
    finish = result.finish if len(text) <= max_length else "length"
    return Utterance(text[:max_length], finish=finish, **meta)


def _times(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"
