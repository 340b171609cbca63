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
from steer_env.evaluation.calibration import EVENTS, UNITS, Card, Sampling
from steer_env.evaluation.intervals import Estimate, percentile_interval, unavailable
from steer_env.evaluation.tabulate import Dialogues, from_rows, run_of
from steer_env.extras import need
from steer_env.files import cell, read_sheet
from steer_env.records import Row

COLUMNS: Final = ("seed", "turn", "annotator", "label", "user", "reply", "draw")
_WORDS: Final = {
    **dict.fromkeys(("1", "1.0", "yes", "true"), True),
    **dict.fromkeys(("0", "0.0", "no", "false"), False),
}

#: A turn of a run: (seed, turn counted from 1).
Unit = tuple[int, int]


@dataclass(frozen=True)
class Labels:
    """What people said.

    Attributes:
        votes: Turn -> annotator -> whether the event happened.
        draw: How `write_sheet` drew the units, "" for labels from elsewhere.
    """

    votes: Mapping[Unit, Mapping[str, bool]]
    draw: str = ""

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
        unlabelled: Dialogues left open since some of their turns have no label and no other one decides.
        missing: Why a card is missing, level -> reason.
    """

    card: Card | None
    strata: Mapping[str, Card]
    alpha: Estimate
    labelled: int
    ties: int
    unscored: int
    unlabelled: int
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
    chosen = _drawn(rows, count, unit, seed)
    turns, draw = drawn_turns(rows, count, unit=unit, seed=seed)
    with Path(path).open("x", encoding="utf-8", newline="") as file:
        sheet = csv.writer(file)
        sheet.writerow(COLUMNS)
        for row, number in turns:
            turn = row["turns"][number - 1]
            sheet.writerow([row["seed"], number, "", "", cell(turn["user"]), cell(turn["reply"]), draw])
    return len(chosen)


def drawn_turns(
    rows: Sequence[Row], count: int, *, unit: str = "dialogue", seed: int = 0
) -> tuple[list[tuple[Row, int]], str]:
    """Return the turns of a sheet as (row, turn counted from 1), and how the sheet says they were drawn.

    Takes and raises what `write_sheet` does.
    """
    chosen = _drawn(rows, count, unit, seed)
    return [turn for turns in chosen for turn in turns], f"{run_of(rows)} {unit} {seed} {count}"


def _drawn(rows: Sequence[Row], count: int, unit: str, seed: int) -> list[list[tuple[Row, int]]]:
    """Return the units of a draw, each as its turns (row, turn counted from 1)."""
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
    return [units[k] for k in sorted(chosen)]


def _drawn_at_random(rows: Sequence[Row], labels: Labels, unit: str) -> bool:
    """Return whether the labels are those of a sheet of this run, all of it."""
    run, _, rest = labels.draw.partition(" ")
    if run != run_of(rows):
        return False
    of, seed, count = rest.split()
    drawn = _drawn(rows, int(count), of, int(seed))
    wanted = {(int(row["seed"]), number) for turns in drawn for row, number in turns}
    return of == unit and wanted == set(labels.votes)


def _check_unit(unit: str) -> None:
    if unit not in UNITS:
        raise ValueError(f"unit={unit!r}, expected one of {', '.join(UNITS)}")


def load_labels(path: str | Path, columns: Mapping[str, str] | None = None) -> Labels:
    """Read a filled sheet, or any label file; lines without a label are skipped.

    Encodings and separators are those of `read_sheet`.

    Args:
        path: The file.
        columns: What the file calls "seed", "turn", "annotator" and "label"; of a file of one's own, "turn"
            may be missing where dialogues have one turn, and "annotator" where there is one.

    Raises:
        ValueError: If a column is missing, a label is no yes or no, or one annotator labels a turn twice;
            the message names the line.
    """
    named = {key: (columns or {}).get(key, key) for key in COLUMNS}
    sheet = read_sheet(path)
    there = next(sheet, (0, {}))[1]
    needed = ("seed", "label") if columns else ("seed", "turn", "annotator", "label")
    missing = [named[key] for key in needed if named[key] not in there]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; expected a sheet made by calibrate")
    votes: dict[Unit, dict[str, bool]] = defaultdict(dict)
    draws = set()
    for line, entry in sheet:
        said = {key: entry.get(name, "").strip() for key, name in named.items()}
        where, word = f"{path}:{line}", said["label"].lower()
        if not word:
            continue
        if word not in _WORDS:
            raise ValueError(f"{where}: label={word!r}, expected 1 or 0 (yes or no)")
        try:
            unit = int(said["seed"]), int(said["turn"] or 1)
        except ValueError:
            raise ValueError(f"{where}: seed and turn must be integers") from None
        who = said["annotator"]
        if who in votes[unit]:
            raise ValueError(f"{where}: annotator {who!r} labels seed {unit[0]} turn {unit[1]} twice")
        votes[unit][who] = _WORDS[word]
        draws.add(said["draw"])
    if not votes:
        raise ValueError(f"{path} holds no label, expected 1 or 0 in the column `{named['label']}`")
    return Labels(dict(votes), draws.pop() if len(draws) == 1 else "")


def labels_of(rows: Sequence[Row], event: str) -> Labels:
    """Return what a run's own judge says of its turns, as labels: where that judge is taken for the truth."""
    table = from_rows(rows)
    calls, _ = _judged(rows, table, event, "kind")
    name = "+".join(table.judges)
    return Labels({unit: {name: said} for unit, said in calls.items() if said is not None})


def calibrate(
    rows: Sequence[Row],
    labels: Labels,
    event: str = "harm",
    *,
    unit: str = "dialogue",
    by: str = "kind",
    source: str = "",
    sampling: Sampling | None = None,
) -> Calibration:
    """Count how often a run's judge is right about an event, over all and within strata.

    Args:
        rows: Rows of the run the sheet was drawn from.
        labels: What people said.
        event: One of `calibration.EVENTS`.
        unit: "dialogue" or "turn"; reports correct rates per dialogue.
        by: Label of the rows whose levels are the strata, such as "kind", "mechanism" or "strategy".
        source: Who labelled what, for the cards.
        sampling: How the units were chosen; by default "random" for a sheet of this run that is filled
            throughout, "by_class" for everything else.

    Raises:
        ValueError: If a labelled turn is not in the run, the run was not judged, or holds a seed twice.
    """
    if event not in EVENTS:
        raise ValueError(f"event={event!r}, expected one of {', '.join(EVENTS)}")
    _check_unit(unit)
    table = from_rows(rows)
    if not table.judges:
        raise ValueError("the run holds no judged turn, expected a run of `steer-env evaluate`")
    seeds = Counter(row.get("seed") for row in rows)
    if None in seeds or max(seeds.values()) > 1:
        raise ValueError("a row without a seed, or a seed twice; expected one dialogue a seed")
    judge, prompts = "+".join(table.judges), "+".join(dict.fromkeys("+".join(table.prompts).split("+")))
    calls, levels = _judged(rows, table, event, by)
    strangers = [unit for unit in labels.votes if unit not in calls]
    if strangers:
        raise ValueError(
            f"{len(strangers)} labelled turns are not in the run, such as seed {strangers[0][0]} turn "
            f"{strangers[0][1]}; expected a sheet drawn from this run"
        )
    truth = labels.truth()
    ties, unlabelled = len(labels.votes) - len(truth), 0
    judged = {(int(r["seed"]), n) for r in rows for n, t in enumerate(r["turns"], 1) if t.get("verdict")}
    if sampling is None:
        everything = judged <= set(labels.votes)
        sampling = "random" if everything or _drawn_at_random(rows, labels, unit) else "by_class"
    if unit == "dialogue":
        here = {seed for seed, _ in labels.votes}
        truth, calls = _by_dialogue(truth, {turn: calls[turn] for turn in judged if turn[0] in here})
        decided = {seed for seed, _ in truth}
        unlabelled = len({seed for seed, _ in judged - set(labels.votes) if seed in here - decided})
        levels = {(seed, 0): level for (seed, _), level in levels.items()}
    scored = {one: said for one, said in truth.items() if calls[one] is not None}
    pairs: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for one, said in scored.items():
        for level in ("", levels[one]):
            pairs[level].append((said, bool(calls[one])))
    cards, missing = {}, {}
    for level, found in pairs.items():
        where = f"{source}; {by}={level}" if level and source else f"{by}={level}" if level else source
        made = _card(judge, event, unit, found, where, sampling)
        if isinstance(made, Card):
            cards[level] = made
        else:
            missing[level or "all"] = made
    alpha, whole = agreement(labels), cards.pop("", None)
    if whole is not None:
        unscored = len(truth) - len(scored)
        left_out = {"ties": ties, "unscored": unscored, "unlabelled": unlabelled}
        of_dialogues = {str(seed): said for (seed, turn), said in truth.items() if not turn}
        whole = replace(
            whole,
            prompt_hash=prompts,
            by=by,
            strata={level: replace(card, prompt_hash=prompts) for level, card in cards.items()},
            agreement=_plain(alpha),
            run=table.run,
            labels=of_dialogues,
            left_out={why: count for why, count in left_out.items() if count},
        )
    return Calibration(
        whole,
        cards,
        alpha,
        len(labels.votes),
        ties,
        len(truth) - len(scored),
        unlabelled,
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


def _card(
    judge: str, event: str, unit: str, pairs: Iterable[tuple[bool, bool]], source: str, sampling: Sampling
) -> Card | str:
    counts = Counter(pairs)
    positives = counts[True, True] + counts[True, False]
    negatives = counts[False, True] + counts[False, False]
    if not positives or not negatives:
        return f"no labelled {unit} {'with' if not positives else 'without'} the event; label more"
    right = counts[True, True], counts[False, False]
    return Card(judge, event, positives, right[0], negatives, right[1], unit, sampling, source)


def agreement(labels: Labels, replicates: int = 1000, seed: int = 0, confidence: float = 0.95) -> Estimate:
    """Return Krippendorff's alpha (nominal) between annotators, with a bootstrap interval over turns.

    1 is perfect agreement, 0 is chance; computed by the package `krippendorff`. Turns with one label say
    nothing about agreement and are left out. One turn alone has no interval: it is not available then.
    """
    krippendorff = need("krippendorff", "eval")
    names = sorted({who for said in labels.votes.values() for who in said})
    pairable = [said for said in labels.votes.values() if len(said) > 1]
    if len(names) < 2 or len(pairable) < 2:
        return unavailable("needs two turns that two annotators labelled", len(labels.votes))
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
