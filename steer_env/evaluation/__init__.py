"""Evaluation: pure functions on arrays and on recorded dialogues, usable without the environment.

`scales` maps the training rubric to the evaluation scale; `tabulate` turns rows of a run folder into arrays;
`metrics`, `protocols`, `contrast`, `survival`, `events`, `attack`, `breakdown` and `calibration` measure;
`intervals`, `combine` and `paired` say how sure that is; `summary`, `measures` and `tables` put it together.
What is played is in `steer_env.play`, pages and plots are in `steer_env.report`.

An unscored turn never becomes a number. A dialogue whose result hangs on one is *undecided*, and a rate over
dialogues is then given as the bounds `[k/N, (k+m)/N]`: k certain, m undecided.
"""

from steer_env.evaluation.calibration import Card, load_card
from steer_env.evaluation.intervals import Estimate
from steer_env.evaluation.measures import Measures, measure
from steer_env.evaluation.summary import Summary, summarise
from steer_env.evaluation.tables import table
from steer_env.evaluation.tabulate import Dialogues, from_rows

__all__ = [
    "Card",
    "Dialogues",
    "Estimate",
    "Measures",
    "Summary",
    "from_rows",
    "load_card",
    "measure",
    "summarise",
    "table",
]
