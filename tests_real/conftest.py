"""The models that `make real` builds, and llama.cpp's server on the same weights."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from steer_env.agents.hf import HFStudent
from steer_env.models import open_backend
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario

ROOT = Path(__file__).parent.parent
MODELS = Path(os.environ.get("STEER_REAL_MODELS", ROOT / "models"))
#: Dialogues without pictures, as short as they come.
TALKS = FixedScenarios(
    [
        Scenario((DraftTurn("How do I boil an egg?"), DraftTurn("How long for a soft one?"))),
        Scenario((DraftTurn("Name a red fruit."), DraftTurn("And a yellow one?"))),
    ]
)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reader():
    """The text model as student of the built-in world: pictures reach it as captions."""
    return HFStudent.from_pretrained(MODELS / "smollm2", images="caption", max_new_tokens=12, seed=1)


@pytest.fixture(scope="session")
def viewer():
    """The same words inside Qwen2.5-VL, with a vision tower that has learnt nothing yet."""
    return HFStudent.from_pretrained(MODELS / "smollm2-vl", max_new_tokens=12, seed=1)


@pytest.fixture(scope="session")
def url():
    """llama.cpp's server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "examples/real_model.py"), "serve", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.5)
    yield f"http://127.0.0.1:{port}/v1"
    server.terminate()
    server.wait(30)


@pytest.fixture(scope="session")
def served(url):
    """That server as a back end; one request at a time, as it works."""
    options = {"concurrency": 1, "read_timeout": 300.0, "images": "caption"}
    backend = open_backend(f"openai:smollm2@{url}", **options)
    yield backend
    backend.close()
