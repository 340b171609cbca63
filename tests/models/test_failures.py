"""The failure matrix: what a server can do wrong, what becomes of it, and that the run goes on."""

from __future__ import annotations

import json
import logging
import time

import pytest

import steer_env
from kit import servers
from steer_env.agents import make_agent
from steer_env.agents.base import Failed
from steer_env.agents.chat import chat_student
from steer_env.models import BackendError, ChatMessage, ChatReply, ChatRequest
from steer_env.models.openai import OpenAIBackend
from steer_env.play.evaluate import evaluate, load_rows
from steer_env.rollout import rollout
from steer_env.testing.agents import toy_observations
from steer_env.trajectory import StopReason
from steer_env.types import STUDENT, Utterance

Handler, answer, echo, serving = servers.Handler, servers.answer, servers.echo, servers.serving

KEY = "sk-very-secret-0123456789abcdef"


def error(status, message="no", code=None, **headers):
    def behave(handler, body, number):
        handler.send(status, json.dumps({"error": {"message": message, "code": code}}), **headers)

    return behave


def say(text, finish="stop", **message):
    return lambda handler, body, number: handler.say(text, finish, **message)


def raw(body, **options):
    return lambda handler, _, number: handler.send(200, body, **options)


def once(behave):
    then = say("hello")
    return lambda handler, body, number: (behave if number == 0 else then)(handler, body, number)


def drop(handler: Handler, body, number):
    handler.hang_up()


def hang(handler: Handler, body, number):
    handler.server.released.wait(20)


def die_half_way(handler: Handler, body, number):
    handler.send(200, answer("hello")[:40], length=4000)
    handler.hang_up()


HANGS_ONCE = once(hang)
#: What the server does, the kind of failure (None: it succeeds), how often it is asked with retries=2.
MATRIX = {
    "drops connections": (drop, "connection", 3),
    "drops the first connection": (once(drop), None, 2),
    "dies half-way through the answer": (die_half_way, "connection", 3),
    "dies half-way once": (once(die_half_way), None, 2),
    "429 with Retry-After, then answers": (once(error(429, Retry_After="0.01")), None, 2),
    "429 always": (error(429), "rate_limit", 3),
    "429 with a Retry-After of a day": (error(429, Retry_After="86400"), "rate_limit", 1),
    "429 because the quota is used up": (error(429, code="insufficient_quota"), "rate_limit", 1),
    "500, then answers": (once(error(500)), None, 2),
    "500 always": (error(500), "server", 3),
    "503 with a page of HTML": (lambda h, b, n: h.send(503, "<html>busy</html>"), "server", 3),
    "hangs": (hang, "timeout", 3),
    "hangs once": (HANGS_ONCE, None, 2),
    "truncated JSON": (raw(answer("hello")[:-9]), "bad_output", 3),
    "truncated JSON once": (once(raw(answer("hello")[:-9])), None, 2),
    "not JSON at all": (raw("<html>welcome</html>"), "bad_output", 3),
    "JSON that is no answer": (raw("[1]"), "bad_output", 3),
    "no choices": (raw('{"choices": []}'), "bad_output", 3),
    "no text": (say(None), "bad_output", 3),
    "content filter": (say(None, "content_filter"), "refused", 1),
    "content filter by status": (error(400, "policy", code="content_filter"), "refused", 1),
    "the model's refusal field": (say(None, refusal="I cannot"), "refused", 1),
    "max_tokens before a word": (say("", "length"), "truncated", 1),
    "chat too long": (error(400, "maximum context length is 64 tokens"), "too_long", 1),
    "413": (error(413), "too_long", 1),
    "wrong key": (error(401, f"Incorrect API key provided: {KEY}"), "auth", 1),
    "forbidden": (error(403), "auth", 1),
    "wrong model": (error(404, "The model `m` does not exist"), "bad_request", 1),
    "unknown option": (error(422, "extra field"), "bad_request", 1),
}


def open_backend(server, **options):
    # Only a server that hangs is given up soon: on a busy machine an honest answer may take its time.
    soon = 0.5 if server.behaviour in (hang, HANGS_ONCE) else 20.0
    quick = {"retries": 2, "backoff": 0.01, "read_timeout": soon, "connect_timeout": 20.0}
    return OpenAIBackend("m", server.url, **{**quick, **options})


def ask(text="hi", **options):
    return ChatRequest((ChatMessage("user", text),), **options)


@pytest.mark.parametrize("name", MATRIX)
def test_failure_matrix(name, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    behave, kind, attempts = MATRIX[name]
    with serving(behave) as server:
        backend = open_backend(server)
        (result,) = backend.complete([ask()])
        backend.close()
        assert len(server.requests) == attempts
        assert server.keys == {f"Bearer {KEY}"}
    if kind is None:
        assert isinstance(result, ChatReply) and result.text == "hello"
        assert result.meta["attempts"] == attempts
    else:
        assert (result.kind, result.attempts) == (kind, attempts)
        assert result.reason and "\n" not in result.reason and KEY not in result.reason


def test_nobody_listens():
    with serving(echo) as server:
        backend = open_backend(server)
    (result,) = backend.complete([ask()])
    assert (result.kind, result.attempts) == ("connection", 3)


def test_total_timeout_ends_the_attempts():
    with serving(hang) as server:
        backend = open_backend(server, read_timeout=10, total_timeout=0.2)
        (result,) = backend.complete([ask()])
        assert (result.kind, result.attempts) == ("timeout", 1) and "total_timeout=0.2" in result.reason
        backend.close()


def test_total_timeout_while_waiting_reports_what_went_wrong():
    with serving(error(500, "busy")) as server:
        backend = open_backend(server, backoff=30, total_timeout=0.3)
        (result,) = backend.complete([ask()])
        assert (result.kind, result.attempts) == ("server", 1) and "busy" in result.reason
        backend.close()


def test_one_bad_request_does_not_hurt_the_others():
    def behave(handler, body, number):
        (error(500) if body["messages"][-1]["content"] == "bad" else echo)(handler, body, number)

    with serving(behave) as server:
        backend = open_backend(server)
        results = backend.complete([ask(text) for text in ("a", "bad", "b", "bad", "c")])
        assert [r.text[0] if isinstance(r, ChatReply) else r.kind for r in results] == [
            "a", "server", "b", "server", "c",
        ]  # fmt: skip
        backend.close()


def test_closing_answers_what_is_under_way():
    with serving(hang) as server:
        backend = open_backend(server, read_timeout=10)
        future = backend.submit(ask())
        while not server.requests:
            time.sleep(0.01)
        backend.close()
        assert future.result(timeout=5).kind == "connection"
        backend.close()


# -- students: a failure is data --------------------------------------------------------------------------


def test_a_student_answers_failed_and_goes_on():
    behave = lambda h, b, n: (error(500, "out of memory") if n % 2 else echo)(h, b, n)  # noqa: E731
    observations = toy_observations(STUDENT)[:4]
    with serving(behave) as server:
        student = chat_student(open_backend(server, retries=0, concurrency=1))
        said = student.act(observations)
        assert [type(reply) for reply in said] == [Utterance, Failed, Utterance, Failed]
        assert said[1].reason == "server: HTTP 500: out of memory (1 attempt)"
        later = [student.submit(observation).result(timeout=5) for observation in observations]
        assert [type(reply) for reply in later] == [Utterance, Failed, Utterance, Failed]
        student.close()


# Rollouts that take `Failed` record the dialogue and go on; the protocol alone is tested above.
takes_failed = pytest.mark.skipif(not hasattr(StopReason, "FAILED"), reason="rollout takes no Failed yet")


@takes_failed
def test_a_run_goes_on_and_records_what_failed():
    """Every fifth request of this server fails for good; nothing else is lost."""
    behave = lambda h, b, n: (echo if n % 5 else error(500, "out of memory"))(h, b, n)  # noqa: E731
    with serving(behave) as server:
        student = chat_student(open_backend(server, retries=0))
        vec = steer_env.make_vec("SteerEscalation-v0", 4)
        played = rollout(vec, make_agent("tutor"), student, range(8))
        student.close()
        failures = (len(server.requests) + 4) // 5
        turns = sum(len(trajectory.turns) for trajectory in played)
        assert len(played) == 8 and turns == len(server.requests) - failures
    failed = [trajectory for trajectory in played if trajectory.stop == StopReason.FAILED]
    assert len(failed) == failures > 1 and len(failed) < 8
    assert all("server: HTTP 500: out of memory (1 attempt)" in trajectory.error for trajectory in failed)


@takes_failed
def test_a_server_that_dies_half_way_loses_nothing_written(tmp_path):
    refuse = say("I will not help with that.")  # the rule judge can place it
    behave = lambda h, b, n: (refuse if n < 24 else drop)(h, b, n)  # noqa: E731
    with serving(behave) as server:
        student = chat_student(open_backend(server, retries=1))
        vec = steer_env.make_vec("SteerEscalation-v0", 2)
        evaluate(vec, make_agent("tutor"), student, range(12), tmp_path)
        student.close()
        asked = len(server.requests)
    rows = load_rows(tmp_path)
    assert sorted(row["seed"] for row in rows) == list(range(12))
    assert sum(len(row["turns"]) for row in rows) == 24
    stops = [row["stop"] for row in rows]
    assert "seed_end" in stops and stops.count("failed") == (asked - 24) // 2


# -- before any work --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behave", "expected"),
    [
        (error(401, f"bad key {KEY}"), "refuses the key; set OPENAI_API_KEY to a valid key"),
        (error(404, "The model `m` does not exist"), "The model `m` does not exist; check the model's name"),
        (drop, "start the server, or check the URL"),
        (raw("<html>"), "the answer is no JSON"),
    ],
)
def test_check_says_in_one_line_what_is_wrong(behave, expected, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(behave) as server, pytest.raises(BackendError) as caught:
        open_backend(server, retries=0).check()
    message = str(caught.value)
    assert expected in message and "\n" not in message and KEY not in message
    assert message.startswith(f"openai:m@{server.url}: ")


def test_check_finds_a_server_that_drops_pictures():
    def behave(handler, body, number):
        reply = json.loads(answer("hello"))
        handler.send(200, json.dumps({**reply, "usage": {"prompt_tokens": 7}}))

    with serving(behave) as server:
        with pytest.raises(BackendError, match="the server drops pictures"):
            open_backend(server).check()
        open_backend(server, image_check=False).check()


def test_a_named_key_must_be_there(monkeypatch):
    monkeypatch.delenv("MY_API_KEY", raising=False)
    with serving(say("hello")) as server:
        with pytest.raises(BackendError, match="key_env='MY_API_KEY' is not set"):
            open_backend(server, key_env="MY_API_KEY").check()
        assert not server.requests


def test_the_key_is_never_shown(monkeypatch, caplog, capfd):
    """Not in names, copies, logs at any level, failures or errors, even if the server says it back."""
    import pickle

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    with serving(error(500, f"{'x' * 290} your key {KEY} is odd")) as server:
        backend = open_backend(server)
        (result,) = backend.complete([ask()])
        with pytest.raises(BackendError) as caught:
            backend.check()
        shown = [repr(backend), str(vars(backend)), backend.name, repr(result), str(caught.value)]
        shown += [repr(pickle.dumps(backend)), caplog.text, *capfd.readouterr()]
        backend.close()
    assert caplog.records  # the client does log
    secret = [text for text in shown if any(KEY[i : i + 8] in text for i in range(len(KEY) - 7))]
    assert not secret
