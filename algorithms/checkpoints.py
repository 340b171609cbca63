"""Checkpoints that hold everything a run needs to go on, written whole or not at all.

A checkpoint is a folder `checkpoints/step_000012` with an ordinary Hugging Face model in it (so that any step
can be evaluated or served) and the optimiser, random states, attacker memory and counters beside it. That
file is read with torch's weights-only reader, which runs no code from it, so an attacker's memory must be
made of plain values and tensors.
"""

from __future__ import annotations

import io
import pickle
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from transformers import PreTrainedModel

from steer_env.agents.base import Agent
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.averaging import Average
from steer_env.algorithms.scaling import has_adapters, load_adapters
from steer_env.files import remove_tree, replacing_folder
from steer_env.models import tiny
from steer_env.records import keep_rows

_STATE = "training_state.pt"
#: Folder of the averaged weights, in a checkpoint.
AVERAGE: Final = "average"


class Stateful(Protocol):
    """A part of a run with a state of plain values and tensors."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the state back."""
        ...


def save_checkpoint(
    run_dir: Path,
    step: int,
    student: HFStudent,
    optimizer: torch.optim.Optimizer,
    attacker: Agent,
    keep: int = 2,
    parts: Mapping[str, Stateful] | None = None,
    average: Average | None = None,
) -> Path:
    """Write a checkpoint after `step` finished steps and remove all but the last `keep`.

    A student with LoRA adapters is saved as a peft adapter folder. `parts` are further parts of the run with
    a state, by name. An `average` of the weights becomes a model folder in it.

    The folder appears under its name only when it is complete.

    Raises:
        TypeError: If the attacker's memory could not be read back.
    """
    folder = run_dir / "checkpoints" / f"step_{step:06d}"
    with replacing_folder(folder) as partial:
        student.save(partial)
        if average is not None and average.count:
            with average.applied():
                student.save(partial / AVERAGE)
        state = {
            "step": step,
            "optimizer": optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "attacker": attacker_state(attacker),
            "parts": {name: part.state_dict() for name, part in (parts or {}).items()},
        }
        torch.save(state, partial / _STATE)
    for old in checkpoints(run_dir)[:-keep]:
        remove_tree(old)
    return folder


def attacker_state(attacker: Agent) -> Any:
    """Return an attacker's memory as a checkpoint holds it, {} if it has none.

    Raises:
        TypeError: If it is not made of plain values and tensors; a checkpoint with it could not be opened.
    """
    state = attacker.state_dict()
    written = io.BytesIO()
    try:
        torch.save(state, written)
        written.seek(0)
        torch.load(written, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError) as error:
        name = type(getattr(attacker, "own", attacker)).__name__
        raise TypeError(
            f"{name}.state_dict() returned {state!r:.200}, expected dicts, lists, "
            "strings, numbers and tensors only; convert other objects there and in load_state_dict()"
        ) from error
    return state


def checkpoints(run_dir: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    return sorted((run_dir / "checkpoints").glob("step_*"))


def load_newest(run_dir: Path, *parts: Any) -> int:
    """Put the newest checkpoint that can be read into the parts of a run; returns its finished steps.

    A damaged one is left where it is, with a warning; the one before it takes its place.

    Args:
        run_dir: The run folder.
        *parts: Of `load_checkpoint`.

    Raises:
        ValueError: If there are checkpoints and none can be read.
    """
    found = checkpoints(run_dir)
    problems = []
    for folder in reversed(found):
        try:
            return load_checkpoint(folder, *parts)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except Exception as error:  # torch, safetensors, json and pickle each have errors of their own
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            problems.append(f"{folder} cannot be read ({reason})")
            warnings.warn(f"{problems[-1]}; going on with the checkpoint before it", stacklevel=2)
    if problems:
        raise ValueError(
            f"no checkpoint can be read, expected one: {'; '.join(problems)}. Restore one, or remove "
            "them all to start from the first step"
        )
    return 0


def load_state(*paths: Path) -> dict[str, Any] | None:
    """Return the state in the first of these files that can be read; None if none of them is there.

    Raises:
        ValueError: If there are some and none can be read.
    """
    problems = []
    for path in paths:
        if not path.exists():
            continue
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
            return state
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, ValueError, KeyError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            problems.append(f"{path} cannot be read ({reason})")
            warnings.warn(f"{problems[-1]}; looking for the one before it", stacklevel=2)
    if problems:
        raise ValueError(f"{'; '.join(problems)}; restore it, or remove it to start from the first step")
    return None


def load_checkpoint(
    folder: Path,
    student: HFStudent,
    optimizer: torch.optim.Optimizer,
    attacker: Agent,
    parts: Mapping[str, Stateful] | None = None,
    average: Average | None = None,
) -> int:
    """Put a checkpoint's state into the parts of a run; returns the number of finished steps."""
    state = torch.load(folder / _STATE, weights_only=True, map_location="cpu")
    if average is not None and (folder / AVERAGE).exists():
        load_weights(folder / AVERAGE, student.model)
        average.adopt()
    load_weights(folder, student.model)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["torch_rng"])
    if state["attacker"]:
        attacker.load_state_dict(state["attacker"])
    stored = state.get("parts", {})  # checkpoints of earlier versions have none
    for name, part in (parts or {}).items():
        if name in stored:
            part.load_state_dict(stored[name])
    student.weights_changed()
    return int(state["step"])


def load_weights(folder: Path, model: PreTrainedModel) -> None:
    """Put a checkpoint's weights, or its adapters, into a model."""
    if has_adapters(model):
        load_adapters(model, folder)
    else:
        with tiny.no_bars():
            saved = type(model).from_pretrained(folder, dtype=model.dtype)
        model.load_state_dict(saved.state_dict())


def drop_rows_from(path: Path, step: int) -> None:
    """Cut a JSON-lines file at the first row of `step` or later; a torn last line goes as well."""
    keep_rows(path, lambda row: bool(row["step"] < step))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is through, so that weights and files stay consistent."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if held:
            raise KeyboardInterrupt
