from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_env.agents.backends import BackendError, ChatMessage
from steer_env.data.seeds.prompts import TEMPLATES, as_data, prompt
from steer_env.data.seeds.structured import Answer, Limits, NoAnswer, Question, ask, json_objects

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    body=st.dictionaries(st.text(), JSON, max_size=4),
    before=st.text(alphabet="ab {}[]\"'`\n", max_size=30),
    after=st.text(max_size=30),
)
def test_an_object_is_found_whatever_stands_around_it(body: dict, before: str, after: str) -> None:
    before = before.replace("{", "(")  # an open brace in front may swallow it, as it would a reader
    assert next(json_objects(before + json.dumps(body) + after)) == body


@given(st.text(max_size=60))
def test_data_cannot_leave_its_tags(text: str) -> None:
    body = as_data({"request": text})
    inner = body.removeprefix("<data>\n").removesuffix("\n</data>")
    assert "<" not in inner and ">" not in inner and json.loads(inner) == {"request": text}


class Number(Answer):
    value: int


def test_the_first_object_of_the_right_shape_counts(scripted) -> None:
    question = Question((ChatMessage("user", "q"),), Number)
    backend = scripted(lambda request: '{"other": 1} or rather {"value": 2, "note": "x"}')
    assert ask(backend, [question], Limits(retries=0)) == [Number(value=2)]
    backend = scripted(lambda request: '{"value": "many"}')
    (answer,) = ask(backend, [question], Limits(retries=2))
    assert isinstance(answer, NoAnswer) and answer.reason == "wrong_shape" and "value" in answer.detail
    assert len(backend.requests) == 3


def test_a_backend_that_miscounts_is_an_error(scripted) -> None:
    backend = scripted(lambda request: "x")
    backend.complete = lambda requests: []
    with pytest.raises(BackendError, match="0 results for 1"):
        ask(backend, [Question((ChatMessage("user", "q"),), Number)], Limits())


def test_limits_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="retries=-1, expected"):
        Limits(retries=-1)
    with pytest.raises(ValueError, match="max_tokens=0, expected"):
        Limits(max_tokens=0)


def test_templates_are_versioned() -> None:
    for name in TEMPLATES:
        assert f"[template {name}/" in prompt(name).text and len(prompt(name).hash) == 12
    assert len({prompt(name).hash for name in TEMPLATES}) == len(TEMPLATES)
