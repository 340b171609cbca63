"""Ids and `make`: names, options, and errors that list the known ones."""

import gymnasium
import pettingzoo
import pytest

import steer_env
from steer_env.agents import ScriptedTutor, StaticAttacker
from steer_env.env import DialogueEnv
from steer_env.judges import RuleJudge
from steer_env.registration import register_all
from steer_env.scenarios import FixedScenarios
from steer_env.student_env import StudentEnv, StudentVectorEnv
from steer_env.testing.toys import ToyAttacker, ToyJudge, toy_scenarios
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import TCSR, SafetyReward, TurnReward

IDS = (
    "SteerEscalation-v0",
    "SteerBenign-v0",
    "SteerObfuscated-v0",
    "SteerRedTeam-v0",
    "SteerLateRisk-v0",
    "SteerStatic-v0",
    "SteerSingleTurn-v0",
)


def test_ids():
    assert tuple(steer_env.env_ids()) == IDS
    for id in IDS:
        assert id in pettingzoo.aec_registry and f"steer_env/{id}" in gymnasium.registry
        assert steer_env.spec(id) is steer_env.spec(f"steer_env/{id}")
    register_all()  # again, harmlessly


def test_default_stack():
    env = steer_env.make()
    assert isinstance(env, TCSR) and isinstance(env.env, TurnReward) and type(env.unwrapped) is DialogueEnv
    assert (env.alpha, env.returns, env.env.weights) == (0.3, "sum", (0.4, 0.4, 0.2))
    assert isinstance(env.unwrapped.judge, RuleJudge)


def test_options_reach_their_place():
    env = steer_env.make(
        alpha=0.5,
        returns="final",
        weights=(1, 0, 0),
        normalization="tenth",
        judge=None,
        max_length=7,
        max_cycles=1,
    )
    assert (env.alpha, env.returns, env.env.weights, env.env.normalization) == (
        0.5,
        "final",
        (1, 0, 0),
        "tenth",
    )
    assert env.unwrapped.judge is None and env.action_space("student_0").max_length == 7


def test_own_wrappers_judge_and_scenarios():
    judge = ToyJudge()
    env = steer_env.make(wrappers=[SafetyReward, TCSR], judge=judge, scenarios=toy_scenarios())
    assert isinstance(env, TCSR) and isinstance(env.env, SafetyReward) and env.unwrapped.judge is judge
    assert type(steer_env.make(wrappers=())) is DialogueEnv
    source = FixedScenarios(toy_scenarios(1))
    env = steer_env.make(scenarios=source)
    env.reset(seed=0)
    assert env.unwrapped.scenario == source[0]


def test_kinds_of_the_ids():
    kinds = {"SteerBenign-v0": "benign", "SteerObfuscated-v0": "obfuscated", "SteerRedTeam-v0": "red_team"}
    for id in IDS:
        env = steer_env.make(id)
        drawn = set()
        for seed in range(30):
            env.reset(seed=seed)
            drawn.add(env.unwrapped.scenario.kind)
            assert (len(env.unwrapped.scenario) == 1) == (id == "SteerSingleTurn-v0")
        assert drawn == ({kinds[id]} if id in kinds else set(kinds.values()))


def test_attackers():
    assert isinstance(steer_env.make_attacker("SteerEscalation-v0"), ScriptedTutor)
    assert isinstance(steer_env.make_attacker("SteerStatic-v0"), StaticAttacker)
    assert isinstance(steer_env.make_attacker("SteerEscalation-v0", "static"), StaticAttacker)
    mine = ToyAttacker()
    assert steer_env.make_attacker("SteerEscalation-v0", mine) is mine
    assert steer_env.make_student_env(attacker=mine).attacker is mine
    with pytest.raises(ValueError, match=r"'nobody', expected one of .*tutor"):
        steer_env.make_attacker("SteerEscalation-v0", "nobody")


def test_make_vec_shares_source_and_judge():
    vec = steer_env.make_vec("SteerBenign-v0", 3, split="bench", max_turns=4)
    assert isinstance(vec, VectorDialogueEnv) and vec.num_envs == 3
    assert len({id(env.unwrapped.judge) for env in vec.envs}) == 1
    alone = steer_env.make("SteerBenign-v0", split="bench", max_turns=4)
    vec.reset(seed=5)
    for i, env in enumerate(vec.envs):
        alone.reset(seed=5 + i)
        assert env.unwrapped.scenario == alone.unwrapped.scenario and len(alone.unwrapped.scenario) <= 4


def test_through_gymnasium_and_pettingzoo():
    assert isinstance(gymnasium.make("steer_env/SteerBenign-v0", returns="mean").unwrapped, StudentEnv)
    assert isinstance(gymnasium.make_vec("steer_env/SteerBenign-v0", num_envs=2).unwrapped, StudentVectorEnv)
    assert isinstance(pettingzoo.make("aec", "SteerBenign-v0", wrappers=()).unwrapped, DialogueEnv)


@pytest.mark.parametrize(
    "make", [steer_env.make, steer_env.make_vec, steer_env.make_student_env, steer_env.spec]
)
def test_unknown_id_lists_the_known(make):
    with pytest.raises(
        ValueError, match=r"id='SteerEscalaton-v0'.*did you mean 'SteerEscalation-v0'.*SteerSingleTurn-v0"
    ):
        make("SteerEscalaton-v0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"alhpa": 1},
            r"alhpa=1 is no option of SteerBenign-v0; did you mean 'alpha'\?; known: .*judge, .*wrappers",
        ),
        ({"zzz": 1}, "zzz=1 is no option.*max_cycles"),
        ({"judge": "gpt"}, "judge='gpt', expected 'rule', a back end"),
        ({"alpha": 2}, "alpha=2, expected"),
        ({"returns": "all"}, "returns='all'"),
        ({"weights": (1, 1, 1)}, "weights="),
        ({"normalization": "x"}, "normalization='x'"),
        ({"wrappers": (), "alpha": 0.5}, "alpha configure the default wrappers, but wrappers= was given"),
        ({"split": "holdout"}, "split=.holdout., expected one of .train., .sft., .bench."),
        ({"kinds": ("evil",)}, "kinds"),
        (
            {"scenarios": toy_scenarios(), "split": "train"},
            "split: chosen within the built-in world, without effect on",
        ),
        ({"scenarios": []}, "scenarios is empty"),
        ({"render_mode": "gif"}, "render_mode='gif'"),
        ({"max_cycles": -1}, "max_cycles=-1"),
        ({"max_cycles": True}, "max_cycles=True"),
    ],
)
def test_bad_options(options, message):
    for make in (steer_env.make, lambda id, **o: steer_env.make_vec(id, 2, **o)):
        with pytest.raises(ValueError, match=message):
            make("SteerBenign-v0", **options)


def test_missing_scenario_file(tmp_path):
    with pytest.raises((ValueError, OSError), match=r"no\.jsonl"):
        steer_env.make(scenarios=tmp_path / "no.jsonl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judge": object()}, "judge=<object.*expected an object with name and judge"),
        ({"wrappers": [3]}, r"wrappers=\[3\], expected a sequence of callables env -> env"),
        ({"wrappers": TCSR}, "wrappers=.*TCSR.*expected a sequence of callables"),
        ({"scenarios": 7}, "scenarios=7, expected"),
        ({"scenarios": [1]}, r"scenarios\[0\]=1, expected a steer_env.Scenario"),
    ],
)
def test_options_of_the_wrong_type(options, message):
    with pytest.raises(TypeError, match=message):
        steer_env.make("SteerBenign-v0", **options)


NAME = "steer_env/SteerEscalation-v0"


def play_two(vec):
    try:
        vec.reset(seed=[0, 1])
        _, rewards, *_, infos = vec.step(("A lamp.", "I will not help with that."))
        return rewards.tolist(), infos["turn"].tolist()
    finally:
        vec.close()


@pytest.mark.parametrize(
    "mode",
    [{}, {"vectorization_mode": "async", "vector_kwargs": {"shared_memory": False}}],
    ids=["default", "async"],
)
def test_gymnasium_vector_modes_play_the_same(mode):
    sync = play_two(gymnasium.make_vec(NAME, num_envs=2, vectorization_mode="sync"))
    assert play_two(gymnasium.make_vec(NAME, num_envs=2, **mode)) == sync


def test_options_pass_through_the_registries():
    assert pettingzoo.make("aec", "SteerBenign-v0", alpha=0.5).alpha == 0.5
    vec = gymnasium.make_vec(NAME, num_envs=2, vectorization_mode="sync", max_length=7)
    assert vec.single_action_space.max_length == 7


def test_vector_rendering():
    vec = gymnasium.make_vec(NAME, num_envs=2, render_mode="ansi")
    vec.reset(seed=0)
    assert vec.render_mode == "ansi" and len(vec.render()) == 2 and all("dialogue" in t for t in vec.render())
    with pytest.raises(ValueError, match=r"render_mode='human' would print.*'ansi' or 'rgb_array'"):
        gymnasium.make_vec(NAME, num_envs=2, render_mode="human")
    plain = gymnasium.make_vec(NAME, num_envs=2)
    plain.reset(seed=0)
    assert plain.render() is None


@pytest.mark.parametrize("bad", ["a", 0, 2.5, True])
def test_bad_num_envs(bad):
    with pytest.raises(ValueError, match=f"num_envs={bad!r}, expected an integer of at least 1"):
        steer_env.make_vec(num_envs=bad)


def test_dialogue_acts_are_gymnasiums():
    with pytest.raises(ValueError, match=r"gymnasium\.make\('steer_env/SteerActs-v0'\)"):
        steer_env.make("SteerActs-v0")


def test_an_id_is_a_string():
    with pytest.raises(TypeError, match="id=5, expected a string; known ids: SteerEscalation-v0"):
        steer_env.make(5)


def test_sources_hand_out_scenarios():
    class Numbers:
        def sample(self, rng):
            return 7

    with pytest.raises(TypeError, match=r"Numbers\.sample\(rng\) returned 7, expected a steer_env\.Scenario"):
        steer_env.make(scenarios=Numbers()).reset(seed=0)
