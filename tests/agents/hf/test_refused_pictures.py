"""A picture that a model's processor refuses costs its own dialogue and no other."""

import numpy as np
import pytest

from steer_env.agents.base import Failed
from steer_env.agents.hf.codec import Prompt
from steer_env.agents.hf.student import HFStudent
from steer_env.images import Image, ImageError, refusals

THIN = Image.from_array(np.zeros((1, 300, 3), np.uint8), source="photos/thin.png")


class Processor:
    """Stands for a processor."""


def test_the_error_names_picture_and_processor():
    with (
        pytest.raises(
            ImageError, match=r"'photos/thin.png' is refused by the model's Processor \(ratio 300\)"
        ),
        refusals(THIN, Processor()),
    ):
        raise ValueError("ratio 300")
    with pytest.raises(KeyError), refusals(THIN, Processor()):  # a bug stays one
        raise KeyError("x")


def test_one_refused_picture_fails_its_dialogue_only():
    class Codec:
        def prompt(self, observation):
            if observation == "thin":
                raise ImageError("image='thin.png' is refused")
            return Prompt.__new__(Prompt)

    student = HFStudent.__new__(HFStudent)
    student.codec, student.seen = Codec(), lambda observation: observation
    student.answer = lambda prompts: [f"reply {k}" for k in range(len(prompts))]
    said = student.act(["a", "thin", "b"])
    assert [said[0], said[2]] == ["reply 0", "reply 1"]
    assert said[1] == Failed("picture: image='thin.png' is refused")
