"""Run by `test_parallel` in two processes: trains cases as replicas, then fails in one."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from steer_env.agents.hf import HFStudent
from steer_env.algorithms import update
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.parallel import Replicas
from steer_env.algorithms.trainer import TrainConfig, train
from steer_env.cli import main
from steer_env.cli import train as command
from steer_env.configs.train import Scaling
from steer_env.models.tiny import TinyConfig, build
from steer_env.vector import VectorDialogueEnv

# Five dialogues and then one: two processes have three passes between them, then one.
CONFIG = TrainConfig(
    steps=2, seeds_per_step=3, group_size=2, lr=1e-4, max_new_tokens=4, minibatch_size=5, microbatch_size=2,
    checkpoint_every=2, seed=3, unscored_limit=1.0,
)  # fmt: skip
#: What else a run can keep: averaged weights, evaluations and their best step.
KEPT = dict(lr_schedule="linear", average="ema", eval_every=1, eval_dialogues=3, final_weights="best")
#: Name -> algorithm, options, scaling, settings. The toy scenarios repeat and have no pictures.
CASES = {
    "grpo": ("grpo", {}, Scaling(gradient_checkpointing=True), {}),
    "ppo": ("ppo", {}, Scaling(), {"target_kl": 1e-12}),
    "lora": ("constrained_grpo", {"limit": 0.2}, Scaling(lora_rank=2), KEPT),
    "reinforce": ("reinforce", {"beta": 0.0, "aggregation": "sequence"}, Scaling(), KEPT),
}


def run(case, folder, parallel=None):
    """Train one case; returns the rows of metrics and how many dialogues the attacker learnt from."""
    sys.path.append(str(Path(__file__).parents[1]))  # it runs as a script, too
    from kit import training as toys

    name, options, scaling, settings = CASES[case]
    shape = TinyConfig(
        vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
    )
    student, learner, judge = HFStudent(*build(["say e"], shape)), toys.Learner(), toys.LetterJudge()
    env = VectorDialogueEnv([lambda: toys.Rewarded(toys.SCENARIOS, judge)] * 8)
    # As if the sampler were off: the policy before the update is computed anew, by all processes together.
    with mock.patch.object(update, "AGREED", -1.0):
        rows = train(
            env, learner, student, make_algorithm(name, **options), replace(CONFIG, **settings), folder,
            scaling=scaling, parallel=parallel,
        )  # fmt: skip
    return rows, learner.dialogues


def main_here(folder):
    for case in CASES:
        rows, learnt = run(case, folder / case, Replicas(torch.device("cpu")))
        told = {"rows": rows, "learnt": learnt}
        (folder / f"{case}-{os.environ['RANK']}.json").write_text(json.dumps(told))
    command._run = _wait_or_fail
    return main.main(["train"])


def _wait_or_fail(args):
    if os.environ["RANK"] == "1":
        raise ValueError("disk=0, expected some")
    Replicas(torch.device("cpu")).wait()  # for the process that failed


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main_here(Path(sys.argv[1])))
