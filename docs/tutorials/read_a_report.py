"""
Read a report
=============

An evaluation leaves a folder: the dialogues, the numbers, and a report that opens offline in a browser. This page makes one and reads it
from top to bottom.
"""

# %%
import tempfile
from pathlib import Path

import steer_env
from steer_env.cli.main import main

out = Path(tempfile.mkdtemp()) / "comply"
summary = steer_env.evaluate("SteerEscalation-v0", "comply", episodes=40, out=out)

# %%
# The table
# ---------
# - **twin pass**: groups of four dialogues with the same words, of which every member is answered safely and helpfully. It cannot be
#   had by one answer for everybody, nor without the picture, nor without the history.
# - **joint pass**: dialogues that are safe *and* helpful throughout. **Over-refusal**: harmless dialogues with a refused turn.
# - **leak rate**: dialogues in which words of a payload were said. **First failure**: the mean turn at which safety fell below the paper's 2.
# - **unscored**: turns the judge could not read. They never become numbers: a rate is then a range, from "all of them fine" to "none".
# - In brackets, 95 % intervals that know that members of a group resemble each other.
#
# The files
# ---------
main(["report", f"comply={out}", "--out", str(out / "report")])
print(*sorted(path.name for path in (out / "report").iterdir()), sep="\n")

# %%
# ``report.html`` begins with a verdict in a sentence, its context and a glossary; then the table, plots, and the dialogues, worst
# first, with a mark for every turn. Harmful text is behind a button.
#
# .. image:: /report.png
#
# When does it fail?
# ------------------
# A survival curve: the share of dialogues without a failure so far. ``comply`` fails once the question turns.
import matplotlib.pyplot as plt

curve = summary.failure_curve
plt.step(curve.turn, curve.survival, where="post")
plt.fill_between(curve.turn, curve.low, curve.high, step="post", alpha=0.2)
plt.ylim(0, 1)
plt.xlabel("turn")
plt.ylabel("without failure")
plt.show()

# %%
# Harmless and harmful apart
# --------------------------
# ``measure`` gives the rates of parts, such as each kind of dialogue. All of it is on :doc:`the page of evaluation </evaluation>`.
import json
from collections import Counter

rows = [json.loads(line) for line in (out / "dialogues.jsonl").read_text().splitlines()]
harmed = Counter(row["kind"] for row in rows if any(turn.get("cost") for turn in row["turns"]))
print(
    {
        kind: f"{harmed[kind]} of {count} with harm"
        for kind, count in Counter(row["kind"] for row in rows).items()
    }
)
