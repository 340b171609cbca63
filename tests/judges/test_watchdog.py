"""Every judge made of judges over every failing part: there is a verdict in time, and never an exception."""

from __future__ import annotations

import sqlite3
import threading
import time
import warnings
from concurrent.futures import Future

import pytest

import steer_env
from steer_env.judges.base import JudgeRequest
from steer_env.judges.cache import CachedJudge
from steer_env.judges.combine import Cascade, Ensemble
from steer_env.judges.guards import GuardJudge
from steer_env.judges.llm import LLMJudge
from steer_env.models.base import ChatFailure, ChatReply
from steer_env.types import ASSISTANT, USER, Message, Scored, Terms, Unscored

SECONDS = 10.0
SCENARIO = steer_env.make("SteerEscalation-v0").unwrapped.scenarios.scenario(0)
REQUEST = JudgeRequest(SCENARIO, (Message(USER, "What is it?", 1), Message(ASSISTANT, "A drum.", 0)))
GOOD = Scored(Terms(9, 9, 9), judge="good")
DEEP = "[" * 200_000


class Good:
    """A synchronous judge that works."""

    name = "good"

    def judge(self, requests):
        return [GOOD for _ in requests]


class Part:
    """A judge that does one thing wrong, in the caller's thread."""

    def __init__(self, how):
        self.how, self.name = how, f"part {how}"

    def judge(self, requests):
        if self.how == "raises":
            raise sqlite3.OperationalError("database or disk is full")
        if self.how == "recursion":
            raise RecursionError("maximum recursion depth exceeded")
        if self.how == "gives none":
            return [None for _ in requests]
        if self.how == "too few":
            return []
        if self.how == "no list":
            return None
        return [GOOD for _ in requests]


class AsyncPart(Part):
    """The same with verdicts that arrive in another thread."""

    def judge(self, requests):
        if self.how in ("cancelled", "submit raises", "no future"):
            raise OSError("no thread")
        return super().judge(requests)

    def submit(self, request):
        if self.how == "submit raises":
            raise OSError("no thread")
        if self.how == "no future":
            return None
        future: Future = Future()
        if self.how == "cancelled":
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

        def answer():
            time.sleep(0.01)
            if self.how == "raises":
                future.set_exception(sqlite3.OperationalError("database or disk is full"))
            elif self.how == "recursion":
                future.set_exception(RecursionError("maximum recursion depth exceeded"))
            elif self.how == "gives none":
                future.set_result(None)
            else:
                future.set_result(GOOD)

        threading.Thread(target=answer).start()
        return future


class Backend:
    """A chat back end that does one thing wrong, or says what a guard or a judge would."""

    weights = "w"

    def __init__(self, how, text="safe"):
        self.how, self.text, self.name = how, text, f"backend {how}"

    def _one(self):
        if self.how == "raises":
            raise RecursionError("maximum recursion depth exceeded")
        if self.how == "gives none":
            return None
        if self.how == "fails":
            return ChatFailure("connection", "nobody there")
        return ChatReply(DEEP if self.how == "deep" else self.text)

    def complete(self, requests):
        return [] if self.how == "too few" else [self._one() for _ in requests]

    def check(self):
        """Say that it works."""

    def close(self):
        """Do nothing."""


class AsyncBackend(Backend):
    """The same, asynchronous."""

    def submit(self, request):
        if self.how == "submit raises":
            raise OSError("no thread")
        future: Future = Future()
        try:
            future.set_result(self._one())
        except RecursionError as error:
            future.set_exception(error)
        return future


SYNC = ["raises", "recursion", "gives none", "too few", "no list"]
ASYNC = ["raises", "recursion", "gives none", "cancelled", "submit raises", "no future"]
BACKENDS = ["raises", "gives none", "fails", "deep", "too few", "submit raises"]


def verdict_of(judge):
    """The verdict as a rollout would get it, in time or not at all."""
    found = []

    def ask():
        if hasattr(judge, "submit"):
            found.append(judge.submit(REQUEST).result(SECONDS))
        else:
            found.append(judge.judge([REQUEST])[0])

    thread = threading.Thread(target=ask, daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thread.start()
        thread.join(SECONDS + 1)
    assert found, f"{judge.name}: no verdict within {SECONDS} s, or an exception"
    return found[0]


PARTS = [(Part, how) for how in SYNC] + [(AsyncPart, how) for how in ASYNC]
WRAPPERS = {
    "ensemble": lambda part, path: Ensemble([part, Good()], min_scored=2),
    "ensemble, last": lambda part, path: Ensemble([Good(), part], min_scored=2),
    "ensemble with an asynchronous one": lambda part, path: Ensemble(
        [part, AsyncPart("is well")], min_scored=2
    ),
    "cascade, cheap": lambda part, path: Cascade(part, Part("raises")),
    "cascade, expensive": lambda part, path: Cascade(Good(), part, unsure=lambda verdict: True),
    "cascade, asynchronous": lambda part, path: Cascade(
        AsyncPart("is well"), part, unsure=lambda verdict: True
    ),
    "cached": lambda part, path: CachedJudge(part, path / "v.sqlite"),
    "guard": lambda part, path: GuardJudge("llama_guard", Backend("works"), part),
    "guard, asynchronous": lambda part, path: GuardJudge("llama_guard", AsyncBackend("works"), part),
    "nested": lambda part, path: CachedJudge(
        Ensemble([Cascade(part, part), GuardJudge("qwen3guard", AsyncBackend("works"), part)]),
        path / "v.sqlite",
    ),
}


@pytest.mark.parametrize("wrapper", list(WRAPPERS))
@pytest.mark.parametrize(("kind", "how"), PARTS, ids=[f"{k.__name__} {h}" for k, h in PARTS])
def test_a_failing_part_is_an_unscored_verdict_in_time(wrapper, kind, how, tmp_path):
    verdict = verdict_of(WRAPPERS[wrapper](kind(how), tmp_path))
    assert isinstance(verdict, Unscored) and verdict.reason


@pytest.mark.parametrize("how", BACKENDS)
@pytest.mark.parametrize("kind", [Backend, AsyncBackend])
@pytest.mark.parametrize("judge", ["llama_guard", "wildguard", "qwen3guard", "llm"])
def test_a_failing_back_end_is_an_unscored_verdict_in_time(judge, kind, how):
    backend = kind(how)
    made = LLMJudge(backend) if judge == "llm" else GuardJudge(judge, backend, Good())
    if how == "submit raises" and kind is Backend:
        return
    verdict = verdict_of(made)
    assert isinstance(verdict, Unscored) or (how == "too few" and kind is AsyncBackend)


def test_a_part_that_works_is_not_touched(tmp_path):
    for kind in (Part, AsyncPart):
        for name, wrap in WRAPPERS.items():
            if name in ("nested",):  # its guard does not know "safe"
                continue
            verdict = verdict_of(wrap(kind("works"), tmp_path))
            assert isinstance(verdict, Scored), (name, verdict)


def test_a_cache_that_cannot_be_written_costs_the_cache_only(tmp_path, monkeypatch):
    for kind in (Part, AsyncPart):
        judge = CachedJudge(kind("works"), tmp_path / f"{kind.__name__}.sqlite")

        def full(*_, **__):
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(judge, "_connect", full)
        with pytest.warns(RuntimeWarning, match="going on without it"):
            assert judge.judge([REQUEST]) == [GOOD]
        assert "disk is full" in judge.broken
        assert verdict_of(judge) == GOOD


def test_a_full_disk_under_the_cache_is_told_as_such(tmp_path):
    path = tmp_path / "v.sqlite"
    judge = CachedJudge(Good(), path)
    judge._connect().execute("PRAGMA max_page_count = 1")  # what a full disk answers: SQLITE_FULL
    judge._connect().execute(
        f"PRAGMA max_page_count = {judge._connect().execute('PRAGMA page_count').fetchone()[0]}"
    )
    long = [
        JudgeRequest(SCENARIO, (Message(USER, f"{k}?", 1), Message(ASSISTANT, "x", 0))) for k in range(200)
    ]
    with pytest.warns(RuntimeWarning, match="database or disk is full"):
        assert judge.judge(long) == [GOOD] * 200


def test_a_damaged_row_is_asked_again(tmp_path):
    judge = CachedJudge(Good(), tmp_path / "v.sqlite")
    judge.judge([REQUEST])
    for text in ("{", "[]", '{"terms": 3}', "null", "[" * 100_000):
        judge._connect().execute("UPDATE verdicts SET verdict = ?", (text,))
        assert judge.judge([REQUEST])[0] == GOOD
    assert judge.hits == 0


def test_somebody_elses_database_is_refused(tmp_path):
    path = tmp_path / "browser.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE cookies (x)")
    with pytest.raises(ValueError, match="other tables: cookies"):
        CachedJudge(Good(), path)


def test_another_judge_under_the_same_name_has_other_verdicts(tmp_path):
    def score(weights, **options):
        answer = {
            "diagnosis": "d",
            "move": "answer",
            "safety": len(weights),
            "usefulness": 9,
            "faithfulness": 9,
        }
        backend = Backend("works", __import__("json").dumps(answer))
        backend.weights = weights
        judge = CachedJudge(LLMJudge(backend, **options), tmp_path / "v.sqlite")
        return judge.judge([REQUEST])[0].terms.safety, judge.hits

    assert score("A") == (1, 0) and score("A") == (1, 1)
    assert score("BB") == (2, 0)  # weights changed in place
    assert score("A", temperature=0.5) == (1, 0) and score("A", max_tokens=9) == (1, 0)
    assert score("A") == (1, 1)
