from __future__ import annotations

import numpy as np
import pytest
from lifelines import AalenJohansenFitter

from steer_env.evaluation import events, from_rows, metrics
from steer_env.evaluation.events import CAUSES, OVER
from steer_env.evaluation.intervals import wilson
from steer_env.evaluation.survival import kaplan_meier


def test_first_event_by_hand(make_row) -> None:
    d = from_rows(
        [
            make_row(10, 1, 8, seed=1),  # harm at 2
            make_row(8, 1, seed=2),  # refusal at 1, harm at 2
            make_row(10, 10, seed=3),  # over after 2
            make_row(10, None, 1, seed=4),  # not watched after 1
            make_row(10, 10, 10, seed=5, stop="error"),  # broke off after 3
        ]
    )
    shared = (d.safety, d.scored, d.played)
    when, why = events.first_event(*shared, complete=d.complete)
    assert when.tolist() == [2, 2, 2, 1, 3]
    assert why.tolist() == [1, 1, OVER, 0, 0]
    when, why = events.first_event(
        *shared, stops=("harm", "bare_refusal", "style"), complete=d.complete, refused=d.refused
    )
    assert when.tolist() == [2, 1, 2, 1, 3] and why.tolist() == [1, 2, OVER, 0, 0]
    when, why = events.first_event(*shared, stops=("middling",), complete=d.complete)
    assert why.tolist()[1] == CAUSES["middling"], "without moves the range names it"
    _, why = events.first_event(*shared, over="censor")
    assert why.tolist() == [1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="stops=\\('fun',\\)"):
        events.first_event(*shared, stops=("fun",))


def test_incidence_by_hand() -> None:
    """Ten dialogues: turn 1: 2 harm, 1 over, 1 censored; turn 2: 3 of the 6 left harm; turn 3: 3 over."""
    when = [1, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    why = [1, 1, OVER, 0, 1, 1, 1, OVER, OVER, OVER]
    got = events.incidence(when, why, range(10), replicates=200)
    assert got.incidence["harm"].tolist() == pytest.approx([0, 0.2, 0.2 + 0.7 * 3 / 6, 0.55])
    assert got.incidence["over"].tolist() == pytest.approx([0, 0.1, 0.1, 0.1 + 0.35])
    assert got.none.tolist() == pytest.approx([1, 0.7, 0.35, 0])
    assert got.at_risk.tolist() == [10, 10, 6, 3]
    assert (got.low["harm"] <= got.incidence["harm"]).all()
    assert got.low["harm"][3] < 0.4 and got.high["harm"][3] > 0.7


@pytest.mark.filterwarnings("ignore")
def test_incidence_matches_lifelines() -> None:
    rng = np.random.default_rng(3)
    when = rng.permutation(np.arange(1, 201))  # lifelines jitters ties; without any it must agree exactly
    why = rng.choice([0, 1, 2, OVER], 200, p=[0.3, 0.3, 0.2, 0.2])
    got = events.incidence(when, why, np.arange(200), replicates=2)
    for name in ("harm", "bare_refusal"):
        fitted = AalenJohansenFitter(calculate_variance=False).fit(when, why, event_of_interest=CAUSES[name])
        curve = fitted.cumulative_density_.iloc[:, 0]
        ours = got.incidence[name][curve.index.to_numpy().astype(int)]
        np.testing.assert_allclose(ours, curve.to_numpy(), atol=1e-12)


def test_one_cause_is_the_kaplan_meier_curve_with_the_same_band() -> None:
    rng = np.random.default_rng(0)
    when, failed = rng.integers(1, 8, 300), rng.random(300) < 0.5
    group = np.arange(300) // 3
    got = events.incidence(when, failed.astype(int), group, causes={"failure": 1})
    curve = kaplan_meier(when, failed, group)
    np.testing.assert_allclose(got.incidence["failure"], 1 - curve.survival, atol=1e-12)
    np.testing.assert_allclose(got.low["failure"], 1 - curve.high, atol=1e-12)
    np.testing.assert_allclose(got.high["failure"], 1 - curve.low, atol=1e-12)


def test_copies_are_no_new_information() -> None:
    rng = np.random.default_rng(0)
    when, failed = rng.integers(1, 8, 300), rng.random(300) < 0.5
    causes = {"failure": 1}
    alone = events.incidence(when, failed.astype(int), np.arange(300), causes=causes)
    copies = events.incidence(
        np.repeat(when, 4), np.repeat(failed, 4).astype(int), np.repeat(np.arange(300), 4), causes=causes
    )
    for end in ("low", "high"):
        np.testing.assert_allclose(getattr(copies, end)["failure"], getattr(alone, end)["failure"], atol=1e-9)


def test_without_censoring_incidence_is_the_share_and_over_is_not_carried_on(make_row) -> None:
    rows = [make_row(10, 10, seed=i) for i in range(6)]
    rows += [make_row(*[10] * 7, 1, seed=10 + i) for i in range(2)]
    d = from_rows(rows)
    shared = (d.safety, d.scored, d.played)
    compete = events.incidence(*events.first_event(*shared), d.cluster, replicates=10)
    assert compete.incidence["harm"][-1] == pytest.approx(2 / 8)
    censor = events.incidence(*events.first_event(*shared, over="censor"), d.cluster, replicates=10)
    assert censor.incidence["harm"][-1] == pytest.approx(1)  # Kaplan-Meier's answer to another question


def test_hazards_and_safe_turns(make_row) -> None:
    rows = [
        make_row(1, 10, seed=1),
        make_row(10, 1, seed=2),
        make_row(10, 10, seed=3),
        make_row(10, 10, seed=4),
    ]
    d = from_rows(rows)
    when, failed = metrics.first_failure(d.safety, d.scored, d.played)
    got = events.hazards(when, failed, d.cluster, horizon=3)
    assert [h.value for h in got] == [0.25, pytest.approx(1 / 3), None]
    assert "nobody is watched at turn 3" in got[2].text()
    assert got[0].low < 0.25 < got[0].high
    safe = events.safe_turns(when, failed, d.cluster, 2)
    assert safe.value == pytest.approx((0 + 1 + 2 + 2) / 4)
    assert 0 <= safe.low < safe.value < safe.high <= 2


def test_nothing_to_watch_is_said(make_row) -> None:
    d = from_rows([make_row(None, None, seed=1), make_row(None, seed=2)])
    when, why = events.first_event(d.safety, d.scored, d.played)
    assert when.tolist() == [0, 0] and why.tolist() == [0, 0]
    got = events.incidence(when, why, d.cluster, horizon=3)
    assert got.incidence == {} and "nobody is watched after turn 0" in got.note
    one = events.incidence([2], [1], [0])
    assert "no band" in one.note and np.isnan(one.low["harm"]).all()
    with pytest.raises(ValueError, match=r"cause=\[9\]"):
        events.incidence([1], [9], [0])


def test_a_curve_without_events_is_no_certainty() -> None:
    got = events.incidence([3] * 20, [OVER] * 20, range(20), causes={"harm": 1, "over": OVER})
    limit = float(wilson(0, 20, df=19)[1])
    assert got.high["harm"].tolist() == pytest.approx([0, limit, limit, limit])
    assert got.low["over"][3] == pytest.approx(1 - limit) and got.incidence["over"][3] == 1
    assert got.low["harm"].tolist() == [0, 0, 0, 0]
