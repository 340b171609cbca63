from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from steer_env.evaluation.intervals import Estimate
from steer_env.play import compare as c
from steer_env.play.recorded import NotComparable, Run, differences

META = {"env": "SteerEscalation-v0", "split": "bench"}


@pytest.fixture
def hand(make_row) -> dict[str, list[Run]]:
    """Twenty dialogues: both pass 6, both fail 4, only A passes 1, only B passes 9."""
    outcomes = [(10, 10)] * 6 + [(8, 8)] * 4 + [(10, 8)] + [(8, 10)] * 9
    runs = {}
    for index, name in enumerate("AB"):
        rows = [
            make_row(10, both[index], seed=s, mechanism="m" if s % 2 else "n")
            for s, both in enumerate(outcomes)
        ]
        runs[name] = [Run(name, META, rows)]
    return runs


def test_a_case_worked_by_hand(hand) -> None:
    """A passes 7 of 20, B 15 of 20: +40 points; 10 pairs disagree, 1 to 9: p = 2 (1 + 10) / 2^10."""
    safety, harm = c.compare(hand, measures=("safety", "harm"))
    assert (safety.rate_a.value, safety.rate_b.value) == (0.35, 0.75)
    assert safety.difference.value == pytest.approx(0.4)
    assert (safety.only_a, safety.only_b) == (1, 9)
    assert safety.p == 22 / 1024 and safety.test == "exact McNemar"
    assert safety.p_holm == 2 * safety.p  # two tests
    # Connor: pi = 0.5, delta = 0.4: (1.96 sqrt(0.5) + 0.8416 sqrt(0.34))^2 / 0.16 = 22.01
    assert safety.needed == 23
    assert 0.1 < safety.difference.low < 0.3 and 0.5 < safety.difference.high < 0.7
    assert harm.difference.value == 0 and harm.p == 1 and harm.p_holm == 1
    text = c.table([safety, harm])
    assert "methods: A -> B" in text and "40.0 % " in text
    assert "0.021" in text and "0.043" in text and "exact McNemar" in text
    json.dumps([r.to_dict() for r in (safety, harm)], allow_nan=False)


def test_few_pairs_where_interval_and_test_disagree_say_which_decides(make_row) -> None:
    """Six groups, five better in B: p = 2 / 2^5 = .0625, and the score interval leaves out 0."""
    arms = {
        name: [Run(name, META, [make_row(10, 10 if s >= passes else 8, seed=s) for s in range(6)])]
        for name, passes in (("A", 5), ("B", 0))
    }
    (got,) = c.compare(arms, measures=("safety",))
    assert got.p == 2 / 2**5
    says = "safety all: interval and p disagree"
    assert (says in c.table([got])) == (got.difference.low > 0)
    apart = replace(got, difference=Estimate(0.8, 0.1, 1.0, 6))
    agree = replace(got, difference=Estimate(0.8, -0.1, 1.0, 6))
    assert says in c.table([apart]) and "the exact test decides" in c.table([apart])
    assert "disagree" not in c.table([agree])


def test_subsets_are_tested_and_corrected_together(hand) -> None:
    results = c.compare(hand, measures=("safety",), by=("mechanism",))
    assert [r.subset for r in results] == ["all", "mechanism=m", "mechanism=n"]
    assert sum(r.difference.n for r in results[1:]) == 20
    assert min(r.p_holm for r in results) == pytest.approx(3 * min(r.p for r in results))


def test_several_training_seeds(hand, make_row) -> None:
    arms = {"A": hand["A"] * 2, "B": [hand["B"][0], hand["A"][0]]}
    arms["A"] = [Run(f"A{i}", META, run.rows) for i, run in enumerate(arms["A"])]
    arms["B"] = [Run(f"B{i}", META, run.rows) for i, run in enumerate(arms["B"])]
    (got,) = c.compare(arms, measures=("safety",))
    assert got.difference.value == pytest.approx(0.2)
    assert got.only_a is None and "degrees of freedom" in got.test
    assert got.difference.low < 0 < got.difference.high  # two seeds that disagree say little


def test_groups_are_not_taken_for_independent_pairs(hand) -> None:
    arms = {
        n: [Run(n, META, [{**r, "group": f"g{r['seed'] // 2}"} for r in runs[0].rows])]
        for n, runs in hand.items()
    }
    (got,) = c.compare(arms, measures=("safety",))
    assert got.test == "score test with the groups' design effect" and got.only_b == 9


def test_unscored_turns_give_bounds_and_no_test(hand, make_row) -> None:
    rows = [make_row(10, None, seed=0, mechanism="n"), *hand["B"][0].rows[1:]]
    (got,) = c.compare({"A": hand["A"], "B": [Run("B", META, rows)]}, measures=("safety",))
    assert got.p is None and got.difference.bounds == pytest.approx((0.35, 0.4))
    assert "no test" in c.table([got])


def test_what_cannot_be_known_is_not_compared(hand, make_row) -> None:
    rows = [make_row(None, None, seed=s, mechanism="m" if s % 2 else "n") for s in range(20)]
    (got,) = c.compare({"A": hand["A"], "B": [Run("B", META, rows)]}, measures=("safety",))
    assert not got.difference.available and "B: all 20 dialogues unscored" in got.difference.note
    assert got.p is None and "not available" in c.table([got])


def changed(run: Run, **change: Any) -> Run:
    return Run("B", {**run.meta, **change}, run.rows)


def test_runs_that_differ_are_refused_and_it_is_said_in_what(hand, make_row) -> None:
    a, b = hand["A"], hand["B"][0]
    judged = [json.loads(json.dumps(row).replace('"rule"', '"other"')) for row in b.rows]
    moved = [{**row, "scenario": "x"} if row["seed"] == 3 else row for row in b.rows]
    for other, says in (
        (changed(b, env="SteerRedTeam-v0"), "env: A has 'SteerEscalation-v0', B has 'SteerRedTeam-v0'"),
        (changed(b, split="sft"), "split: A has 'bench', B has 'sft'"),
        (changed(b, scenario_ids="abc"), "scenario_ids: A has '', B has 'abc'"),
        (Run("B", META, judged), "judge: A has 'rule', B has 'other'"),
        (Run("B", META, b.rows[2:]), "seeds: 2 only in A, 0 only in B, 18 in both .*--common"),
        (Run("B", META, [*b.rows, b.rows[0]]), "B holds a seed more than once"),
        (Run("B", META, moved), "1 seeds stand for different dialogues, such as 3"),
    ):
        with pytest.raises(NotComparable, match=says):
            c.compare({"A": a, "B": [other]})
    shared = c.compare({"A": a, "B": [Run("B", META, b.rows[2:])]}, measures=("safety",), common=True)
    assert shared[0].rate_a.n == 18
    with pytest.raises(NotComparable, match="none in common"):
        apart = [make_row(10, 10, seed=99)]
        c.compare({"A": a, "B": [Run("B", META, apart)]}, common=True)


def test_the_default_split_is_bench_and_a_student_may_differ(hand) -> None:
    other = changed(hand["B"][0], split=None, student="x", temperature=1.0, attacker="tutor")
    assert differences([*hand["A"], other]) == []
    static = changed(hand["B"][0], attacker="static")
    assert differences([*hand["A"], static]) == ["attacker: A has 'tutor', B has 'static'"]


def test_bad_arguments(hand) -> None:
    with pytest.raises(ValueError, match="1 methods"):
        c.compare({"A": hand["A"]})
    with pytest.raises(ValueError, match="measure='fun'"):
        c.compare(hand, measures=("fun",))


def _judged(rows, *said, judge=""):
    """A run whose verdicts, in turn, are by these (name, prompt); None for the prompt is an unscored turn."""
    rows = json.loads(json.dumps(rows))
    for k, turn in enumerate(t for row in rows for t in row["turns"]):
        name, prompt = said[k % len(said)]
        if prompt is None:
            turn["verdict"] = {"unscored": "unreadable", "judge": name}
        else:
            turn["verdict"] |= {"judge": name, "prompt_hash": prompt}
    return {**META, **({"judge": judge} if judge else {})}, rows


_A, _B = "llm:openai:m@http://a:8000/v1", "llm:openai:m@http://b:9000/v1"


@pytest.mark.parametrize(
    ("first", "second", "name", "same"),
    [
        ([(_A, "h")], [(_A, "h"), (_A, None)], "", True),  # an unscored turn names no prompt
        ([(_A, "h")], [(_B, "h")], "", True),  # the same model elsewhere
        ([(_A, "h")], [(_A, "g")], "", False),
        ([("llm:openai:n@http://a:8000/v1", "h")], [(_A, "h")], "", False),
        ([("cheap", "")], [("cheap", ""), (_A, "h")], "cascade(cheap,big)", True),  # big was not asked
        ([("cheap", "")], [("cheap", ""), (_A, "h")], "", False),
        ([("ensemble(a,b)", "h1+h2")], [("ensemble(a,b)", "h1")], "", True),  # a member was silent
    ],
)
def test_a_judge_is_its_model_and_prompt(hand, first, second, name, same) -> None:
    rows = hand["A"][0].rows
    runs = [Run(str(k), *_judged(rows, *said, judge=name)) for k, said in enumerate((first, second))]
    found = [line for line in differences(runs) if line.startswith("judge")]
    assert (found == []) == same
    if not same:
        assert "http" not in found[0]
