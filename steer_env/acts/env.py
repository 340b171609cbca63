"""`SteerActs-v0`, one dialogue: dialogue acts in, features out."""

from __future__ import annotations

import random
import textwrap
from bisect import bisect_right
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from steer_env.acts import rules
from steer_env.acts.rules import FIRST, HAZARD, KIND, LENGTH, PER_DIALOGUE, READING, next_key, uniform
from steer_env.acts.speech import ASKS, TACTICS, Act, say_act, say_ask
from steer_env.acts.tables import ADVERSARY, HISTORIES, HONEST, tables
from steer_env.rewards import (
    ALPHA,
    WEIGHTS,
    TCSRState,
    check_alpha,
    check_normalization,
    check_returns,
    check_weights,
    tcsr_step,
)
from steer_env.world.lexicon import COLOURS, NOUNS
from steer_env.world.truth import Truth

Features = NDArray[np.float32]


class ActsEnv(gymnasium.Env[Features, np.int64]):
    """The student chooses among fourteen dialogue acts and sees 29 features of the dialogue.

    Observation: `Box(0, 1, (29,), float32)`, named by `steer_env.acts.FEATURES`. Action: `Discrete(14)`, an
    `Act`. Reward: increments of the TCSR return, as `wrappers.TurnReward` and `wrappers.TCSR` give. Info:
    "turn", "scored" (always True), "reward_terms", "cost" (1.0 for harm), "tcsr", "return",
    "return_defined", and with `text` "user" and "reply".

    Args:
        weights: Weights of safety, usefulness and faithfulness.
        normalization: "affine" or "tenth", see `rewards.normalize`.
        alpha: Weight of TCSR's minimum, in [0, 1].
        returns: "sum", "final" or "mean"; None gives the plain turn rewards, without TCSR.
        min_turns: Fewest user turns.
        max_turns: Most user turns; the length is uniform between them, and the student does not see it.
        text: Also put both sides into words; a few times slower.
        render_mode: "ansi" or "rgb_array" (the last exchange, as text or drawn), or None.

    Raises:
        ValueError: On a value outside its range.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 1}  # noqa: RUF012

    def __init__(
        self,
        weights: tuple[float, float, float] = WEIGHTS,
        normalization: str = "affine",
        alpha: float = ALPHA,
        returns: str | None = "sum",
        min_turns: int = 2,
        max_turns: int = 10,
        text: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.alpha, self.returns = check_alpha(alpha), returns if returns is None else check_returns(returns)
        self.min_turns, self.max_turns = rules.check_turns(min_turns, max_turns)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode={render_mode!r}, expected 'ansi', 'rgb_array' or None")
        self.text, self.render_mode = bool(text), render_mode
        self.observation_space: Any = rules.observation_space()
        self.action_space = spaces.Discrete(len(Act))
        rewards = rules.reward_table(check_weights(weights), check_normalization(normalization))
        # Nested lists: plain Python numbers are several times faster than scalars out of an array.
        self._rewards: Any = rewards.tolist()
        self._terms: Any = tables().terms.tolist()
        self._costs: Any = rules.cost_table().tolist()
        self._history: Any = tables().history.tolist()
        self._first: Any = tables().first.tolist()
        self._follow: Any = tables().follow_sum.tolist()
        self._reading: Any = rules.reading_sum().tolist()
        self._features = rules.feature_table()
        self._key: int | None = None
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Features, dict[str, Any]]:
        """Start a dialogue; without a seed the one that follows the last."""
        super().reset(seed=seed)
        if seed is not None or self._key is None:
            self._key = int(self.np_random.integers(1 << 64, dtype=np.uint64))
        else:
            self._key = next_key(self._key)
        key = self._key
        self._kind = ADVERSARY if uniform(key, KIND) < rules.ADVERSARY_SHARE else HONEST
        self._hazard = int(uniform(key, HAZARD) < 0.5)
        self._level = bisect_right(self._reading[self._hazard], uniform(key, READING))
        self._length = self.min_turns + int(uniform(key, LENGTH) * (self.max_turns - self.min_turns + 1))
        self._ask, self._before, self._tactic = (
            bisect_right(self._first[self._kind], uniform(key, FIRST)),
            -1,
            0,
        )
        self._turn, self._past = 0, 0
        self._tcsr = TCSRState()
        self._running = True
        self._played: tuple[int, int, Act] | None = None
        return self._observe(), self._spoken({})

    def step(self, action: Any) -> tuple[Features, float, bool, bool, dict[str, Any]]:
        """Do one act; the user answers unless the dialogue is over.

        Raises:
            ResetNeeded: Before `reset` or after the end.
            ValueError: If the action is not in the space.
        """
        from steer_env.env import ResetNeeded

        if not self._running:
            raise ResetNeeded(
                "step() was called before reset() or after the dialogue had ended; call reset() first"
            )
        act = int(action)
        if not 0 <= act < len(Act):
            raise ValueError(
                f"action={action!r}, expected an integer in 0..{len(Act) - 1}; see steer_env.acts.Act"
            )
        reward, info = self._score(act)
        self._played = self._turn, self._ask, Act(act)
        self._answer(act)
        terminated = self._turn >= self._length
        self._running = not terminated
        return self._observe(), reward, terminated, False, self._spoken(info)

    def _score(self, act: int) -> tuple[float, dict[str, Any]]:
        where = self._hazard, self._past, self._ask
        reward = self._rewards[where[0]][where[1]][where[2]][act]
        safety, usefulness, faithfulness = self._terms[where[0]][where[1]][where[2]][act]
        info: dict[str, Any] = {
            "turn": self._turn,
            "scored": True,
            "reward_terms": {"safety": safety, "usefulness": usefulness, "faithfulness": faithfulness},
            "cost": self._costs[where[0]][where[1]][where[2]][act],
        }
        if self.returns is None:
            return reward, info
        before = self._tcsr.partial_return(self.returns)
        state = self._tcsr = tcsr_step(self._tcsr, reward, self.alpha)
        after = state.partial_return(self.returns)
        info["tcsr"] = {"value": state.value, "min": state.minimum, "mean": state.mean}
        info["return"], info["return_defined"] = after, True
        return (state.value if self.returns == "sum" else after - before), info

    def _answer(self, act: int) -> None:
        """Let the user speak: the next ask and its tactic, one number of the dialogue's stream."""
        assert self._key is not None
        draw = uniform(self._key, PER_DIALOGUE + self._turn)
        row = self._follow[self._kind][self._ask][act]
        self._past = self._history[self._past][self._ask]
        self._before = self._ask
        self._ask, self._tactic = divmod(bisect_right(row, draw), len(TACTICS))
        self._turn += 1

    def _observe(self) -> Features:
        seen = self._features[self._past, self._ask, self._before, self._tactic, self._level].copy()
        seen[0] = min(self._turn / self.max_turns, 1.0)
        return seen

    # -- words ----------------------------------------------------------------------------------------------

    @property
    def truth(self) -> Truth:
        """The scene of this dialogue; the student sees the mark only through its reading."""
        assert self._key is not None
        rng = random.Random(self._key)
        return Truth(rng.choice(NOUNS), rng.choice(COLOURS), rng.randrange(3), bool(self._hazard))

    @property
    def reply(self) -> str:
        """The last act in words, "" before the first."""
        if self._played is None:
            return ""
        turn, ask, act = self._played
        return say_act(act, ASKS[ask], self.truth, random.Random(f"{self._key}/{turn}/reply"))

    @property
    def user(self) -> str:
        """The user turn the student is to answer, in words."""
        rng = random.Random(f"{self._key}/{self._turn}/user")
        return say_ask(ASKS[self._ask], TACTICS[self._tactic], self.truth, rng)

    def _spoken(self, info: dict[str, Any]) -> dict[str, Any]:
        """Add the reply of this turn and the user turn it led to, when words are asked for."""
        return {**info, "reply": self.reply, "user": self.user} if self.text else info

    def render(self) -> Any:
        """Return the last reply and the user turn after it: a text, or pixels of shape (96, 640, 3)."""
        if self.render_mode is None or self._key is None:
            return None
        words = f"student: {self.reply}\nuser: {self.user}"
        if self.render_mode == "ansi":
            return words
        page = Image.new("RGB", (640, 96), "white")
        lines = "\n".join(part for line in words.split("\n") for part in textwrap.wrap(line, 100))
        ImageDraw.Draw(page).multiline_text((8, 8), lines, fill="black")
        return np.asarray(page)

    @property
    def history(self) -> Any:
        """What the earlier user turns add up to, a `world.truth.History`."""
        return HISTORIES[self._past]
