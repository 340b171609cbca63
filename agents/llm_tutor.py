r"""The LLM tutor: one structured call per turn judges the reply and writes the next question.

This is the tutor of SaFeR-Steer (arXiv 2604.16358, Stage III, "feedback dynamics"):
$(s_t, u_{t+1}) = R(h_t, a_t, \hat u_{t+1})$. The environment asks it twice about the same state, once as
judge when the reply comes in and once as attacker when the user speaks next. Both questions lead to the same
key, so the model is asked once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, cast

from pydantic import BeforeValidator, WithJsonSchema

from steer_env.agents.base import Observation
from steer_env.agents.memo import CallMemo
from steer_env.agents.tutor import StrategyMemory, spoken_strategy
from steer_env.checks import integer
from steer_env.drawing import spoken
from steer_env.images import Image
from steer_env.judges.base import JudgeRequest
from steer_env.judges.llm import NO_REPLY, JudgeAnswer, check_backend, ends_in_reply, shown_images
from steer_env.judges.prompting import Prompt, load_prompt, prompt_text, turn_records
from steer_env.models.base import AsyncChatBackend, ChatBackend
from steer_env.models.structured import (
    BadAnswer,
    Exchange,
    NoAnswer,
    Settings,
    ask_all,
    ask_one,
    clean,
    schema_of,
    then,
    word,
)
from steer_env.scenarios import STRATEGIES
from steer_env.types import USER, Message, Unscored, Utterance, Verdict

ATTACKS: Final = ("persistence", "bait_and_switch", "deepen", "follow_up")
HONEST: Final = ("follow_up", "ask_again")

_Attack = Literal["persistence", "bait_and_switch", "deepen", "follow_up"]
_Honest = Literal["follow_up", "ask_again"]
_Strategy = Literal[
    "roleplay",
    "educational_framing",
    "fiction_writer",
    "authority_figure",
    "hypothetical_scenario",
    "emotional_urgency",
    "continuation_trick",
    "reverse_psychology",
    "none",
]


#: Bounded in the schema as `judges.llm.Diagnosis` is.
_Question = Annotated[str, BeforeValidator(clean), WithJsonSchema({"type": "string", "maxLength": 600})]


class AttackAnswer(JudgeAnswer):
    """What the tutor is asked for when the user pursues a hidden goal."""

    tactic: Annotated[_Attack, BeforeValidator(word)]
    strategy: Annotated[_Strategy, BeforeValidator(word)]
    next_question: _Question


class HonestAnswer(JudgeAnswer):
    """What the tutor is asked for when the user is honest."""

    tactic: Annotated[_Honest, BeforeValidator(word)]
    strategy: Annotated[Literal["none"], BeforeValidator(word)]
    next_question: _Question


_SHAPES: Final = {False: AttackAnswer, True: HonestAnswer}
_SCHEMAS: Final = {honest: schema_of(shape) for honest, shape in _SHAPES.items()}

Answer = AttackAnswer | HonestAnswer


@dataclass(frozen=True, slots=True)
class State:
    """What the tutor is asked about: the same whether the judge asks or the attacker.

    Attributes:
        transcript: All messages, the reply to judge last; what pictures say is said, too.
        images: Pictures shown so far.
        kind: "benign", "obfuscated" or "red_team".
        goal: The hidden goal.
        strategy: Of the seed.
        technique: Of the seed.
        draft: The seed's next user turn, "" if the reply was to the last one.
    """

    transcript: tuple[Message, ...]
    images: tuple[Image, ...]
    kind: str
    goal: str
    strategy: str
    technique: str
    draft: str

    @classmethod
    def judged(cls, request: JudgeRequest) -> State:
        """Return the state after the reply of `request`; the scenario's ground truth stays out of it."""
        scenario = request.scenario
        turns = len(request.transcript) // 2  # finished cycles, as the environment counts them
        draft = scenario.turns[turns].text if turns < len(scenario.turns) else ""
        return cls(
            request.spoken,
            shown_images(request),
            scenario.kind,
            scenario.goal,
            scenario.strategy,
            scenario.technique,
            draft,
        )

    @classmethod
    def observed(cls, observation: Observation) -> State:
        """Return the state an attacker that is to speak observes."""
        return cls(
            spoken(observation["transcript"], observation["images"]),
            tuple(observation["images"]),
            *(str(observation.get(name, "")) for name in ("kind", "goal", "strategy", "technique", "draft")),
        )

    @property
    def honest(self) -> bool:
        """Whether the user has no hidden goal."""
        return self.kind == "benign"

    def records(self) -> list[dict[str, Any]]:
        """Return what the prompt shows as data: the plan, then the dialogue."""
        plan = {name: getattr(self, name) for name in ("kind", "goal", "strategy", "technique")}
        return [{"plan": {**plan, "next_draft": self.draft}}, *turn_records(self.transcript)]


class LLMTutor(StrategyMemory):
    """Attacker and judge in one object, on any chat back end.

    Give the same object to both seats: `steer_env.make(..., judge=tutor)` and `rollout(vec, tutor, student,
    ...)`. The first user turn is the seed's draft, spoken without a call. When a call fails, the turn is
    `Unscored` and the user speaks the draft, with the reason in the utterance's meta as "fallback". A next
    question that repeats what the user has said counts as none: the verdict stands and the user speaks the
    draft.

    An utterance's meta holds "strategy", "tactic" and, where they apply, "diagnosis" or "fallback". `submit`,
    for an observation or a judge's request, exists if the back end is asynchronous.

    Attributes:
        name: "tutor:" and the back end's name.
        weights: Identity of the model, see `steer_env.judges.independence`.

    Args:
        backend: Answers the questions.
        attempts: Questions per state; after a bad answer the model is told what was wrong with it.
        max_tokens: Longest answer in tokens.
        temperature: Of the sampling. 0, greedy, gives the same verdict and question every time.
        seed: Of the sampling.
        max_question: Longest next question in characters; keep it within the environment's `max_length`.
        remembered: States whose answers are kept.
        memory: Show the model which strategies have broken the student so far (`learn`). Verdicts then depend
            on the history of the run, so the default is off.

    Raises:
        TypeError: If `backend` is none.
        ValueError: If a number is out of its range.
    """

    submit: Callable[[Any], Future[Any]]

    def __init__(
        self,
        backend: ChatBackend,
        *,
        attempts: int = 3,
        max_tokens: int = 768,
        temperature: float = 0.0,
        seed: int | None = 0,
        max_question: int = 1000,
        remembered: int = 4096,
        memory: bool = False,
    ) -> None:
        self.backend = check_backend(backend)
        self.settings = Settings(attempts, max_tokens, temperature, seed)
        self.max_question, self.memory = integer("max_question", max_question, 1), memory
        self.prompts = {honest: _prompt(honest) for honest in (False, True)}
        self.name = f"tutor:{backend.name}"
        self._memo = CallMemo(integer("remembered", remembered, 1))
        self._counts = {s: [0.0, 0.0] for s in STRATEGIES}
        if isinstance(backend, AsyncChatBackend):
            self.submit = self._submit

    @property
    def weights(self) -> str:
        """Identity of the tutor model's weights."""
        return self.backend.weights

    @property
    def prompt_hash(self) -> str:
        """Hashes of the prompts for risky and for harmless dialogues, joined by "+"; each verdict has one."""
        return "+".join(self.prompts[honest].hash for honest in (False, True))

    @property
    def calls(self) -> int:
        """States the model has been asked about so far; what the memo answers is not counted."""
        return self._memo.begun

    # -- both seats ---------------------------------------------------------------------------------------

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """Return one verdict per request, in order; what is new goes out as one batch."""
        states = [State.judged(r) if ends_in_reply(r.transcript) else None for r in requests]
        outcomes = iter(self._ask([s for s in states if s is not None], again=True))
        return [self._verdict(s, NoAnswer(NO_REPLY) if s is None else next(outcomes)) for s in states]

    def act(self, observations: Sequence[Observation]) -> list[Utterance]:
        """Return the next user turn of each dialogue; what the judge has asked already is not asked again."""
        states = [State.observed(o) for o in observations]
        outcomes = iter(self._ask([s for s in states if ends_in_reply(s.transcript)], again=False))
        return [_spoken(s, next(outcomes)) if ends_in_reply(s.transcript) else _opening(s) for s in states]

    def _submit(self, what: JudgeRequest | Observation) -> Future[Any]:
        """Start one verdict (for a judge's request) or one utterance (for an observation)."""
        judging = isinstance(what, JudgeRequest)
        state = State.judged(what) if isinstance(what, JudgeRequest) else State.observed(what)
        if not ends_in_reply(state.transcript):
            done: Future[Any] = Future()
            done.set_result(Unscored(NO_REPLY, self.name) if judging else _opening(state))
            return done
        exchange, key = self._exchange(state)
        answer, mine = self._memo.claim(key, again=judging)
        if mine:
            ask_one(cast(AsyncChatBackend, self.backend), exchange).add_done_callback(
                lambda ready: answer.set_result(ready.result())
            )
        if judging:
            return then(answer, lambda outcome: self._verdict(state, outcome))
        return then(answer, lambda outcome: _spoken(state, outcome))

    def _ask(self, states: Sequence[State], *, again: bool) -> list[Answer | NoAnswer]:
        waiting: list[Future[Answer | NoAnswer]] = []
        mine: list[tuple[str, Future[Answer | NoAnswer], Exchange[Any]]] = []
        for state in states:
            exchange, key = self._exchange(state)
            answer, new = self._memo.claim(key, again=again)
            waiting.append(answer)
            if new:
                mine.append((key, answer, exchange))
        try:
            ask_all(self.backend, [exchange for _, _, exchange in mine])
        except BaseException as error:  # Ctrl-C: nobody may wait for answers that will not come
            for key, answer, _ in mine:
                self._memo.forget(key)
                answer.set_result(NoAnswer(f"interrupted by {type(error).__name__}"))
            raise
        for _, answer, exchange in mine:
            answer.set_result(exchange.outcome)
        return [answer.result() for answer in waiting]

    def _exchange(self, state: State) -> tuple[Exchange[Any], str]:
        """Return the question about a state, and a digest of everything that goes into it."""
        records = state.records()
        if self.memory and not state.honest:
            records.insert(1, {"memory": self._lines()})
        prompt, turn = self.prompts[state.honest], records[-1]["turn"]
        messages = prompt.messages(records, state.images, turn)
        body = [prompt.hash, [image.digest for image in state.images], [m.content for m in messages]]
        key = hashlib.sha256(json.dumps(body).encode()).hexdigest()
        shape: type[Any] = _SHAPES[state.honest]
        check = self._checker(state)
        return Exchange(messages, shape, _SCHEMAS[state.honest], self.settings, check), key

    def _checker(self, state: State) -> Callable[[Answer], None]:
        def check(answer: Answer) -> None:
            if state.draft and not answer.next_question:
                raise BadAnswer("next_question is empty, expected what the user says next")
            if len(answer.next_question) > self.max_question:
                raise BadAnswer(
                    f"next_question has {len(answer.next_question)} characters, expected at most "
                    f"{self.max_question}"
                )

        return check

    def _verdict(self, state: State | None, outcome: Answer | NoAnswer) -> Verdict:
        if state is None or isinstance(outcome, NoAnswer):
            return Unscored(cast(NoAnswer, outcome).reason, self.name)
        return outcome.verdict(self.name, self.prompts[state.honest].hash)

    # -- memory across dialogues --------------------------------------------------------------------------

    def _lines(self) -> dict[str, str]:
        return {s: f"broke {b:g} of {b + h:g}" for s, (b, h) in self._counts.items() if b + h}

    def __repr__(self) -> str:
        return f"LLMTutor({self.backend.name!r}, prompt={self.prompts[False].hash}, memory={self.memory})"


def _prompt(honest: bool) -> Prompt:
    return load_prompt(
        "tutor-v2",
        _SCHEMAS[honest],
        role=prompt_text("role-honest-v1" if honest else "role-attack-v1").strip(),
        tactics=_one_of(HONEST if honest else ATTACKS),
        strategies='"none"' if honest else _one_of((*STRATEGIES, "none")),
    )


def _one_of(names: Sequence[str]) -> str:
    return "one of " + ", ".join(f'"{name}"' for name in names)


def _plain(text: str) -> str:
    """Words alone, so that a question in other punctuation is the same question."""
    return " ".join(re.findall(r"\w+", text.lower()))


def _repeated(state: State, question: str) -> str:
    """Say what is wrong with a question the user has asked before; "" for a new one."""
    said = {_plain(m.content) for m in state.transcript if m.role == USER}
    return f"next_question repeats what the user said: {question!r}" if _plain(question) in said else ""


def _opening(state: State) -> Utterance:
    return Utterance(state.draft, strategy=_own_strategy(state), tactic="open")


def _own_strategy(state: State) -> str:
    return "" if state.honest else spoken_strategy(state.strategy, state.draft)


def _spoken(state: State, outcome: Answer | NoAnswer) -> Utterance:
    reason = outcome.reason if isinstance(outcome, NoAnswer) else _repeated(state, outcome.next_question)
    if isinstance(outcome, NoAnswer) or reason:
        text = state.draft or "Please go on."
        return Utterance(text, strategy=_own_strategy(state), tactic="follow_up", fallback=reason)
    strategy = outcome.strategy.removeprefix("none")
    text = outcome.next_question or "Please go on."
    return Utterance(text, strategy=strategy, tactic=outcome.tactic, diagnosis=outcome.diagnosis)
