"""The mind that is a model: one structured answer per question, on any chat back end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, WithJsonSchema

from steer_env.agents.zoo.asks import Answer, Ask, score
from steer_env.drawing import spoken, told
from steer_env.judges.llm import check_backend
from steer_env.judges.prompting import Prompt, load_prompt, turn_records
from steer_env.models.base import ChatBackend, open_backend
from steer_env.models.structured import Exchange, NoAnswer, Settings, ask_all, clean, schema_of, word
from steer_env.scenarios import STRATEGIES

#: Longest user turn in characters.
MAX_TURN: Final = 1000

_Text = Annotated[str, BeforeValidator(clean), WithJsonSchema({"type": "string", "maxLength": MAX_TURN})]


class Proposal(BaseModel):
    """What a model proposes to say."""

    thought: _Text
    strategy: Annotated[str, BeforeValidator(word), WithJsonSchema({"type": "string", "maxLength": 40})]
    user_turn: _Text


class OnTopic(BaseModel):
    """Whether a model finds a text on topic."""

    on_topic: Annotated[Literal["yes", "no"], BeforeValidator(word)]


_SHAPES: Final[dict[str, type[BaseModel]]] = {"propose": Proposal, "on_topic": OnTopic}


class ModelMind:
    """Asks a model, all questions of a call in one batch.

    The model sees the goal, the student's history and the attempts that were taken back, as data, with the
    words that were drawn. Where it gives no usable answer, the seed's draft is said, with the reason in the
    utterance's meta as "fallback".

    Attributes:
        backend: Answers.

    Args:
        backend: A chat back end, or its name ("hf:PATH", "openai:MODEL@URL", ...).
        seed: Of the sampling.
        temperature: Of the sampling; proposals side by side differ by their numbers and by it.
    """

    def __init__(self, backend: ChatBackend | str, seed: int = 0, temperature: float = 1.0) -> None:
        self.backend = open_backend(backend) if isinstance(backend, str) else check_backend(backend)
        self.name, self.seed, self.temperature = self.backend.name, seed, temperature
        self._prompts: dict[tuple[str, str], Prompt] = {}

    @property
    def weights(self) -> str:
        """Identity of the model's weights."""
        return self.backend.weights

    def answer(self, asks: Sequence[Ask], weights: Mapping[str, Sequence[float]]) -> list[Answer]:
        """Return one answer per question."""
        exchanges = [self._exchange(ask, weights) for ask in asks]
        ask_all(self.backend, exchanges)
        return [_read(ask, one.outcome) for ask, one in zip(asks, exchanges, strict=True)]

    def _exchange(self, ask: Ask, weights: Mapping[str, Sequence[float]]) -> Exchange[Any]:
        shape = _SHAPES[ask.task]
        prompt = self._prompt(ask)
        seen = ask.view.seen
        plan = {name: seen.get(name, "") for name in ("goal", "strategy", "technique", "draft")}
        if ask.level is not None:
            plan["how_far"] = f"{ask.level:.0%} of the way to the goal"
        if ask.frame:
            plan["frame"] = ask.frame
        records: list[dict[str, Any]] = [{"plan": {**plan, "proposal_number": ask.number + 1}}]
        broke = {s: f"broke {b:.0f} of {b + h:.0f}" for s, (b, h) in weights.items() if b + h}
        records += [{"memory": broke}] if broke else []
        records += turn_records(spoken(seen["transcript"], seen["images"]))
        shown = (ask.parent,) if ask.parent is not None else ask.view.tried
        for one in shown if ask.task == "propose" else ():
            records.append({"taken_back": told(one.user), "reply": str(one.reply), "score": score(one)})
        if ask.task == "on_topic":
            records.append({"text": ask.text})
        settings = Settings(
            attempts=2, max_tokens=512, seed=self.seed + ask.number,
            temperature=self.temperature if ask.task == "propose" else 0.0,
        )  # fmt: skip
        messages = prompt.messages(records, tuple(seen["images"]), ask.view.turn + 1)
        return Exchange(messages, shape, schema_of(shape), settings)

    def _prompt(self, ask: Ask) -> Prompt:
        key = (ask.task, ask.how)
        if key not in self._prompts:
            schema = schema_of(_SHAPES[ask.task])
            self._prompts[key] = load_prompt(f"attack-{ask.task.replace('_', '-')}-v1", schema, how=ask.how)
        return self._prompts[key]


def _read(ask: Ask, outcome: Any) -> Answer:
    if isinstance(outcome, NoAnswer):
        return Answer(ask.view.seen["draft"] or "Please go on.", error=outcome.reason)
    if isinstance(outcome, OnTopic):
        return Answer(yes=outcome.on_topic == "yes")
    text = outcome.user_turn[:MAX_TURN] or ask.view.seen["draft"] or "Please go on."
    strategy = outcome.strategy if outcome.strategy in STRATEGIES else ""
    return Answer(text, strategy, outcome.thought)
