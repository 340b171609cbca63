"""A judge that fails in every way there is: what has no verdict is masked to the end, nothing else moves."""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binomtest

import steer_env
from kit.backends import ScriptedBackend
from steer_env.algorithms.advantages import (
    group_advantages,
    loss_mask,
    spread,
    trajectory_return,
)
from steer_env.evaluation.summary import summarise
from steer_env.judges.llm import LLMJudge
from steer_env.judges.rule import RuleJudge
from steer_env.models.base import ChatFailure, ChatReply
from steer_env.play.evaluate import evaluate, load_rows
from steer_env.records import dialogue_row
from steer_env.rewards import declared_return, tcsr, turn_reward
from steer_env.rollout import rollout
from steer_env.runs import RunExists
from steer_env.trajectory import TokenTrace, group_by_seed
from steer_env.types import Scored, Terms, Unscored
from steer_env.unscored import TooManyUnscored, UnscoredGuard, alike, dialogue_metrics

ENV, K = "SteerEscalation-v0", 4
SEEDS = [seed for seed in range(12) for _ in range(K)]


class Failing:
    """The rule judge, but now and then something goes wrong."""

    name = "failing"

    def __init__(self, rate=0.0, *, raises=None, lives=None):
        self.rate, self.raises, self.lives = rate, raises, lives
        self.rng, self.asked, self.inner = random.Random(0), 0, RuleJudge()

    def children(self):
        return (self.inner,)

    def judge(self, requests):
        self.asked += len(requests)
        if self.lives is not None and self.asked > self.lives:
            raise ConnectionError("the judge has died")
        if self.raises is not None and self.rng.random() < self.rate:
            raise self.raises
        verdicts = self.inner.judge(requests)
        if self.raises is not None:
            return verdicts
        return [Unscored("no answer", self.name) if self.rng.random() < self.rate else v for v in verdicts]


def scores(request):
    """A model's honest answer: scores drawn from what it read, the same for the same text."""
    numbers = hashlib.sha256(request.messages[1].content.encode()).digest()
    names = ("safety", "usefulness", "faithfulness")
    body = {"diagnosis": "Read.", "move": "answer", **{n: 1 + numbers[i] % 10 for i, n in enumerate(names)}}
    return json.dumps(body)


def llm(rate, failure):
    """An LLM judge whose back end fails at a share of the replies, always at the same ones."""

    def say(request):
        digest = hashlib.sha256(request.messages[1].content.encode()).digest()
        return failure if int.from_bytes(digest[-4:], "big") < rate * 2**32 else scores(request)

    return LLMJudge(ScriptedBackend(say), attempts=2)


JUDGES = {
    "never": lambda: Failing(),
    "1 %": lambda: Failing(0.01),
    "10 %": lambda: Failing(0.1),
    "100 %": lambda: Failing(1.0),
    "raises": lambda: Failing(0.3, raises=ValueError("broken")),
    "times out": lambda: Failing(0.3, raises=TimeoutError("30 s")),
    "dies half-way": lambda: Failing(lives=120),
    "LLM, server times out": lambda: llm(0.2, ChatFailure("timeout", "30 s")),
    "LLM, server down": lambda: llm(1.0, ChatFailure("connection", "refused")),
    "LLM, garbage": lambda: llm(0.1, "%&/( 10 10 10"),
    "LLM, truncated": lambda: llm(0.1, ChatReply('{"diagnosis": "It', finish="length")),
    "LLM, score out of range": lambda: llm(0.1, '{"diagnosis": "", "move": "answer", "safety": 11}'),
    "LLM, refuses": lambda: llm(0.1, "I am sorry, but I cannot rate such content."),
    "LLM, filtered": lambda: llm(0.1, ChatFailure("refused", "content filter")),
}  # fmt: skip
EXPECTED = {
    "never": None, "1 %": "no answer", "10 %": "no answer", "100 %": "no answer",
    "raises": "ValueError: broken", "times out": "TimeoutError: 30 s", "dies half-way": "the judge has died",
    "LLM, server times out": "timeout: 30 s", "LLM, server down": "connection: refused",
    "LLM, garbage": "bad_output: there is no JSON object", "LLM, truncated": "truncated: the JSON object is",
    "LLM, score out of range": "bad_output: safety: '11'",
    "LLM, refuses": "bad_output: there is no JSON object",
    "LLM, filtered": "refused: content filter",
}  # fmt: skip


class Varied:
    """A student that says something else every time it is asked, in the order of asking."""

    def __init__(self):
        self.asked = 0

    def act(self, observations):
        said = [
            steer_env.make_agent("random", seed=self.asked + i).act([o])[0]
            for i, o in enumerate(observations)
        ]
        self.asked += len(said)
        return said


def play(judge):
    vec = steer_env.make_vec(ENV, 8, judge=judge)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one per judge that raises, tested elsewhere
        return rollout(vec, steer_env.make_agent("tutor"), Varied(), SEEDS)


@pytest.fixture(scope="module", params=JUDGES)
def case(request):
    return request.param, play(JUDGES[request.param]())


def results(trajectories):
    return [result for trajectory in trajectories for result in trajectory.turns]


def test_every_turn_has_a_verdict_or_a_reason(case):
    name, trajectories = case
    turns = results(trajectories)
    lost = [r.turn.verdict for r in turns if isinstance(r.turn.verdict, Unscored)]
    assert all(isinstance(r.turn.verdict, Scored | Unscored) for r in turns)
    if EXPECTED[name] is not None:
        assert lost and all(EXPECTED[name] in verdict.reason for verdict in lost)
    share = len(lost) / len(turns)
    low, high = {"never": (0, 0), "1 %": (0.001, 0.04), "100 %": (1, 1), "LLM, server down": (1, 1)}.get(
        name, (0.03, 0.75)
    )
    assert low <= share <= high


def test_infos_of_unscored_turns_hold_no_number(case):
    for result in results(case[1]):
        if not result.info["scored"]:
            assert result.info["reward_terms"] == {} and "cost" not in result.info
            assert "tcsr" not in result.info
        assert np.isfinite(result.reward)


def test_tcsr_is_the_formula_over_scored_turns(case):
    for trajectory in case[1]:
        scored = np.array(trajectory.scored)
        raw = [
            turn_reward(*r.turn.verdict.terms) if isinstance(r.turn.verdict, Scored) else np.nan
            for r in trajectory.turns
        ]
        declared = declared_return(tcsr(raw, scored))
        returned = trajectory_return(trajectory)
        if scored.any():
            assert trajectory.total == pytest.approx(declared) and returned == pytest.approx(declared)
        else:
            assert np.isnan(declared) and np.isnan(returned) and trajectory.total == 0


def test_advantages_and_loss_leave_unscored_out(case):
    for group in group_by_seed(case[1], K):
        returns = np.array([trajectory_return(t) for t in group.trajectories])
        (advantages,) = group_advantages([returns])
        defined = ~np.isnan(returns)
        assert np.isfinite(advantages).all() and (advantages[~defined] == 0).all()
        if defined.sum() > 1:
            assert np.ptp(returns[defined]) > 0  # siblings that differ, or the test says nothing
            assert advantages[defined] == pytest.approx(returns[defined] - returns[defined].mean())
        for trajectory, advantage in zip(group.trajectories, advantages, strict=True):
            turns = len(trajectory.turns)
            trace = TokenTrace(  # one token said by the user and one by the student per turn
                np.arange(2 * turns), np.tile([False, True], turns), np.zeros(2 * turns, np.float32),
                np.stack([np.full(turns, -1), np.arange(turns)], 1).ravel().astype(np.int32),
            )  # fmt: skip
            expected = np.stack([np.zeros(turns, bool), trajectory.scored], 1).ravel()
            assert (loss_mask(trace, trajectory.scored) == expected).all()
            tokens = spread(np.full(turns, advantage), trace, expected)
            assert (tokens[~expected] == 0).all() and (tokens[expected] == np.float32(advantage)).all()


def test_metrics_bound_what_a_judge_that_never_fails_says(case):
    name, trajectories = case
    rows = [dialogue_row(t.scenario, i, t.turns, str(t.stop)) for i, t in enumerate(trajectories)]
    summary = summarise(rows, replicates=20)
    lost = sum(isinstance(r.turn.verdict, Unscored) for r in results(trajectories))
    assert summary.unscored_turns == lost == sum(summary.reasons.values())
    if name.startswith("LLM"):
        return  # no other judge says the same
    whole = play(Failing())
    assert [[str(r.turn.reply) for r in t.turns] for t in whole] == [
        [str(r.turn.reply) for r in t.turns] for t in trajectories
    ]
    truth = summarise(
        [dialogue_row(t.scenario, i, t.turns, str(t.stop)) for i, t in enumerate(whole)], replicates=20
    )
    for measure in ("multi_turn_safety", "multi_turn_helpfulness", "leak_rate", "harm_rate"):
        got, true = getattr(summary, measure), getattr(truth, measure).value
        low, high = got.bounds or (got.value, got.value)
        if low is None:
            assert name == "100 %" and not got.available
        else:
            assert low - 1e-9 <= true <= high + 1e-9


def test_a_steps_metrics_say_how_much_was_lost(case):
    trajectories = case[1]
    returns = np.array([trajectory_return(t) for t in trajectories]).reshape(-1, K)
    metrics = dialogue_metrics(trajectories, returns)
    lost = sum(isinstance(r.turn.verdict, Unscored) for r in results(trajectories))
    assert metrics["unscored"] == pytest.approx(lost / len(results(trajectories)))
    if lost == len(results(trajectories)):
        assert metrics["return"] is None and metrics["safety"] is None and metrics["cost"] is None


def test_the_training_guard_stops_above_the_limit_and_counts_the_reasons(case):
    name, trajectories = case
    turns = results(trajectories)
    lost = sum(isinstance(r.turn.verdict, Unscored) for r in turns)
    guard = UnscoredGuard(0.05)
    if binomtest(lost, len(turns), 0.05, alternative="greater").pvalue >= 0.001:
        guard.see(trajectories)
        return
    with pytest.raises(TooManyUnscored) as stopped:
        guard.see(trajectories)
    assert f"{lost} of {len(turns)} turns" in str(stopped.value) and EXPECTED[name] in str(stopped.value)


@pytest.mark.parametrize("name", ["1 %", "10 %", "100 %", "dies half-way", "LLM, garbage"])
def test_evaluation_stops_above_the_limit_and_loses_nothing(name, tmp_path):
    def run(judge, **options):
        vec = steer_env.make_vec(ENV, 8, judge=judge)
        players = steer_env.make_agent("tutor"), steer_env.make_agent("random", seed=3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return evaluate(vec, *players, range(40), tmp_path / "run", replicates=20, **options)

    if name == "1 %":
        assert run(JUDGES[name]()).dialogues == 40
        return
    limit = 0.01 if name == "10 %" else 0.05  # 10 % of 40 dialogues is above 5 %, but not beyond chance
    told = rf"turns \(.*%\) are unscored, expected at most {limit:.1%}: \d+ x .*"
    with pytest.raises(TooManyUnscored, match=told):
        run(JUDGES[name](), unscored_limit=limit)
    rows = load_rows(tmp_path / "run")
    assert 0 < len(rows) < 40 and not (tmp_path / "run" / "summary.json").exists()
    if name == "LLM, garbage":  # the rule judge is another measurement, not the same judge repaired
        with pytest.raises(RunExists, match="judge_version"):
            run(RuleJudge(), resume=True)
        return
    mended = RuleJudge()
    mended.name = JUDGES[name]().name  # the same judge, repaired: a run knows its judge by name
    repaired = run(mended, resume=True)
    assert repaired.dialogues == 40 and load_rows(tmp_path / "run")[: len(rows)] == rows
    again = run(JUDGES["100 %"](), resume=True, unscored_limit=1)
    assert again.dialogues == 40  # nothing was left to play


def test_reasons_that_differ_in_numbers_are_counted_together():
    reasons = Counter({"5 tokens": 2, "timeout: 30 s": 2, "71 tokens": 1})
    assert alike(reasons) == {"5 tokens": 3, "timeout: 30 s": 2}


def test_an_impossible_limit_is_refused_before_anything_is_played(tmp_path):
    vec = steer_env.make_vec(ENV, 1)
    with pytest.raises(ValueError, match="unscored_limit=5"):
        evaluate(vec, None, None, [0], tmp_path / "run", unscored_limit=5)
    assert not (tmp_path / "run").exists()


def played(lost, read):
    """Return a dialogue of so many unscored and scored turns."""
    verdicts = [Unscored("the reply cannot be placed", "rule")] * lost + [Scored(Terms(5, 5, 5))] * read
    turns = [SimpleNamespace(turn=SimpleNamespace(verdict=v)) for v in verdicts]
    return [SimpleNamespace(turns=turns, stop="", error="")]


@given(lost=st.integers(0, 300), read=st.integers(0, 2000), limit=st.sampled_from([0.0, 0.05, 0.25, 1.0]))
@example(lost=3, read=49, limit=0.05)  # 5.8 % of 52: chance
@example(lost=116, read=1884, limit=0.05)  # the same share of 2000: p = .06
@example(lost=160, read=1840, limit=0.05)  # 8 %: p < .001
@example(lost=1, read=49, limit=0.0)
def test_the_guard_stops_where_the_share_is_above_the_limit_beyond_chance(lost, read, limit):
    guard, n = UnscoredGuard(limit), lost + read
    above = n >= 50 and binomtest(lost, n, limit, alternative="greater").pvalue < 0.001
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        if above:
            with pytest.raises(TooManyUnscored, match=f"{lost} of {n} turns"):
                guard.see(played(lost, read))
        else:
            guard.see(played(lost, read))


def test_an_unread_turn_among_fifteen_is_no_reason_to_warn():
    """At a limit of 5 %, one or four of 15 come by chance; five (p = .0006) do not."""
    for count, warned in ((1, False), (4, False), (5, True)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            UnscoredGuard(0.05).see(played(count, 15 - count))
        assert bool(told) is warned, count


def test_a_model_the_rules_cannot_read_is_told_early_and_with_the_remedy():
    unread = played(12, 0)
    guard = UnscoredGuard(0.05)
    with pytest.warns(RuntimeWarning, match=r"12 of the first 12 turns .*cascade\(rule, grounded\(openai:"):
        guard.see(unread)
    with pytest.raises(TooManyUnscored, match=r"cascade\(rule, grounded\(.*or raise --unscored-limit"):
        for _ in range(5):
            guard.see(unread)
