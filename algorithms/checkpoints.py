"""What is on disk of a training run: its settings, and checkpoints written whole or not at all.

A checkpoint is a folder `checkpoints/step_000012` with an ordinary Hugging Face model in it (so that any step
can be evaluated or served) and the optimiser, random states, attacker memory and counters beside it. That
file is read with torch's weights-only reader, which runs no code from it, so an attacker's memory must be
made of plain values and tensors. A mean of the weights over the steps (`Average`) is a model folder of its
own in it.
"""

from __future__ import annotations

import io
import pickle
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_env.agents.base import Agent
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.base import Algorithm, algorithm_class
from steer_env.algorithms.curriculum import Curriculum
from steer_env.algorithms.forward import has_adapters, load_adapters
from steer_env.configs.train import Scaling, TrainConfig
from steer_env.files import remove_tree, replacing, replacing_folder
from steer_env.models import tiny
from steer_env.play.evaluate import judge_of
from steer_env.records import Row, keep_rows
from steer_env.runs import RunFolder
from steer_env.vector import VectorDialogueEnv
from steer_env.versions import versions_in, versions_of

#: File of a run folder with the settings of the loop.
CONFIG: Final = "config.json"
#: Folder of the averaged weights, in a checkpoint.
AVERAGE: Final = "average"
_STATE: Final = "training_state.pt"
#: Settings that may change without changing what was computed.
_FREE: Final = {"steps", "checkpoint_every", "microbatch_size", "microbatch_tokens"}


# -- settings ---------------------------------------------------------------------------------------------


def settings_of(
    algorithm: Algorithm, config: TrainConfig, scaling: Scaling, env: VectorDialogueEnv | Curriculum
) -> Row:
    """Return the settings of a run by name, as its config.json holds them."""
    settings = {"algorithm": algorithm.name, **asdict(config), **algorithm.options(), **asdict(scaling)}
    if isinstance(env, Curriculum):
        settings["curriculum"] = env.describe()
    # Rewards of another world or judge are other rewards.
    return settings | versions_of(judge_of(env.env if isinstance(env, Curriculum) else env))


def check_run(run_dir: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Refuse to overwrite a run, or to go on with one that was started with other settings.

    Raises:
        RunExists: In either case.
    """
    run = RunFolder(run_dir, CONFIG)
    old = run.stored()
    old |= versions_in(old)
    # Runs from before a setting existed had its default.
    then = {key: old.get(key, _default(settings, key)) for key in settings}
    free = _FREE - {"steps"} if _decided_by_steps(settings) else _FREE
    run.check(settings, resume=resume, free=free, stored=then)


def _decided_by_steps(settings: Mapping[str, Any]) -> bool:
    """Whether earlier steps would have gone otherwise with another number of steps."""
    return settings.get("lr_schedule", "constant") != "constant" or settings.get("average") == "tail"


def _default(settings: Mapping[str, Any], key: str) -> Any:
    for owner in (algorithm_class(settings["algorithm"]), Scaling, TrainConfig):
        for field in fields(owner):
            if field.name == key and field.default is not MISSING:
                return field.default
    return None


# -- checkpoints ------------------------------------------------------------------------------------------


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
        *parts: Arguments of `load_checkpoint`.

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

    Damaged ones before it are removed: the next save would put them in the place of the good one.

    Raises:
        ValueError: If there are some and none can be read.
    """
    problems = []
    for path in paths:
        if not path.exists():
            continue
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
            for damaged in paths[: paths.index(path)]:
                damaged.unlink(missing_ok=True)
            return state
        except Exception as error:  # what torn bytes raise is anybody's guess
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            problems.append(f"{path} cannot be read ({reason})")
            warnings.warn(f"{problems[-1]}; looking for the one before it", stacklevel=2)
    if problems:
        raise ValueError(f"{'; '.join(problems)}; restore it, or remove it to start from the first step")
    return None


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a state whole or not at all."""
    with replacing(path) as part:
        torch.save(dict(state), part)


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


class Average:
    r"""Running mean of a model's weights that take gradients, often a better model than the last step's.

    Policy gradients leave the weights jumping around where they ought to settle; a mean takes that noise out
    at the price of a copy (Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407; for language
    models with rewards Rame et al. 2024, arXiv 2406.16768). The newest weights have the share $1/n$ in the
    mean of $n$ ("tail", over the second half of the steps), or $\max(1/n, 1 - decay)$ ("ema": the plain mean
    until there are enough).

    Attributes:
        count: $n$, how many weights are in it.
    """

    def __init__(self, model: nn.Module, kind: str, decay: float, steps: int) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._least = 1.0 - decay if kind == "ema" else 0.0
        self._from = 0 if kind == "ema" else steps // 2
        self._means: list[Tensor] = []
        self.count = 0

    @torch.no_grad()
    def take(self, step: int) -> None:
        """Take the weights after a step, counted from 0."""
        if step < self._from:
            return
        self.count += 1
        if self.count == 1:
            self._means = [p.detach().clone() for p in self._parameters]
            return
        share = max(1.0 / self.count, self._least)
        for mean, p in zip(self._means, self._parameters, strict=True):
            mean.mul_(1.0 - share).add_(p, alpha=share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the model carry the mean for a while; its own weights where there is none yet."""
        own = [p.detach().clone() for p in self._parameters] if self.count else []
        self._put(self._means)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for p, value in zip(self._parameters, values, strict=False):
            p.copy_(value)

    def adopt(self) -> None:
        """Take the weights that the model has now for the mean, as they come from a checkpoint."""
        self._means = [p.detach().clone() for p in self._parameters]

    def state_dict(self) -> dict[str, Any]:
        """Return the count; the mean is a model folder of its own in a checkpoint."""
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the count back."""
        self.count = int(state["count"])
