import copy
import csv
import dataclasses
import json

import numpy as np
import pytest

from steer_env.evaluation.calibration import correct, load_card
from steer_env.evaluation.intervals import rate
from steer_env.evaluation.labelling import Labels, agreement, calibrate, labels_of, load_labels, write_sheet
from steer_env.evaluation.measures import measure
from steer_env.evaluation.tabulate import from_rows


def _row(seed, kind, *safeties):
    turns = [
        {
            "user": f"u{t}",
            "reply": f"r{t}",
            "verdict": {"unscored": "down", "judge": "j"}
            if s is None
            else {"terms": {"safety": s, "usefulness": 5, "faithfulness": 5}, "judge": "j"},
        }
        for t, s in enumerate(safeties)
    ]
    return {"seed": seed, "kind": kind, "turns": turns}


ROWS = [_row(1, "benign", 10, 10, 1), _row(2, "red_team", 1, 1, 10, None), _row(3, "red_team", 4, 8)]
#: harm (safety <= 4 on the training scale) according to the judge: (1,3), (2,1), (2,2), (3,1)
TRUE = {(1, 1): 0, (1, 2): 0, (1, 3): 0, (2, 1): 1, (2, 2): 1, (2, 3): 1, (2, 4): 1, (3, 1): 1, (3, 2): 0}


def test_a_card_by_hand():
    labels = Labels({unit: {"a": bool(said)} for unit, said in TRUE.items()})
    found = calibrate(ROWS, labels, "harm", unit="turn", source="one person")
    card = found.card
    assert (card.positives, card.true_positives, card.negatives, card.true_negatives) == (4, 3, 4, 3)
    # All judged turns are labelled: nothing was chosen.
    assert (card.judge, card.event, card.unit, card.sampling) == ("j", "harm", "turn", "random")
    assert (found.labelled, found.ties, found.unscored) == (9, 0, 1)
    red = found.strata["red_team"]
    assert (red.positives, red.true_positives, red.negatives, red.true_negatives) == (4, 3, 1, 1)
    assert "benign" not in found.strata
    assert "with the event" in found.missing["benign"]
    assert not found.alpha.available


def test_a_card_over_dialogues_by_hand():
    rows = [*ROWS, _row(4, "benign", 10, 10), _row(5, "benign", 10, None), _row(6, "benign", 10, 1)]
    said = {**TRUE, (4, 1): 0, (4, 2): 0, (5, 1): 0, (5, 2): 0, (6, 1): 0, (6, 2): 0}
    labels = Labels({unit: {"a": bool(label)} for unit, label in said.items()})
    # Truth: harm in 2 and 3. Judge: harm in 1, 2, 3 and 6, none in 4, open in 5.
    found = calibrate(rows, labels)
    card = found.card
    assert (card.positives, card.true_positives, card.negatives, card.true_negatives) == (2, 2, 3, 1)
    assert (card.unit, found.unscored) == ("dialogue", 1)


def test_a_dialogue_with_an_open_turn_counts_only_if_another_one_decides():
    rows = [_row(1, "benign", 10, 10), _row(2, "benign", 1, 10), _row(3, "benign", 1, 10), _row(4, "x", 10)]
    tie, no, yes = {"a": True, "b": False}, {"a": False}, {"a": True}
    votes = {(1, 1): tie, (1, 2): no, (2, 1): yes, (2, 2): tie, (3, 1): no, (3, 2): no, (4, 1): no}
    found = calibrate(rows, Labels(votes))
    card = found.card
    assert (card.positives, card.true_positives, card.negatives, card.true_negatives) == (1, 1, 2, 1)
    assert found.ties == 2


def test_ties_are_left_out_and_majorities_win():
    votes = {
        (1, 1): {"a": True, "b": False},
        (1, 2): {"a": True, "b": True, "c": False},
        (2, 1): {"a": False},
    }
    assert Labels(votes).truth() == {(1, 2): True, (2, 1): False}


def test_alpha_by_hand():
    # Two annotators, 4 units: agree 0 0 / 1 1 / 1 1, disagree 0 1. Values: 0 x 3, 1 x 5, n = 8.
    # Observed disagreement 2/8; expected 2*3*5/(8*7) = 30/56; alpha = 1 - (2/8)/(30/56) = 0.53333.
    said = [(0, 0), (1, 1), (1, 1), (0, 1)]
    labels = Labels({(k, 1): {"a": bool(x), "b": bool(y)} for k, (x, y) in enumerate(said)})
    found = agreement(labels, replicates=50)
    assert found.value == pytest.approx(1 - (2 / 8) / (30 / 56))
    assert found.low <= found.value <= found.high


def test_alpha_of_perfect_and_of_random_labels():
    rng = np.random.default_rng(0)
    coin = rng.random((300, 2)) < 0.5
    perfect = Labels({(k, 1): {"a": bool(c[0]), "b": bool(c[0])} for k, c in enumerate(coin)})
    chance = Labels({(k, 1): {"a": bool(c[0]), "b": bool(c[1])} for k, c in enumerate(coin)})
    assert agreement(perfect, replicates=20).value == 1
    found = agreement(chance, replicates=200)
    assert abs(found.value) < 0.15
    assert found.low < 0 < found.high
    same = Labels({(1, 1): {"a": True, "b": True}})
    assert not agreement(same).available


def test_sheet_and_back(tmp_path):
    path = tmp_path / "sheet.csv"
    assert write_sheet(ROWS, path, 5, unit="turn", seed=3) == 5
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len({(line["seed"], line["turn"]) for line in lines}) == 5
    for line in lines:
        line["label"], line["annotator"] = str(TRUE[int(line["seed"]), int(line["turn"])]), "a"
    with path.open("w", newline="") as file:
        sheet = csv.DictWriter(file, lines[0])
        sheet.writeheader()
        sheet.writerows(lines)
    labels = load_labels(path)
    assert labels.truth() == {(int(x["seed"]), int(x["turn"])): x["label"] == "1" for x in lines}
    with pytest.raises(FileExistsError):
        write_sheet(ROWS, path, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed,turn\n1,1\n", "lacks the columns annotator, label"),
        ("seed,turn,annotator,label\n1,1,a,maybe\n", ":2: label='maybe', expected 1 or 0"),
        ("seed,turn,annotator,label\n1,x,a,1\n", ":2: seed and turn must be integers"),
        ("seed,turn,annotator,label\n1,1,a,1\n1,1,a,0\n", ":3: annotator 'a' labels seed 1 turn 1 twice"),
        ("seed,turn,annotator,label\n1,1,a,\n", "holds no label"),
    ],
)
def test_bad_sheets(tmp_path, text, message):
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_labels(path)


def test_labels_of_another_run_are_refused():
    with pytest.raises(ValueError, match="not in the run, such as seed 9 turn 1"):
        calibrate(ROWS, Labels({(9, 1): {"a": True}}))
    with pytest.raises(ValueError, match="event='leaks'"):
        calibrate(ROWS, Labels({(1, 1): {"a": True}}), "leaks")


def test_the_card_on_disk_holds_strata_agreement_and_prompt(tmp_path):
    labels = Labels({unit: {"a": bool(said), "b": bool(said)} for unit, said in TRUE.items()})
    rows = copy.deepcopy(ROWS)
    for row in rows:
        for turn in row["turns"]:
            if "terms" in turn["verdict"]:
                turn["verdict"]["prompt_hash"] = "p1"
    card = calibrate(rows, labels, unit="turn", by="kind").card
    path = tmp_path / "card.json"
    path.write_text(json.dumps(dataclasses.asdict(card)))
    again = load_card(path)
    assert again == card and (again.by, again.prompt_hash) == ("kind", "p1")
    red = again.strata["red_team"]
    assert (red.positives, red.true_positives, red.prompt_hash) == (4, 3, "p1")
    assert again.agreement["alpha"] == 1 and "annotators' alpha 1.000 [1.000, 1.000]" in again.text()
    yes = np.arange(100) < 30
    given = rate(yes, ~yes, np.arange(100)), yes, ~yes, np.arange(100), again
    assert correct(*given, prompts=("p1",)).rogan_gladen.available
    other = correct(*given, prompts=("p2",))
    assert (
        not other.rogan_gladen.available and "for prompts p1, the judge's are p2" in other.rogan_gladen.text()
    )


def test_a_half_filled_sheet_makes_no_dialogue_card_of_half_dialogues():
    """The judge misses what happens after turn 1; people labelled turn 1 only."""
    rows = [_row(k, "x", 1 if k < 5 else 10, 10) for k in range(20)]
    truth = {(k, t): (t == 2 and k < 10) or (t == 1 and k < 5) for k in range(20) for t in (1, 2)}
    full = calibrate(rows, Labels({unit: {"a": said} for unit, said in truth.items()}))
    assert (full.card.sensitivity, full.unlabelled, full.card.left_out) == (0.5, 0, {})
    part = calibrate(rows, Labels({unit: {"a": said} for unit, said in truth.items() if unit[1] == 1}))
    assert part.card is None and part.unlabelled == 15 and "without the event" in part.missing["all"]


def _filled(path, out, label=lambda line: "0", keep=lambda line: True, **options):
    with path.open(newline="", encoding="utf-8") as file:
        lines = [{**line, "annotator": "a", "label": label(line)} for line in csv.DictReader(file)]
    with out.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        sheet = csv.DictWriter(file, lines[0], **options)
        sheet.writeheader()
        sheet.writerows(line for line in lines if keep(line))
    return out


def test_only_a_sheet_of_this_run_filled_throughout_is_a_random_sample(tmp_path):
    rows = [_row(k, "x", 1 if k % 3 else 10, 10) for k in range(60)]
    write_sheet(rows, tmp_path / "sheet.csv", 30)
    label = lambda line: str(int(int(line["seed"]) % 2))  # noqa: E731
    whole = load_labels(_filled(tmp_path / "sheet.csv", tmp_path / "a.csv", label))
    card = calibrate(rows, whole).card
    assert card.sampling == "random" and len(card.labels) == 30 and card.run == from_rows(rows).run
    seed = whole.votes.__iter__().__next__()[0]
    part = _filled(tmp_path / "sheet.csv", tmp_path / "b.csv", label, lambda x: int(x["seed"]) != seed)
    assert calibrate(rows, load_labels(part)).card.sampling == "by_class"
    other = copy.deepcopy(rows)
    other[0]["turns"][0]["reply"] = "something else"
    assert calibrate(other, whole).card.sampling == "by_class"
    assert calibrate(other, whole, sampling="random").card.sampling == "random"


def test_a_card_corrects_its_own_run_by_ppi_and_no_other(tmp_path):
    """A judge that misses a third; the run it was calibrated on is bad, the other one is safe."""
    rng = np.random.default_rng(0)
    truth = {"base": rng.random(300) < 0.8, "safe": rng.random(300) < 0.05}
    rows = {}
    for name, harm in truth.items():
        seen = harm & (rng.random(300) < 0.65)
        rows[name] = [_row(k, "x", 1 if seen[k] else 10) for k in range(300)]
        for row in rows[name]:
            row["turns"][0]["reply"] = name
    write_sheet(rows["base"], tmp_path / "sheet.csv", 150)
    label = lambda line: str(int(truth["base"][int(line["seed"])]))  # noqa: E731
    labels = load_labels(_filled(tmp_path / "sheet.csv", tmp_path / "labels.csv", label))
    card = calibrate(rows["base"], labels).card
    own = measure(rows["base"], card=card).corrected.ppi
    assert own.low <= truth["base"].mean() <= own.high
    other = measure(rows["safe"], card=card).corrected
    assert not other.ppi.available and "another run" in other.ppi.note and other.rogan_gladen.value < 0.15


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_sheets_as_spreadsheets_save_them(tmp_path, encoding, delimiter):
    rows = copy.deepcopy(ROWS)
    rows[0]["turns"][0]["reply"] = "naïve, with; both"
    write_sheet(rows, tmp_path / "sheet.csv", 5)
    label = lambda line: "1.0" if line["turn"] == "1" else "0"  # noqa: E731
    out = _filled(tmp_path / "sheet.csv", tmp_path / "x.csv", label, delimiter=delimiter, encoding=encoding)
    truth = load_labels(out).truth()
    assert len(truth) == 9 and all(said == (turn == 1) for (_, turn), said in truth.items())


def test_label_files_of_ones_own(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("id;harmful;who\n1;yes;a\n3;no;a\n")
    labels = load_labels(path, {"seed": "id", "label": "harmful", "annotator": "who"})
    assert labels.votes == {(1, 1): {"a": True}, (3, 1): {"a": False}} and not labels.draw
    with pytest.raises(ValueError, match="lacks the columns harm"):
        load_labels(path, {"seed": "id", "label": "harm"})


def test_another_judge_as_the_truth():
    truth = copy.deepcopy(ROWS)
    truth[0]["turns"][2]["verdict"]["terms"]["safety"] = 10
    for row in truth:
        for turn in row["turns"]:
            turn["verdict"]["judge"] = "better"
    labels = labels_of(truth, "harm")
    assert len(labels.votes) == 8 and set(labels.votes[1, 1]) == {"better"}  # one turn has no verdict
    card = calibrate(ROWS, labels, unit="turn").card
    assert (card.judge, card.true_positives, card.positives) == ("j", 3, 3)
    assert (card.true_negatives, card.negatives) == (4, 5)


def test_cascades_ensembles_and_addresses():
    rows = copy.deepcopy(ROWS)
    names = ["cheap", "llm:m@http://localhost:8000/v1"]
    for k, turn in enumerate(t for row in rows for t in row["turns"] if "terms" in t["verdict"]):
        turn["verdict"] |= {"judge": names[k % 2], "prompt_hash": ("", "h1+h2")[k % 2]}
    rows[1]["turns"][3]["verdict"]["judge"] = "cheap"
    labels = Labels({unit: {"a": bool(said)} for unit, said in TRUE.items()})
    card = calibrate(rows, labels, unit="turn").card
    assert (card.judge, card.prompt_hash) == ("cheap+llm:m", "h1+h2")
    yes = np.arange(100) < 30
    given = rate(yes, ~yes, np.arange(100)), yes, ~yes, np.arange(100), card
    elsewhere = ("llm:m@http://other:9/v1",)  # the same model; the cheap one was never sure
    assert correct(*given, judges=elsewhere, prompts=("h1+h2",)).rogan_gladen.available
    assert not correct(*given, judges=("llm:n",), prompts=()).rogan_gladen.available


def test_a_seed_twice_is_refused():
    labels = Labels({unit: {"a": bool(said)} for unit, said in TRUE.items()})
    with pytest.raises(ValueError, match="a seed twice"):
        calibrate([*ROWS, ROWS[0]], labels)
