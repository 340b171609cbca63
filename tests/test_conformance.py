"""The official conformance tests of PettingZoo and Gymnasium, and ours, for every id, default stack and
bare."""

import contextlib
import copy
import io
import pickle
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pettingzoo
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from pettingzoo.test import api_test, parallel_api_test, render_test, seed_test
from pettingzoo.test.seed_test import parallel_seed_test
from pettingzoo.utils.conversions import aec_to_parallel, turn_based_aec_to_parallel

import steer_env
from steer_env import testing
from steer_env.agents import AGENTS, AlwaysComply, RandomStudent, ScriptedTutor, StaticAttacker, make_agent
from steer_env.cli.common import SCRIPTED_STUDENTS
from steer_env.judges import JudgeRequest, RuleJudge
from steer_env.testing.agents import toy_observations
from steer_env.testing.play import play, same, script_of
from steer_env.types import ATTACKER, STUDENT, Scored

IDS = steer_env.env_ids()
STACKS = {"default": {}, "bare": {"wrappers": ()}}

every_id = pytest.mark.parametrize("id", IDS)
both_stacks = pytest.mark.parametrize("options", STACKS.values(), ids=STACKS)


@pytest.fixture(autouse=True)
def quiet():
    """The official tests print, and warn about every space that is no Box; what we want to see is their
    failures."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def student_id(id):
    return f"steer_env/{id}"


# -- PettingZoo -----------------------------------------------------------------------------------------


@every_id
@both_stacks
def test_pettingzoo_api(id, options):
    api_test(steer_env.make(id, **options), num_cycles=40)


@every_id
@both_stacks
def test_pettingzoo_seed(id, options):
    seed_test(lambda: steer_env.make(id, **options), num_cycles=40)


@every_id
@both_stacks
def test_pettingzoo_render(id, options):
    render_test(lambda **render: steer_env.make(id, **options, **render))


@every_id
@both_stacks
def test_pettingzoo_parallel(id, options):
    """Turn-based environments become parallel ones through the turn-based conversion."""
    for cycles in (1, 40):
        parallel_api_test(turn_based_aec_to_parallel(steer_env.make(id, **options)), num_cycles=cycles)


@every_id
def test_parallel_conversion_hands_out_every_reward(id):
    aec, script = steer_env.make(id, judge=testing.ToyJudge()), script_of(StaticAttacker(), AlwaysComply())
    alone = play(aec, 3, script)
    parallel = turn_based_aec_to_parallel(steer_env.make(id, judge=testing.ToyJudge()))
    observations, infos = parallel.reset(seed=3)
    total, cycle = 0.0, 0
    while parallel.agents:
        said = {agent: script(agent, cycle, observations[agent]) for agent in parallel.agents}
        observations, rewards, _, _, infos = parallel.step(said)
        assert set(infos) == set(observations)
        total += rewards[STUDENT]
    assert total == pytest.approx(sum(alone.emitted)) and total > 0
    assert parallel.step({}) == ({}, {}, {}, {})  # PettingZoo's own: four empty dicts after the end


def test_simultaneous_conversion_is_rightly_refused():
    with pytest.raises(AssertionError, match="is_parallelizable"):
        aec_to_parallel(steer_env.make())


def test_parallel_seed_needs_simultaneous_moves():
    """PettingZoo's parallel seed test samples for agents out of turn; ours passes it all the same."""
    parallel_seed_test(lambda: turn_based_aec_to_parallel(steer_env.make(max_cycles=3)), num_cycles=4)


@every_id
@both_stacks
@pytest.mark.parametrize("max_cycles", [1, 2])
def test_max_cycles(id, options, max_cycles):
    """PettingZoo's own max-cycles test cannot pass on turn-based games; this is ours.

    A dialogue longer than the limit is truncated right after that many replies, not terminated, with its last
    reward; a shorter one is terminated as without a limit.
    """
    cut = steer_env.make(id, max_cycles=max_cycles, judge=testing.ToyJudge(), **options)
    whole = steer_env.make(id, judge=testing.ToyJudge(), **options)
    script = script_of(StaticAttacker(), AlwaysComply())
    for seed in range(5):
        short, long = play(cut, seed, script), play(whole, seed, script)
        assert long.ended == (True, False)
        if len(long.replies) > max_cycles:
            assert len(short.replies) == max_cycles
            assert short.ended == (False, True)
            assert cut.unwrapped.stop == "max_cycles"
            assert short.replies == long.replies[:max_cycles]
            assert short.accumulated == pytest.approx(sum(short.replies))
        else:
            same("with and without a limit it does not reach", short, long, "")
    if id != "SteerSingleTurn-v0":
        assert len(long.replies) >= 2


@every_id
def test_pettingzoo_make(id):
    env = pettingzoo.make("aec", id, max_cycles=2)
    same("pettingzoo.make and steer_env.make", play(env, 4), play(steer_env.make(id, max_cycles=2), 4), "")
    assert env.metadata["name"] == id


# -- Gymnasium ------------------------------------------------------------------------------------------


@every_id
@both_stacks
def test_gymnasium_check_env(id, options):
    """Thirty times: an attacker that is not seeded passes once by luck."""
    for _ in range(30):
        gymnasium_check_env(gymnasium.make(student_id(id), **options).unwrapped, skip_render_check=True)


@every_id
def test_gymnasium_check_env_renders(id):
    env = gymnasium.make(student_id(id), render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    gymnasium_check_env(env.unwrapped)


@every_id
def test_student_view_is_the_same_dialogue(id):
    """The student's view emits what the two-seat game emits with the same attacker, turn by turn."""
    env = gymnasium.make(student_id(id), judge=testing.ToyJudge())
    attacker = steer_env.make_attacker(id)
    student = RandomStudent()
    alone = play(steer_env.make(id, judge=testing.ToyJudge()), 6, script_of(attacker, student))
    observation, info = env.reset(seed=6)
    rewards, over = [], False
    while not over:
        assert observation in env.observation_space
        observation, reward, terminated, truncated, info = env.step(student.act([observation])[0])
        rewards.append(reward)
        over = terminated or truncated
    assert rewards == alone.replies
    assert info["verdict"] == alone.infos[-1]["verdict"]
    assert observation == alone.final


def test_gymnasium_specs_stay_plain():
    for id in IDS:
        assert gymnasium.spec(student_id(id)).kwargs == {"env_id": id}


@every_id
def test_gymnasium_make_vec(id):
    vec = gymnasium.make_vec(student_id(id), num_envs=3)
    assert isinstance(vec.unwrapped, steer_env.student_env.StudentVectorEnv)
    observations, _ = vec.reset(seed=0)
    for _ in range(12):
        observations, rewards, terminated, truncated, _ = vec.step(["I cannot help with that."] * 3)
        assert (
            observations in vec.observation_space
            and rewards.shape == terminated.shape == truncated.shape == (3,)
        )
    vec.close()


KINDS = {
    "sync": lambda id: SyncVectorEnv([lambda: gymnasium.make(student_id(id))] * 2),
    "async": lambda id: AsyncVectorEnv([lambda: gymnasium.make(student_id(id))] * 2, shared_memory=False),
    "ours": lambda id: gymnasium.make_vec(student_id(id), num_envs=2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_gymnasium_vector_environments_agree(kind):
    """Gymnasium's two and ours give what two single environments give, next-step autoreset included."""
    vec = KINDS[kind](IDS[0])
    alone = [gymnasium.make(student_id(IDS[0])) for _ in range(2)]
    replies = ("I cannot help with that.", "a lantern")
    try:
        batch, _ = vec.reset(seed=[5, 6])
        expected = [env.reset(seed=seed)[0] for env, seed in zip(alone, (5, 6), strict=True)]
        over = [False, False]
        resets = 0
        for _ in range(25):
            for i in range(2):
                assert {key: batch[key][i] for key in batch} == expected[i]
            assert batch in vec.observation_space
            batch, rewards, terminated, truncated, infos = vec.step(replies)
            for i, env in enumerate(alone):
                if over[i]:
                    # Autoreset goes on unseeded, with the environment's own generator.
                    expected[i], reward, over[i] = env.reset()[0], 0.0, False
                    resets += 1
                else:
                    expected[i], reward, over[i], _, info = env.step(replies[i])
                    assert infos["scored"][i] == info["scored"] and infos["verdict"][i] == info["verdict"]
                assert (rewards[i], bool(terminated[i]), bool(truncated[i])) == (reward, over[i], False)
        assert resets >= 4
    finally:
        vec.close()


def test_shared_memory_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"disable `shared_memory`|shared_memory=False"):
        AsyncVectorEnv([lambda: gymnasium.make(student_id(IDS[0]))] * 2, shared_memory=True)


# -- ours -----------------------------------------------------------------------------------------------


@every_id
@both_stacks
def test_ours(id, options):
    testing.check_env(
        lambda: steer_env.make(id, **options), attacker=ScriptedTutor(), student=RandomStudent()
    )


@every_id
@both_stacks
def test_ours_on_the_vector_environment(id, options):
    testing.check_vector(
        lambda: steer_env.make(id, **options), attacker=ScriptedTutor(), student=RandomStudent()
    )


@pytest.mark.parametrize("name", AGENTS)
def test_ours_for_every_agent(name):
    seat = STUDENT if name in SCRIPTED_STUDENTS else ATTACKER
    observations = toy_observations(seat, steer_env.make(wrappers=()), seeds=range(3))
    testing.check_agent(make_agent(name), seat, observations)
    testing.check_agent(make_agent(name), seat)


def test_ours_for_the_rule_judge():
    """On dialogues it can score, too: the context saves work and changes no verdict."""
    requests = []
    for seed in range(12):
        env = steer_env.make(wrappers=())
        play(env, seed, script_of(ScriptedTutor(), RandomStudent()))
        requests += [
            JudgeRequest(env.scenario, env.transcript[: 2 * k])
            for k in range(1, len(env.transcript) // 2 + 1)
        ]
    assert sum(isinstance(v, Scored) for v in RuleJudge().judge(requests)) > 0.8 * len(requests)
    testing.check_judge(RuleJudge(), requests)
    testing.check_judge(RuleJudge())


@every_id
def test_the_built_in_judge_scores_the_built_in_world(id):
    """Otherwise the checks above would compare zeros."""
    env = steer_env.make(id)
    played = [play(env, seed, script_of(steer_env.make_attacker(id), RandomStudent())) for seed in range(8)]
    infos = [info for p in played for info in p.infos]
    scored = [info for info in infos if isinstance(info["verdict"], Scored)]
    assert len(scored) > 0.8 * len(infos)
    assert len({info["verdict"].terms for info in scored}) > 3


@every_id
@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"]
)
def test_environments_copy_in_the_middle_of_a_dialogue(id, clone):
    env = steer_env.make_student_env(id)
    env.reset(seed=1)
    twin = clone(env)
    for _ in range(12):
        ours, theirs = env.step("I see a lantern."), twin.step("I see a lantern.")
        assert ours == theirs
        if ours[2]:
            break
    assert ours[2]
    assert env.reset(seed=2) == twin.reset(seed=2)


def test_pixels_survive_the_wire():
    env = steer_env.make_student_env()
    observation, _ = env.reset(seed=0)
    there = pickle.loads(pickle.dumps(observation))
    assert there == observation
    assert observation["images"]
    for sent, got in zip(observation["images"], there["images"], strict=True):
        assert np.array_equal(np.asarray(sent), np.asarray(got))


def test_no_torch_in_a_plain_environment():
    code = (
        "import sys, steer_env; env = steer_env.make(); env.reset(seed=0); env.step('hello'); env.step('hi');"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
