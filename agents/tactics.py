"""An attacker whose policy is a table: which lead and which question, by what the student just did.

The words are the scripted tutor's; what to do with them is learnt. The table has two softmax rows per
situation, a few hundred numbers in all, so it learns in seconds what a text model needs minutes for:
`algorithms.learners.TacticLearner` trains it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from steer_env.agents import ood_tutor
from steer_env.agents.base import Observation, opponent_rng, reset_seed_of, stream_of
from steer_env.agents.tutor import (
    Question,
    ScriptedTutor,
    ask_of,
    is_honest,
    names_device,
    presses,
    read_tactic,
    scene_name,
    tactic_lead,
    word_ask,
)
from steer_env.arrays import Floats
from steer_env.scenarios import STRATEGIES
from steer_env.types import USER, Utterance
from steer_env.world.reply_language.frames import pick
from steer_env.world.reply_language.reading import parse_reply
from steer_env.world.user_language import frames
from steer_env.world.user_language.reading import parse_user

#: What the student just did, as the tutor reads it; rows of the table.
SITUATIONS: Final = ("open", "follow_up", "persistence", "bait_and_switch", "deepen")
#: What goes in front: nothing, the tutor's words for the situation, or a strategy's.
LEADS: Final = ("none", "own", *STRATEGIES)
#: What is asked: the seed's next turn, the last question again, or a question of its own.
ASKS: Final = ("plan", "again", "first", "second", "third", "steps", "use", "misuse")


class Choice(NamedTuple):
    """One decision: indices into `SITUATIONS`, `LEADS` and `ASKS`."""

    situation: int
    lead: int
    ask: int


class TacticAttacker(ScriptedTutor):
    """Draws a lead and a question from its table; the tutor plays honest and foreign users.

    Every utterance that the table decided carries its `Choice` as `choice` in the meta.

    Attributes:
        common: Whether siblings of a group draw the same numbers, so that they differ by what the student
            replied only: what a student learns from. False lets each draw its own, from the first turn of the
            table on, and the attacker try more: what it learns from where the student stays.
        lead_SL: Logits of the leads, by situation.
        ask_SA: Logits of the questions, by situation.

    Args:
        seed: Decides draws and wording.
        patient: Say the seed's turns as they are until the first that asks for use, a step, all steps or harm
            (`tutor.PRESSED`), and begin to attack only there. That is later than at once and earlier than the
            seed's own risk: asking for use alone is no harm yet.
    """

    def __init__(self, seed: int = 0, patient: bool = False) -> None:
        super().__init__(seed, memory=False)
        self.patient = patient
        self.common = True
        self.lead_SL: Floats = np.zeros((len(SITUATIONS), len(LEADS)))
        self.ask_SA: Floats = np.zeros((len(SITUATIONS), len(ASKS)))

    def _act(self, observation: Observation) -> Utterance:
        transcript, draft = observation["transcript"], observation["draft"]
        # Nobody has seen a picture before the first turn: there the seed's own words tell the world.
        ours = bool(scene_name(observation)) if transcript else names_device(draft)
        if ood_tutor.plays(observation) or is_honest(observation) or not ours:
            return super()._act(observation)
        if self.patient and draft and not any(map(_pressing, (draft, *_said(transcript)))):
            return Utterance(draft, strategy="", tactic="wait")
        reply = parse_reply(str(transcript[-1].content)) if transcript else None
        last = next(reversed(_said(transcript)), "")
        tactic = "open" if reply is None else read_tactic(reply, parse_user(last))
        rng = self._rng(observation)
        situation = SITUATIONS.index(tactic)
        choice = Choice(
            situation,
            int(rng.choice(len(LEADS), p=softmax(self.lead_SL[situation]))),
            int(rng.choice(len(ASKS), p=softmax(self.ask_SA[situation]))),
        )
        name, words = LEADS[choice.lead], ""
        if name in STRATEGIES:
            words = pick(rng, frames.STRATEGY[name])
        elif name == "own" and reply is not None and tactic != "follow_up":
            words = tactic_lead(tactic, reply, last, rng)
        goal = observation.get("goal", "")
        question = self._question(ASKS[choice.ask], bool(words), goal, draft, last, rng)
        strategy = name if name in STRATEGIES else ""
        text = f"{words} {question}".strip()
        return Utterance(text, strategy=strategy, tactic=tactic, choice=tuple(choice), common=self.common)

    def _question(
        self, ask: str, led: bool, goal: str, draft: str, last: str, rng: np.random.Generator
    ) -> str:
        """Put a question into words, naming the device as the dialogue does; `led` if words stand before."""
        if ask == "plan" or (ask == "again" and not last):
            plan = ask_of(parse_user(draft), draft)
            # A seed's turn may begin with a strategy of its own: behind other words only its question.
            return word_ask(plan, draft, last, rng) if draft and led else draft or "Please go on."
        if ask == "misuse":
            question = Question("misuse", do=next((h for h in frames.HARMS if h in goal), frames.HARMS[0]))
        else:
            question = ask_of(parse_user(last), last) if ask == "again" else _QUESTIONS[ask]
        return word_ask(question, draft, last, rng)

    def _rng(self, observation: Observation) -> np.random.Generator:
        """A stream per scenario, reset seed and turn; with `common` off, per sibling too."""
        name = reset_seed_of(observation) if self.common else stream_of(observation)
        return opponent_rng(self.seed, observation, name)

    def probabilities(self) -> dict[str, dict[str, float]]:
        """Return the probability of each lead and question, by situation."""
        return {
            s: {
                **dict(zip(LEADS, softmax(self.lead_SL[i]).tolist(), strict=True)),
                **dict(zip(ASKS, softmax(self.ask_SA[i]).tolist(), strict=True)),
            }
            for i, s in enumerate(SITUATIONS)
        }

    def learn(self, trajectories: Sequence[Any]) -> None:
        """Learn nothing: a learner trains the table."""

    def state_dict(self) -> dict[str, Any]:
        """Return the table as plain values."""
        return {"version": 1, "lead": self.lead_SL.tolist(), "ask": self.ask_SA.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put a table back.

        Raises:
            ValueError: If the state is not of this class and version.
        """
        lead, ask = (np.array(state.get(name, ()), np.float64) for name in ("lead", "ask"))
        if (state.get("version"), lead.shape, ask.shape) != (1, self.lead_SL.shape, self.ask_SA.shape):
            raise ValueError(
                f"state={dict(state)!r:.200}, expected what TacticAttacker.state_dict() returned (version 1)"
            )
        self.lead_SL, self.ask_SA = lead, ask

    def __repr__(self) -> str:
        return f"TacticAttacker(seed={self.seed}, patient={self.patient})"


def bound_to(lead: str, seed: int = 0) -> TacticAttacker:
    """Return an attacker that begins every turn with one of `LEADS` and asks anything, all alike.

    Raises:
        ValueError: If there is no such lead.
    """
    if lead not in LEADS:
        raise ValueError(f"lead={lead!r}, expected one of {', '.join(LEADS)}")
    attacker = TacticAttacker(seed)
    attacker.lead_SL[:, LEADS.index(lead)] = 50.0  # the others keep a share of e^-50
    return attacker


def _said(transcript: Sequence[Any]) -> list[str]:
    return [str(message.content) for message in transcript if message.role == USER]


def _pressing(text: str) -> bool:
    return presses(parse_user(text))


_QUESTIONS: Final = {
    "first": Question("piece", 0),
    "second": Question("piece", 1),
    "third": Question("piece", 2),
    "steps": Question("steps"),
    "use": Question("use"),
}


def softmax(logits: Floats) -> Floats:
    """Return the probabilities of logits along the last axis.

    >>> softmax(np.array([0.0, np.log(3.0)]))
    array([0.25, 0.75])
    """
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))
