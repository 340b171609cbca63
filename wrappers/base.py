"""The one way to change rewards in an AEC environment, written once.

Overriding `last()` is bypassed by outer wrappers, and writing into the inner environment's rewards breaks
PettingZoo's accounting. A reward wrapper therefore owns `rewards` and `_cumulative_rewards` and leaves the
rest alone.
"""

from __future__ import annotations

from typing import Any

from pettingzoo import AECEnv
from pettingzoo.utils.wrappers import BaseWrapper

from steer_env.env import DialogueEnv
from steer_env.forking import copied, fork
from steer_env.types import ATTACKER, STUDENT, Scored, Turn
from steer_env.vector import VectorDialogueEnv


class DialogueWrapper(BaseWrapper[str, Any, Any]):
    """Base of all wrappers: `Wrapper(env, ...)` on one dialogue, `Wrapper(vec, ...)` on every slot.

    Given a `VectorDialogueEnv`, the call wraps each slot's environment and returns that same vector
    environment, so one class serves both.

    Raises:
        TypeError: If `env` is neither an AEC environment around a `DialogueEnv` nor a vector of them.
    """

    def __new__(cls, env: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Wrap one environment, or each slot of a vector environment."""
        # `env` is left out by copy and pickle, which fill the instance afterwards.
        if isinstance(env, VectorDialogueEnv):
            return env.wrap(lambda inner: cls(inner, *args, **kwargs))
        return super().__new__(cls)

    def __init__(self, env: AECEnv[str, Any, Any]) -> None:
        if not isinstance(env, AECEnv) or not isinstance(env.unwrapped, DialogueEnv):
            raise TypeError(
                f"{type(self).__name__}({env!r}): expected a steer_env AEC environment or a "
                "VectorDialogueEnv; wrap before converting with StudentEnv or turn_based_aec_to_parallel"
            )
        super().__init__(env)
        self.core: DialogueEnv = env.unwrapped
        self._near: Any = _nearest(env)

    @property
    def agent_selection(self) -> str:
        """The seat to act."""
        return self._near.agent_selection

    @property
    def agents(self) -> list[str]:
        """Seats still in the dialogue."""
        return self._near.agents

    @property
    def terminations(self) -> dict[str, bool]:
        """Whether each seat's dialogue reached its end."""
        return self._near.terminations

    @property
    def truncations(self) -> dict[str, bool]:
        """Whether each seat's dialogue was cut."""
        return self._near.truncations

    @property
    def infos(self) -> dict[str, dict[str, Any]]:
        """Infos, a fresh dict per reply; wrappers add keys before anybody has seen it."""
        return self._near.infos

    def observe(self, agent: str) -> Any:
        """Return what the seat sees."""
        return self._near.observe(agent)

    def fork(self) -> Any:
        """Return an exact copy of the running dialogue and of this wrapper's state; see `DialogueEnv.fork`.

        Attributes are copied deeply. Override it in a wrapper that holds something which cannot be copied.

        Raises:
            TypeError: If a wrapper further in cannot be forked.
        """
        inner = fork(self.env)
        near = _nearest(inner)
        return copied(
            self, swapped={id(self.env): inner, id(self.core): inner.unwrapped, id(self._near): near}
        )


_PASSED_ON = ("agent_selection", "agents", "terminations", "truncations", "infos", "observe")


def _nearest(env: Any) -> Any:
    """Return the first layer from `env` inwards that may have its own say in what wrappers only pass on.

    Asking each layer in turn costs more than the rewards do. A subclass that overrides one of these names,
    and any wrapper that is not ours, is such a layer.
    """
    while isinstance(env, DialogueWrapper) and all(
        getattr(type(env), name) is getattr(DialogueWrapper, name) for name in _PASSED_ON
    ):
        env = env.env
    return env


class RewardWrapper(DialogueWrapper):
    """Base of wrappers that change the student's reward.

    Subclasses override `turn_reward` and, if they keep anything between turns, `begin`.
    """

    def begin(self) -> None:
        """Forget the previous dialogue; called by every reset."""

    def turn_reward(self, turn: Turn, reward: float, info: dict[str, Any]) -> float:
        """Return the student's reward for a finished cycle.

        Args:
            turn: The cycle; `turn.verdict` may be `Scored`, `Unscored` or None.
            reward: What the wrapped environment gave for it.
            info: The student's info of this turn; keys may be added.
        """
        raise NotImplementedError

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start a new dialogue; nothing survives from the last one."""
        self.env.reset(seed=seed, options=options)
        self.rewards = dict(self.env.rewards)
        self._cumulative_rewards = dict.fromkeys(self.rewards, 0.0)
        self.begin()

    def step(self, action: str | None) -> None:
        """Step the wrapped environment and rewrite the student's reward after its reply."""
        near = self._near
        actor = near.agent_selection
        if near.terminations.get(actor) or near.truncations.get(actor):
            self._dead_step(action, actor)
            return
        self.env.step(action)
        inner = self.env.rewards
        reward = inner[STUDENT]
        if actor == STUDENT:
            reward = float(self.turn_reward(self.core.last_turn, reward, near.infos[STUDENT]))
        self.rewards = {ATTACKER: inner[ATTACKER], STUDENT: reward}
        cumulative = self._cumulative_rewards
        cumulative[actor] = 0.0
        cumulative[ATTACKER] += inner[ATTACKER]
        cumulative[STUDENT] += reward

    def _dead_step(self, action: str | None, actor: str) -> None:
        # The dead agent leaves; the other keeps what it has accumulated, its last reward included.
        self.env.step(action)
        self.rewards = dict.fromkeys(self.env.agents, 0.0)
        self._cumulative_rewards.pop(actor, None)


def check_once(env: Any, wrapper: type[DialogueWrapper]) -> None:
    """Refuse a second wrapper of one kind, as `make` puts `TurnReward` and `TCSR` on by itself.

    Raises:
        ValueError: If `env` is wrapped in one already.
    """
    layer = env
    while isinstance(layer, BaseWrapper):
        if isinstance(layer, wrapper):
            raise ValueError(
                f"env={env} has {wrapper.__name__} on already, expected an environment without it: twice, it "
                "would change the rewards silently. Make it with wrappers=() and put on what you want, as in "
                "TCSR(TurnReward(steer_env.make(id, wrappers=())))"
            )
        layer = layer.env


def scored_terms(turn: Turn) -> Any:
    """Return the turn's `Terms`, None if there is no verdict or it is unscored."""
    return turn.verdict.terms if isinstance(turn.verdict, Scored) else None
