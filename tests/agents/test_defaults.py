"""One student, whichever back end it is opened through: the same longest reply."""

from __future__ import annotations

import inspect

from steer_env.agents.base import Sampler
from steer_env.agents.chat import ChatStudent
from steer_env.agents.hf import HFStudent
from steer_env.agents.vllm_student import TrainableVLLMStudent, VLLMStudent
from steer_env.spaces import MAX_NEW_TOKENS


def test_every_student_has_the_same_longest_reply() -> None:
    assert MAX_NEW_TOKENS == 256
    assert inspect.signature(Sampler).parameters["max_new_tokens"].default == MAX_NEW_TOKENS
    for student in (HFStudent, ChatStudent, VLLMStudent, TrainableVLLMStudent):
        assert issubclass(student, Sampler)
        kinds = student.__mro__[: student.__mro__.index(Sampler)]
        own = [kind for kind in kinds if "max_new_tokens" in inspect.signature(kind.__init__).parameters]
        assert not own, f"{own} has a default of its own beside Sampler's"
