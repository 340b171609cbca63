"""`TCSR`: emitted increments, both by hand and over arbitrary verdict sequences played through the
environment."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import steer_env
from steer_env import testing
from steer_env.agents import AlwaysComply, AlwaysRefuse, Constructive, RandomStudent
from steer_env.env import DialogueEnv
from steer_env.rewards import TCSRState, declared_return, tcsr, tcsr_step
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.testing.play import play, script_of
from steer_env.testing.properties import alphas
from steer_env.testing.tcsr import MODES, TCSR_INVARIANTS
from steer_env.types import STUDENT, Scored, Terms, Unscored
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import TCSR, RewardWrapper, TurnReward


def verdicts():
    level = st.integers(1, 10)
    scored = st.builds(lambda s, u, f: Scored(Terms(s, u, f)), level, level, level)
    return st.one_of(scored, scored, st.just(Unscored("drawn")))


class Listed:
    """A judge that gives listed verdicts, turn by turn."""

    name = "listed"

    def __init__(self, given):
        self.given = given

    def judge(self, requests):
        return [self.given[len(r.transcript) // 2 - 1] for r in requests]


def env_with(given):
    scenario = Scenario(tuple(DraftTurn(f"turn {i}") for i in range(len(given))))
    return DialogueEnv(FixedScenarios([scenario]), Listed(given))


def level(s):
    """A verdict whose affine turn reward is (s - 1) / 9."""
    return Scored(Terms(s, s, s))


def emitted(given, **options):
    return play(TCSR(TurnReward(env_with(given)), **options), 0)


# rewards 1, 0, 1: minimum 1, 0, 0; mean 1, 1/2, 2/3; with alpha = 0.3: 1, 0.35, 0.4667
@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ("sum", [1.0, 0.35, 7 / 15]),
        ("final", [1.0, 0.35 - 1.0, 7 / 15 - 0.35]),
        ("mean", [1.0, 1.35 / 2 - 1.0, (1.35 + 7 / 15) / 3 - 1.35 / 2]),
    ],
)
def test_by_hand(returns, expected):
    played = emitted([level(10), level(1), level(10)], returns=returns)
    assert played.replies == pytest.approx(expected)
    assert played.infos[1]["tcsr"] == pytest.approx({"value": 0.35, "min": 0.0, "mean": 0.5})


def test_unscored_turn_by_hand():
    """Scored values 1 and 0.35; with the unscored turn "sum" declares 3 turns of their mean 0.675."""
    given = [level(10), Unscored("down"), level(1)]
    played = emitted(given)
    assert played.replies == pytest.approx([1.0, 1.0, 3 * 0.675 - 2.0])
    assert "tcsr" not in played.infos[1] and played.infos[1]["return"] == 2.0
    assert emitted(given, returns="final").replies == pytest.approx([1.0, 0.0, -0.65])
    assert emitted(given, returns="mean").replies == pytest.approx([1.0, 0.0, -0.325])


def test_nothing_scored_has_no_return():
    played = emitted([Unscored("a"), Unscored("b")])
    assert played.emitted == [0.0] * 4
    assert [info["return_defined"] for info in played.infos] == [False, False]


@given(st.lists(verdicts(), min_size=1, max_size=8), alphas, st.sampled_from(MODES))
def test_emitted_rewards_over_rollouts(given, alpha, returns):
    """Played through the environment, every promise holds on the turn rewards that were really emitted."""
    turn_rewards = play(TurnReward(env_with(given)), 0)
    rewards = [
        reward if info["scored"] else None
        for reward, info in zip(turn_rewards.replies, turn_rewards.infos, strict=True)
    ]
    played = emitted(given, alpha=alpha, returns=returns)
    values = tcsr([math.nan if r is None else r for r in rewards], [r is not None for r in rewards], alpha)
    declared = declared_return(values, returns)
    assert sum(played.emitted) == pytest.approx(0.0 if math.isnan(declared) else declared, abs=1e-12)
    assert played.accumulated == pytest.approx(sum(played.emitted), abs=1e-12)
    for t, (info, value) in enumerate(zip(played.infos, values, strict=True)):
        assert info["return"] == pytest.approx(sum(played.replies[: t + 1]), abs=1e-12)
        assert ("tcsr" in info) == (rewards[t] is not None)
        if "tcsr" in info:
            assert info["tcsr"]["value"] == pytest.approx(value, abs=1e-12)
            assert info["tcsr"]["min"] <= info["tcsr"]["value"] + 1e-12
            assert info["tcsr"]["value"] <= info["tcsr"]["mean"] + 1e-12
    for check in TCSR_INVARIANTS.values():
        check(tcsr, rewards, alpha)


@given(st.lists(verdicts(), min_size=2, max_size=6), verdicts(), st.sampled_from(MODES))
def test_causality_over_rollouts(given, last, returns):
    """Another last turn changes no reward emitted before it."""
    one, two = emitted(given, returns=returns), emitted([*given[:-1], last], returns=returns)
    assert one.replies[:-1] == two.replies[:-1]


@given(st.lists(verdicts(), min_size=1, max_size=6), st.sampled_from(MODES))
def test_vector_gives_the_same(given, returns):
    vec = TCSR(TurnReward(VectorDialogueEnv([lambda: env_with(given)] * 2)), returns=returns)
    vec.reset(seed=0)
    finished = []
    while vec.running:
        for agent in ("attacker_0", STUDENT):
            ids, _ = vec.pending(agent)
            finished += vec.submit(agent, ids, ["text"] * len(ids))
    alone = emitted(given, returns=returns).replies
    assert [[t.reward for t in f.turns] for f in finished] == [alone, alone]


STUDENTS = {
    "random": RandomStudent,
    "comply": AlwaysComply,
    "refuse": AlwaysRefuse,
    "constructive": Constructive,
}


@settings(max_examples=60)
@given(
    st.sampled_from(steer_env.env_ids()),
    st.integers(0, 10_000),
    st.sampled_from(sorted(STUDENTS)),
    alphas,
    st.sampled_from(MODES),
)
def test_promises_hold_on_rollouts_of_the_built_in_world(id, seed, student, alpha, returns):
    script = script_of(steer_env.make_attacker(id), STUDENTS[student]())
    per_turn = play(steer_env.make(id, wrappers=(TurnReward,)), seed, script)
    rewards = [
        reward if info["scored"] else None
        for reward, info in zip(per_turn.replies, per_turn.infos, strict=True)
    ]
    assert any(reward is not None for reward in rewards)
    played = play(steer_env.make(id, alpha=alpha, returns=returns), seed, script)
    values = tcsr([math.nan if r is None else r for r in rewards], [r is not None for r in rewards], alpha)
    assert sum(played.emitted) == pytest.approx(declared_return(values, returns), abs=1e-9)
    assert played.accumulated == pytest.approx(sum(played.emitted), abs=1e-9)
    for check in TCSR_INVARIANTS.values():
        check(tcsr, rewards, alpha)


def test_state_advances_by_the_shared_formula():
    env = TCSR(TurnReward(env_with([level(7), level(2)])), alpha=0.5)
    played = play(env, 0)
    state = TCSRState()
    for r in (6 / 9, 1 / 9):
        state = tcsr_step(state, r, 0.5)
    assert sum(played.emitted) == pytest.approx(state.partial_return("sum"))


@pytest.mark.parametrize("returns", MODES)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_sound(returns, alpha):
    testing.check_wrapper(lambda env: TCSR(TurnReward(env), alpha=alpha, returns=returns))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan, math.inf])
def test_bad_alpha(alpha):
    for env in (testing.toy_env(), VectorDialogueEnv([testing.toy_env])):
        with pytest.raises(ValueError, match=r"alpha=.*expected a finite number of at least 0 and at most 1"):
            TCSR(env, alpha=alpha)


def test_bad_returns():
    with pytest.raises(ValueError, match="returns='total', expected one of 'sum'"):
        TCSR(testing.toy_env(), returns="total")


def test_a_nan_reward_is_refused():
    class NaNs(RewardWrapper):
        def turn_reward(self, turn, reward, info):
            return math.nan

    with pytest.raises(ValueError, match="reward=nan, expected a finite number"):
        play(TCSR(NaNs(testing.toy_env())), 0)
