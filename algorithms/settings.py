"""Settings of a training run: how they are checked, and how `config.json` keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, Final

from steer_env.algorithms.base import Algorithm
from steer_env.algorithms.curriculum import Curriculum
from steer_env.algorithms.scaling import Scaling
from steer_env.configs.train import ScalingConfig, TrainConfig
from steer_env.play.evaluate import judge_of
from steer_env.records import Row
from steer_env.runs import RunFolder
from steer_env.vector import VectorDialogueEnv
from steer_env.versions import versions_in, versions_of

#: File of a run folder with the settings of the loop.
CONFIG: Final = "config.json"

#: These may change without changing what was computed.
_FREE = {"steps", "checkpoint_every", "microbatch_size", "microbatch_tokens"}


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
    from steer_env.algorithms.base import algorithm_class

    for owner in (algorithm_class(settings["algorithm"]), ScalingConfig, TrainConfig):
        for field in fields(owner):
            if field.name == key and field.default is not MISSING:
                return field.default
    return None
