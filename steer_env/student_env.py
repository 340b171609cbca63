"""The student's seat as Gymnasium sees it, with the attacker inside: one dialogue, or many at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from pettingzoo import AECEnv

from steer_env.env import ResetNeeded
from steer_env.forking import copied, fork
from steer_env.spaces import reset_mask
from steer_env.types import ATTACKER, STUDENT
from steer_env.vector import VectorDialogueEnv, check_one_each


class StudentEnv(gymnasium.Env[dict[str, Any], str]):
    """Gymnasium view of a dialogue: the action is the reply, the observation the pictures and the transcript.

    Args:
        env: A (wrapped) AEC dialogue environment.
        attacker: Agent for the attacker's seat.
    """

    metadata = {"render_modes": ["human", "ansi", "rgb_array"], "render_fps": 1}  # noqa: RUF012

    def __init__(self, env: AECEnv[str, Any, Any], attacker: Any) -> None:
        if not callable(getattr(attacker, "act", None)):
            raise TypeError(
                f"attacker={attacker!r}, expected an object with act(observations) -> list of str"
            )
        self.aec = env
        self.attacker = attacker
        self.observation_space = env.observation_space(STUDENT)
        self.action_space = env.action_space(STUDENT)
        self.render_mode = env.unwrapped.render_mode
        self._running = False
        self._carried = 0.0  # student reward emitted while the attacker spoke, added to the next reply's

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start a dialogue and let the attacker speak first."""
        super().reset(seed=seed)
        self._running, self._carried = False, 0.0
        self.aec.reset(seed=seed, options=options)
        self._attack()
        self._running = True
        return self._observe(), {}

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Reply, then let the attacker answer unless the dialogue is over.

        Returns:
            Observation, reward of this turn, terminated (the seed is used up), truncated (cut at max_cycles)
            and a fresh info dict with verdict, "reward_terms" and, at scored turns, "cost".
        """
        if not self._running:
            raise ResetNeeded(
                "step() was called before reset() or after the dialogue had ended; call reset() first"
            )
        self.aec.step(action)
        reward = float(self.aec.rewards[STUDENT]) + self._carried
        info = dict(self.aec.infos[STUDENT])
        terminated, truncated = self.aec.terminations[STUDENT], self.aec.truncations[STUDENT]
        # Not running while the attacker speaks: if it fails, the next step must not take its seat.
        self._running = False
        if not (terminated or truncated):
            self._attack()
            self._running = True
        return self._observe(), reward, terminated, truncated, info

    def fork(self) -> StudentEnv:
        """Return an exact copy of the running dialogue, see `DialogueEnv.fork`; the attacker is shared."""
        shared = (self.attacker, self.observation_space, self.action_space)
        return copied(self, shared, {id(self.aec): fork(self.aec)})

    def _attack(self) -> None:
        utterances = self.attacker.act([self.aec.observe(ATTACKER)])
        if not isinstance(utterances, list | tuple) or len(utterances) != 1:
            raise ValueError(
                f"{type(self.attacker).__name__}.act returned {utterances!r} for one observation, expected a "
                "list of one utterance; act() answers a batch in order"
            )
        self.aec.step(utterances[0])
        self._carried = float(self.aec.rewards[STUDENT])

    def _observe(self) -> dict[str, Any]:
        observation = self.aec.observe(STUDENT)
        assert observation is not None
        return observation

    def render(self) -> Any:
        """Render the dialogue; see `DialogueEnv.render`."""
        return self.aec.render()

    def close(self) -> None:
        """Close the dialogue environment."""
        self.aec.close()


class StudentVectorEnv(VectorEnv[Any, Any, Any]):
    """Gymnasium's vector API for the student's seat; the attacker is embedded.

    A thin layer over `VectorDialogueEnv` with NEXT_STEP autoreset: the step that ends a dialogue returns its
    final observation, reward and info, the next step starts a new one. Observations are batched as
    `SyncVectorEnv` batches them, a dict of tuples with one entry per dialogue; actions are sequences of
    strings.
    """

    def __init__(self, vec: VectorDialogueEnv, attacker: Any, render_mode: str | None = None) -> None:
        self.metadata = {"render_modes": ["ansi", "rgb_array"], "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.render_mode = render_mode
        self.vec, self.attacker = vec, attacker
        self.num_envs = vec.num_envs
        env = vec.envs[0]
        self.single_observation_space: Any = env.observation_space(STUDENT)
        self.single_action_space = env.action_space(STUDENT)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._over = np.zeros(self.num_envs, dtype=bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start all dialogues; `seed` is an int (slot i gets seed + i), a list, or None.

        The option "reset_mask", booleans, has only the dialogues marked in it started, as in Gymnasium.

        Raises:
            ValueError: If the mask is not one, or there are not as many seeds as dialogues.
        """
        mask = reset_mask(options, self.num_envs)
        if mask is not None:
            one = None if seed is None or isinstance(seed, int | np.integer) else list(seed)
            rest = {key: value for key, value in (options or {}).items() if key != "reset_mask"}
            for i in map(int, np.flatnonzero(mask)):
                own = one[i] if one is not None else None if seed is None else int(seed) + i
                self.vec.start(i, own, rest or None)
            self._over[mask] = False
            self._attack()
            return self._observations(), {}
        if seed is None or isinstance(seed, int | np.integer):
            self.vec.reset(None if seed is None else int(seed), options=options)
        elif len(seed) == self.num_envs:
            self.vec.reset(seeds=seed, options=options)
        else:
            raise ValueError(
                f"{len(seed)} seeds for {self.num_envs} dialogues, expected one each, an int or None"
            )
        self._over[:] = False
        self._attack()
        return self._observations(), {}

    def step(
        self, actions: Sequence[str]
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Reply in every dialogue; those that ended in the last step start again and ignore their action."""
        check_one_each(actions, self.num_envs, f"actions for {self.num_envs} dialogues")
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        live = [i for i in range(self.num_envs) if not self._over[i]]
        finished = {f.id: f for f in self.vec.submit(STUDENT, live, [actions[i] for i in live])}
        infos: dict[str, Any] = {}
        for i in live:
            result = self.vec.last_result(i)
            rewards[i] = result.reward
            infos = self._add_info(infos, _plain(result.info), i)
            terminated[i] = i in finished and finished[i].stop == "seed_end"
            truncated[i] = i in finished and not terminated[i]
        for over in np.flatnonzero(self._over):
            self.vec.start(int(over))
        self._over = terminated | truncated
        self._attack()
        return self._observations(), rewards, terminated, truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """Return one text ("ansi") or picture ("rgb_array") per dialogue, None without a render mode."""
        return None if self.render_mode is None else tuple(env.render() for env in self.vec.envs)

    def _attack(self) -> None:
        ids, observations = self.vec.pending(ATTACKER)
        self.vec.submit(ATTACKER, ids, self.attacker.act(observations))

    def _observations(self) -> dict[str, tuple[Any, ...]]:
        seen: list[Any] = [env.observe(STUDENT) for env in self.vec.envs]
        return {key: tuple(observation[key] for observation in seen) for key in self.single_observation_space}

    def close_extras(self, **kwargs: Any) -> None:
        """Close the dialogues."""
        self.vec.close()


def _plain(info: Mapping[str, Any]) -> dict[str, Any]:
    # Gymnasium stacks infos by key into arrays; a verdict object stays an object.
    return {key: value for key, value in info.items() if key != "reward_terms"} | {
        f"reward_{name}": value for name, value in info["reward_terms"].items()
    }
