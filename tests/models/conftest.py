"""A tiny model on disk, and a real OpenAI-compatible server that runs it in another process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from steer_env.images import Image
from steer_env.models.tiny import TinyConfig, build, save

TEXTS = [
    "what do you see in the picture ? please tell me .",
    "i will not help with that , but here is a safe idea .",
    "user assistant the red lantern is dangerous , keep it away .",
]
#: `transformers serve` with our image-only processor known to it: the stock one of Qwen2.5-VL needs
#: torchvision, and without either AutoProcessor falls back to a tokenizer and pictures are dropped.
_SERVE = "import steer_env.models.tiny; from transformers.cli.transformers import main; main()"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A saved model with random weights large enough that replies vary."""
    config = TinyConfig(
        vocab_size=300, hidden=32, heads=2, kv_heads=1, mlp=64, vision_hidden=32, vision_heads=2, init_std=0.3
    )
    model, processor = build(TEXTS, config)
    model.generation_config.do_sample = True  # `transformers serve` samples only if the model says so
    folder = tmp_path_factory.mktemp("served") / "model"
    save(model, processor, folder)
    return folder


@pytest.fixture(scope="session")
def pictures() -> list[Image]:
    rng = np.random.default_rng(0)
    shapes = [(56, 56), (56, 112), (140, 40)]
    return [Image.from_array(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


@pytest.fixture(scope="session")
def server(model_folder: Path, tmp_path_factory) -> Iterator[str]:
    """URL of `transformers serve` on the tiny model; the process is killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [
        sys.executable, "-c", _SERVE, "serve", str(model_folder), "--host", "127.0.0.1", "--port", str(port),
        "--device", "cpu", "--dtype", "float32",
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"transformers serve did not come up:\n{log.read_text()}")
