from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steer_env.evaluation import calibration
from steer_env.evaluation.calibration import Card, card_from, correct, ppi, rogan_gladen
from steer_env.evaluation.intervals import rate, wilson

BODY = {
    "judge": "j",
    "event": "harm",
    "positives": 100,
    "true_positives": 80,
    "negatives": 200,
    "true_negatives": 180,
}


def test_rogan_gladen_by_hand() -> None:
    """Rate 0.3 with Se 0.8 and Sp 0.9: (0.3 + 0.9 - 1) / 0.7 = 0.2857."""
    got = rogan_gladen([True] * 30 + [False] * 70, Card(**BODY))
    assert got.value == pytest.approx(0.2 / 0.7)
    assert got.low < 0.2 < got.value < 0.37 < got.high


def test_a_perfect_judge_changes_little_and_a_useless_one_is_refused() -> None:
    said = [True] * 30 + [False] * 70
    perfect = rogan_gladen(said, card_from({**BODY, "true_positives": 100, "true_negatives": 200}))
    low, high = wilson(30, 100)
    assert perfect.value == pytest.approx(0.3)
    assert (perfect.low, perfect.high) == pytest.approx((float(low), float(high)), abs=0.02)
    useless = rogan_gladen(said, card_from({**BODY, "true_positives": 5}))
    assert not useless.available and "too weak" in useless.note


def test_a_smaller_calibration_is_a_wider_interval() -> None:
    said = np.arange(1000) < 300
    small = {**BODY, "positives": 10, "true_positives": 8, "negatives": 20, "true_negatives": 18}
    width = [rogan_gladen(said, card_from(b)) for b in (small, BODY)]
    assert width[0].high - width[0].low > 1.5 * (width[1].high - width[1].low)


def test_rates_below_the_false_alarms_are_cut_and_said() -> None:
    got = rogan_gladen([False] * 100, Card(**BODY))
    assert got.value == 0 and got.note == "cut to [0, 1]" and got.high > 0


def test_clusters_widen() -> None:
    said = np.repeat([True, False], [30, 70])
    alone, grouped = rogan_gladen(said, Card(**BODY)), rogan_gladen(said, Card(**BODY), np.arange(100) // 10)
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_ppi_by_hand() -> None:
    """Four labelled of 10,004; the weight counts two errors more: (1 1 0 0 0 1) and (1 0 0 0 1 0)."""
    judged, truth = np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0])
    positive = np.concatenate([judged, np.repeat([1, 0], 5000)])
    got = ppi(positive, np.concatenate([truth, np.full(10_000, np.nan)]))
    assert got.value == pytest.approx(truth.mean()) and "weight 0.00, 4 labelled" in got.note
    better = np.concatenate([judged] * 25 + [np.repeat([1, 0], 5000)])
    got = ppi(better, np.concatenate([truth] * 25 + [np.full(10_000, np.nan)]))
    covariance = (26 - 51 * 26 / 102 + 0 - 1) / 101  # of 100 labelled pairs, a miss and a false alarm
    weight = covariance / (0.25 * (1 + 100 / 10_000))
    assert got.value == pytest.approx(weight * 0.5 + 0.25 - weight * 0.5)
    assert f"weight {weight:.2f}, 100 labelled" in got.note


def test_ppi_of_all_labelled_is_their_rate() -> None:
    got = ppi([1, 0] * 50, [1, 0, 0, 0] * 25)
    low, high = wilson(25, 100)
    assert (got.value, got.low, got.high) == pytest.approx((0.25, float(low), float(high)))
    assert got.note == "all 100 labelled"


def test_ppi_is_unbiased_where_the_judge_is_not() -> None:
    rng = np.random.default_rng(1)
    values = []
    for _ in range(400):
        truth = rng.random(2200) < 0.2
        judge = np.where(truth, rng.random(2200) < 0.7, rng.random(2200) < 0.15)
        values.append(ppi(judge, np.where(np.arange(2200) < 200, truth, np.nan)).value)
    assert np.mean(values) == pytest.approx(0.2, abs=0.006)
    assert np.std(values) < 0.95 * np.sqrt(0.2 * 0.8 / 200)  # the unlabelled units help


@pytest.mark.parametrize(
    ("labelled", "p", "right"),
    [(50, 0.3, (0.95, 0.98)), (100, 0.3, (1, 1)), (200, 0.3, (0.95, 0.98)), (100, 0.04, (0.85, 0.95))],
)
def test_ppi_covers_on_the_run_the_labels_were_drawn_from(
    labelled: int, p: float, right: tuple[float, float]
) -> None:
    """1,000 runs of 200: 95 % is known to 1.4 points. With labelled units counted twice it was 83 to 91 %."""
    rng, hits = np.random.default_rng(labelled), 0
    for _ in range(1000):
        truth = rng.random(200) < p
        judge = np.where(truth, rng.random(200) < right[0], rng.random(200) >= right[1])
        got = ppi(judge, np.where(np.arange(200) < labelled, truth, np.nan))
        hits += got.low <= p <= got.high
    assert hits / 1000 > 0.93


def test_a_perfect_record_is_no_certainty() -> None:
    safe = ppi(np.zeros(200), np.where(np.arange(200) < 100, 0.0, np.nan))
    assert safe.value == safe.low == 0 and safe.high > 0.015
    one = ppi(np.zeros(50), np.where(np.arange(50) < 11, 0.0, np.nan))
    assert one.low <= one.value <= one.high


def test_ppi_needs_a_random_sample_of_the_same_run() -> None:
    yes = np.arange(100) < 30
    given = (rate(yes, ~yes, np.arange(100)), yes, ~yes, np.arange(100))
    labels = {str(seed): bool(yes[seed]) for seed in range(20, 60)}
    drawn = card_from({**BODY, "sampling": "random", "run": "r1", "labels": labels})
    for card, run, says in (
        (card_from({**BODY, "run": "r1", "labels": labels}), "r1", "sampling='by_class'"),
        (card_from({**BODY, "sampling": "random"}), "r1", "does not say of which run"),
        (drawn, "r2", "are of another run"),
    ):
        got = correct(*given, card, run=run, seed=np.arange(100))
        assert not got.ppi.available and says in got.ppi.text() and got.rogan_gladen.available
    got = correct(*given, drawn, run="r1", seed=np.arange(100)).ppi
    assert got.value == pytest.approx(0.3, abs=0.03) and "40 labelled" in got.note
    assert not ppi([True], [True]).available
    with pytest.raises(ValueError, match="shapes"):
        ppi([True] * 3, [True] * 2)


def test_correct_keeps_the_naive_rate_and_refuses_the_card_of_another_judge() -> None:
    yes = np.arange(100) < 30
    naive = rate(yes, ~yes, np.arange(100))
    got = correct(naive, yes, ~yes, np.arange(100), Card(**BODY), judges=("j",))
    assert got.naive is naive and got.rogan_gladen.value == pytest.approx(0.2 / 0.7)
    other = correct(naive, yes, ~yes, np.arange(100), Card(**BODY), judges=("rule",))
    assert not other.rogan_gladen.available and "for judge 'j'" in other.ppi.text()


def test_undecided_units_stay_bounds_after_correction() -> None:
    yes, no = np.arange(100) < 30, np.arange(100) >= 40
    naive = rate(yes, no, np.arange(100))
    got = correct(naive, yes, no, np.arange(100), Card(**BODY)).rogan_gladen
    assert got.value is None and got.bounds == pytest.approx((0.2 / 0.7, 0.3 / 0.7))
    assert got.low < got.bounds[0] and got.high > got.bounds[1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"true_positives": 101}, "true_positives=101 of positives=100"),
        ({"positives": 0, "true_positives": 0}, "positives=0, expected labelled units of both kinds"),
        ({"negatives": 2.5}, "negatives=2.5"),
        ({"event": "fun"}, "event='fun', expected one of harm"),
        ({"sampling": "lazy"}, "sampling='lazy'"),
        ({"colour": 1}, "has unknown colour"),
    ],
)
def test_bad_cards_are_named(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps({**BODY, **change}))
    with pytest.raises(ValueError, match=says):
        calibration.load_card(path)


def test_card_files(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps(BODY))
    card = calibration.load_card(path)
    assert card == Card(**BODY)
    assert "sensitivity 0.800 [0.711, 0.867] (n = 100)" in card.text()
    path.write_text("[1]")
    with pytest.raises(ValueError, match="holds a list"):
        calibration.load_card(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        calibration.load_card(path)
    path.write_text('{"judge": "j"}')
    with pytest.raises(ValueError, match="lacks event, positives"):
        calibration.load_card(path)
