"""Agents for both seats: attackers, the scripted tutor, scripted students, students on models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if __name__ != "steer_env.agents":
    raise ImportError("import steer_env.agents: this folder is mapped into the package, not a top-level one")

from steer_env import naming
from steer_env.agents.attackers import StaticAttacker
from steer_env.agents.base import (
    Acts,
    Agent,
    AgentWrapper,
    Observation,
    _Brought,
    as_agent,
    observation_rng,
    opponent_rng,
)
from steer_env.agents.named import open_seat
from steer_env.agents.scripted import AlwaysComply, AlwaysRefuse, Constructive, RandomStudent, TextGuarded
from steer_env.agents.tutor import ScriptedTutor
from steer_env.models import is_backend
from steer_env.types import STUDENT

if TYPE_CHECKING:
    from steer_env.agents.hf.attacker import HFAttacker
    from steer_env.agents.hf.student import HFStudent

__all__ = [
    "AGENTS",
    "Acts",
    "Agent",
    "AgentWrapper",
    "AlwaysComply",
    "AlwaysRefuse",
    "Constructive",
    "HFAttacker",
    "HFStudent",
    "Observation",
    "RandomStudent",
    "ScriptedTutor",
    "StaticAttacker",
    "as_agent",
    "make_agent",
    "name_of",
    "observation_rng",
    "opponent_rng",
]


#: Names `make_agent` knows: attackers, then students. Those of `agents.zoo` are published attacks.
#: A string is an entry point, "module:attribute", loaded on first use.
AGENTS: dict[str, Callable[..., Acts] | str] = {
    "static": StaticAttacker,
    "tutor": ScriptedTutor,
    "learning": "steer_env.algorithms.learners:learning_tutor",
    "crescendo": "steer_env.agents.zoo.crescendo:Crescendo",
    "pair": "steer_env.agents.zoo.pair:PAIR",
    "tap": "steer_env.agents.zoo.tap:TAP",
    "goat": "steer_env.agents.zoo.goat:GOAT",
    "actor": "steer_env.agents.zoo.actor:ActorAttack",
    "x-teaming": "steer_env.agents.zoo.xteaming:XTeaming",
    "many-shot": "steer_env.agents.zoo.manyshot:ManyShot",
    "figstep": "steer_env.agents.zoo.pictures:FigStep",
    "typography": "steer_env.agents.zoo.pictures:Typography",
    "split": "steer_env.agents.zoo.pictures:SplitPicture",
    "draw": "steer_env.agents.zoo.pictures:Draw",
    "resample": "steer_env.agents.zoo.resample:Resample",
    "refuse": AlwaysRefuse,
    "comply": AlwaysComply,
    "constructive": Constructive,
    "text-guarded": TextGuarded,
    "random": RandomStudent,
}


def make_agent(name: str, *, seat: str = STUDENT, **options: Any) -> Agent:
    """Return a new agent by name.

    Args:
        name: One of `AGENTS`, with options as in "tap?width=3", a model ("hf:PATH", "vllm:PATH",
            "openai:MODEL@URL" or "inspect:PROVIDER/MODEL"), or your own as `module:Object` or
            `file.py:Object`.
        seat: The seat a model takes, "student_0" or "attacker_0"; the names in `AGENTS` have theirs.
        **options: Passed to its constructor.

    Raises:
        ValueError: If the name is unknown; the message lists the known ones.
        BackendError: If a server cannot answer.
    """
    if is_backend(name):
        return open_seat(name, seat, **options)
    bare, named = naming.read_name(name)
    maker: Any = AGENTS.get(bare)
    if maker is not None:
        options = {**named, **options}
    else:
        maker = name
    if isinstance(maker, str):
        if not naming.is_reference(maker):
            raise ValueError(
                f"name={name!r}, expected one of {', '.join(AGENTS)}, hf:PATH, vllm:PATH, openai:MODEL@URL "
                f"or {naming.EXPECTED}; or pass an agent object"
            )
        return as_agent(naming.make(maker, **options))
    return as_agent(maker(**options))


def name_of(agent: Any) -> str:
    """Return a name for an agent: that of `make_agent`, or its own, or its class's."""
    agent = agent.own if isinstance(agent, _Brought) else agent
    for name, maker in AGENTS.items():
        if type(agent) is maker:
            return name
    own = getattr(agent, "name", None)
    kind = agent if hasattr(agent, "__qualname__") else type(agent)
    return own if isinstance(own, str) and own else f"{kind.__module__}:{kind.__qualname__}"


def __getattr__(name: str) -> Any:
    if name == "HFStudent":  # needs torch: loaded on first use
        from steer_env.agents.hf.student import HFStudent

        return HFStudent
    if name == "HFAttacker":
        from steer_env.agents.hf.attacker import HFAttacker

        return HFAttacker
    raise AttributeError(f"module 'steer_env.agents' has no attribute {name!r}")
