"""The student's seat as an environment of SkyRL-Gym: chat messages with pictures, one reward a turn.

    skyrl_gym.register(id="steer", entry_point="steer_env.interop.skyrl:SteerTextEnv")
    env = skyrl_gym.make("steer", extras={"env_id": "SteerEscalation-v0", "seed": 3})

What is not carried: the attacker's seat, which is played inside, and that a turn is unscored, which SkyRL's
reward, a number, cannot say; it stands in the turn's metadata. Needs the extra `skyrl`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput

from steer_env.interop import messages
from steer_env.registration import make_student_env


class SteerTextEnv(BaseTextEnv):
    """One dialogue.

    Args:
        env_config: The same for every dialogue of a run: `env_id`, `attacker` and options of `make`.
        extras: Those of one row of the data set, which win, and its `seed` (default 0). What SkyRL itself
            puts there (`reward_spec`, `max_turns` and others) is left alone.
    """

    _OPTIONS = ("env_id", "attacker", "judge", "max_turns", "seed")

    def __init__(
        self, env_config: Mapping[str, Any] | None = None, extras: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        given = {**dict(env_config or {}), **dict(extras or {})}
        options = {name: given[name] for name in self._OPTIONS if given.get(name) is not None}
        self.seed = int(options.pop("seed", 0))
        self.env = make_student_env(options.pop("env_id", "SteerEscalation-v0"), **options)

    def init(self, prompt: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Start the dialogue; its first user turn follows `prompt`, such as a system message."""
        observation, info = self.env.reset(seed=self.seed)
        return [*prompt, *messages(observation)], info

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Reply. `metadata` has `scored`, and `own`: what the turn earned by itself, or None."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        done, scored = terminated or truncated, bool(info["scored"])
        own = float(info.get("turn_reward", reward)) if scored else None
        following = [] if done else messages(observation, start=-1)
        return BaseTextEnvStepOutput(
            observations=following, reward=reward, done=done, metadata={"scored": scored, "own": own}
        )

    def close(self) -> None:
        """Close the dialogue."""
        self.env.close()
