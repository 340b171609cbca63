"""Multi-turn, visual-text safety environments for multimodal dialogue models.

    import steer_env
    env = steer_env.make("SteerEscalation-v0")

Importing registers the environment ids with PettingZoo and Gymnasium and loads neither torch nor a model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from steer_env.ids import env_ids, spec
from steer_env.registration import (
    make,
    make_attacker,
    make_student_env,
    make_student_vec,
    make_vec,
    register,
    register_all,
)

if TYPE_CHECKING:
    from steer_env import agents as agents
    from steer_env import algorithms as algorithms
    from steer_env import evaluation as evaluation
    from steer_env import judges as judges
    from steer_env import testing as testing
    from steer_env import wrappers as wrappers
    from steer_env.agents import make_agent
    from steer_env.drawing import PictureAct
    from steer_env.env import DialogueEnv, InvalidUtterance, ResetNeeded
    from steer_env.images import Image, ImageError
    from steer_env.play.short import evaluate
    from steer_env.scenario_files import load_scenarios
    from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
    from steer_env.types import Message, Scored, Terms, Turn, Unscored, Utterance

__version__ = "0.2.0"

#: Rooms that are there after `import steer_env`, loaded on first use: some need torch.
_ROOMS = ("agents", "algorithms", "evaluation", "judges", "testing", "wrappers")
#: Name -> the module that has it, loaded on first use as well.
_LAZY = {
    "evaluate": "play.short",
    "make_agent": "agents",
    "DialogueEnv": "env",
    "InvalidUtterance": "env",
    "ResetNeeded": "env",
    "PictureAct": "drawing",
    "Image": "images",
    "ImageError": "images",
    "load_scenarios": "scenario_files",
    "FixedScenarios": "scenarios",
    "Scenario": "scenarios",
    "DraftTurn": "scenarios",
    "Message": "types",
    "Scored": "types",
    "Terms": "types",
    "Turn": "types",
    "Unscored": "types",
    "Utterance": "types",
}

__all__ = [
    "DialogueEnv",
    "DraftTurn",
    "FixedScenarios",
    "Image",
    "ImageError",
    "InvalidUtterance",
    "Message",
    "PictureAct",
    "ResetNeeded",
    "Scenario",
    "Scored",
    "Terms",
    "Turn",
    "Unscored",
    "Utterance",
    "env_ids",
    "evaluate",
    "load_scenarios",
    "make",
    "make_agent",
    "make_attacker",
    "make_student_env",
    "make_student_vec",
    "make_vec",
    "register",
    "spec",
]

register_all()


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"steer_env.{name}")
    if name in _LAZY:
        value = getattr(importlib.import_module(f"steer_env.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'steer_env' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_ROOMS})
