"""One student, whichever back end it is opened through: the same longest reply."""

from __future__ import annotations

import inspect

from steer_env.agents.chat import ChatStudent
from steer_env.agents.hf import HFStudent
from steer_env.agents.vllm_student import VLLMStudent
from steer_env.spaces import MAX_NEW_TOKENS


def test_every_student_has_the_same_longest_reply() -> None:
    assert MAX_NEW_TOKENS == 256
    for student in (HFStudent, ChatStudent, VLLMStudent):
        assert inspect.signature(student).parameters["max_new_tokens"].default == MAX_NEW_TOKENS, student
