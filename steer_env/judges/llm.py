"""The LLM judge: a rubric prompt, a chat back end, and a verdict or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, WithJsonSchema

from steer_env.images import Image
from steer_env.judges.base import JudgeRequest
from steer_env.judges.combine import later
from steer_env.judges.prompting import Prompt, load_prompt, turn_records
from steer_env.models.base import AsyncChatBackend, ChatBackend
from steer_env.models.structured import (
    Exchange,
    NoAnswer,
    Score,
    Settings,
    ask_all,
    ask_one,
    clean,
    schema_of,
    then,
    word,
)
from steer_env.types import ASSISTANT, USER, Message, Scored, Terms, Unscored, Verdict

LLMMove = Literal[
    "answer",
    "comply",
    "deflect",
    "empty",
    "refuse_constructive",
    "refuse_leak",
    "refuse_plain",
    "refuse_tone",
]

#: Free text. The schema bounds it, because a rambling model is cut off before it comes to the numbers; an
#: answer that is longer all the same, from a server that does not constrain decoding, is read.
Diagnosis = Annotated[str, BeforeValidator(clean), WithJsonSchema({"type": "string", "maxLength": 300})]


class JudgeAnswer(BaseModel):
    """What the judge is asked for; reasons come before the numbers, so that these follow from them."""

    diagnosis: Diagnosis
    move: Annotated[LLMMove, BeforeValidator(word)]
    safety: Score
    usefulness: Score
    faithfulness: Score

    def verdict(self, judge: str, prompt_hash: str) -> Scored:
        """Return the verdict."""
        terms = Terms(self.safety, self.usefulness, self.faithfulness)
        why = " ".join(self.diagnosis.split())[:1000]
        return Scored(terms, self.move, (), why, judge, prompt_hash)


ANSWER_SCHEMA = schema_of(JudgeAnswer)
NO_REPLY = "the transcript does not end in a user turn and a reply"


class LLMJudge:
    """Judges replies with a language model that sees the whole dialogue and its pictures.

    It scores safety, usefulness and faithfulness in 1..10 by the training rubric (SaFeR-Steer, arXiv
    2604.16358, Stage III; `steer_env/judges/prompts/judge-v2.txt`). It is told neither the hidden goal nor
    the kind of the dialogue, so that only what was said and shown can move a score, and never the ground
    truth. What goes wrong, be it the server or the answer, is `Unscored`.

    `submit`, one verdict at a time, exists if the back end is asynchronous; then this is an `AsyncJudge`.

    Attributes:
        name: "llm:" and the back end's name.
        weights: Identity of the model, see `steer_env.judges.independence`.
        prompt: The rubric prompt; its hash is in every verdict.

    Args:
        backend: Answers the questions.
        prompt: A file with a prompt of your own for the same answer (`load_prompt`), None for the built-in
            one.
        attempts: Questions per verdict; after a bad answer the model is told what was wrong with it.
        max_tokens: Longest answer in tokens.
        temperature: 0, greedy, unless you want several opinions.
        seed: Of the sampling.

    Raises:
        TypeError: If `backend` is none.
        ValueError: If a number is out of its range, or the prompt file is no good.
    """

    submit: Callable[[JudgeRequest], Future[Verdict]]

    def __init__(
        self,
        backend: ChatBackend,
        *,
        prompt: str | Path | None = None,
        attempts: int = 3,
        max_tokens: int = 512,
        temperature: float = 0.0,
        seed: int | None = 0,
    ) -> None:
        self.backend = check_backend(backend)
        self.settings = Settings(attempts, max_tokens, temperature, seed)
        self.prompt = load_prompt("judge-v2" if prompt is None else Path(prompt), ANSWER_SCHEMA)
        self.name = f"llm:{backend.name}"
        if isinstance(backend, AsyncChatBackend):
            self.submit = self._submit

    @property
    def weights(self) -> str:
        """Identity of the judging model's weights."""
        return self.backend.weights

    @property
    def prompt_hash(self) -> str:
        """Hash of prompt and answer schema, as in every verdict."""
        return self.prompt.hash

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """Return one verdict per request, in order; all questions go out as one batch."""
        exchanges = [self._exchange(request) for request in requests]
        ask_all(self.backend, [one for one in exchanges if one is not None])
        return [
            self._verdict(request, NoAnswer(NO_REPLY) if one is None else one.outcome)
            for request, one in zip(requests, exchanges, strict=True)
        ]

    def _submit(self, request: JudgeRequest) -> Future[Verdict]:
        exchange = self._exchange(request)
        assert isinstance(self.backend, AsyncChatBackend)
        if exchange is None:
            return later(Unscored(NO_REPLY, self.name))
        return then(ask_one(self.backend, exchange), lambda outcome: self._verdict(request, outcome))

    def _exchange(self, request: JudgeRequest) -> Exchange[JudgeAnswer] | None:
        transcript = request.transcript
        if not ends_in_reply(transcript):
            return None
        records = self._records(request)
        prompt = self._prompt_for(request)
        messages = prompt.messages(records, shown_images(request), records[-1]["turn"])
        return Exchange(messages, JudgeAnswer, ANSWER_SCHEMA, self.settings)

    def _records(self, request: JudgeRequest) -> list[dict[str, Any]]:
        """Return the data the model is asked about, the reply last."""
        return turn_records(request.spoken)

    def _prompt_for(self, request: JudgeRequest) -> Prompt:
        return self.prompt

    def _verdict(self, request: JudgeRequest, outcome: JudgeAnswer | NoAnswer) -> Verdict:
        if isinstance(outcome, NoAnswer):
            return Unscored(outcome.reason, self.name)
        return outcome.verdict(self.name, self._prompt_for(request).hash)

    def __repr__(self) -> str:
        return f"LLMJudge({self.backend.name!r}, prompt={self.prompt.name!r} {self.prompt.hash})"


def check_backend(backend: Any) -> ChatBackend:
    """Return `backend` if it is one.

    Raises:
        TypeError: If not.
    """
    if not isinstance(backend, ChatBackend):
        raise TypeError(
            f"backend={backend!r}, expected a chat back end; open one with "
            "steer_env.models.open_backend('openai:MODEL@http://host:8000/v1')"
        )
    return backend


def ends_in_reply(transcript: Sequence[Message]) -> bool:
    """Return whether there is a reply to judge: a user turn, then the student's."""
    return len(transcript) >= 2 and transcript[-1].role == ASSISTANT and transcript[-2].role == USER


def shown_images(request: JudgeRequest) -> tuple[Image, ...]:
    """Return the pictures the dialogue has shown so far."""
    return request.scenario.images[: sum(message.images for message in request.transcript)]
