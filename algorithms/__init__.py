"""Learning algorithms and the functions they are made of.

`train` is the door to reinforcement learning: it takes any of the `presets` of the policy gradient (GRPO and
its relatives) or another registered algorithm. `sft` is supervised fine-tuning on the student's tokens,
`bootstrap` makes the dialogues that a first student imitates, and `recipes` puts the three together as the
demo does. `advantages` and `losses` are pure functions to build other methods from; `checkpoints` keeps
a run resumable. Needs the extra `train` (torch, transformers).
"""

if __name__ != "steer_env.algorithms":
    raise ImportError(
        "import steer_env.algorithms: this folder is mapped into the package, not a top-level one"
    )

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steer_env.algorithms.base import make_algorithm
    from steer_env.algorithms.trainer import train
    from steer_env.configs.train import Scaling, TrainConfig

__all__ = ["Scaling", "TrainConfig", "make_algorithm", "train"]

_HOMES = {
    "Scaling": "configs.train",
    "TrainConfig": "configs.train",
    "make_algorithm": "algorithms.base",
    "train": "algorithms.trainer",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:  # they need torch: loaded on first use
        return getattr(import_module(f"steer_env.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'steer_env.algorithms' has no attribute {name!r}")
