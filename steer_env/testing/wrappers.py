"""Checks for wrappers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pettingzoo.utils.wrappers import BaseWrapper

from steer_env.testing.envs import Make, check_dialogue, check_forks, partly_unscored
from steer_env.testing.play import Script, plain_script, play, same
from steer_env.testing.toys import UNSCORED_WORD, toy_env
from steer_env.types import ATTACKER, STUDENT
from steer_env.vector import VectorDialogueEnv


def check_wrapper(factory: Callable[[Any], Any]) -> None:
    """Check a wrapper: `factory(env)` must return a sound environment around any dialogue environment.

    Runs `check_env` on it around a toy environment, then what only wrappers can break.

    Args:
        factory: The wrapper class or a function that applies it with arguments.

    Raises:
        AssertionError: At the first broken rule.
    """

    def make() -> Any:
        return factory(toy_env())

    check_not_bypassed(make, seed=3)
    check_dialogue(make, (0, 1, 2), partly_unscored)
    check_unscored_never_counts(make)
    check_same_on_vector(make, seed=4)
    for seed in (0, 1, 2):
        check_forks(make, seed, partly_unscored)


class _Outer(BaseWrapper[str, Any, Any]):
    """What users put on top: PettingZoo's base wrapper, which never calls the inner `last()`."""


def check_not_bypassed(make: Make, seed: int) -> None:
    """Rewards are the same seen through another wrapper on top; overriding `last()` is not."""
    inner, outer = play(make(), seed), play(_Outer(make()), seed)
    same(
        "with and without a plain wrapper on top",
        inner,
        outer,
        "change `rewards` and `_cumulative_rewards` (see steer_env.wrappers.RewardWrapper), never override "
        "last()",
    )


def check_unscored_never_counts(make: Make) -> None:
    """Unscored turns give no number: alone they earn nothing, among others their text does not matter."""
    for seed in range(4):
        played = play(make(), seed, lambda agent, cycle, observation: f"{UNSCORED_WORD} {cycle}")
        assert not any(played.emitted), (
            f"rewards={played.emitted!r} of a dialogue without any verdict, expected zeros; return the inner "
            "reward unchanged where info['scored'] is False"
        )
        for info in played.infos:
            assert not info["scored"] and not info["reward_terms"], (
                f"info={info!r} of an unscored turn, expected scored=False and no reward_terms"
            )
        one, two = (
            play(make(), seed, _unscored_saying(text)) for text in ("so", "so <think>a</think> " + "so " * 40)
        )
        assert one.emitted == two.emitted, (
            f"rewards={one.emitted!r} and {two.emitted!r} differ by the text of an unscored reply, expected "
            "equal; an unscored turn must not become a number"
        )


def check_same_on_vector(make: Make, seed: int) -> None:
    """In a vector environment every dialogue earns what it earns alone."""
    seeds = [seed + i for i in range(3)]
    vec = VectorDialogueEnv([make] * len(seeds))
    vec.reset(seeds=seeds)
    turns: dict[int, Any] = {}
    cycle = 0
    while vec.running:
        for agent in (ATTACKER, STUDENT):
            ids, _ = vec.pending(agent)
            for finished in vec.submit(agent, ids, [partly_unscored(agent, cycle)] * len(ids)):
                turns[finished.id] = [turn.reward for turn in finished.turns]
        cycle += 1
    for i, value in enumerate(seeds):
        alone = play(make(), value, partly_unscored)
        assert np.isclose(sum(turns[i]), sum(alone.emitted), rtol=1e-9, atol=1e-12), (
            f"rewards={turns[i]!r} in slot {i}, {alone.replies!r} alone with seed={value}; keep state per "
            "environment, never in the class or a module"
        )


def _unscored_saying(text: str) -> Script:
    def script(agent: str, cycle: int, observation: Any) -> str:
        return f"{UNSCORED_WORD} {text}" if agent == STUDENT and cycle == 1 else plain_script(agent, cycle)

    return script
