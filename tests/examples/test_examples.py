"""The example scripts run with a tiny budget."""

import importlib.util
import math
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("sb3_ppo", ["--steps", "2048", "--episodes", "64"]),
        ("sb3_dqn", ["--steps", "640", "--episodes", "64"]),
        ("cleanrl_ppo", ["--steps", "4096", "--dialogues", "64"]),
    ],
)
def test_single_agent(name, argv, capsys):
    if name.startswith("sb3"):
        pytest.importorskip("stable_baselines3")
    share = load(name).main(argv)
    assert 0.2 < share < 1.1 and "optimum" in capsys.readouterr().out


def test_torchrl_collector():
    pytest.importorskip("torchrl")
    history = load("torchrl_collector").main(["--frames", "200", "--batch", "100"])
    assert len(history) == 2
    assert all(math.isfinite(value) for row in history for value in row.values())
