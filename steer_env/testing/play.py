"""What the checks stand on: playing a dialogue, watching global random state, looking into nested data."""

from __future__ import annotations

import copy
import dataclasses
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.utils.env_checker import data_equivalence

from steer_env.types import ATTACKER, STUDENT

#: Maps (agent, cycle, observation) to the utterance.
Script = Callable[[str, int, Any], str]

#: Turns after which a dialogue is taken to be endless.
MAX_TURNS = 10_000


def plain_script(agent: str, cycle: int, observation: Any = None) -> str:
    """Return fixed, ordinary text for both seats."""
    return f"user turn {cycle}, please" if agent == ATTACKER else f"a plain reply number {cycle}"


def script_of(attacker: Any, student: Any) -> Script:
    """Return a script that asks agents, one observation at a time."""
    agents = {ATTACKER: attacker, STUDENT: student}
    return lambda agent, cycle, observation: agents[agent].act([observation])[0]


@dataclass
class Played:
    """One dialogue as seen from outside.

    Attributes:
        order: Which agent acted, step by step.
        observations: What the acting agent saw before it acted, deep-copied.
        emitted: `env.rewards["student_0"]` after each step.
        replies: The same after student steps only.
        infos: The student's info after each reply, deep-copied.
        accumulated: Sum over `last()` of the reward the student was handed, dead step included.
        final: The student's last observation.
        ended: (terminated, truncated) as handed to the student in the end.
    """

    order: list[str] = field(default_factory=list)
    observations: list[Any] = field(default_factory=list)
    emitted: list[float] = field(default_factory=list)
    replies: list[float] = field(default_factory=list)
    infos: list[dict[str, Any]] = field(default_factory=list)
    accumulated: float = 0.0
    final: Any = None
    ended: tuple[bool, bool] = (False, False)

    def facts(self) -> dict[str, Any]:
        """Return what must be equal in two runs of the same dialogue."""
        return {
            "order of agents": self.order,
            "observations": self.observations,
            "rewards": self.emitted,
            "infos": self.infos,
            "accumulated reward": self.accumulated,
            "end": self.ended,
        }


def play(
    env: Any,
    seed: int | None = None,
    script: Script = plain_script,
    options: dict[str, Any] | None = None,
    max_turns: int = MAX_TURNS,
) -> Played:
    """Reset `env` with `seed` and play it with `agent_iter` and `last`, dead steps drained.

    Args:
        env: An AEC environment of `attacker_0` and `student_0`.
        seed: Reset seed.
        script: What each agent says.
        options: Reset options.
        max_turns: Stop after this many utterances, leaving the dialogue unfinished.
    """
    env.reset(seed=seed, options=options)
    played = Played()
    cycle = 0
    for agent in env.agent_iter(MAX_TURNS):
        observation, reward, terminated, truncated, _ = env.last()
        if agent == STUDENT:
            played.accumulated += reward
            played.final, played.ended = observation, (terminated, truncated)
        if terminated or truncated:
            env.step(None)
            continue
        if len(played.order) == max_turns:
            break
        played.order.append(agent)
        played.observations.append(copy.deepcopy(observation))
        env.step(script(agent, cycle, observation))
        played.emitted.append(float(env.rewards[STUDENT]))
        if agent == STUDENT:
            cycle += 1
            played.replies.append(played.emitted[-1])
            played.infos.append(copy.deepcopy(env.infos[STUDENT]))
    return played


def same(what: str, one: Played, two: Played, remedy: str) -> None:
    """Raise AssertionError naming the first fact in which two runs differ."""
    for name, value in one.facts().items():
        other = two.facts()[name]
        assert data_equivalence(value, other, exact=True), (
            f"{what}: {name} {_first_difference(value, other)}; {remedy}"
        )


def _first_difference(one: Any, two: Any) -> str:
    if isinstance(one, list) and isinstance(two, list):
        for i, (a, b) in enumerate(zip(one, two, strict=False)):
            if not data_equivalence(a, b, exact=True):
                return f"differ at step {i}: {a!r} and {b!r}"
        return f"differ in length: {len(one)} and {len(two)}"
    return f"differ: {one!r} and {two!r}"


# -- global random state: who moves it makes other runs irreproducible --------------------------------------


def _states() -> dict[str, Any]:
    _, keys, *rest = np.random.get_state()
    states: dict[str, Any] = {
        "random": random.getstate(),
        "numpy.random": (np.asarray(keys).tobytes(), *rest),
    }
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_rng_state"):
        states["torch"] = torch.get_rng_state().numpy().tobytes()
    return states


@contextmanager
def global_random_untouched(what: str) -> Iterator[None]:
    """Raise AssertionError if the block draws from or seeds the global state of `random`, NumPy or torch.

    Args:
        what: Named in the message, such as "reset(seed=0)".
    """
    before = _states()
    yield
    after = _states()
    # A library that was imported inside the block has no earlier state to compare with.
    moved = [name for name in before if before[name] != after[name]]
    assert not moved, (
        f"{what} moved the global random state of {', '.join(moved)}, expected it untouched; draw from "
        "self.np_random, from steer_env.agents.base.observation_rng, or from a generator of your own"
    )


# -- nested data --------------------------------------------------------------------------------------------


def parts(value: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield (path, part) for `value` and everything reachable from it: items, fields, attributes, `meta`."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    yield path, value
    for name, child in _children(value):
        yield from parts(child, path + name, seen)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield f".keys({key!r})", key
            yield f"[{key!r}]", child
    elif isinstance(value, list | tuple | set | frozenset):
        names = getattr(value, "_fields", None)
        for i, child in enumerate(value):
            yield f".{names[i]}" if names else f"[{i}]", child
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield f".{field.name}", getattr(value, field.name)
    if not isinstance(value, type) and not callable(value):
        for name, child in getattr(value, "__dict__", {}).items():
            yield f".{name}", child


def strings(value: Any) -> Iterator[tuple[str, str]]:
    """Yield (path, text) for every string reachable from `value`."""
    for path, part in parts(value):
        if isinstance(part, str):
            yield path, str(part)


def mutable_parts(value: Any) -> dict[int, str]:
    """Return id -> path of the dicts, lists, sets and writable arrays inside `value`."""
    found = {}
    for path, part in parts(value):
        writable = getattr(getattr(part, "flags", None), "writeable", False)
        if isinstance(part, dict | list | set | bytearray) or writable:
            found[id(part)] = path or "<itself>"
    return found
