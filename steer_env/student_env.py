"""The student's single-agent view: a plain Gymnasium environment with the attacker inside."""

from __future__ import annotations

from typing import Any

import gymnasium
from pettingzoo import AECEnv

from steer_env.env import ResetNeeded
from steer_env.forking import copied, fork
from steer_env.types import ATTACKER, STUDENT


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
