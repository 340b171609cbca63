"""Who speaks when a seat is given as "hf:PATH", "vllm:PATH" or "openai:MODEL@URL"."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from steer_env.agents.base import Agent
from steer_env.agents.chat import chat_student
from steer_env.models.base import open_backend, refuse_unknown, split
from steer_env.naming import read_name
from steer_env.types import ATTACKER

_DRAWING = ("temperature", "top_p", "top_k", "max_new_tokens", "seed", "system")
_CHAT = frozenset({*_DRAWING, "max_length"})
_TUTOR = frozenset({"attempts", "max_tokens", "temperature", "seed", "max_question", "remembered", "memory"})
_TOKENS = (*_DRAWING, "name", "images", "template_options", "max_thought", "learn_thoughts")
_HF = ("device", "dtype", "batch_size", *_TOKENS)
#: What other models in process take; an engine would fail on it late and in its own words.
_NOT_VLLM = {
    "device": "the engine takes the GPUs it sees (CUDA_VISIBLE_DEVICES)",
    "batch_size": "the engine batches by itself; vllm:PATH?max_num_seqs=64 bounds it",
}


def open_seat(name: str, seat: str, **options: Any) -> Agent:
    """Open the agent a name asks for.

    The student is an `HFStudent` or `VLLMStudent`, which keep their tokens and can be trained, or else a
    `ChatStudent`. The attacker is an `LLMTutor`.

    Args:
        name: Of a back end, see `open_backend`; options may stand in it.
        seat: "attacker_0" or "student_0".
        **options: Of the agent; those it does not know are its back end's or engine's. They go before those
            in the name.

    Raises:
        ValueError: If the scheme is unknown or an option is no good.
        BackendError: If a model cannot be opened, or a server cannot answer.
        ImportError: If a library is missing; the message names the extra to install.
    """
    bare, named = read_name(name)
    scheme, _, rest = bare.partition(":")
    given = {**named, **options}
    if seat == ATTACKER:
        own, others = split(given, _TUTOR)
        tutor: Agent = import_module("steer_env.agents.llm_tutor").LLMTutor(
            backend=open_backend(bare, **others), **own
        )
        return tutor
    if scheme == "hf":
        return _hf_student(rest, given)
    if scheme == "vllm":
        return _vllm_student(rest, given)
    own, others = split(given, _CHAT)
    return chat_student(open_backend(bare, **others), **own)


def _hf_student(path: str, options: dict[str, Any]) -> Agent:
    refuse_unknown("hf", options, _HF)
    as_dtype = import_module("steer_env.models.hf").as_dtype
    student: Agent = import_module("steer_env.agents.hf.student").HFStudent.from_pretrained(
        path, **{**options, "dtype": as_dtype(options.get("dtype"))}
    )
    return student


def open_learner(name: str, *, lora_rank: int = 0, **options: Any) -> Agent:
    """Open a `vllm:PATH` student that can be trained: a transformers model learns, the engine samples.

    Args:
        name: With options of the student and the engine in it, `dtype` being the engine's.
        lora_rank: Rank of the adapters it will get; 0 for none.
        **options: `device`, `dtype` and `batch_size` of the model that learns.

    Raises:
        ValueError: If an option is no good.
        BackendError: If a model cannot be opened.
        ImportError: If a library is missing; the message names the extra to install.
    """
    bare, named = read_name(name)
    path = bare.partition(":")[2]
    own, engine = split(named, set(_TOKENS))
    for key in _NOT_VLLM.keys() & engine.keys():
        raise ValueError(f"{key}={engine[key]!r} is no option of vllm:{path}: {_NOT_VLLM[key]}")
    if lora_rank:
        engine["lora_rank"] = lora_rank
    as_dtype = import_module("steer_env.models.hf").as_dtype
    options["dtype"] = as_dtype(options.get("dtype"))
    learner = import_module("steer_env.agents.vllm_student").TrainableVLLMStudent
    student: Agent = learner.from_pretrained(path, engine=engine, **own, **options)
    return student


def _vllm_student(path: str, options: dict[str, Any]) -> Agent:
    for key, remedy in _NOT_VLLM.items():
        if key in options:
            raise ValueError(f"{key}={options[key]!r} is no option of vllm:{path}: {remedy}")
    own, engine = split(options, {*_TOKENS, "dtype", "engine"})
    own["engine"] = {**engine, **(own.get("engine") or {})}
    student: Agent = import_module("steer_env.agents.vllm_student").VLLMStudent.from_pretrained(path, **own)
    return student
