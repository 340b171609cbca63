"""From people's labels to calibration cards: how often a judge is right, and how far people agree.

Two steps. `write_sheet` draws turns of a run at random into a CSV file with an empty column `label`; people
fill it in, one line per turn and annotator. `calibrate` joins the labels with the judge's verdicts in the run
and counts: one card over all, one per stratum, and Krippendorff's alpha between the annotators.

The unit is the dialogue (the event happened in one of its turns, all of which are labelled) or the turn. The
sample is drawn at random from all of them and never by what the judge said: a sample balanced on the judge's
verdict would give precision, not sensitivity and specificity.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from steer_env.evaluation import scales
from steer_env.evaluation.calibration import EVENTS, UNITS, Card
from steer_env.evaluation.intervals import Estimate, percentile_interval, unavailable
from steer_env.evaluation.tabulate import Dialogues, from_rows
from steer_env.extras import need
from steer_env.files import cell
from steer_env.records import Row

COLUMNS: Final = ("seed", "turn", "annotator", "label", "user", "reply")
_WORDS: Final = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}

#: A turn of a run: (seed, turn counted from 1).
Unit = tuple[int, int]


@dataclass(frozen=True)
class Labels:
    """What people said.

    Attributes:
        votes: Turn -> annotator -> whether the event happened.
    """

    votes: Mapping[Unit, Mapping[str, bool]]

    def truth(self) -> dict[Unit, bool]:
        """Return the majority's label of each turn; ties are left out."""
        counted = {unit: Counter(said.values()) for unit, said in self.votes.items()}
        return {unit: c[True] > c[False] for unit, c in counted.items() if c[True] != c[False]}


@dataclass(frozen=True)
class Calibration:
    """A judge held against people.

    Attributes:
        card: Over all labelled units, None where one class is missing.
        strata: Level of the stratum -> its card; levels with one class only are left out.
        alpha: Krippendorff's alpha between annotators, nominal, with a bootstrap interval over turns.
        labelled: Turns with at least one label.
        ties: Turns on which annotators are split evenly; they count for alpha only.
        unscored: Labelled units the judge gave no verdict on; they count for alpha only.
        missing: Why a card is missing, level -> reason.
    """

    card: Card | None
    strata: Mapping[str, Card]
    alpha: Estimate
    labelled: int
    ties: int
    unscored: int
    missing: Mapping[str, str]


def write_sheet(
    rows: Sequence[Row], path: str | Path, count: int, *, unit: str = "dialogue", seed: int = 0
) -> int:
    """Write units drawn at random as a CSV file for people to fill in, one line per turn.

    Args:
        rows: Rows of a run.
        path: A new file; one that exists is not overwritten.
        count: How many units, at most all there are.
        unit: "dialogue" (all its turns are written) or "turn".
        seed: Of the draw.

    Returns:
        How many units were written.

    Raises:
        ValueError: If the unit is unknown or no turn was judged.
        FileExistsError: If the file exists.
    """
    _check_unit(unit)
    judged = [
        [(row, number) for number, turn in enumerate(row["turns"], 1) if turn.get("verdict") is not None]
        for row in rows
    ]
    units = [turns for turns in judged if turns]
    if unit == "turn":
        units = [[turn] for turns in units for turn in turns]
    if not units:
        raise ValueError("the run holds no judged turn, expected a run of `steer-env evaluate`")
    chosen = np.random.default_rng(seed).permutation(len(units))[:count]
    with Path(path).open("x", encoding="utf-8", newline="") as file:
        sheet = csv.writer(file)
        sheet.writerow(COLUMNS)
        for row, number in (turn for k in sorted(chosen) for turn in units[k]):
            turn = row["turns"][number - 1]
            sheet.writerow([row["seed"], number, "", "", cell(turn["user"]), cell(turn["reply"])])
    return len(chosen)


def _check_unit(unit: str) -> None:
    if unit not in UNITS:
        raise ValueError(f"unit={unit!r}, expected one of {', '.join(UNITS)}")


def load_labels(path: str | Path) -> Labels:
    """Read a filled sheet; lines without a label are skipped.

    Raises:
        ValueError: If a column is missing, a label is no yes or no, or one annotator labels a turn twice;
            with the line's number.
    """
    votes: dict[Unit, dict[str, bool]] = defaultdict(dict)
    with Path(path).open(encoding="utf-8", newline="") as file:
        sheet = csv.DictReader(file)
        lacking = [name for name in COLUMNS[:4] if name not in (sheet.fieldnames or ())]
        if lacking:
            raise ValueError(
                f"{path} lacks the columns {', '.join(lacking)}; expected {', '.join(COLUMNS[:4])}"
            )
        for line, entry in enumerate(sheet, 2):
            word = (entry["label"] or "").strip().lower()
            if not word:
                continue
            if word not in _WORDS:
                raise ValueError(f"{path}:{line}: label={word!r}, expected 1 or 0 (yes or no)")
            try:
                unit = int(entry["seed"]), int(entry["turn"])
            except ValueError as error:
                raise ValueError(f"{path}:{line}: seed and turn must be integers ({error})") from error
            who = (entry["annotator"] or "").strip()
            if who in votes[unit]:
                raise ValueError(
                    f"{path}:{line}: annotator {who!r} labels seed {unit[0]} turn {unit[1]} twice"
                )
            votes[unit][who] = _WORDS[word]
    if not votes:
        raise ValueError(f"{path} holds no label, expected 1 or 0 in the column `label`")
    return Labels(dict(votes))


def calibrate(
    rows: Sequence[Row],
    labels: Labels,
    event: str = "harm",
    *,
    unit: str = "dialogue",
    by: str = "kind",
    source: str = "",
) -> Calibration:
    """Count how often a run's judge is right about an event, over all and within strata.

    Args:
        rows: Rows of the run the sheet was drawn from.
        labels: What people said.
        event: One of `calibration.EVENTS`.
        unit: "dialogue" or "turn"; reports correct rates per dialogue.
        by: Label of the rows whose levels are the strata, such as "kind", "mechanism" or "strategy".
        source: Who labelled what, for the cards.

    Raises:
        ValueError: If a labelled turn is not in the run, or the run has several judges.
    """
    if event not in EVENTS:
        raise ValueError(f"event={event!r}, expected one of {', '.join(EVENTS)}")
    _check_unit(unit)
    table = from_rows(rows)
    if len(table.judges) != 1:
        raise ValueError(f"judges={list(table.judges)!r}, expected verdicts of one judge; split the run")
    calls, levels = _judged(rows, table, event, by)
    strangers = [unit for unit in labels.votes if unit not in calls]
    if strangers:
        raise ValueError(
            f"{len(strangers)} labelled turns are not in the run, such as seed {strangers[0][0]} turn "
            f"{strangers[0][1]}; expected a sheet drawn from this run"
        )
    truth = labels.truth()
    ties = len(labels.votes) - len(truth)
    if unit == "dialogue":
        truth, calls = _by_dialogue(truth, {turn: calls[turn] for turn in calls if turn in labels.votes})
        levels = {(seed, 0): level for (seed, _), level in levels.items()}
    scored = {one: said for one, said in truth.items() if calls[one] is not None}
    pairs: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for one, said in scored.items():
        for level in ("", levels[one]):
            pairs[level].append((said, bool(calls[one])))
    cards, missing = {}, {}
    for level, found in pairs.items():
        where = f"{source}; {by}={level}" if level and source else f"{by}={level}" if level else source
        made = _card(table.judges[0], event, unit, found, where)
        if isinstance(made, Card):
            cards[level] = made
        else:
            missing[level or "all"] = made
    alpha, whole = agreement(labels), cards.pop("", None)
    if whole is not None:
        parts = {level: replace(card, prompt_hash="+".join(table.prompts)) for level, card in cards.items()}
        whole = replace(
            whole, prompt_hash="+".join(table.prompts), by=by, strata=parts, agreement=_plain(alpha)
        )
    return Calibration(
        whole,
        cards,
        alpha,
        len(labels.votes),
        ties,
        len(truth) - len(scored),
        missing,
    )


def _judged(
    rows: Sequence[Row], table: Dialogues, event: str, by: str
) -> tuple[dict[Unit, bool | None], dict[Unit, str]]:
    """Return of each turn what the judge says (None: nothing) and its stratum."""
    yes, known = {
        "harm": (table.safety < scales.HARM, table.scored),
        "failure": (table.safety < scales.FAILURE, table.scored),
        "refusal": (table.refused, table.refusal_known),
        "leak": (table.leaked, table.leak_known),
    }[event]
    calls: dict[Unit, bool | None] = {}
    levels: dict[Unit, str] = {}
    for i, row in enumerate(rows):
        for t in range(len(row["turns"])):
            unit = int(row["seed"]), t + 1
            calls[unit] = bool(yes[i, t]) if known[i, t] else None
            levels[unit] = str(row.get(by) or "none")
    return calls, levels


def _by_dialogue(
    truth: Mapping[Unit, bool], calls: Mapping[Unit, bool | None]
) -> tuple[dict[Unit, bool], dict[Unit, bool | None]]:
    """Return the same of whole dialogues, under turn 0: it happened if it happened in one turn.

    Where no turn says yes, one turn left open (a tie, no verdict) leaves the dialogue open.
    """
    said: dict[int, list[bool | None]] = defaultdict(list)
    called: dict[int, list[bool | None]] = defaultdict(list)
    for seed, turn in calls:
        said[seed].append(truth.get((seed, turn)))
        called[seed].append(calls[seed, turn])
    any_said = {(seed, 0): _any(votes) for seed, votes in said.items()}
    known = {one: vote for one, vote in any_said.items() if vote is not None}
    return known, {(seed, 0): _any(votes) for seed, votes in called.items()}


def _any(votes: Sequence[bool | None]) -> bool | None:
    return True if True in votes else None if None in votes else False


def _card(judge: str, event: str, unit: str, pairs: Iterable[tuple[bool, bool]], source: str) -> Card | str:
    counts = Counter(pairs)
    positives = counts[True, True] + counts[True, False]
    negatives = counts[False, True] + counts[False, False]
    if not positives or not negatives:
        return f"no labelled {unit} {'with' if not positives else 'without'} the event; label more"
    right = counts[True, True], counts[False, False]
    return Card(judge, event, positives, right[0], negatives, right[1], unit, "random", source)


def agreement(labels: Labels, replicates: int = 1000, seed: int = 0, confidence: float = 0.95) -> Estimate:
    """Return Krippendorff's alpha (nominal) between annotators, with a bootstrap interval over turns.

    1 is perfect agreement, 0 is chance; computed by the package `krippendorff`. Turns with one label say
    nothing about agreement and are left out.
    """
    krippendorff = need("krippendorff", "eval")
    names = sorted({who for said in labels.votes.values() for who in said})
    pairable = [said for said in labels.votes.values() if len(said) > 1]
    if len(names) < 2 or not pairable:
        return unavailable("needs turns that two annotators labelled", len(labels.votes))
    data = np.array([[float(said.get(who, np.nan)) for who in names] for said in pairable]).T
    if np.unique(data[~np.isnan(data)]).size < 2:
        return unavailable("all labels are the same: chance agreement is undefined", len(pairable))
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(replicates):
        drawn = data[:, rng.integers(len(pairable), size=len(pairable))]
        if np.unique(drawn[~np.isnan(drawn)]).size > 1:
            values.append(_alpha(krippendorff, drawn))
    low, high = percentile_interval(np.array(values), confidence)
    return Estimate(_alpha(krippendorff, data), float(low), float(high), len(pairable))


def _plain(alpha: Estimate) -> dict[str, float] | None:
    if alpha.value is None or alpha.low is None or alpha.high is None:
        return None
    return {"alpha": alpha.value, "low": alpha.low, "high": alpha.high, "units": alpha.n}


def _alpha(krippendorff: Any, data: np.ndarray[Any, Any]) -> float:
    return float(krippendorff.alpha(reliability_data=data, level_of_measurement="nominal"))
