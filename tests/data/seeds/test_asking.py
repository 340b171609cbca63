from __future__ import annotations

import pytest

from kit.backends import ScriptedBackend
from steer_env.data.seeds.asking import Answer, Level, Question, Unanswered, ask, template, template_hash
from steer_env.models import BackendError, ChatFailure, ChatMessage, ChatReply
from steer_env.models.structured import Settings


class Number(Answer):
    value: Level


QUESTION = Question((ChatMessage("system", "s"), ChatMessage("user", "q")), Number)


def test_the_schema_is_closed_and_enumerates_levels() -> None:
    schema = Number.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["properties"]["value"]["enum"] == [1, 2, 3, 4, 5]


def test_an_answer_keeps_what_was_said_when_it_is_of_no_use() -> None:
    backend = ScriptedBackend(lambda request: 'Sure: {"value": 6}')
    (answer,) = ask(backend, [QUESTION], Settings(attempts=3))
    assert isinstance(answer, Unanswered) and answer.reason == "bad_output" and "value" in answer.detail
    assert answer.raw == 'Sure: {"value": 6}' and len(backend.requests) == 3
    assert ask(ScriptedBackend(lambda request: 'Sure: {"value": "3", "x": 1}'), [QUESTION], Settings()) == [
        Number(value=3)
    ]


def test_a_refusal_is_not_argued_with() -> None:
    backend = ScriptedBackend(lambda request: "I'm sorry, I can't do that.")
    (answer,) = ask(backend, [QUESTION], Settings(attempts=3))
    assert answer.reason == "refused" and answer.raw.startswith("I'm sorry") and len(backend.requests) == 1


@pytest.mark.parametrize("kind", ["connection", "auth"])
def test_a_backend_that_answers_nothing_is_an_error_and_one_lost_request_is_not(kind: str) -> None:
    lost = ChatFailure(kind, "nobody")
    with pytest.raises(BackendError, match=f"{kind}: nobody.*--resume"):
        ask(ScriptedBackend(lambda request: lost), [QUESTION] * 2, Settings())
    answers = iter([lost, ChatReply('{"value": 1}')])
    found = ask(ScriptedBackend(lambda request: next(answers)), [QUESTION] * 2, Settings())
    assert found == [Unanswered(kind, "nobody"), Number(value=1)]


def test_a_backend_that_breaks_or_miscounts_is_an_error() -> None:
    def broken(request):
        raise MemoryError("out of memory")

    with pytest.raises(BackendError, match="out of memory"):
        ask(ScriptedBackend(broken), [QUESTION], Settings())
    backend = ScriptedBackend(lambda request: "x")
    backend.complete = lambda requests: []
    with pytest.raises(BackendError, match="answers nothing"):
        ask(backend, [QUESTION], Settings())


def test_templates_are_versioned() -> None:
    names = ("benign", "obfuscated", "forensics", "rewriting", "planning", "grade")
    for name in names:
        assert f"[template {name}/" in template(name) and len(template_hash(name)) == 12
    assert len({template_hash(name) for name in names}) == len(names)


def _unbounded(node: object, path: str) -> list[str]:
    if isinstance(node, list):
        return [found for i, part in enumerate(node) for found in _unbounded(part, f"{path}[{i}]")]
    if not isinstance(node, dict):
        return []
    here = [path] if node.get("type") == "string" and not {"enum", "const", "maxLength"} & node.keys() else []
    return here + [found for key, part in node.items() for found in _unbounded(part, f"{path}.{key}")]


def test_every_free_text_of_every_schema_a_model_is_given_is_bounded() -> None:
    """A rambling answer is cut off before the numbers come; the schema keeps it short."""
    from steer_env.agents.llm_tutor import AttackAnswer, HonestAnswer
    from steer_env.data.seeds.grading import GradeAnswer
    from steer_env.data.seeds.llm import DialogueAnswer, Findings, Rewrite, ScriptAnswer
    from steer_env.judges.llm import JudgeAnswer

    shapes = (
        AttackAnswer, HonestAnswer, GradeAnswer, DialogueAnswer, Findings, Rewrite, ScriptAnswer, JudgeAnswer,
    )  # fmt: skip
    own = {shape for shape in Answer.__subclasses__() if shape.__module__.startswith("steer_env")}
    assert own - set(shapes) == {next(s for s in own if s.__name__ == "TurnAnswer")}  # is part of two of them
    assert [
        found for shape in shapes for found in _unbounded(shape.model_json_schema(), shape.__name__)
    ] == []
