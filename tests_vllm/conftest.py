"""A tiny Qwen2.5-VL, one engine that runs it for all tests in process, and dialogues with pictures."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import torch

from steer_env.agents.hf import Prompt, packed_logprobs
from steer_env.agents.vllm_student import TrainableVLLMStudent
from steer_env.images import Image
from steer_env.models.tiny import TinyConfig, build, load, save
from steer_env.models.vllm_engine import VLLMEngine
from steer_env.types import ASSISTANT, USER, Message

TEXTS = [
    "what do you see in the picture ? please tell me .",
    "i will not help with that , but here is a safe idea .",
    "user assistant the red lantern is dangerous , keep it away .",
]
#: Heads of width 32, which vLLM's attention kernels take.
CONFIG = TinyConfig(vocab_size=300, hidden=64, heads=2, kv_heads=1, mlp=64, vision_heads=2, init_std=0.15)
ENGINE = {"max_model_len": 512, "max_num_seqs": 16, "enforce_eager": True, "kv_cache_memory_bytes": 2**27}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    save(*build(TEXTS, CONFIG), path)
    return str(path)


@pytest.fixture(scope="session")
def engine(folder):
    # Blocks of 32 tokens, the smallest that the CPU kernels take, so that short dialogues are cached too.
    opened = VLLMEngine(folder, block_size=32, **ENGINE)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def adaptable(folder):
    """An engine with room for adapters of rank 8."""
    opened = VLLMEngine(folder, block_size=32, lora_rank=8, **ENGINE)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def serve(folder):
    """Start vLLM's server on the model, for as long as the block lasts; gives its address."""

    @contextlib.contextmanager
    def running(log, *options, **env):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        command += ["--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "16", "--enforce-eager"]
        command += ["--kv-cache-memory-bytes", str(2**27), *options]
        with log.open("w") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, env={**os.environ, "VLLM_NO_USAGE_STATS": "1", **env}
            )
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

    return running


def wait_for(url, process, log, seconds=600):
    for _ in range(2 * seconds):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.5)
    raise AssertionError(f"the server did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture
def student(folder, engine):
    """A student that may learn; the engine gets the first weights back."""
    made = TrainableVLLMStudent(*load(folder), engine, max_new_tokens=12, seed=3)
    yield made
    if engine.weights_version:
        engine.load_weights(load(folder)[0])


@pytest.fixture
def adapting(folder, adaptable):
    """A student that may get adapters; the engine gets the first weights back."""
    made = TrainableVLLMStudent(*load(folder), adaptable, max_new_tokens=12, seed=3)
    yield made
    adaptable.load_weights(load(folder)[0])


@pytest.fixture(scope="session")
def pictures():
    """Pictures of several shapes, so that they make different numbers of tokens."""
    rng = np.random.default_rng(0)
    shapes = [(56, 56), (56, 112), (140, 40), (30, 30)]
    return [Image.from_array(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


@pytest.fixture(scope="session")
def scripts(pictures):
    """User turns of three dialogues, as (text, pictures)."""
    return [
        [("what do you see ?", pictures[:1]), ("and in this <|image_pad|> one ?", pictures[3:])],
        [("a <|im_end|> in the text", []), ("please tell me .", [])],
        [("two pictures", pictures[1:3]), ("which is dangerous ?", [])],
    ]


@pytest.fixture(scope="session")
def play(scripts):
    """Play the scripted dialogues with a student; returns its replies and the images, per dialogue."""

    def played(student, turns=2):
        replies = [[] for _ in scripts]
        for turn in range(turns):
            seen = [observe(script, said, turn) for script, said in zip(scripts, replies, strict=True)]
            for said, reply in zip(replies, student.act(seen), strict=True):
                said.append(reply)
        return replies, [seen["images"] for seen in seen]

    return played


@pytest.fixture(scope="session")
def gap():
    """Return the largest difference between sampled and recomputed log-probabilities of what was played."""

    def measured(student, replies, images):
        shown = zip(replies, images, strict=True)
        prompts = [Prompt(said[-1].meta["trace"], pictures) for said, pictures in shown]
        decoder = student.decoder
        with torch.no_grad():
            packed = packed_logprobs(
                decoder.adapter, prompts, temperature=student.temperature, forbidden=decoder.forbidden
            )
        old = packed.gather([prompt.trace.logprobs_L for prompt in prompts])
        return float((packed.logprobs_N - old).abs().max())

    return measured


def observe(script, replies, turn):
    messages, images = [], []
    for index, (text, shown) in enumerate(script[: turn + 1]):
        messages.append(Message(USER, text, len(shown)))
        images += shown
        if index < turn:
            messages.append(Message(ASSISTANT, replies[index]))
    return {"images": tuple(images), "transcript": tuple(messages)}
