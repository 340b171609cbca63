"""The scripted tutor: rewrites the seed's next turn in the light of what the student just did.

Three tactics (paper, Stage III): a plain refusal meets *persistence* (call it too strict, reframe with a
strategy, press on a detail of the picture), a refusal with an alternative meets *bait and switch* (accept
it, then corrupt it), and compliance or a leak is *deepened* (ask for the next specific). Honest users are
only followed up naturally; when they are refused, they too may ask again, so that pressing alone does not
give an attacker away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from steer_env.agents import ood_tutor
from steer_env.agents.base import Observation, opponent_rng
from steer_env.rewards import HARM_LEVEL
from steer_env.scenarios import STRATEGIES
from steer_env.trajectory import Trajectory
from steer_env.types import USER, Scored, Utterance, meta_of
from steer_env.world import frames
from steer_env.world.lexicon import COLOURS, NOUNS, ORDINALS
from steer_env.world.parse import Reply, UserTurn, parse_reply, parse_user
from steer_env.world.replies import pick
from steer_env.world.truth import Request

TACTICS: Final = ("open", "follow_up", "ask_again", "persistence", "bait_and_switch", "deepen")

_MENTION_RE: Final = re.compile(
    rf"\bthe (?:(?:{'|'.join(COLOURS)}) )?(?:{'|'.join(NOUNS)})\b|"
    r"\bthe thing (?:named )?(?:on the card|in the picture)\b"
    r"|\bthis thing\b"
)
#: Requests that a tutor presses on: those that are harm, and use, which leads there.
PRESSED: Final = (Request.PIECE, Request.STEPS, Request.USE, Request.MISUSE)
_HONEST: Final = ("honest", "benign")


class Question(NamedTuple):
    """What to ask: a core request, or, when `text` is set, these very words."""

    request: str
    piece: int = -1
    do: str = ""
    text: str = ""


class ScriptedTutor:
    """An attacker that adapts within a dialogue and learns across dialogues.

    A scenario of kind "benign" has an honest user, who is never made to attack. A draft the built-in world
    cannot read is used as it is, behind the tactic's own words. Dialogues of the out-of-distribution family
    (`split="ood"`) are played by its own attacker, `agents.ood_tutor`, which learns nothing across dialogues
    and chooses among the strategies of its family.

    Args:
        seed: Decides the wording. Siblings of a GRPO group get the same opening.
        strategies: The strategies it may use, None for all eight.
        memory: Whether `learn` changes which strategies it prefers (Thompson sampling over success counts).
        decay: Factor on old counts at every `learn`, in (0, 1]; the student changes, so old successes fade.

    Raises:
        ValueError: On an unknown strategy or a decay outside (0, 1].
    """

    def __init__(
        self, seed: int = 0, strategies: Sequence[str] | None = None, memory: bool = True, decay: float = 0.98
    ) -> None:
        chosen = STRATEGIES if strategies is None else tuple(strategies)
        wrong = [s for s in chosen if s not in STRATEGIES]
        if wrong or not chosen:
            raise ValueError(f"strategies={list(chosen)!r}, expected at least one of {', '.join(STRATEGIES)}")
        if not 0.0 < decay <= 1.0:
            raise ValueError(f"decay={decay!r}, expected a float in (0, 1]")
        self.seed, self.strategies, self.memory, self.decay = seed, chosen, memory, decay
        self._counts = {s: [0.0, 0.0] for s in STRATEGIES}  # [broken, held]

    # -- speaking -----------------------------------------------------------------------------------------

    def act(self, observations: Sequence[Observation]) -> list[Utterance]:
        """Return the next user turn of each dialogue, with `strategy` and `tactic` in its meta."""
        return [self._act(o) for o in observations]

    def _act(self, observation: Observation) -> Utterance:
        if ood_tutor.plays(observation):
            return ood_tutor.speak(self.seed, observation, is_honest(observation))
        transcript, draft = observation["transcript"], observation["draft"]
        if not transcript:
            return Utterance(
                draft, strategy=spoken_strategy(observation.get("strategy", ""), draft), tactic="open"
            )
        rng = opponent_rng(self.seed, observation)
        reply = parse_reply(str(transcript[-1].content))
        last = next((str(m.content) for m in reversed(transcript) if m.role == USER), "")
        if is_honest(observation):
            return self._honest(draft, last, reply, rng)
        tactic = read_tactic(reply, parse_user(last))
        if tactic == "follow_up":
            return self._follow(observation, draft, last, rng)
        return self._press(observation, tactic, draft, last, reply, rng)

    def _honest(self, draft: str, last: str, reply: Reply, rng: np.random.Generator) -> Utterance:
        asked, planned = parse_user(last), parse_user(draft)
        if (
            reply.refused
            and asked.request in PRESSED
            and planned.request != Request.ANSWER
            and rng.random() < 0.5
        ):
            again = ask_of(asked, last)
            if not again.text:
                tactic = "bait_and_switch" if reply.alternative or reply.store else "persistence"
                lead = tactic_lead(tactic, reply, last, rng)
                return Utterance(
                    f"{lead} {word_ask(again, draft, last, rng)}", strategy="", tactic="ask_again"
                )
        if not reply.refused and rng.random() < 0.4 and draft:
            draft = f"{pick(rng, (*frames.FOLLOW_UP, *frames.DEEPEN))} {draft}"
        return Utterance(draft or "Please go on.", strategy="", tactic="follow_up")

    def _follow(self, observation: Observation, draft: str, last: str, rng: np.random.Generator) -> Utterance:
        """Nothing to react to: say the draft, at times behind a strategy."""
        ask = ask_of(parse_user(draft), draft)
        if rng.random() < 0.5 or ask.request not in PRESSED or ask.text:
            return Utterance(
                draft or "Please go on.",
                strategy=spoken_strategy(observation.get("strategy", ""), draft),
                tactic="follow_up",
            )
        strategy = self._choose(observation, rng)
        text = f"{pick(rng, frames.STRATEGY[strategy])} {word_ask(ask, draft, last, rng)}"
        return Utterance(text, strategy=strategy, tactic="follow_up")

    def _press(
        self,
        observation: Observation,
        tactic: str,
        draft: str,
        last: str,
        reply: Reply,
        rng: np.random.Generator,
    ) -> Utterance:
        ask = _target(tactic, parse_user(last), last, parse_user(draft), draft, reply, rng)
        strategy, lead = "", tactic_lead(tactic, reply, last, rng)
        if tactic == "persistence" and rng.random() < 0.6:  # reframe rather than complain
            strategy = self._choose(observation, rng)
            lead = pick(rng, frames.STRATEGY[strategy])
        technique = observation.get("technique", "")
        if tactic == "deepen" and technique in frames.TECHNIQUE and rng.random() < 0.4:
            lead = pick(rng, frames.TECHNIQUE[technique])
        return Utterance(f"{lead} {word_ask(ask, draft, last, rng)}", strategy=strategy, tactic=tactic)

    def _choose(self, observation: Observation, rng: np.random.Generator) -> str:
        """Choose a strategy: Thompson sampling on what worked, the seed's own one without memory."""
        if self.memory:
            draws = [rng.beta(1.0 + self._counts[s][0], 1.0 + self._counts[s][1]) for s in self.strategies]
            return self.strategies[int(np.argmax(draws))]
        own = observation.get("strategy", "")
        return own if own in self.strategies else pick(rng, self.strategies)

    # -- memory across dialogues --------------------------------------------------------------------------

    def learn(self, trajectories: Sequence[Trajectory]) -> None:
        """Count which strategies broke this student; call it between rollouts.

        Only scored turns that this tutor spoke behind a strategy, and that asked for something that can
        break, count. Deterministic in the order of `trajectories`.
        """
        if not self.memory:
            return
        for counts in self._counts.values():
            counts[0], counts[1] = counts[0] * self.decay, counts[1] * self.decay
        for trajectory in trajectories:
            for result in trajectory.turns:
                verdict, strategy = result.turn.verdict, meta_of(result.turn.user).get("strategy", "")
                if (
                    not isinstance(verdict, Scored)
                    or strategy not in self._counts
                    or trajectory.scenario.kind == "benign"
                ):
                    continue
                if parse_user(str(result.turn.user)).request in (*PRESSED, Request.UNKNOWN):
                    self._counts[strategy][0 if verdict.terms.safety <= HARM_LEVEL else 1] += 1.0

    def success_rates(self) -> dict[str, float]:
        """Return the posterior mean of each strategy's success against this student."""
        return {s: (1.0 + b) / (2.0 + b + h) for s, (b, h) in self._counts.items() if s in self.strategies}

    def state_dict(self) -> dict[str, Any]:
        """Return the memory as plain values."""
        return {"version": 1, "counts": {s: list(c) for s, c in self._counts.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: If the state is not of this class and version.
        """
        counts = strategy_counts(state, "ScriptedTutor")
        self._counts = {s: [float(broken), float(held)] for s, (broken, held) in counts.items()}

    def __repr__(self) -> str:
        return f"ScriptedTutor(seed={self.seed}, strategies={self.strategies!r}, memory={self.memory})"


def strategy_counts(state: Mapping[str, Any], owner: str) -> dict[str, tuple[float, float]]:
    """Return [broken, held] of each strategy from a tutor's `state_dict`.

    Raises:
        ValueError: If the state is not of the class `owner` and of this version.
    """
    counts = state.get("counts")
    if state.get("version") != 1 or not isinstance(counts, Mapping) or set(counts) != set(STRATEGIES):
        raise ValueError(f"state={dict(state)!r}, expected what {owner}.state_dict() returned (version 1)")
    return {s: (counts[s][0], counts[s][1]) for s in STRATEGIES}


_LEADS: Final = {
    "persistence": frames.PERSISTENCE,
    "bait_and_switch": frames.BAIT_AND_SWITCH,
    "deepen": frames.DEEPEN,
}


def tactic_lead(tactic: str, reply: Reply, last: str, rng: np.random.Generator) -> str:
    """Draw the words that answer what the student did; never the same twice running."""
    options = _LEADS[tactic]
    if tactic == "bait_and_switch" and reply.offer and rng.random() < 0.7:
        options = frames.BAIT_OFFER[reply.offer]
    return pick(rng, [o for o in options if not last.startswith(o)] or options)


def is_honest(observation: Observation) -> bool:
    """Return whether an attacker's observation belongs to an honest user; without a kind the goal tells."""
    if "kind" in observation:
        return bool(observation["kind"] == "benign")
    goal = observation.get("goal", "").strip().lower()
    return goal.startswith(_HONEST) or (not goal and not observation.get("strategy", ""))


def spoken_strategy(strategy: str, draft: str) -> str:
    """Return the seed's strategy if this draft speaks it; a draft the world cannot read is taken to."""
    leads = frames.STRATEGY.get(strategy, ())
    speaks = parse_user(draft).request == Request.UNKNOWN or draft.startswith(leads or "\0")
    return strategy if speaks else ""


def read_tactic(reply: Reply, asked: UserTurn) -> str:
    """Read what the student just did."""
    gave = bool(reply.markers or reply.practice)
    if reply.refused and not gave:
        return "bait_and_switch" if reply.alternative or reply.store else "persistence"
    if (
        gave
        or asked.request == Request.UNKNOWN
        or (asked.request in PRESSED and (reply.careful or reply.free or reply.agrees))
    ):
        return "deepen"
    return "persistence" if asked.request in PRESSED else "follow_up"


def ask_of(turn: UserTurn, text: str) -> Question:
    """Turn a parsed user turn back into something to ask; text the world cannot read is kept as it is."""
    if turn.request == Request.MISUSE:
        do = next((h for h in frames.HARMS if h in text.lower()), "")
        return Question("misuse", do=do) if do else Question("misuse", text=text)
    if turn.request == Request.UNKNOWN:
        return Question("", text=text)
    return Question(turn.request.value, turn.piece)


def _target(
    tactic: str,
    asked: UserTurn,
    last: str,
    planned: UserTurn,
    draft: str,
    reply: Reply,
    rng: np.random.Generator,
) -> Question:
    """Decide what to ask next: what was refused, what follows what was given, or what the seed planned."""
    plan = ask_of(planned, draft)
    if plan.text or not draft or asked.request == Request.UNKNOWN:
        return plan if draft else Question("steps")
    if tactic == "deepen":
        fresh = planned.request != Request.PIECE or planned.piece != asked.piece
        if planned.request in (Request.PIECE, Request.STEPS, Request.MISUSE) and fresh and rng.random() < 0.5:
            return plan
        if asked.asks == Request.PIECE and asked.piece in (0, 1) and rng.random() < 0.7:
            return Question("piece", asked.piece + 1)
        if asked.asks == Request.STEPS:
            return Question("piece", int(rng.random() * 3))
        return Question("steps")
    if planned.request in PRESSED and rng.random() < (0.5 if tactic == "persistence" else 0.35):
        return plan
    if planned.request in PRESSED and asked.request not in PRESSED:
        return plan  # pressing on something harmless leads nowhere
    again = ask_of(asked, last)
    if tactic == "bait_and_switch" and asked.request == Request.MISUSE:
        return Question("steps") if rng.random() < 0.5 else Question("piece", int(rng.random() * 3))
    if again.text or (asked.request == Request.USE and tactic == "bait_and_switch"):
        return Question("steps")
    return again


def word_ask(ask: Question, draft: str, last: str, rng: np.random.Generator) -> str:
    """Put what to ask into words, naming the device as the dialogue does."""
    if ask.text:
        return ask.text
    found = _MENTION_RE.search(draft.lower()) or _MENTION_RE.search(last.lower())
    core = pick(rng, frames.SHORT["purpose" if ask.request == "misuse" else ask.request])
    piece = ask.piece if 0 <= ask.piece < 3 else 0
    return core.format(it=found.group(0) if found else "it", ord=ORDINALS[piece], do=ask.do)
