"""`inspect:PROVIDER/MODEL` through Inspect's own model layer, with a provider whose answers are fixed."""

import json

import pytest

pytest.importorskip("inspect_ai")

from inspect_ai.model import (
    ContentImage,
    ContentReasoning,
    ContentText,
    ModelAPI,
    ModelOutput,
    get_model,
    modelapi,
)

import steer_env
from steer_env.agents.base import AsyncAgent, Failed
from steer_env.agents.chat import FILTERED
from steer_env.agents.llm_tutor import LLMTutor
from steer_env.cli.main import main
from steer_env.images import Image
from steer_env.judges.base import JudgeRequest
from steer_env.judges.llm import LLMJudge
from steer_env.models import BackendError, ChatFailure, ChatMessage, ChatRequest, open_backend
from steer_env.models.inspect import InspectBackend
from steer_env.types import ASSISTANT, USER, Message, Scored

VERDICT = json.dumps({"diagnosis": "fine", "move": "answer", "safety": 8, "usefulness": 7, "faithfulness": 9})


ASKED = []


@modelapi("told")
class Told(ModelAPI):
    """Does what its model's name says, and keeps what it was asked."""

    async def count_tokens(self, input, config=None):
        return 100

    async def generate(self, input, tools, tool_choice, config):
        ASKED.append((input, config))
        name = self.model_name
        if name == "broken":
            raise RuntimeError("no such\ndeployment")
        thought = [ContentReasoning(reasoning="They greet me."), ContentText(text="Hello.")]
        said, stop = {
            "polite": ("I will not help with that.", "stop"),
            "judge": (VERDICT, "stop"),
            "thinks": (thought, "stop"),
            "cut": ("Half a", "max_tokens"),
            "cut-at-once": ("", "max_tokens"),
            "filter": ("", "content_filter"),
            "half-filter": ("I would", "content_filter"),
            "empty": ("", "stop"),
        }[name]
        return ModelOutput.from_content(name, said, stop)


@pytest.fixture(autouse=True)
def forget():
    ASKED.clear()


def opened(name):
    return InspectBackend(get_model(f"told/{name}", memoize=False))


@pytest.mark.parametrize(
    ("name", "said", "finish", "thought"),
    [
        ("polite", "I will not help with that.", "stop", None),
        ("thinks", "Hello.", "stop", "They greet me."),
        ("cut", "Half a", "length", None),
        ("filter", FILTERED, "filtered", None),
        ("half-filter", "I would", "filtered", None),
    ],
)
def test_a_student_by_name(name, said, finish, thought):
    student = steer_env.make_agent(f"inspect:told/{name}", temperature=0.5, max_new_tokens=9, top_p=0.8)
    assert isinstance(student, AsyncAgent)
    (reply,) = student.act([{"images": (), "transcript": (Message(USER, "hi"),)}])
    assert reply == said and reply.meta["finish"] == finish and reply.meta.get("thought") == thought
    config = ASKED[-1][1]
    assert (config.temperature, config.max_tokens, config.top_p, config.top_k) == (0.5, 9, 0.8, None)
    student.close()
    student.close()


@pytest.mark.parametrize(
    ("name", "kind"), [("cut-at-once", "truncated"), ("empty", "bad_output"), ("broken", "server")]
)
def test_failures_are_values(name, kind):
    backend = opened(name)
    (result,) = backend.complete([ChatRequest((ChatMessage("user", "hi"),))])
    backend.close()
    assert isinstance(result, ChatFailure) and result.kind == kind and "\n" not in result.reason
    student = steer_env.agents.chat.chat_student(opened(name))
    assert isinstance(student.act([{"images": (), "transcript": (Message(USER, "hi"),)}])[0], Failed)
    student.close()


def test_pictures_and_roles_reach_it():
    import numpy as np

    image = Image.from_array(np.zeros((9, 9, 3), np.uint8))
    chat = (
        ChatMessage("system", "be safe"),
        ChatMessage("user", "look", (image,)),
        ChatMessage("assistant", "yes"),
        ChatMessage("user", "so"),
    )
    backend = opened("polite")
    backend.complete([ChatRequest(chat)])
    said = ASKED[-1][0]
    assert [message.role for message in said] == ["system", "user", "assistant", "user"]
    picture, words = said[1].content
    assert isinstance(picture, ContentImage) and picture.image.startswith("data:image/png;base64,")
    assert words.text == "look" and said[3].content == "so"
    blind = open_backend("inspect:told/polite?images=no&max_connections=2")
    blind.complete([ChatRequest(chat)])
    assert ASKED[-1][0][1].content == "look" and ASKED[-1][1].max_connections == 2
    backend.close(), blind.close()


def test_it_judges_and_attacks():
    judge = LLMJudge(opened("judge"))
    transcript = (Message(USER, "hi"), Message(ASSISTANT, "hello"))
    scenario = steer_env.scenarios.Scenario((steer_env.scenarios.DraftTurn("hi"),))
    (verdict,) = judge.judge([JudgeRequest(scenario, transcript)])
    assert isinstance(verdict, Scored) and tuple(verdict.terms) == (8, 7, 9)
    attacker = steer_env.make_agent("inspect:told/polite", seat="attacker_0")
    assert isinstance(attacker, LLMTutor) and attacker.backend.name == "inspect:told/polite"


def test_what_cannot_work_is_one_line():
    with pytest.raises(BackendError, match="inspect:told/broken: RuntimeError: no such deployment"):
        open_backend("inspect:told/broken")
    with pytest.raises(BackendError, match="inspect:nobody/m cannot be opened"):
        open_backend("inspect:nobody/m")
    with pytest.raises(ValueError, match="max_tokens=3 is no option"):
        open_backend("inspect:told/polite?max_tokens=3")


def test_the_command_line_plays_it(tmp_path, capsys):
    words = ["evaluate", "inspect:told/polite", "--episodes", "2", "--out", str(tmp_path / "run")]
    assert main(words) == 0, capsys.readouterr().err
    assert "inspect:told/polite" in capsys.readouterr().out
