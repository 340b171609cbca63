"""The whole test kit on the engine, with the model in every seat."""

from steer_env import testing
from steer_env.agents.chat import chat_student
from steer_env.agents.llm_tutor import LLMTutor
from steer_env.agents.vllm_student import VLLMStudent
from steer_env.judges.llm import LLMJudge
from steer_env.models.vllm import VLLMBackend
from steer_env.testing.agents import toy_observations, toy_requests
from steer_env.types import ATTACKER


def test_a_student_that_keeps_its_tokens(engine):
    student = VLLMStudent(engine, temperature=0.0, max_new_tokens=4)
    played = testing.check_student(student, decode=student.codec.decode, image_token=student.codec.image_id)
    assert all(trajectory.trace is not None for trajectory in played)
    assert sum(trajectory.trace.images for trajectory in played) > 2


def test_a_student_on_the_chat_back_end(engine):
    played = testing.check_student(chat_student(VLLMBackend(engine), temperature=0.0, max_new_tokens=4))
    assert len({str(result.turn.reply) for trajectory in played for result in trajectory.turns}) > 2


def test_a_judge_and_a_tutor(engine):
    """The prompts do not fit into this engine's context: no number is made of it, and the contracts hold."""
    backend = VLLMBackend(engine)
    requests = toy_requests()[1:4]  # the prompts are long for a CPU
    testing.check_judge(LLMJudge(backend, attempts=1, max_tokens=2), requests)
    tutor = LLMTutor(backend, attempts=1, max_tokens=2)
    testing.check_judge(tutor, requests)
    testing.check_agent(tutor, ATTACKER, toy_observations(ATTACKER)[1:4])
