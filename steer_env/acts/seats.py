"""The real two-seat dialogue with numbers in both seats: acts in, features out, text and judge in between.

Multi-agent libraries such as TorchRL know no text of any length. This wrapper gives both seats a `Discrete`
action space and a `Box` observation space; what is said is still a sentence, the transcript is text, and
rewards come from the wrappers beneath.
"""

from __future__ import annotations

import random
from typing import Any, Final

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv
from pettingzoo.utils.wrappers import BaseWrapper

from steer_env.acts import rules
from steer_env.acts.env import Features
from steer_env.acts.speech import ASKS, TACTICS, Act, Ask, say_act, say_ask, spoken_tactic
from steer_env.acts.tables import HISTORIES
from steer_env.types import ATTACKER, STUDENT, USER
from steer_env.world.draw import truth_of
from steer_env.world.reply_language.reading import parse_reply
from steer_env.world.truth import CALM_MOVES, History, Request, Truth
from steer_env.world.user_language.reading import UserTurn, advance, parse_user, resolve_piece, settle

#: Actions of the attacker: the seed's own next turn, or one of `ASKS` behind the words of its tactic.
ATTACKER_ACTIONS: Final = 1 + len(ASKS)
_ATTACKER_FEATURES: Final = 1 + 1 + len(ASKS) + len(TACTICS) + 3


class ActsSeats(BaseWrapper[str, Any, Any]):
    """Acts and features for both seats of a dialogue of the built-in world.

    The student's actions are `Act`, its observations those of `SteerActs-v0` (the hazard reading is a fixed,
    noisy function of the picture). The attacker's action 0 speaks the seed's next turn, k > 0 asks
    `ASKS[k - 1]`; it sees turn, whether the user is honest, the seed's next ask, its tactic and the last
    verdict. Put it outside the reward wrappers: `ActsSeats(steer_env.make("SteerEscalation-v0"))`.

    Args:
        env: A (wrapped) AEC dialogue environment on the built-in world.
        seed: Decides wording and the noise of the reading.
        max_turns: Turns that count as 1 in the feature "turn".
        paid_for_harm: Whether the attacker earns the cost of each reply (`info["cost"]`); else nothing.

    Raises:
        TypeError: If `env` is not an AEC environment.
    """

    def __init__(
        self, env: AECEnv[str, Any, Any], seed: int = 0, max_turns: int = 10, paid_for_harm: bool = False
    ) -> None:
        if not isinstance(env, AECEnv):
            raise TypeError(
                f"env={env!r}, expected an AEC environment, such as steer_env.make('SteerEscalation-v0')"
            )
        super().__init__(env)
        self.paid_for_harm = paid_for_harm
        self.seed, self.max_turns = seed, rules.check_turns(1, max_turns)[1]
        self._spaces = {
            STUDENT: (rules.observation_space(), spaces.Discrete(len(Act))),
            ATTACKER: (
                spaces.Box(0.0, 1.0, (_ATTACKER_FEATURES,), np.float32),
                spaces.Discrete(ATTACKER_ACTIONS),
            ),
        }

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Return the features of a seat."""
        return self._spaces[agent][0]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Return the acts of a seat."""
        return self._spaces[agent][1]

    def observe(self, agent: str) -> Any:
        """Return the seat's features, from what it sees of the dialogue."""
        seen = self.env.observe(agent)
        return self._student(seen) if agent == STUDENT else self._attacker(seen)

    def step(self, action: Any) -> None:
        """Say the act of the seat whose turn it is; None for a seat that is done.

        Raises:
            ValueError: If the action is not in the seat's space.
        """
        agent = self.env.agent_selection
        if action is None or self.env.terminations.get(agent) or self.env.truncations.get(agent):
            self.env.step(None)
            return
        act = int(action)
        if not self.action_space(agent).contains(np.int64(act)):
            raise ValueError(f"action={action!r} of {agent}, expected a member of {self.action_space(agent)}")
        seen = self.env.observe(agent)
        rng = random.Random(
            f"{self.seed}/{len(seen['transcript'])}/{seen['images'][0].digest if seen['images'] else ''}"
        )
        self.env.step(self._say(act, seen, rng) if agent == STUDENT else self._ask(act, seen, rng))
        if self.paid_for_harm and agent == STUDENT:
            harm = self.env.infos[STUDENT].get("cost", 0.0)  # an unscored turn pays nothing
            self.env.rewards[ATTACKER] += harm
            self.env._cumulative_rewards[ATTACKER] += harm

    # -- the student ----------------------------------------------------------------------------------------

    def _student(self, seen: Any) -> Features:
        users = [str(m.content) for m in seen["transcript"] if m.role == USER]
        out = np.zeros(len(rules.FEATURES), np.float32)
        if users:
            past, ask, before = _read(users)
            tactic = TACTICS.index(spoken_tactic(users[-1], first=len(users) == 1))
            out = rules.feature_table()[HISTORIES.index(past), ask, before, tactic, self._level(seen)].copy()
        out[0] = min(sum(m.role != USER for m in seen["transcript"]) / self.max_turns, 1.0)
        return out

    def _level(self, seen: Any) -> int:
        """Return the hazard reading of the picture, drawn once and for all from its content."""
        truth, key = _truth(seen), int(seen["images"][0].digest[:16], 16) ^ (self.seed & (1 << 64) - 1)
        draw = rules.uniform(key, rules.READING)
        return int((rules.reading_sum()[int(truth.hazard)] <= draw).sum())

    def _say(self, act: int, seen: Any, rng: random.Random) -> str:
        users = [str(m.content) for m in seen["transcript"] if m.role == USER]
        return say_act(Act(act), ASKS[_read(users)[1]], _truth(seen), rng)

    # -- the attacker ---------------------------------------------------------------------------------------

    def _attacker(self, seen: Any) -> Features:
        drafted, told = np.zeros(len(ASKS)), np.zeros(len(TACTICS))
        if seen["draft"]:
            drafted[_index(parse_user(seen["draft"]), History())] = 1
        told[TACTICS.index(_tactic_of(seen))] = 1
        turn = min(sum(m.role == USER for m in seen["transcript"]) / self.max_turns, 1.0)
        verdict = np.asarray(seen["verdict"], float) / 10
        return np.concatenate([[turn, seen["kind"] == "benign"], drafted, told, verdict]).astype(np.float32)

    def _ask(self, act: int, seen: Any, rng: random.Random) -> str:
        if act == 0 and seen["draft"]:
            return str(seen["draft"])
        truth = self.env.unwrapped.scenario.truth  # the device is named before its picture is shown
        return say_ask(ASKS[max(act - 1, 0)], _tactic_of(seen), _known(truth), rng)


def _tactic_of(seen: Any) -> str:
    """Return the scripted tutor's tactic after what the student just said."""
    from steer_env.agents.tutor import read_tactic

    transcript = seen["transcript"]
    if len(transcript) < 2 or transcript[-1].role == USER:
        return "open"
    return read_tactic(parse_reply(str(transcript[-1].content)), parse_user(str(transcript[-2].content)))


def _read(users: list[str]) -> tuple[History, int, int]:
    """Return (history before the last user turn, its ask, the ask before it or -1)."""
    history, before = History(), -1
    for text in users[:-1]:
        turn = parse_user(text)
        before = _index(turn, history)
        history = advance(history, turn)
    last = parse_user(users[-1])
    # A slip that the last turn puts right was never meant; what it may still put right is no feature.
    return settle(history, last)._replace(fresh=False), _index(last, history), before


def _index(turn: UserTurn, history: History) -> int:
    """Return the nearest of `ASKS`: words that cannot be placed count as a request to describe."""
    if turn.request == Request.PIECE:
        return ASKS.index(Ask(Request.PIECE, resolve_piece(history, turn)))
    request = turn.asks if turn.asks in CALM_MOVES else turn.request
    return ASKS.index(Ask(request)) if request else 0


def _truth(seen: Any) -> Truth:
    return _known(next((t for t in map(truth_of, reversed(seen["images"])) if t), None))


def _known(truth: Truth | None) -> Truth:
    if truth is None:
        raise ValueError(
            "the picture is not of the built-in world; acts can be spoken in it alone, use text instead"
        )
    return truth
