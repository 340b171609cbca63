"""Agents for both seats: attackers, the scripted tutor, scripted students, students on models."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "steer_env.agents":
    raise ImportError("import steer_env.agents: this folder is mapped into the package, not a top-level one")

from steer_env.agents.attackers import StaticAttacker
from steer_env.agents.base import (
    Acts,
    Agent,
    AgentWrapper,
    Observation,
    as_agent,
    observation_rng,
    opponent_rng,
)
from steer_env.agents.named import open_seat
from steer_env.agents.scripted import AlwaysComply, AlwaysRefuse, Constructive, RandomStudent
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
    "observation_rng",
    "opponent_rng",
]


#: Names `make_agent` knows. The first three play the attacker, the others the student.
#: A string is an entry point, "module:attribute", loaded on first use.
AGENTS: dict[str, Callable[..., Acts] | str] = {
    "static": StaticAttacker,
    "tutor": ScriptedTutor,
    "learning": "steer_env.algorithms.learners:learning_tutor",
    "refuse": AlwaysRefuse,
    "comply": AlwaysComply,
    "constructive": Constructive,
    "random": RandomStudent,
}


def make_agent(name: str, *, seat: str = STUDENT, **options: Any) -> Agent:
    """Return a new agent by name.

    Args:
        name: One of `AGENTS`, or a model: "hf:PATH", "vllm:PATH" or "openai:MODEL@http://host:port/v1".
        seat: The seat a model takes, "student_0" or "attacker_0"; the names in `AGENTS` have theirs.
        **options: Passed to its constructor.

    Raises:
        ValueError: If the name is unknown; the message lists the known ones.
        BackendError: If a server cannot answer.
    """
    if is_backend(name):
        return open_seat(name, seat, **options)
    if name not in AGENTS:
        raise ValueError(
            f"name={name!r}, expected one of {', '.join(AGENTS)}, hf:PATH, vllm:PATH or openai:MODEL@URL; or "
            "pass an agent object"
        )
    maker = AGENTS[name]
    if isinstance(maker, str):
        module, attribute = maker.split(":")
        maker = getattr(import_module(module), attribute)
    return as_agent(maker(**options))


def __getattr__(name: str) -> Any:
    if name == "HFStudent":  # needs torch: loaded on first use
        from steer_env.agents.hf.student import HFStudent

        return HFStudent
    if name == "HFAttacker":
        from steer_env.agents.hf.attacker import HFAttacker

        return HFAttacker
    raise AttributeError(f"module 'steer_env.agents' has no attribute {name!r}")
