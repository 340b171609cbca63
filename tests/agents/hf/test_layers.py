"""The layers run directly, and when they are not."""

import copy
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import LlavaForConditionalGeneration, MistralConfig

from kit.families import llava
from kit.students import SCRIPTS, play
from steer_env.agents.hf import HFStudent, ModelAdapter, packed_logprobs
from steer_env.env import DialogueEnv
from steer_env.rollout import rollout
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.testing.toys import ToyJudge
from steer_env.types import Utterance
from steer_env.vector import VectorDialogueEnv


def test_every_family_is_run_directly(other, pictures):
    model, processor = other
    student = HFStudent(model, processor, max_new_tokens=2)
    adapter = student.decoder.adapter
    assert adapter.layers() is not None
    deep = model.config.model_type == "qwen3_vl"  # its pictures reach into deeper layers
    assert (adapter.layers(pictures[:1]) is None) == deep


def test_direct_and_own_pass_give_the_same_gradients(other, pictures):
    model, processor = other
    student = HFStudent(model, processor, seed=4, max_new_tokens=4)
    _, prompts = play(student, SCRIPTS, pictures)
    found = []
    for direct in (True, False):
        model.zero_grad()
        packed = packed_logprobs(ModelAdapter(model, student.codec, direct=direct), prompts)
        (torch.linspace(-1, 1, len(packed.logprobs_N)) * packed.logprobs_N).mean().backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    model.zero_grad()
    assert found[0].keys() == found[1].keys()
    for name, grad in found[1].items():
        assert torch.allclose(found[0][name], grad, atol=1e-5, rtol=1e-3), name


def hooked(layer):
    layer.mlp.register_forward_hook(lambda module, inputs, output: output)


def replaced(layer):
    own = layer.forward
    layer.forward = lambda *args, **options: own(*args, **options)


def different(layer):
    kind = type(layer.input_layernorm)
    doubled = {"forward": lambda self, x: 2 * kind.forward(self, x)}
    layer.input_layernorm.__class__ = type("Doubled", (kind,), doubled)


@pytest.mark.parametrize("change", [hooked, replaced, different])
def test_a_changed_model_is_run_by_transformers(tiny, pictures, change):
    model = copy.deepcopy(tiny[0])
    change(model.model.language_model.layers[0])
    student = HFStudent(model, tiny[1], seed=5, max_new_tokens=4)
    assert student.decoder.adapter.layers() is None
    _, prompts = play(student, SCRIPTS, pictures)
    packed = packed_logprobs(student.decoder.adapter, prompts, forbidden=student.decoder.forbidden)
    old = packed.gather([prompt.trace.logprobs_L for prompt in prompts])
    assert float((packed.logprobs_N.detach() - old).abs().max()) < 1e-4


@pytest.mark.parametrize("module", ["model", "model.model"])
def test_a_hook_around_the_whole_model_is_heard(tiny, module):
    model = copy.deepcopy(tiny[0])
    adapter = HFStudent(model, tiny[1]).decoder.adapter
    assert adapter.layers() is not None
    handle = {"model": model, "model.model": model.model}[module].register_forward_hook(
        lambda module, inputs, output: output
    )
    assert adapter.layers() is None
    handle.remove()
    assert adapter.layers() is not None


def test_a_sliding_window_is_left_to_transformers(pictures):
    model, processor = llava()
    text = model.config.text_config
    shape = {key: getattr(text, key) for key in ("vocab_size", "hidden_size", "intermediate_size")}
    model.config.text_config = MistralConfig(
        **shape, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, sliding_window=8,
        initializer_range=0.3,
    )  # fmt: skip
    student = HFStudent(LlavaForConditionalGeneration(model.config), processor, seed=5, max_new_tokens=4)
    assert student.decoder.adapter.layers() is None
    _, prompts = play(student, SCRIPTS, pictures)
    assert min(len(prompt.trace) for prompt in prompts) > 8, "a text must be longer than the window"
    packed = packed_logprobs(student.decoder.adapter, prompts, forbidden=student.decoder.forbidden)
    old = packed.gather([prompt.trace.logprobs_L for prompt in prompts])
    assert float((packed.logprobs_N.detach() - old).abs().max()) < 1e-4


def test_autocast_and_training_are_left_to_transformers(tiny):
    adapter = HFStudent(copy.deepcopy(tiny[0]), tiny[1]).decoder.adapter
    with torch.autocast("cpu", torch.bfloat16):
        assert adapter.layers() is None
    adapter.model.train()
    assert adapter.layers() is None
    adapter.model.eval()
    assert adapter.layers() is not None


class Late:
    """An attacker behind a server that answers after random pauses."""

    def __init__(self, seed):
        self.rng, self.pool = random.Random(seed), ThreadPoolExecutor(8)

    def submit(self, seen):
        pause = self.rng.uniform(0, 0.01)
        return self.pool.submit(lambda: time.sleep(pause) or Utterance(seen["draft"]))

    def act(self, observations):
        raise AssertionError("an agent with submit is not asked in batches")


def test_a_local_model_says_the_same_whatever_the_timing_and_is_asked_in_batches(tiny):
    scenarios = [Scenario(tuple(DraftTurn(f"ask {n}.{t}") for t in range(n))) for n in (1, 2, 3)]
    seeds = [3, 3, 3, 4, 4, 4, 5, 5, 5]

    def run(seed, slots):
        student = HFStudent(*tiny, seed=7, max_new_tokens=4)
        asked, act = [], student.act
        student.act = lambda observations: asked.append(len(observations)) or act(observations)
        vec = VectorDialogueEnv([lambda: DialogueEnv(FixedScenarios(scenarios), ToyJudge())] * slots)
        played = rollout(vec, Late(seed), student, seeds)
        return [[x.turn.reply for x in t.turns] for t in played], asked

    first, asked = run(0, 4)
    assert run(1, 4)[0] == run(2, 9)[0] == first
    assert len({tuple(replies) for replies in first[:3]}) > 1, "siblings must differ"
    assert sum(asked) == sum(map(len, first))
    assert max(asked) > 1, "what waits is asked in one call"
