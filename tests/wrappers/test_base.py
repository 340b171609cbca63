"""What all wrappers share: any sensible order, AEC and vector, copies, and clear refusals."""

import copy
import itertools
import pickle
from typing import Any

import gymnasium
import pytest
from pettingzoo.utils.conversions import turn_based_aec_to_parallel
from pettingzoo.utils.wrappers import BaseWrapper, OrderEnforcingWrapper

import steer_env
from steer_env import testing
from steer_env.student_env import StudentEnv
from steer_env.testing.envs import partly_unscored
from steer_env.testing.play import play, same
from steer_env.testing.toys import ToyAttacker
from steer_env.types import ATTACKER, STUDENT
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import (
    TCSR,
    DialogueWrapper,
    FormatReward,
    HarmCost,
    HelpfulnessReward,
    RecordDialogue,
    RepetitionPenalty,
    RewardWrapper,
    SafetyReward,
    TurnReward,
)

REWARDS = (SafetyReward, HelpfulnessReward, FormatReward, RepetitionPenalty, HarmCost)


def stacked(env, *wrappers):
    for wrapper in wrappers:
        env = wrapper(env)
    return env


@pytest.mark.parametrize("order", list(itertools.permutations(REWARDS))[::17])
def test_per_turn_rewards_add_up_in_any_order(order):
    usual = play(stacked(testing.toy_env(), *REWARDS), 2, partly_unscored)
    other = play(stacked(testing.toy_env(), *order), 2, partly_unscored)
    assert other.emitted == pytest.approx(usual.emitted)
    assert other.infos == usual.infos


STACKS = {
    "default": (TurnReward, TCSR),
    "all inside TCSR": (*REWARDS, TCSR),
    "costs outside TCSR": (TurnReward, TCSR, HarmCost),
    "PettingZoo's wrapper below": (OrderEnforcingWrapper, TurnReward, TCSR),
    "PettingZoo's wrapper between": (TurnReward, OrderEnforcingWrapper, TCSR),
    "PettingZoo's wrapper on top": (TurnReward, TCSR, OrderEnforcingWrapper),
    "a plain wrapper between": (SafetyReward, BaseWrapper, HelpfulnessReward, BaseWrapper, TCSR),
}


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_stacks_are_sound(stack):
    testing.check_wrapper(lambda env: stacked(env, *stack))


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_stacks_are_sound_on_the_vector_environment(stack):
    testing.check_vector(lambda: stacked(testing.toy_env(), *stack), num_envs=3)


def test_recording_on_top_of_everything(tmp_path):
    testing.check_wrapper(lambda env: RecordDialogue(stacked(env, *REWARDS, TCSR), tmp_path / "d.jsonl"))


def test_wrapping_a_vector_wraps_each_slot_and_returns_it():
    vec = VectorDialogueEnv([testing.toy_env] * 3)
    assert TCSR(TurnReward(vec), alpha=0.5) is vec
    assert all(isinstance(env, TCSR) and env.alpha == 0.5 for env in vec.envs)
    assert len({id(env) for env in vec.envs}) == 3


@pytest.mark.parametrize("wrapper", [TurnReward, TCSR, HarmCost, DialogueWrapper])
def test_other_environments_are_refused(wrapper):
    for env in (
        gymnasium.make("CartPole-v1"),
        turn_based_aec_to_parallel(testing.toy_env()),
        StudentEnv(testing.toy_env(), ToyAttacker()),
        None,
        "SteerEscalation-v0",
    ):
        with pytest.raises(TypeError, match=f"{wrapper.__name__}.*expected a steer_env AEC environment"):
            wrapper(env)


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("stack", [(), (*REWARDS, TCSR), (TurnReward, OrderEnforcingWrapper, TCSR)], ids=len)
def test_copies_go_on_from_where_they_are_and_share_nothing(clone, stack):
    scenario = testing.toy_scenarios()[3]
    env = stacked(testing.toy_env(), *stack)
    env.reset(seed=0, options={"scenario": scenario})
    for action in ("one", "two", "three"):
        env.step(action)
    twin = clone(env)
    rewards = []
    for one in (env, twin):  # the second is played after the first has ended
        while not one.terminations[STUDENT]:
            one.step("four")
        rewards.append((dict(one.rewards), one._cumulative_rewards[STUDENT], one.unwrapped.transcript))
    assert rewards[0] == rewards[1]
    same("original and copy", play(env, 5), play(twin, 5), "")


def test_a_reward_wrapper_without_a_rule_says_so():
    with pytest.raises(NotImplementedError):
        play(RewardWrapper(testing.toy_env()), 0)


def test_wrappers_look_through_to_the_environment():
    """No stale copies: what the stack says is what the environment says, at every step and after a reset."""
    env = stacked(testing.toy_env(), *REWARDS, TCSR)
    core = env.unwrapped
    for seed in (1, 2):
        env.reset(seed=seed)
        while env.agents:
            for name in ("agent_selection", "agents", "terminations", "truncations", "infos"):
                assert getattr(env, name) is getattr(core, name), name
            assert env.observe(STUDENT) == core.observe(STUDENT)
            dead = env.terminations[env.agent_selection]
            env.step(None if dead else "text")


@pytest.mark.parametrize("above", [(), (TurnReward,), (TurnReward, TCSR)], ids=len)
def test_a_layer_of_a_users_own_is_not_skipped(above):
    """Layers that only pass on are skipped for speed; one that changes what is seen is not."""

    class Hides(DialogueWrapper):
        def observe(self, agent):
            return {**super().observe(agent), "images": ()}

    class Notes(DialogueWrapper):
        @property
        def infos(self):
            return {agent: {**info, "note": 1} for agent, info in super().infos.items()}

    env = stacked(testing.toy_env(), SafetyReward, Hides, Notes, *above)
    env.reset(seed=0, options={"scenario": testing.toy_scenarios()[2]})
    env.step("hello")
    assert env.unwrapped.observe(STUDENT)["images"] and env.observe(STUDENT)["images"] == ()
    env.step("reply")
    assert env.infos[STUDENT]["note"] == 1 and "note" not in env.unwrapped.infos[STUDENT]


def test_the_attackers_rewards_stay_zero():
    env = stacked(testing.toy_env(), TurnReward, TCSR)
    env.reset(seed=2)
    for agent in env.agent_iter():
        _, reward, terminated, _, _ = env.last()
        assert agent != ATTACKER or reward == 0.0
        env.step(None if terminated else "text")


@pytest.mark.parametrize("wrapper", [TCSR, TurnReward])
@pytest.mark.parametrize("make", [steer_env.make, steer_env.make_vec])
def test_the_default_rewards_are_not_put_on_twice(wrapper: Any, make: Any) -> None:
    with pytest.raises(ValueError, match=rf"has {wrapper.__name__} on already.*wrappers=\(\)"):
        wrapper(make("SteerEscalation-v0"))
    with pytest.raises(ValueError, match="on already"):  # also with others in between
        wrapper(HarmCost(wrapper(make("SteerEscalation-v0", wrappers=()))))
    TCSR(TurnReward(make("SteerEscalation-v0", wrappers=())))


def test_an_environment_that_refuses_a_wrapper_is_as_it_was() -> None:
    vec = steer_env.make_vec("SteerEscalation-v0", 2)
    before = vec.envs
    with pytest.raises(ValueError, match="on already"):
        TCSR(vec)
    assert vec.envs == before
