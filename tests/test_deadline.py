"""An answer that never comes ends its dialogue or its verdict, and not the run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import steer_env
from steer_env.agents import make_agent
from steer_env.agents.base import Failed, Observation
from steer_env.judges import base
from steer_env.judges.base import JudgeRequest, give_up, read_verdict
from steer_env.judges.rule import RuleJudge
from steer_env.play.evaluate import evaluate, load_rows, source_of
from steer_env.play.rescore import rescore
from steer_env.rollout import rollout
from steer_env.types import Unscored, Utterance, Verdict

NEVER = "no answer within 0.3 s"


class Forgetful:
    """An agent, or a judge, that forgets every third question; what it gives is running or not."""

    name = "forgetful"

    def __init__(self, inner: Any, running: bool) -> None:
        self.inner, self.running, self.asked = inner, running, 0

    def _later(self, make: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.running:
            future.set_running_or_notify_cancel()
        self.asked += 1
        if self.asked % 3:
            future.set_result(make())
        return future


class Student(Forgetful):
    def act(self, observations: Sequence[Observation]) -> Sequence[Utterance | Failed]:
        return self.inner.act(observations)

    def submit(self, observation: Observation) -> Future[Any]:
        return self._later(lambda: self.inner.act([observation])[0])


class Judge(Forgetful):
    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        return self.inner.judge(requests)

    def submit(self, request: JudgeRequest) -> Future[Any]:
        return self._later(lambda: self.inner.judge([request])[0])


@pytest.mark.parametrize("running", [False, True])
def test_a_lost_reply_fails_its_dialogue(running: bool) -> None:
    vec = steer_env.make_vec("SteerEscalation-v0", 4)
    student = Student(make_agent("constructive"), running)
    played = rollout(vec, steer_env.make_attacker("SteerEscalation-v0"), student, range(8), deadline=0.3)
    failed = [t for t in played if t.stop == "failed"]
    assert len(played) == 8 and failed
    assert all(t.error == f"student_0: timeout: {NEVER}, given up" for t in failed)


@pytest.mark.parametrize("running", [False, True])
def test_a_lost_verdict_is_unscored(running: bool, tmp_path: Path) -> None:
    vec = steer_env.make_vec("SteerEscalation-v0", 4, judge=Judge(RuleJudge(), running), max_turns=3)
    options = {"unscored_limit": 1.0, "deadline": 0.3}
    with pytest.warns(RuntimeWarning, match=NEVER):
        evaluate(
            vec,
            steer_env.make_attacker("SteerEscalation-v0"),
            make_agent("refuse"),
            range(4),
            tmp_path,
            **options,
        )
    verdicts = [turn["verdict"] for row in load_rows(tmp_path) for turn in row["turns"]]
    assert len(load_rows(tmp_path)) == 4
    lost = [v for v in verdicts if "unscored" in v]
    assert lost and len(lost) < len(verdicts) and all(NEVER in v["unscored"] for v in lost)
    scenes = lambda row: source_of(vec).scenario(row["seed"])  # noqa: E731
    with pytest.warns(RuntimeWarning, match=NEVER):
        rescore(tmp_path, Judge(RuleJudge(), running), scenes, tmp_path / "again", deadline=0.3)
    assert len(load_rows(tmp_path / "again")) == 4


def test_who_waits_for_one_verdict_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "DEADLINE", 0.05)
    with pytest.warns(RuntimeWarning, match="TimeoutError"):
        assert isinstance(read_verdict(Judge(RuleJudge(), True), Future()), Unscored)


def test_each_answer_has_the_whole_time() -> None:
    early: Future[Any] = Future()
    since: dict[Future[Any], float] = {}
    give_up([early, done()], since, 0.4)  # one is there: no waiting
    time.sleep(0.2)
    late: Future[Any] = Future()
    started = time.monotonic()
    give_up([early, late], since, 0.4)
    assert 0.1 < time.monotonic() - started < 0.35 and early.done() and not late.done()
    with pytest.raises(TimeoutError):
        early.result()


def done() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(1)
    return future
