"""One dialect of validation: what every room refuses, and how it says so."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import steer_env
from steer_env import checks
from steer_env.agents.chat import ChatStudent
from steer_env.configs.env import EnvConfig
from steer_env.models.base import ChatReply
from steer_env.models.structured import Settings
from steer_env.world import WorldSource
from steer_env.wrappers import TCSR, HarmCost, HelpfulnessReward, RepetitionPenalty, SafetyReward, TurnReward


class Backend:
    """A chat model that nobody asks."""

    name, weights = "none", ""

    def complete(self, requests):
        return [ChatReply("") for _ in requests]

    def close(self):
        pass


def bare():
    return steer_env.make(wrappers=())


def student(**options):
    return ChatStudent(Backend(), **options)


REFUSED = [
    (steer_env.make, {"min_turns": 2.5, "max_turns": 3.5}, "min_turns=2.5, expected an integer"),
    (steer_env.make, {"single_turn": "no"}, "single_turn='no', expected True or False"),
    (steer_env.make, {"alpha": True}, "alpha=True, expected a finite number"),
    (steer_env.make, {"alpha": math.nan}, "alpha=nan, expected a finite number"),
    (steer_env.make, {"max_length": True}, "max_length=True, expected an integer"),
    (steer_env.make, {"max_cycles": math.inf}, "max_cycles=inf, expected an integer"),
    (steer_env.make, {"weights": (True, False, False)}, "weights="),
    (steer_env.make, {"weights": (math.nan, 0.5, 0.5)}, "weights="),
    (steer_env.make, {"weights": "abc"}, "weights="),
    (steer_env.make, {"kinds": "evil"}, "kinds.*expected one of"),
    (steer_env.make, {"split": "tran"}, "split='tran', expected one of .*; did you mean 'train'"),
    (steer_env.make, {"alhpa": 0.3}, "alhpa=0.3 is no option .*; did you mean 'alpha'"),
    (EnvConfig, {"alhpa": 0.3}, "alhpa=0.3 is no option of EnvConfig; did you mean 'alpha'"),
    (EnvConfig, {"env": 3}, "env=3, expected a string"),
    (EnvConfig, {"min_turns": "3"}, "min_turns='3', expected an integer"),
    (EnvConfig, {"allow_self_judge": ("judge",)}, "allow_self_judge"),
    (WorldSource, {"min_turns": 2.5}, "min_turns=2.5"),
    (WorldSource, {"single_turn": "no"}, "single_turn='no'"),
    (WorldSource, {"strategies": "rollplay"}, r"strategies=\['rollplay'\].*did you mean 'roleplay'"),
    (WorldSource, {"mechanisms": ()}, "mechanisms=.*expected at least one of"),
    (WorldSource, {"risky_turns": True}, "risky_turns=True"),
    (HarmCost, {"env": bare, "graded": "no"}, "graded='no', expected True or False"),
    (HarmCost, {"env": bare, "threshold": 4.0}, "threshold=4.0"),
    (HarmCost, {"env": bare, "coefficient": math.inf}, "coefficient=inf.*; use 0 to switch it off"),
    (RepetitionPenalty, {"env": bare, "n": 2.7}, "n=2.7, expected an integer of at least 1"),
    (RepetitionPenalty, {"env": bare, "min_tokens": -5}, "min_tokens=-5, expected an integer"),
    (SafetyReward, {"env": bare, "weight": True}, "weight=True, expected a finite number"),
    (HelpfulnessReward, {"env": bare, "usefulness": "1"}, "usefulness='1', expected a finite number"),
    (TurnReward, {"env": bare, "normalization": "affin"}, "normalization='affin'.*did you mean 'affine'"),
    (TCSR, {"env": bare, "alpha": True}, "alpha=True, expected a finite number"),
    (TCSR, {"env": bare, "returns": "summ"}, "returns='summ'.*did you mean 'sum'"),
    (student, {"max_new_tokens": 1.5}, "max_new_tokens=1.5, expected an integer of at least 1"),
    (student, {"max_new_tokens": True}, "max_new_tokens=True"),
    (student, {"temperature": math.nan}, "temperature=nan, expected a finite number"),
    (student, {"temperature": "0"}, "temperature='0'"),
    (Settings, {"temperature": math.inf}, "temperature=inf"),
    (Settings, {"seed": "x"}, "seed='x', expected an integer"),
    (Settings, {"attempts": True}, "attempts=True"),
]


@pytest.mark.parametrize(("made", "options", "says"), REFUSED)
def test_values_that_were_accepted_once_are_refused_when_they_are_given(made, options, says):
    options = {name: value() if value is bare else value for name, value in options.items()}
    with pytest.raises(ValueError, match=says):
        made(**options)


def test_numpys_numbers_are_numbers():
    assert steer_env.make_vec(num_envs=np.int64(2)).num_envs == 2
    config = EnvConfig(max_cycles=np.int64(3), alpha=np.float32(0.5), min_turns=np.uint8(4))
    assert (type(config.max_cycles), type(config.alpha), type(config.min_turns)) == (int, float, int)
    assert TCSR(bare(), alpha=np.float64(0.25)).alpha == 0.25
    assert student(max_new_tokens=np.int32(5)).max_new_tokens == 5


@pytest.mark.parametrize(
    "name", ["split", "alpha", "weights", "max_length", "max_cycles", "scenarios", "wrappers"]
)
def test_none_means_the_default_of_every_option(name):
    env = steer_env.make(**{name: None})
    assert env.alpha == 0.3 and env.action_space("student_0").max_length == EnvConfig().max_length


def test_none_is_nobody_for_the_judge():
    assert steer_env.make(judge=None).unwrapped.judge is None


def test_a_single_name_is_one_name():
    assert WorldSource(kinds="benign").kinds == ("benign",)
    assert WorldSource(strategies="roleplay").strategies == ("roleplay",)
    assert EnvConfig(kinds="benign").kinds == ("benign",)
    assert EnvConfig(kinds=["benign", "red_team"]).kinds == ("benign", "red_team")


@given(st.one_of(st.floats(), st.booleans(), st.text(max_size=3), st.none(), st.complex_numbers()))
def test_an_integer_is_an_int_of_python_or_numpy_and_nothing_else(value):
    with pytest.raises(ValueError, match="x="):
        checks.integer("x", value, -(10**9))


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-5, 5))
def test_an_integer_lies_in_its_range(value, least, most):
    if least <= value <= most:
        assert checks.integer("x", np.int64(value), least, most) == value
    else:
        with pytest.raises(
            ValueError, match=f"x={value}, expected an integer of at least {least} and at most"
        ):
            checks.integer("x", value, least, most)


@given(st.floats(-2, 2), st.booleans())
def test_a_number_lies_in_its_range(value, above):
    if (value > 0 if above else value >= 0) and value <= 1:
        assert checks.number("x", value, 0, 1, above=above) == value
    else:
        with pytest.raises(ValueError, match="and at most 1"):
            checks.number("x", value, 0, 1, above=above)


def test_the_options_of_make_are_the_fields_of_the_config_and_objects():
    from dataclasses import fields

    from steer_env.configs.env import REWARD, WORLD, EnvOptions
    from steer_env.world.plan import MECHANISMS
    from steer_env.world.source import SPLITS

    named = {field.name for field in fields(EnvConfig)} - {"env", "attacker", "allow_self_judge"}
    assert set(EnvOptions.__annotations__) == named | {"wrappers", "render_mode"}
    assert {*WORLD, *REWARD} < named
    for split in SPLITS:
        assert EnvConfig(split=split).split == split
    assert EnvConfig(mechanisms=MECHANISMS).mechanisms == MECHANISMS


def test_a_config_makes_the_environment_that_its_fields_make():
    config = EnvConfig("SteerRedTeam-v0", "bench", alpha=0.75, returns="mean", max_turns=3)
    for env in (steer_env.make(config), steer_env.make_vec(config, 2).envs[1]):
        env.reset(seed=3)
        assert (env.alpha, env.returns) == (0.75, "mean") and len(env.unwrapped.scenario) <= 3
    assert steer_env.make(config, alpha=0.5).alpha == 0.5
    with pytest.raises(AttributeError):
        config.alpha = 1.0


def test_a_tree_of_configs_is_written_flat():
    from dataclasses import dataclass

    from steer_env.configs.base import flat, names

    @dataclass(frozen=True)
    class Tree:
        env: EnvConfig
        steps: int = 3

    made = Tree(EnvConfig(alpha=0.5, kinds=("benign",)), 4)
    assert flat(made)["alpha"] == 0.5 and flat(made)["kinds"] == ["benign"] and flat(made)["steps"] == 4
    assert list(flat(made)) == names(Tree)
