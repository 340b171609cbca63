"""Who speaks when a seat is given as "hf:PATH", "vllm:PATH" or "openai:MODEL@URL"."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from steer_env.agents.backends.base import open_backend
from steer_env.agents.backends.student import chat_student
from steer_env.agents.base import Agent
from steer_env.types import ATTACKER

_STUDENT_OPTIONS = frozenset({"system", "temperature", "max_new_tokens", "seed", "max_length"})


def open_seat(name: str, seat: str, **options: Any) -> Agent:
    """Open the agent a name asks for.

    The student is an `HFStudent` or `VLLMStudent`, which keep their tokens and can be trained, or else a
    `ChatStudent`. The attacker is an `LLMTutor`.

    Args:
        name: Of a back end, see `open_backend`.
        seat: "attacker_0" or "student_0".
        **options: Of the agent; those a `ChatStudent` does not know are its back end's.

    Raises:
        ValueError: If the scheme is unknown or an option is no good.
        BackendError: If a server cannot answer.
        ImportError: If a library is missing; the message names the extra to install.
    """
    scheme, _, rest = name.partition(":")
    if seat == ATTACKER:
        backend = open_backend(name)
        tutor: Agent = import_module("steer_env.agents.llm_tutor").LLMTutor(backend=backend, **options)
        return tutor
    if scheme == "hf":
        student: Agent = import_module("steer_env.agents.hf.student").HFStudent.from_pretrained(
            rest, **options
        )
        return student
    if scheme == "vllm":
        engine = import_module("steer_env.agents.backends.vllm_student").VLLMStudent
        sampler: Agent = engine.from_pretrained(rest, **options)
        return sampler
    own = {key: value for key, value in options.items() if key in _STUDENT_OPTIONS}
    backend = open_backend(name, **{key: value for key, value in options.items() if key not in own})
    return chat_student(backend, **own)
