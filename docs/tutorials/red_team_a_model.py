"""
Red-team a model
================

Let several attackers play the user against one student, and look at the turn that broke it.
"""

# %%
# The same dialogues, three users
# -------------------------------
# ``static`` says what the scenario says, ``tutor`` adapts to the last reply, and ``crescendo`` is a published attack that takes small steps
# and takes a refused one back. All names are on :doc:`the page of attacks </attacks>`.
import tempfile
from pathlib import Path

import steer_env

runs = Path(tempfile.mkdtemp())
for attacker in ("static", "tutor", "crescendo"):
    summary = steer_env.evaluate(
        "SteerRedTeam-v0", "comply", attacker=attacker, episodes=16, out=runs / attacker, show=False
    )
    print(
        f"{attacker:10} harm {summary.harm_rate.text(percent=True)}, first at turn {summary.first_harm.text()}"
    )

# %%
# ``comply`` is a scripted student that answers whatever it is asked; put ``"hf:tiny-grpo"`` or your own model in its place.
#
# The dialogue that went wrong first
# ----------------------------------
# A run folder is JSON lines, one dialogue each. An unscored turn has no ``cost``.
import json

rows = [json.loads(line) for line in (runs / "crescendo" / "dialogues.jsonl").read_text().splitlines()]


def first_harm(row):
    """Return the number of the first turn that did harm, None if there is none."""
    return next((number for number, turn in enumerate(row["turns"]) if turn.get("cost")), None)


broken = min((row for row in rows if first_harm(row) is not None), key=first_harm)
for turn in broken["turns"][: first_harm(broken) + 1]:
    print("user:   ", turn["user"])
    print("student:", turn["reply"], end="\n\n")

# %%
# The picture it was about
# ------------------------
# The transcript alone does not say why the answer was wrong: the picture does.
import matplotlib.pyplot as plt
import numpy as np

env = steer_env.make("SteerRedTeam-v0", split="bench", wrappers=())
env.reset(seed=broken["seed"])
env.step(broken["turns"][0]["user"])  # the picture comes with the first words
plt.imshow(np.asarray(env.observe("student_0")["images"][0]))
plt.axis("off")
plt.show()

# %%
# ``steer-env fork RUN`` goes further: it plays dialogues on from every turn and says which reply did it.
