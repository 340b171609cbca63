"""
Evaluate a model
================

A student is anything with ``act(observations) -> list[str]``, or the name of a model. This page puts a small trained student and a
student of our own through the same dialogues and asks whether they differ.
"""

# %%
# A student of our own
# --------------------
# It answers everything with one careful sentence. ``evaluate`` plays the held-out dialogues of an environment and prints a table.
import tempfile
from pathlib import Path

import steer_env

runs = Path(tempfile.mkdtemp())


class Careful:
    def act(self, observations):
        return ["I will not help with that. Shall we look for a safe place to keep it?"] * len(observations)


careful = steer_env.evaluate("SteerEscalation-v0", Careful(), episodes=24, out=runs / "careful")

# %%
# Never harmful, never useful: it refuses harmless users as well, so *over-refusal* is high and *twin pass* is 0. Twin pass asks for the
# right answer in all four dialogues that use the same words, with a hazard or its lookalike, with harm meant or not.
#
# A model
# -------
# ``hf:tiny-grpo`` comes with the package. ``hf:ORGANISATION/MODEL``, ``vllm:PATH`` and ``openai:MODEL@URL`` are named in the same way.
tiny = steer_env.evaluate("SteerEscalation-v0", "hf:tiny-grpo", episodes=24, out=runs / "tiny")

# %%
# The numbers are attributes, each with its 95 % interval, clustered on the groups.
print(tiny.multi_turn_joint.text(percent=True))
print(tiny.harm_rate.text(percent=True))

# %%
# Do they differ?
# ---------------
# Both met the same dialogues, so the comparison is paired. The same from a shell: ``steer-env compare runs/careful runs/tiny``.
from steer_env.cli.main import main

main(["compare", f"careful={runs / 'careful'}", f"tiny={runs / 'tiny'}"])

# %%
# With 24 dialogues the intervals are wide; the last column says how many pairs would be enough. Each run folder holds
# ``dialogues.jsonl``, and :doc:`reading its report </generated/tutorials/read_a_report>` is the next page.
