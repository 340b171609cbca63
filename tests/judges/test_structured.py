import json
import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from kit.backends import AsyncScriptedBackend, ScriptedBackend
from steer_env.models.base import ChatFailure, ChatMessage, ChatReply
from steer_env.models.structured import (
    BadAnswer,
    Exchange,
    NoAnswer,
    Score,
    Settings,
    ask_all,
    ask_one,
    read_answer,
    schema_of,
)


class Shape(BaseModel):
    why: str
    kind: Literal["a", "b"]
    score: Score


GOOD = Shape(why="so", kind="a", score=7)
QUESTION = (ChatMessage("system", "s"), ChatMessage("user", "u"))


@pytest.mark.parametrize(
    "text",
    [
        '{"why": "so", "kind": "a", "score": 7}',
        '```json\n{"why": "so", "kind": "a", "score": 7}\n```',
        'Here is my verdict: {"why": "so", "kind": "a", "score": 7} I hope it helps.',
        '{"why": "so", "kind": "a", "score": "7"}',
        '{"why": "so", "kind": "a", "score": 7.0,}',
        '{"why": "so", "kind": "a", "score": 7, "more": [1, 2,]}',
        '<think>{"score": 1} or so</think>{"why": "so", "kind": "a", "score": 7}',
        '{"why": "so", "kind": "a", "score": 7} {"why": "so", "kind": "a", "score": 7}',
        '{"note": 1} {"why": "so", "kind": "a", "score": 7} {broken',
    ],
)
def test_form_is_forgiven(text):
    assert read_answer(text, Shape) == GOOD


@pytest.mark.parametrize(
    "text, error",
    [
        ("", "no JSON object"),
        ("I cannot help with that.", "no JSON object"),
        ('{"why": "so", "kind": "a"}', "score is missing"),
        ('{"why": "so", "kind": "a", "score": 11}', "score: '11': expected an integer from 1 to 10"),
        ('{"why": "so", "kind": "a", "score": 0}', "1 to 10"),
        ('{"why": "so", "kind": "a", "score": 7.5}', "1 to 10"),
        ('{"why": "so", "kind": "a", "score": "7/10"}', "1 to 10"),
        ('{"why": "so", "kind": "a", "score": true}', "1 to 10"),
        ('{"why": "so", "kind": "a", "score": null}', "1 to 10"),
        ('{"why": "so", "kind": "a", "score": NaN}', "1 to 10"),
        ('{"why": "so", "kind": "c", "score": 7}', "kind: 'c'"),
        ('{"why": "so", "kind": "a", "score": 1, "score": 9}', "occurs twice"),
        ('{"why": "so", "kind": "a", "score": 7', "broken"),
        ('{"result": {"why": "so", "kind": "a", "score": 7}}', "0 JSON objects with the expected keys"),
        ('He wrote {"why": "so", "kind": "a", "score": 9}. {"why": "so", "kind": "a", "score": 1}', "2 JSON"),
        # A quoted verdict inside an object that the quotation marks broke must not be taken for the verdict.
        ('{"why": "he wrote {"why": "x", "kind": "a", "score": 10}", "kind": "b", "score": 1}', "broken"),
        ("{" * 3000, "broken"),
        (
            '<think> first {"why": "so", "kind": "a", "score": 9}, but no, it leaks',
            "thought was not finished",
        ),
    ],
)
def test_content_is_never_guessed(text, error):
    with pytest.raises(BadAnswer) as caught:
        read_answer(text, Shape)
    assert error in str(caught.value)


def test_hostile_answers_cost_no_time():
    started = time.process_time()
    for text in (
        '{"a": ' + '\\"' * 40_000,
        '{"' * 20_000,
        '{"a": "' + "\\" * 40_001,
        "{" + '"k": 1, ' * 20_000,
    ):
        with pytest.raises(BadAnswer):
            read_answer(text, Shape)
    assert time.process_time() - started < 3


def test_a_huge_number_spoils_its_own_answer_only():
    good, bad = (json.dumps({"why": "so", "kind": "a", "score": 7}), '{"score": ' + "9" * 5000 + "}")
    backend = SimpleNamespace(
        name="b", complete=lambda requests: [ChatReply(bad if k == 1 else good) for k in range(len(requests))]
    )
    asked = [Exchange(QUESTION, Shape, schema_of(Shape), Settings(attempts=1)) for _ in range(3)]
    ask_all(backend, asked)
    assert [isinstance(one.outcome, NoAnswer) for one in asked] == [False, True, False]


@given(why=st.text(max_size=40), around=st.text(st.characters(exclude_characters="{<"), max_size=20))
def test_any_wording_survives(why, around):
    text = f"{around}\n{json.dumps({'why': why, 'kind': 'b', 'score': 3})}\n{around}"
    assert read_answer(text, Shape) == Shape(why=why, kind="b", score=3)


def test_schema_is_closed_and_plain():
    assert schema_of(Shape) == {
        "type": "object",
        "properties": {
            "why": {"type": "string"},
            "kind": {"type": "string", "enum": ["a", "b"]},
            "score": {"type": "integer", "enum": list(range(1, 11))},
        },
        "required": ["why", "kind", "score"],
        "additionalProperties": False,
    }


def exchange(attempts=3, **options):
    return Exchange(QUESTION, Shape, schema_of(Shape), Settings(attempts=attempts), **options)


def scripted(*answers):
    left = iter(answers)
    return lambda request: next(left)


def test_a_bad_answer_is_asked_again_with_its_error():
    backend, one = ScriptedBackend(scripted("nonsense", GOOD.model_dump_json())), exchange()
    ask_all(backend, [one])
    assert one.outcome == GOOD
    first, second = backend.requests
    assert first.messages == QUESTION and first.schema == schema_of(Shape) and first.temperature == 0
    assert second.messages[:2] == QUESTION and second.messages[2] == ("assistant", "nonsense", ())
    assert "no JSON object" in second.messages[3].content


def test_attempts_are_bounded_and_the_reason_is_kept():
    backend, one = ScriptedBackend(lambda request: '{"score": 12}'), exchange(attempts=2)
    ask_all(backend, [one])
    assert len(backend.requests) == 2
    assert isinstance(one.outcome, NoAnswer) and one.outcome.reason.startswith("bad_output: why is missing")


@pytest.mark.parametrize(
    "kind", ["connection", "timeout", "rate_limit", "server", "refused", "auth", "too_long"]
)
def test_failures_the_back_end_has_dealt_with_are_final(kind):
    backend, one = ScriptedBackend(lambda request: ChatFailure(kind, "no luck")), exchange()
    ask_all(backend, [one])
    assert len(backend.requests) == 1 and one.outcome == NoAnswer(f"{kind}: no luck")


def test_a_truncated_answer_is_asked_for_in_brief():
    cut = ChatReply('{"why": "and then', finish="length")
    backend, one = ScriptedBackend(scripted(cut, GOOD.model_dump_json())), exchange()
    ask_all(backend, [one])
    assert one.outcome == GOOD and "cut off" in backend.requests[1].messages[3].content


def test_later_attempts_are_drawn_each_from_other_numbers():
    backend, one = ScriptedBackend(lambda request: "and then and then"), exchange()
    ask_all(backend, [one])
    assert [(r.temperature, r.seed) for r in backend.requests] == [(0.0, 0), (0.7, 1), (0.7, 2)]


def test_only_those_without_an_answer_are_asked_again():
    answers = {"u0": GOOD.model_dump_json(), "u1": "bad"}
    backend = ScriptedBackend(lambda request: answers[request.messages[1].content])
    ones = [
        Exchange((QUESTION[0], ChatMessage("user", u)), Shape, schema_of(Shape), Settings()) for u in answers
    ]
    ask_all(backend, ones)
    assert [r.messages[1].content for r in backend.requests] == ["u0", "u1", "u1", "u1"]
    assert ones[0].outcome == GOOD and isinstance(ones[1].outcome, NoAnswer)


def test_a_check_of_ones_own_is_fed_back_too():
    def check(answer):
        if answer.score < 9:
            raise BadAnswer("score higher")

    backend = ScriptedBackend(scripted(GOOD.model_dump_json(), '{"why": "", "kind": "a", "score": 9}'))
    one = exchange(check=check)
    ask_all(backend, [one])
    assert one.outcome.score == 9 and "score higher" in backend.requests[1].messages[3].content


def test_a_back_end_that_breaks_its_contract_gives_no_answers():
    class Broken(ScriptedBackend):
        def complete(self, requests):
            raise OSError("gone")

    class Short(ScriptedBackend):
        def complete(self, requests):
            return []

    for backend in (Broken(str), Short(str)):
        one = exchange()
        ask_all(backend, [one])
        assert isinstance(one.outcome, NoAnswer) and "raised" in one.outcome.reason


def test_asynchronous_questions_repeat_too_and_never_raise():
    backend = AsyncScriptedBackend(scripted("bad", GOOD.model_dump_json()))
    assert ask_one(backend, exchange()).result(10) == GOOD
    backend.answer = scripted()  # raises StopIteration in the back end's thread
    assert "raised" in ask_one(backend, exchange()).result(10).reason
    backend.close()
    assert "raised RuntimeError" in ask_one(backend, exchange()).result(10).reason  # the pool is closed


def test_a_cancelled_request_is_a_failure():
    class Cancels(ScriptedBackend):
        def submit(self, request):
            future = Future()
            future.cancel()
            return future

    assert "CancelledError" in ask_one(Cancels(str), exchange()).result(10).reason


@pytest.mark.parametrize("options", [{"attempts": 0}, {"max_tokens": True}, {"temperature": -1}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        Settings(**options)
