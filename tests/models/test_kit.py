"""The whole test kit on every back end of `make test`, with the model in every seat (vLLM: tests_vllm)."""

from __future__ import annotations

import pytest

from steer_env import testing
from steer_env.agents import make_agent
from steer_env.agents.chat import ChatStudent, chat_student
from steer_env.agents.llm_tutor import LLMTutor
from steer_env.judges.llm import LLMJudge
from steer_env.models import open_backend
from steer_env.testing.agents import toy_observations, toy_requests
from steer_env.types import ATTACKER

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["hf", "openai"])
def backend(request, model_folder):
    if request.param == "hf":
        yield open_backend(f"hf:{model_folder}", device="cpu")
        return
    opened = open_backend(f"openai:{model_folder}@{request.getfixturevalue('server')}")
    yield opened
    opened.close()


def test_a_student_that_keeps_its_tokens(model_folder):
    student = make_agent(f"hf:{model_folder}", temperature=0.0, max_new_tokens=4)
    played = testing.check_student(student, decode=student.codec.decode, image_token=student.codec.image_id)
    assert all(trajectory.trace is not None for trajectory in played)
    assert sum(trajectory.trace.images for trajectory in played) > 2


def test_a_student_on_a_chat_back_end(backend):
    student = chat_student(backend, temperature=0.0, max_new_tokens=4)
    assert isinstance(student, ChatStudent)
    played = testing.check_student(student)
    assert len({str(result.turn.reply) for trajectory in played for result in trajectory.turns}) > 2


def test_a_judge_and_a_tutor(backend):
    """An untrained model's answers are cut off: no number is made of them, and the contracts hold."""
    requests = toy_requests()[1:4]  # the prompts are long for a CPU
    testing.check_judge(LLMJudge(backend, attempts=1, max_tokens=2), requests)
    tutor = LLMTutor(backend, attempts=1, max_tokens=2)
    testing.check_judge(tutor, requests)
    testing.check_agent(tutor, ATTACKER, toy_observations(ATTACKER)[1:4])
