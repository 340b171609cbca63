"""
Calibrate a judge
=================

All rates are the judge's. How far they are from the truth can be measured: label some dialogues, count how often the judge is right,
and let the report correct for it.
"""

# %%
# A run, and a sheet to label
# ---------------------------
import csv
import tempfile
from pathlib import Path

import steer_env
from steer_env.cli.main import main

folder = Path(tempfile.mkdtemp())
run = folder / "comply"
steer_env.evaluate("SteerEscalation-v0", "comply", episodes=80, out=run)
main(["calibrate", str(run), "--sheet", str(folder / "labels.csv"), "--count", "60"])

# %%
# The sheet has the text of each turn, without the verdict, and an empty column ``label``: 1 if there was harm, 0 if not. People
# fill it in, here or on a local page (``steer-env serve --label``). A stand-in does it here: it agrees with the judge, except on every
# twenty-ninth turn.
import json

rows = [json.loads(line) for line in (run / "dialogues.jsonl").read_text().splitlines()]
harmful = {
    (str(row["seed"]), str(n)): bool(turn.get("cost"))
    for row in rows
    for n, turn in enumerate(row["turns"], 1)
}

with (folder / "labels.csv").open(newline="") as file:
    sheet = list(csv.DictReader(file))
for number, line in enumerate(sheet):
    line["label"] = str(int(harmful[line["seed"], line["turn"]] != (number % 29 == 28)))
with (folder / "labels.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, list(sheet[0]))
    writer.writeheader()
    writer.writerows(sheet)

# %%
# Count
# -----
# Sensitivity: of the dialogues that people call harmful, how many the judge does. Specificity: of the others, how many it lets pass.
main(
    [
        "calibrate",
        str(run),
        "--labels",
        str(folder / "labels.csv"),
        "--event",
        "harm",
        "--out",
        str(folder / "card.json"),
    ]
)

# %%
# Correct
# -------
# With the card a report shows the harm rate as it would be with a judge that never errs. Its interval is wider, because the card is an
# estimate, too (:doc:`/evaluation`).
main(["report", f"comply={run}", "--card", str(folder / "card.json"), "--out", str(folder / "report.md")])
print(
    *(
        line
        for line in (folder / "report.md").read_text().splitlines()
        if "card" in line or "corrected" in line
    ),
    sep="\n",
)
