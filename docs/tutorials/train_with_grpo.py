"""
Train with GRPO
===============

Three steps of multi-turn GRPO on the tiny student that comes with the package. Three steps show how it works and no more;
``make demo`` takes 24 of five times the size and measures the result (:doc:`what it gives </demo>`).
"""

# %%
# A student, an environment, an attacker
# --------------------------------------
import tempfile
from pathlib import Path

import torch

import steer_env
from steer_env.agents import HFStudent, make_agent
from steer_env.algorithms import TrainConfig, train

torch.set_num_threads(1)
student = HFStudent.from_pretrained("tiny-sft", max_new_tokens=48)
vec = steer_env.make_vec("SteerEscalation-v0", num_envs=16, max_turns=3)

# %%
# Train
# -----
# Each step plays ``group_size`` dialogues from each of ``seeds_per_step`` seeds. The members of a group meet the same attacks, and every turn
# is held against the same turn of its siblings. Rewards are TCSR (:doc:`/concepts`).
out = Path(tempfile.mkdtemp()) / "run"
config = TrainConfig(steps=3, seeds_per_step=4, group_size=4, unscored_limit=0.25)
rows = train(vec, make_agent("tutor"), student, "grpo", config, out)

# %%
# What a run leaves behind
# ------------------------
# ``metrics.jsonl`` has a line per step, ``checkpoints`` what ``--resume`` goes on from, ``model`` an ordinary Hugging Face folder.
import json

for line in (out / "metrics.jsonl").read_text().splitlines():
    step = json.loads(line)
    print({key: step[key] for key in ("step", "return_per_turn", "safety", "usefulness", "unscored")})
print(sorted(path.name for path in out.iterdir()))

# %%
# The same from a shell, then tested on held-out dialogues::
#
#     steer-env train --student hf:tiny-sft --steps 5 --out runs/first
#     steer-env evaluate runs/first --out runs/first-eval
#
# Other algorithms have other names (``rloo``, ``ppo``, ``constrained_grpo``, ...), see :doc:`/algorithms`.
