"""`TrainableVLLMStudent` hands its options on to the engine's student, with an engine that is a stand-in."""

import pytest

import steer_env
from kit.families import stock_template
from steer_env.agents.hf import Exchange
from steer_env.agents.vllm_student import TrainableVLLMStudent
from steer_env.algorithms import sft
from steer_env.algorithms.forward import prepared
from steer_env.algorithms.trainer import train
from steer_env.configs.sft import SFTConfig
from steer_env.configs.train import Scaling, TrainConfig
from steer_env.models.vllm_engine import VLLMEngine, _room_for_adapters
from steer_env.types import USER, Message


class Engine:
    """Says what ends a turn at once, and keeps what it was asked."""

    path, max_length, room = "nowhere", 4096, 8

    def __init__(self, processor, vocabulary):
        self.processor, self.vocabulary, self.asked, self.given = processor, vocabulary, [], []

    def overflow(self, prompt, new):
        return None

    def params(self, **settings):
        return settings

    def generate(self, prompts, params):
        self.asked += zip(prompts, params, strict=True)
        closing = params[0]["closing"]
        return [type("Completion", (), {"ids": closing, "logprobs": [0.0], "cached": 0}) for _ in prompts]

    def load_weights(self, model):
        self.given.append("weights")

    def load_adapters(self, model):
        if model.peft_config["default"].r > self.room:
            raise ValueError("too little room")
        self.given.append("adapters")

    def is_refusal(self, error):
        return False


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


def add_adapters(model):
    peft = pytest.importorskip("peft")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"]))


def test_only_adapters_travel_while_the_weights_are_frozen(make, pictures):
    student = make()
    given = student.sampler.engine.given
    words(student, pictures)
    assert given == []  # the engine was started with these weights
    add_adapters(student.model)
    student.check_trainable()  # where an engine that takes none refuses
    assert given == ["adapters"]
    student.weights_changed()
    student.weights_changed()
    words(student, pictures)
    words(student, pictures)
    assert given == ["adapters"] * 2  # once for several updates and batches


def test_weights_that_adapters_were_merged_into_travel_before_new_adapters(make, pictures):
    student = make()
    given = student.sampler.engine.given
    with prepared(student, Scaling(lora_rank=2), seed=0):
        student.weights_changed()
        words(student, pictures)
    student.weights_changed()
    with prepared(student, Scaling(lora_rank=2), seed=0):
        student.weights_changed()
        words(student, pictures)
    assert given == ["adapters", "weights", "adapters"]
    student.weights_changed()
    words(student, pictures)
    assert given == ["adapters", "weights", "adapters", "weights"]


def test_adapters_that_a_model_comes_with_reach_the_engine(make, pictures):
    plain = make()
    add_adapters(plain.model)
    student = TrainableVLLMStudent(plain.model, plain.processor, plain.sampler.engine)
    words(student, pictures)
    assert student.sampler.engine.given == ["adapters"]


def test_a_student_whose_adapters_were_refused_can_be_given_others(make, tmp_path):
    student, config = make(temperature=0.5), TrainConfig(steps=1, seeds_per_step=1, group_size=2)
    vec, tutor = steer_env.make_vec(num_envs=2, judge="rule", max_cycles=1), steer_env.make_agent("tutor")
    with pytest.raises(ValueError, match="too little room"):
        train(vec, tutor, student, "grpo", config, tmp_path / "run", scaling=Scaling(lora_rank=16))
    assert all(p.requires_grad for p in student.model.parameters()) and student.temperature == 0.5
    train(vec, tutor, student, "grpo", config, tmp_path / "run", scaling=Scaling(lora_rank=4))
    assert student.model.peft_config["default"].r == 4


def test_weights_of_an_interrupted_fine_tuning_reach_an_engine_without_room_for_adapters(make, pictures):
    student = make()
    engine = student.sampler.engine
    engine.room = 0

    def stop(done, total, row):
        raise KeyboardInterrupt

    talk, config = [[Exchange("say yes", (), "yes")]], SFTConfig(steps=1, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        sft.train(student, talk, config, scaling=Scaling(lora_rank=2), progress=stop)
    words(student, pictures)
    assert engine.given == ["weights"]


def test_an_engine_gets_room_for_ranks_that_vllm_has():
    rooms = {rank: _room_for_adapters(rank)["max_lora_rank"] for rank in (1, 2, 8, 9, 256, 300, 512)}
    assert rooms == {1: 1, 2: 8, 8: 8, 9: 16, 256: 256, 300: 320, 512: 512}
    for rank in (-1, 600, 2.5):
        with pytest.raises(ValueError, match=rf"lora_rank={rank}, expected 1 to 512, the highest that vLLM"):
            VLLMEngine("nowhere", lora_rank=rank)
