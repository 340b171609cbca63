"""`TrainableVLLMStudent` hands its options on to the engine's student, with an engine that is a stand-in."""

import pytest

from kit.families import stock_template
from steer_env.agents.vllm_student import TrainableVLLMStudent
from steer_env.types import USER, Message


class Engine:
    """Says what ends a turn at once, and keeps what it was asked."""

    path, max_length = "nowhere", 4096

    def __init__(self, processor, vocabulary):
        self.processor, self.vocabulary, self.asked = processor, vocabulary, []

    def overflow(self, prompt, new):
        return None

    def params(self, **settings):
        return settings

    def generate(self, prompts, params):
        self.asked += zip(prompts, params, strict=True)
        closing = params[0]["closing"]
        return [type("Completion", (), {"ids": closing, "logprobs": [0.0], "cached": 0}) for _ in prompts]

    def load_weights(self, model):
        pass


@pytest.fixture
def make(tiny):
    model, processor = stock_template(tiny)

    def student(**options):
        return TrainableVLLMStudent(
            model, processor, Engine(processor, model.config.text_config.vocab_size), **options
        )

    return student


def words(student, pictures, **shown):
    observation = {"images": pictures[:1], "transcript": (Message(USER, "look", 1),)}
    student.act([observation])
    (prompt, params) = student.sampler.engine.asked[-1]
    return student.codec.tokenizer.decode(list(prompt.ids)), prompt, params


def test_a_system_prompt_stands_in_what_the_engine_is_given(make, pictures):
    said, prompt, _ = words(make(system="Be brief."), pictures)
    assert "Be brief." in said and len(prompt.images) == 1
    assert "Be brief." not in words(make(), pictures)[0]


def test_pictures_are_left_out_on_request(make, pictures):
    said, prompt, _ = words(make(images="no"), pictures)
    assert not prompt.images and "look" in said and "<|image_pad|>" not in said


def test_options_of_the_template_reach_it(make, pictures):
    student = make(template_options={"add_vision_id": True})
    assert student.codec.template_options == student.sampler.codec.template_options == {"add_vision_id": True}
    assert student.sampler.codec is student.codec


def test_what_is_set_later_is_what_is_sampled_with(make, pictures):
    student = make(temperature=0.5)
    student.max_new_tokens, student.temperature = 7, 0.25
    _, _, params = words(student, pictures)
    assert params["max_new_tokens"] == 7 and params["temperature"] == 0.25
