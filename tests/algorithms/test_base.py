import dataclasses
import doctest
import re
from pathlib import Path

import pytest

from kit.training import SMALL, same, weights
from steer_env.algorithms import base
from steer_env.algorithms.base import (
    algorithm_names,
    make_algorithm,
    make_example,
    register_algorithm,
)
from steer_env.algorithms.policy import PolicyGradient
from steer_env.algorithms.trainer import train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registry(monkeypatch):
    algorithm_names()
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    return base._REGISTRY


def test_examples_in_docstrings():
    assert doctest.testmod(base).failed == 0


def test_the_example_of_the_docs_trains(registry, make_vec, make_student, learner, tmp_path):
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "algorithms.md").read_text(), re.S)
        if "awr" in block
    )
    assert len(code.split("@register_algorithm")[1].splitlines()) <= 30
    exec(code, {"__name__": "mine"})
    algorithm = make_algorithm("awr", sharpness=0.5)
    student = make_student()
    before = weights(student)
    config = dataclasses.replace(SMALL, steps=1)
    rows = train(make_vec(), learner, student, algorithm, config, tmp_path / "run")
    assert not same(before, weights(student))
    assert rows[0]["imitation"] > 0


def test_the_docs_name_every_algorithm_and_option():
    text = (ROOT / "docs" / "algorithms.md").read_text()
    for name in algorithm_names():
        assert f"`{name}`" in text
        for option in make_algorithm(name).options():
            assert f"`{option}`" in text


def test_unknown_names_and_options_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="algorithm='rlooo' is not registered; did you mean 'rloo'"):
        make_algorithm("rlooo")
    with pytest.raises(
        ValueError, match=r"option='clip' is none of dapo's, expected one of: .*clip_high=0.28"
    ):
        make_algorithm("dapo", clip=0.1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("grpo", {"credit": "turn"}, "credit='turn', expected one of 'own_turn', 'discounted'"),
        ("grpo", {"ratio": "word"}, "ratio='word', expected one of 'token', 'turn', 'sequence'"),
        ("dr_grpo", {"normaliser": 0.0}, "normaliser=0.0, expected a finite number above 0"),
        ("dapo", {"drop_flat": 1}, "drop_flat=1, expected True or False"),
        ("reinforce", {"baseline_kind": "none"}, "baseline_kind='none', expected one of 'batch', 'running'"),
        ("reinforce", {"decay": 1.5}, "decay=1.5"),
        ("ppo", {"trace_decay": 2.0}, "trace_decay=2.0"),
        ("ppo", {"credit": "reward_to_go"}, "credit='reward_to_go', expected 'trajectory': ppo does not"),
        ("grpo", {"discount": 1.5}, "discount=1.5"),
        ("ppo", {"unit": "word"}, "unit='word', expected one of 'turn', 'token'"),
        ("constrained_grpo", {"limit": -1.0}, "limit=-1.0"),
        ("constrained_grpo", {"rescale": 1}, "rescale=1, expected True or False"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_algorithm(name, **options)


def test_a_name_is_taken_once(registry):
    with pytest.raises(ValueError, match=r"name='rloo' is taken by steer_env\.algorithms\.presets\.rloo"):
        register_algorithm("rloo")(dataclasses.make_dataclass("Other", [], bases=(PolicyGradient,)))


def test_a_dialogue_left_out_needs_no_tokens():
    from kit.dialogues import trajectory

    assert make_example(trajectory(1.0), None) is None


def test_training_from_python_says_how_far_it_is(make_vec, make_student, learner, tmp_path, capsys):
    config = dataclasses.replace(SMALL, steps=1)
    train(make_vec(), learner, make_student(), "rloo", config, tmp_path / "run")
    assert capsys.readouterr().err.startswith("step 1/1: return ")
    train(make_vec(), learner, make_student(), "rloo", config, tmp_path / "silent", progress=None)
    assert capsys.readouterr().err == ""
