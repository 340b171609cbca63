import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import judges as models
from steer_env.judges.combine import Cascade, Ensemble, disagreement, unsure
from steer_env.types import Scored, Terms, Unscored

Says, Later, request = models.Says, models.Later, models.request


def test_median_and_worst_by_hand():
    members = [Says("a", 10, 9, 8), Says("b", 4, 1, 10), Says("c", 8, 8, 6)]
    [middle] = Ensemble(members).judge([request()])
    assert middle.terms == (8, 8, 8)
    assert middle.disagreement == 6
    assert middle.rationale == "safety a 10, b 4, c 8"
    [worst] = Ensemble(members, "worst").judge([request()])
    assert worst.terms == (4, 1, 6)


def test_an_even_number_takes_the_lower_middle():
    [verdict] = Ensemble([Says("a", 10), Says("b", 2)]).judge([request()])
    assert verdict.terms.safety == 2


def test_too_few_scored_or_too_far_apart_is_unscored():
    [verdict] = Ensemble([Says("a", 10), Says("b", None), Says("c", None)]).judge([request()])
    assert isinstance(verdict, Unscored) and "1 of 3 judges scored, at least 2" in verdict.reason
    [verdict] = Ensemble([Says("a", 10), Says("b", 10), Says("c", None)]).judge([request()])
    assert verdict.terms.safety == 10
    [verdict] = Ensemble([Says("a", 10), Says("b", 4), Says("c", 9)], max_apart=5).judge([request()])
    assert isinstance(verdict, Unscored) and "disagree on safety by 6" in verdict.reason


@given(st.lists(st.one_of(st.none(), st.integers(1, 10)), min_size=2, max_size=7))
def test_never_a_number_nobody_gave(safeties):
    judges = [Says(str(k), safety) for k, safety in enumerate(safeties)]
    [verdict] = Ensemble(judges, min_scored=1).judge([request()])
    given_ones = [s for s in safeties if s is not None]
    if given_ones:
        assert isinstance(verdict, Scored)
        assert verdict.terms.safety in given_ones
        assert verdict.disagreement == max(given_ones) - min(given_ones)
    else:
        assert isinstance(verdict, Unscored)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([Says("a", 1)],), "at least two"),
        (([Says("a", 1), Says("a", 2)],), "different names"),
        (([Says("a", 1), Says("b", 2)], "mean"), "rule='mean'"),
        (([Says("a", 1), Says("b", 2)], "median", 3), "min_scored=3"),
        (([Says("a", 1), Says("b", 2)], "median", 1, 10), "max_apart=10"),
    ],
)
def test_bad_ensembles(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(*arguments)


@pytest.mark.parametrize(
    ("safety", "asked"), [(1, False), (2, False), (3, True), (7, True), (8, False), (10, False), (None, True)]
)
def test_the_expensive_judge_is_asked_only_when_the_cheap_one_is_unsure(safety, asked):
    cheap, expensive = Says("cheap", safety), Says("expensive", 9)
    cascade = Cascade(cheap, expensive, costs=(0.5, 10.0))
    verdicts = cascade.judge([request()] * 3)
    assert expensive.calls == 3 * asked
    assert all(v.judge == ("expensive" if asked else "cheap") for v in verdicts)
    assert cascade.spent == 1.5 + 30.0 * asked
    assert unsure(cheap.verdict) is asked


def test_cascade_batches_what_is_left_open():
    class Mixed(Says):
        def judge(self, requests):
            return [Scored(Terms(5 if k % 2 else 10, 8, 8), judge="mixed") for k in range(len(requests))]

    expensive = Says("expensive", 1)
    verdicts = Cascade(Mixed("mixed", 5), expensive).judge([request()] * 5)
    assert [v.terms.safety for v in verdicts] == [10, 1, 10, 1, 10]
    assert expensive.calls == 2


def test_futures_are_used_where_there_are_some():
    assert not hasattr(Ensemble([Says("a", 1), Says("b", 2)]), "submit")
    assert not hasattr(Cascade(Says("a", 1), Says("b", 2)), "submit")
    slow = Later("slow", 4)
    future = Ensemble([Says("fast", 10), slow]).submit(request())
    assert not future.done()
    slow.release()
    assert future.result(1).terms.safety == 4
    slow = Later("slow", 2)
    future = Cascade(Says("open", 5), slow).submit(request())
    assert not future.done()
    slow.release()
    assert future.result(1).judge == "slow"
    assert Cascade(Says("sure", 10), slow).submit(request()).result(1).judge == "sure"


def test_disagreement_needs_two():
    assert disagreement([Says("a", 3).verdict, Unscored("x")]) == 0
