"""A tiny random model, its processor and some pictures, built once per run."""

import functools

import numpy as np
import pytest
import torch
from transformers import (
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from kit.families import (
    idefics3,
    llava,
    qwen3vl,
    stock_template,
)
from steer_env.agents.hf import HFStudent
from steer_env.images import Image
from steer_env.models.tiny import TinyConfig, build

TEXTS = [
    "what do you see in the picture ? please tell me .",
    "i will not help with that , but here is a safe idea .",
    "user assistant the red lantern is dangerous , keep it away .",
]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny():
    """A model with random weights large enough that replies vary."""
    config = TinyConfig(
        vocab_size=300, hidden=32, heads=2, kv_heads=1, mlp=64, vision_hidden=32, vision_heads=2, init_std=0.3
    )
    return build(TEXTS, config)


@pytest.fixture
def student(tiny):
    model, processor = tiny
    return HFStudent(model, processor, max_new_tokens=6, seed=3)


@pytest.fixture(scope="session")
def pictures():
    """Pictures of several shapes, so that they make different numbers of tokens."""
    rng = np.random.default_rng(0)
    shapes = [(56, 56), (56, 112), (140, 40), (30, 30), (56, 57)]
    return [Image.from_array(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


@pytest.fixture(params=["llava", "idefics3", "smolvlm", "qwen3vl", "qwen2.5vl"])
def other(request, tiny):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        smolvlm = functools.partial(idefics3, SmolVLMConfig, SmolVLMForConditionalGeneration)
        makers = {
            "smolvlm": smolvlm,
            "qwen3vl": lambda: qwen3vl(tiny),
            "qwen2.5vl": lambda: stock_template(tiny),
        }
        return {"llava": llava, "idefics3": idefics3, **makers}[request.param]()
