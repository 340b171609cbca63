import copy
import json

import numpy as np
import pytest
from pettingzoo.utils.wrappers import BaseWrapper

import steer_env
from steer_env.agents.scripted import Constructive, RandomStudent
from steer_env.agents.tactics import TacticAttacker
from steer_env.agents.tutor import ScriptedTutor
from steer_env.counterfactual import effects_table, emitted_return, forked_values, turn_effects
from steer_env.forking import fork
from steer_env.rollout import rollout, rollout_from
from steer_env.student_env import StudentEnv
from steer_env.testing import check_env, check_wrapper
from steer_env.testing.envs import check_forks
from steer_env.testing.toys import toy_env
from steer_env.types import ATTACKER, STUDENT, Utterance
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import (
    TCSR,
    FormatReward,
    HarmCost,
    HelpfulnessReward,
    RecordDialogue,
    RepetitionPenalty,
    RewardWrapper,
    SafetyReward,
    TurnReward,
)

STACKS = {
    "bare": (),
    "tcsr": (TurnReward, TCSR),
    "final": (TurnReward, lambda env: TCSR(env, returns="final")),
    "all": (
        SafetyReward, HelpfulnessReward, RepetitionPenalty, FormatReward,
        lambda env: HarmCost(env, coefficient=0.5), TCSR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("attacker", [ScriptedTutor(), TacticAttacker()])
def test_a_fork_goes_on_as_the_original_would(stack, attacker):
    check_env(
        lambda: steer_env.make("SteerEscalation-v0", wrappers=STACKS[stack], max_turns=5),
        attacker=attacker,
        student=RandomStudent(2),
    )


@pytest.mark.parametrize("returns", ["sum", "final", "mean"])
def test_wrappers_fork(returns):
    check_wrapper(lambda env: TCSR(TurnReward(env), returns=returns))
    check_wrapper(lambda env: HarmCost(TurnReward(env), coefficient=1.0))


class Counter(RewardWrapper):
    """Pays for the number of scored replies so far, kept in a list."""

    def begin(self):
        self.seen = []

    def turn_reward(self, turn, reward, info):
        if not info["scored"]:
            return reward
        self.seen.append(turn.reply)
        return float(len(self.seen))


class Sharing(Counter):
    """Forgets that its list can change."""

    def fork(self):
        twin = super().fork()
        twin.seen = self.seen
        return twin


def test_the_check_finds_state_that_is_shared():
    check_wrapper(Counter)
    with pytest.raises(AssertionError, match=r"fork\(\) must copy all state"):
        check_wrapper(Sharing)


def test_wrappers_of_others_are_copied_and_not_left_out():
    class Capital(BaseWrapper):
        said = 0

        def step(self, action):
            self.said += action is not None
            super().step(action.upper() if action else None)

    env = Capital(TurnReward(steer_env.make("SteerEscalation-v0", wrappers=())))
    env.reset(seed=0)
    env.step("hello")
    twin = fork(env)
    twin.step("no")
    assert isinstance(twin, Capital) and twin.unwrapped.last_turn.reply == "NO"
    assert (env.said, twin.said, env.unwrapped.cycle) == (1, 2, 0)
    check_forks(lambda: Capital(TCSR(Capital(toy_env()))), seed=0)


def test_what_is_no_wrapper_and_has_no_fork_is_refused():
    class Layer:
        def __init__(self, env):
            self.env = env

    with pytest.raises(TypeError, match=r"Layer has no fork\(\), expected a DialogueEnv"):
        fork(Layer(toy_env()))


def test_what_was_said_is_shared_and_the_rest_is_not():
    env = steer_env.make("SteerEscalation-v0")
    env.reset(seed=1)
    env.step(Utterance("hello", plan=["a"]))
    env.step(Utterance("I see it.", trace=np.zeros(3)))
    twin = env.fork()
    assert twin.unwrapped.scenario is env.unwrapped.scenario
    assert twin.observe(STUDENT)["transcript"] is env.observe(STUDENT)["transcript"]
    assert twin.unwrapped.judge is env.unwrapped.judge and twin.core is twin.unwrapped is not env.core
    assert twin.infos == env.infos and twin.infos is not env.infos
    env.step("and then?")
    assert twin.agent_selection == ATTACKER and env.agent_selection == STUDENT
    twin.reset(seed=5)
    assert env.core.cycle == 1


def test_what_might_have_been_said_is_not_recorded(tmp_path):
    path = tmp_path / "dialogues.jsonl"
    env = RecordDialogue(steer_env.make("SteerEscalation-v0", max_turns=2), path)
    env.reset(seed=0)
    env.step("hello")
    twin = env.fork()
    for one in (twin, env):
        one.step("No.")
        one.step("hello again")
        one.step("No, and no.")
    env.close()
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 1
    assert twin.rewards == env.rewards


def test_the_students_view_forks():
    env = StudentEnv(steer_env.make("SteerEscalation-v0", max_turns=3), ScriptedTutor())
    env.reset(seed=2)
    env.step("No.")
    twin = env.fork()
    assert twin.attacker is env.attacker and twin.observation_space is env.observation_space
    other = env.fork()
    other.step("Yes, take it.")
    (seen, *rest), (same, *others) = twin.step("No, never."), env.step("No, never.")
    assert seen["transcript"] == same["transcript"] and rest == others


# -- vector environments and rollouts -----------------------------------------------------------------------


def played(attacker, student, seeds, **options):
    return rollout(steer_env.make_vec("SteerEscalation-v0", 8, **options), attacker, student, seeds)


def same_turns(one, two):
    return [(str(r.turn.user), str(r.turn.reply), r.reward, r.turn.verdict, r.info) for r in one.turns] == [
        (str(r.turn.user), str(r.turn.reply), r.reward, r.turn.verdict, r.info) for r in two.turns
    ]


@pytest.mark.parametrize("attacker", [ScriptedTutor(), TacticAttacker(), TacticAttacker(patient=True)])
def test_a_student_that_does_not_sample_says_the_same_again(attacker):
    student = Constructive()
    dialogues = played(attacker, student, [0, 1, 2, 1], max_turns=4)
    points = [(t, turn) for t in dialogues for turn in range(len(t.turns))]
    env = steer_env.make_vec("SteerEscalation-v0", 3, max_turns=4)
    for (trajectory, _), again in zip(points, rollout_from(env, attacker, student, points, 2), strict=True):
        assert len(again) == 2 and all(same_turns(trajectory, one) for one in again)
        infos = [result.info for one in again for result in one.turns]
        assert len({id(info) for info in infos}) == len(infos)


class Other:
    """Says what the stream of the dialogue decides."""

    def act(self, observations):
        return [Utterance(f"No. {o.stream}") for o in observations]


def test_earlier_turns_stay_and_no_judge_is_asked_about_them_again():
    (trajectory,) = played(ScriptedTutor(), RandomStudent(1), [4], max_turns=5)
    turn = len(trajectory.turns) - 1
    env = steer_env.make_vec("SteerEscalation-v0", 2, max_turns=5)
    asked = []
    judge = env.envs[0].unwrapped.judge
    original = judge.judge
    judge.judge = lambda requests: asked.extend(requests) or original(requests)
    try:
        (again,) = rollout_from(env, ScriptedTutor(), Other(), [(trajectory, turn)], 3)
    finally:
        del judge.judge
    assert len(asked) == 3  # one reply each
    for one in again:
        assert one.turns[:turn] == tuple(copy.copy(r) for r in one.turns[:turn]) and [
            r.turn for r in one.turns[:turn]
        ] == [r.turn for r in trajectory.turns[:turn]]
        assert one.turns[turn].turn.user == trajectory.turns[turn].turn.user
    # Siblings of the same reset seed for the attacker, a stream of its own for each student.
    replies = [str(one.turns[turn].turn.reply) for one in again]
    assert replies == [f"No. 4.fork0/{turn}/{i}" for i in range(3)]


def test_values_of_forks_by_hand():
    """A dialogue of two turns whose value counts the words "No": all continuations are known."""
    (trajectory,) = played(ScriptedTutor(), Constructive(), [0], max_turns=2)
    env = steer_env.make_vec("SteerEscalation-v0", 4, max_turns=2)

    def noes(t):
        return float(sum(str(r.turn.reply).startswith("No.") for r in t.turns))

    points = [(trajectory, 0), (trajectory, 1), (trajectory, 2)]
    values = forked_values(env, ScriptedTutor(), Other(), points, 3, value=noes)
    assert values.tolist() == [[2.0] * 3, [1.0] * 3, [0.0] * 3]
    effects = turn_effects(env, ScriptedTutor(), Other(), trajectory, 3, value=noes)
    assert [(e.turn, e.before, e.after, e.effect, e.error) for e in effects] == [
        (0, 2.0, 1.0, -1.0, 0.0),
        (1, 1.0, 0.0, -1.0, 0.0),
    ]
    table = effects_table(trajectory, effects)
    assert table.splitlines()[1].endswith("<- this one") and "-1.000" in table


@pytest.mark.parametrize("seed", range(4))
def test_effects_add_up_to_the_value(seed):
    (trajectory,) = played(ScriptedTutor(), RandomStudent(3), [seed], max_turns=4)
    env = steer_env.make_vec("SteerEscalation-v0", 6, max_turns=4)
    effects = turn_effects(env, ScriptedTutor(), RandomStudent(9), trajectory, 4)
    total = sum(e.effect for e in effects)
    assert total == pytest.approx(emitted_return(trajectory) - effects[0].before)
    assert effects[-1].after == emitted_return(trajectory)


def test_what_cannot_be_forked_is_refused():
    (trajectory,) = played(ScriptedTutor(), Constructive(), [0], max_turns=2)
    env = steer_env.make_vec("SteerEscalation-v0", 2, max_turns=2)
    with pytest.raises(ValueError, match="turn=2 of a dialogue of 2 turns"):
        rollout_from(env, ScriptedTutor(), Constructive(), [(trajectory, 2)], 1)
    with pytest.raises(ValueError, match="k=0, expected at least one"):
        rollout_from(env, ScriptedTutor(), Constructive(), [(trajectory, 0)], 0)
    assert isinstance(env, VectorDialogueEnv)
    with pytest.raises(ValueError, match="slot 0 waits for nobody"):
        env.snapshot(0)
    with pytest.raises(TypeError, match="expected what snapshot"):
        env.restore(0, "later")
