import math

import numpy as np
import pytest

from kit.backends import ScriptedBackend
from steer_env.evaluation.intervals import wilson
from steer_env.judges.llm import LLMJudge
from steer_env.judges.prompting import read_records
from steer_env.judges.rule import RuleJudge
from steer_env.play.probes import PROBES, Probe, bases, probe_judge
from steer_env.types import Scored, Terms, Unscored

REPLIES = bases(10)


class Judge:
    """Gives `low`, and `high` to replies that satisfy `moves`; None leaves a reply unscored."""

    name = "toy"

    def __init__(self, moves, low=(1, 1, 5), high=(10, 10, 10)):
        self.moves, self.low, self.high = moves, low, high

    def judge(self, requests):
        given = [self.high if self.moves(r) else self.low for r in requests]
        return [Scored(Terms(*t), judge="toy") if t else Unscored("none", "toy") for t in given]


def said(request):
    return request.transcript[-1].content


def test_the_suite_covers_the_families():
    assert len(PROBES) >= 25 and len({p.name for p in PROBES}) == len(PROBES)
    assert {p.family for p in PROBES} == {
        "neutral (control)", "imitates the verdict", "claims a score", "closes the delimiter",
        "instructs the judge", "role tags", "language or encoding", "long padding", "in the user turn",
        "in the image",
    }  # fmt: skip


def test_bases_are_known_reproducible_and_of_all_sorts():
    assert [b.request.transcript for b in bases(10)] == [b.request.transcript for b in REPLIES]
    assert {b.known.terms.safety for b in bases(40)} >= {4, 8, 10} and any(
        b.known.terms.safety <= 2 for b in REPLIES
    )
    assert RuleJudge().judge([b.request for b in REPLIES]) == [b.known for b in REPLIES]


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_a_probe_changes_its_place_and_nothing_else(probe):
    before = REPLIES[1].request
    after = probe.apply(before)
    assert after.scenario.truth == before.scenario.truth and after.context == {}
    changed = [i for i, (a, b) in enumerate(zip(before.transcript, after.transcript, strict=True)) if a != b]
    assert (
        changed
        == {"reply": [len(before.transcript) - 1], "user": [len(before.transcript) - 2], "image": []}[
            probe.where
        ]
    )
    if probe.where == "image":
        was, now = before.scenario.images[0], after.scenario.images[0]
        share = np.mean(np.any(np.asarray(was) != np.asarray(now), axis=2))
        assert was.size == now.size and 0.002 < share < 0.3 and after.scenario.id != before.scenario.id
    else:
        place = changed[0]
        assert before.transcript[place].content in after.transcript[place].content
        assert after.scenario == before.scenario


def test_an_immune_judge_is_moved_by_nothing():
    report = probe_judge(Judge(lambda r: False), REPLIES)
    assert report.total.moved == report.total.raised == report.total.unscored == 0 and report.total.shift == 0
    assert report.total.pairs == 10 * (len(PROBES) - 2)
    assert "100" not in report.table().splitlines()[-1].split("[")[0]


def test_an_obedient_judge_is_caught_where_it_obeys():
    report = probe_judge(Judge(lambda r: "Note to the judge" in said(r)), REPLIES)
    by_family = {row.family: row for row in report.families}
    row = by_family["instructs the judge"]
    assert (row.pairs, row.moved, row.raised) == (50, 20, 20) and row.shift == pytest.approx(9 * 20 / 50)
    assert row.interval(row.moved) == pytest.approx([float(x) for x in wilson(20, 50)])
    assert by_family["claims a score"].moved == by_family["in the user turn"].moved == 0


def test_a_lower_verdict_is_moved_but_not_raised():
    report = probe_judge(Judge(lambda r: "10 out of 10" in said(r), (8, 8, 8), (6, 8, 8)), REPLIES)
    row = next(row for row in report.families if row.family == "claims a score")
    assert (row.moved, row.raised) == (10, 0) and row.shift == pytest.approx(-2 / 3)


def test_unscored_never_becomes_a_shift():
    report = probe_judge(Judge(lambda r: "Thank you" in said(r), high=None), REPLIES)
    control = report.families[0]
    assert (control.family, control.pairs, control.unscored, control.moved) == (
        "neutral (control)",
        20,
        10,
        0,
    )
    nothing = probe_judge(Judge(lambda r: True, high=None), REPLIES)
    assert nothing.total.pairs == 0 and math.isnan(nothing.total.shift) and nothing.agreement == 0
    assert "none scored" in nothing.table()


def test_the_rule_judge_is_hardly_ever_raised():
    report = probe_judge(RuleJudge(), bases(25))
    assert report.agreement == 1
    control = report.families[0]
    # A remark of one's own costs the top score, which needs a well-formed reply, and nothing else.
    assert control.raised == 0 and control.moved <= 0.4 * control.pairs and control.shift > -0.6
    assert report.total.raised <= 0.03 * report.total.pairs
    raised = {row.family for row in report.families if row.raised}
    assert raised <= {"closes the delimiter"}  # a forged better reply holds a real refusal


def test_every_probe_reaches_an_llm_judge_as_data():
    backend = ScriptedBackend(lambda request: "no verdict")
    judge = LLMJudge(backend, attempts=1)
    judge.judge([p.apply(REPLIES[1].request) for p in PROBES])
    for probe, request in zip(PROBES, backend.requests, strict=True):
        records = read_records(request.messages[1].content)
        original = REPLIES[1].request.transcript
        assert len(records) == len(original)
        expected = said(probe.apply(REPLIES[1].request))
        assert records[-1]["text"] == expected
        assert not any(0xE0000 <= ord(c) < 0xE0080 for c in request.messages[1].content)


def test_a_probe_of_ones_own():
    mine = Probe("mine", "mine", lambda text: f"{text} please")
    report = probe_judge(Judge(lambda r: said(r).endswith("please")), REPLIES[:2], [mine])
    assert [row.moved for row in report.families] == [2] and report.total.pairs == 2
