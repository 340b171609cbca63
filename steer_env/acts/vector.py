"""`SteerActs-v0`, many dialogues side by side in arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from steer_env.acts import rules
from steer_env.acts.env import ActsEnv, Features
from steer_env.acts.rules import FIRST, HAZARD, KIND, LENGTH, PER_DIALOGUE, READING
from steer_env.acts.speech import TACTICS, Act
from steer_env.acts.tables import ADVERSARY, HONEST, tables
from steer_env.checks import integer
from steer_env.rewards import declared_return, tcsr
from steer_env.spaces import reset_mask

Ints = NDArray[np.int64]


class ActsVectorEnv(VectorEnv[Features, Ints, Any]):
    """`num_envs` dialogues of `ActsEnv`, equal to it step by step on the same seeds.

    Infos are arrays over the dialogues, with Gymnasium's `_name` masks.

    Args:
        num_envs: How many dialogues.
        autoreset_mode: `NEXT_STEP` (default): the step after an end starts a dialogue and ignores its action.
            `SAME_STEP`: the step that ends a dialogue returns the next one's first observation, and the last
            one in `infos["final_obs"]`.
        **options: As `ActsEnv`, without `text` and `render_mode`.

    Raises:
        ValueError: On a value outside its range.
    """

    def __init__(
        self,
        num_envs: int = 8,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **options: Any,
    ) -> None:
        num_envs = integer("num_envs", num_envs, 1)
        mode = AutoresetMode(autoreset_mode)
        if mode == AutoresetMode.DISABLED:
            raise ValueError(f"autoreset_mode={mode!r}, expected NextStep or SameStep")
        if options.get("text") or options.get("render_mode"):
            raise ValueError("text and render_mode are of one dialogue; use gymnasium.make for words")
        one = ActsEnv(**options)  # checks the options
        self.metadata = {"autoreset_mode": mode}
        self.num_envs, self.alpha, self.returns = num_envs, one.alpha, one.returns
        self.min_turns, self.max_turns = one.min_turns, one.max_turns
        self.single_observation_space, self.single_action_space = one.observation_space, one.action_space
        self.observation_space: Any = batch_space(one.observation_space, num_envs)
        self.action_space: Any = batch_space(one.action_space, num_envs)
        self._same_step = mode == AutoresetMode.SAME_STEP
        self._rewards = np.asarray(one._rewards)
        self._costs, self._reading, self._tables = rules.cost_table(), rules.reading_sum(), tables()
        self._features = rules.feature_table()
        self._key = np.zeros(num_envs, np.uint64)
        self._started = False
        self._earned: NDArray[np.float64]
        self._over: NDArray[np.bool_]
        self._everyone = np.ones(num_envs, bool)
        self._slots = np.arange(num_envs)

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Features, dict[str, Any]]:
        """Start all dialogues; `seed` is an int (dialogue i gets seed + i), a list, or None.

        The option "reset_mask", booleans, has only the dialogues marked in it started, as in Gymnasium.

        Raises:
            ValueError: If the mask is not booleans, or the seeds are not one per dialogue.
        """
        mask = reset_mask(options, self.num_envs)
        if mask is not None and self._started:
            at, seeds = np.flatnonzero(mask), self._seeds(seed)
            fresh = rules.next_key_array(self._key)
            if seed is not None:
                for i in at:
                    fresh[i] = seeding.np_random(seeds[i])[0].integers(1 << 64, dtype=np.uint64)
            self._key[at] = fresh[at]
            self._earned[at] = 0.0
            self._over[at] = False
            self._begin(at)
            return self._observe(), {}
        if seed is None and self._started:
            self._key = rules.next_key_array(self._key)
        else:
            seeds = self._seeds(seed)
            draws = [seeding.np_random(s)[0].integers(1 << 64, dtype=np.uint64) for s in seeds]
            self._key = np.array(draws, np.uint64)
        n = self.num_envs
        self._kind, self._hazard, self._level = (np.zeros(n, np.int64) for _ in range(3))
        self._length, self._ask, self._before = (np.zeros(n, np.int64) for _ in range(3))
        self._tactic, self._turn, self._past = (np.zeros(n, np.int64) for _ in range(3))
        # One row per dialogue: `rewards.tcsr` reads the turns so far.
        self._earned = np.zeros((n, self.max_turns))
        self._over = np.zeros(n, bool)
        self._started = True
        self._begin(self._slots)
        return self._observe(), {}

    def _seeds(self, seed: Any) -> list[Any]:
        if seed is None or isinstance(seed, int | np.integer):
            return [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(
                f"{len(seed)} seeds for {self.num_envs} dialogues, expected one each, an int or None"
            )
        return list(seed)

    def _begin(self, at: Ints) -> None:
        """Draw new dialogues in the slots `at` from their keys."""
        key, t = self._key[at], self._tables
        kind = np.where(rules.uniform_array(key, KIND) < rules.ADVERSARY_SHARE, ADVERSARY, HONEST)
        hazard = (rules.uniform_array(key, HAZARD) < 0.5).astype(np.int64)
        span = self.max_turns - self.min_turns + 1
        self._kind[at], self._hazard[at] = kind, hazard
        self._level[at] = _locate(self._reading[hazard], rules.uniform_array(key, READING))
        self._length[at] = self.min_turns + (rules.uniform_array(key, LENGTH) * span).astype(np.int64)
        self._ask[at] = _locate(t.first[kind], rules.uniform_array(key, FIRST))
        self._before[at], self._tactic[at], self._turn[at], self._past[at] = -1, 0, 0, 0

    def step(
        self, actions: Any
    ) -> tuple[Features, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Do one act in every dialogue.

        Raises:
            ResetNeeded: Before the first `reset`.
            ValueError: If the actions are not one of `Act` each.
        """
        from steer_env.env import ResetNeeded

        if not self._started:
            raise ResetNeeded("step() was called before reset(); call reset() first")
        acts = np.asarray(actions)
        if (
            acts.shape != (self.num_envs,)
            or acts.dtype.kind not in "iu"
            or acts.min() < 0
            or acts.max() >= len(Act)
        ):
            raise ValueError(f"actions={actions!r}, expected {self.num_envs} integers in 0..{len(Act) - 1}")
        live = ~self._over
        rewards, infos = self._score(acts, live)
        self._answer(acts)
        ended = (self._turn >= self._length) & live
        renewed = ended if self._same_step else self._over
        if self._same_step and ended.any():
            infos |= {"final_obs": self._observe(), "_final_obs": ended}
            infos |= {
                "final_info": {k: v for k, v in infos.items() if "final" not in k},
                "_final_info": ended,
            }
        if renewed.any():
            at = np.flatnonzero(renewed)
            self._key[at] = rules.next_key_array(self._key[at])
            self._begin(at)
        if not self._same_step:
            self._over = ended
        return self._observe(), rewards, ended, np.zeros(self.num_envs, bool), infos

    def _score(self, acts: Ints, live: NDArray[np.bool_]) -> tuple[NDArray[np.float64], dict[str, Any]]:
        where = self._hazard, self._past, self._ask, acts
        earned, turn = np.where(live, self._rewards[where], 0.0), self._turn
        terms = self._tables.terms[where]
        infos: dict[str, Any] = {
            "turn": turn.copy(),
            "scored": live.copy(),
            "reward_terms": {
                "safety": terms[:, 0],
                "usefulness": terms[:, 1],
                "faithfulness": terms[:, 2],
            },
            "cost": np.where(live, self._costs[where], 0.0),
        }
        if self.returns is not None:
            earned, infos["return"] = self._tcsr(earned, live)
            infos["return_defined"] = live.copy()
        return earned, infos | {f"_{name}": live for name in infos}

    def _tcsr(self, earned: NDArray[np.float64], live: NDArray[np.bool_]) -> tuple[Any, Any]:
        """Return (increments of the declared return, the return so far)."""
        assert self.returns is not None
        turn = np.minimum(self._turn, self.max_turns - 1)  # a dialogue that is over waits at its end
        self._earned[self._slots, turn] = earned
        values = tcsr(self._earned, np.arange(self.max_turns) <= turn[:, None], self.alpha)
        if self.returns == "sum":  # the increment of a sum is its last term: subtracting would round it
            return np.where(live, values[self._slots, turn], 0.0), np.nansum(values, axis=1)
        now = declared_return(values, self.returns)
        values[self._slots, turn] = np.nan
        before = np.nan_to_num(declared_return(values, self.returns), nan=0.0)  # 0 before the first turn
        return np.where(live, now - before, 0.0), now

    def _answer(self, acts: Ints) -> None:
        draw = rules.uniform_array(self._key, PER_DIALOGUE + self._turn)
        step = _locate(self._tables.follow_sum[self._kind, self._ask, acts], draw)
        self._past = self._tables.history[self._past, self._ask]
        self._before = self._ask
        self._ask, self._tactic = step // len(TACTICS), step % len(TACTICS)
        self._turn = self._turn + 1

    def _observe(self) -> Features:
        seen = self._features[self._past, self._ask, self._before, self._tactic, self._level]
        seen[:, 0] = np.minimum(self._turn / self.max_turns, 1.0)
        return seen


def _locate(cumulative: NDArray[np.float64], draw: NDArray[np.float64]) -> Ints:
    """Return, row by row, the first entry above the draw."""
    return np.asarray((cumulative <= draw[:, None]).sum(axis=1), np.int64)
