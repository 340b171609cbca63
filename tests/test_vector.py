"""`VectorDialogueEnv` and Gymnasium's view of it."""

import numpy as np
import pytest

import steer_env
from steer_env import testing
from steer_env.env import DialogueEnv, InvalidUtterance
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.student_env import StudentVectorEnv
from steer_env.testing.play import play, script_of
from steer_env.testing.toys import ToyAttacker, ToyJudge, ToyStudent, toy_scenarios
from steer_env.testing.vectors import roll
from steer_env.trajectory import group_by_seed
from steer_env.types import ATTACKER, STUDENT, Scored, Terms
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import TCSR, HarmCost, TurnReward

AGENTS = {ATTACKER: ToyAttacker(), STUDENT: ToyStudent()}


def make():
    return TCSR(TurnReward(testing.toy_env()))


@pytest.fixture
def vec():
    return VectorDialogueEnv([make] * 4)


def test_sound():
    testing.check_vector(make)
    testing.check_vector(lambda: HarmCost(make(), coefficient=0.5), num_envs=1)


def test_replies_are_judged_in_one_batch_per_judge():
    class Counts(ToyJudge):
        def __init__(self):
            self.sizes = []

        def judge(self, requests):
            self.sizes.append(len(requests))
            return super().judge(requests)

    one, two = Counts(), Counts()
    vec = VectorDialogueEnv([lambda: testing.toy_env(one)] * 3 + [lambda: testing.toy_env(two)])
    vec.reset(seed=0)
    for agent in (ATTACKER, STUDENT):
        ids, _ = vec.pending(agent)
        vec.submit(agent, ids, ["hello"] * 4)
    assert (one.sizes, two.sizes) == ([3], [1])


def test_nobody_waits_for_a_slower_dialogue(vec):
    vec.reset(seed=0)
    vec.submit(ATTACKER, [2], ["early"])
    vec.submit(STUDENT, [2], ["bird"])
    assert len(vec.envs[2].unwrapped.turns) == 1
    assert vec.pending(STUDENT)[0] == []
    assert {0, 1, 3} <= set(vec.pending(ATTACKER)[0])


def test_finished_dialogues_come_back_whole(vec):
    finished = roll(vec, AGENTS, [3, 1, 4, 1, 5, 9, 2, 6])
    for seed, done in finished.items():
        alone = play(make(), seed, script_of(*AGENTS.values()))
        assert [turn.reward for turn in done.turns] == alone.replies
        assert [turn.info for turn in done.turns] == alone.infos
        assert (done.observation, done.stop, done.seed) == (alone.final, "seed_end", seed)
    assert vec.running == 0


def test_slots_beyond_the_seeds_stay_idle(vec):
    vec.reset(seeds=[1, 2])
    assert vec.running == 2 and vec.pending(ATTACKER)[0] == [0, 1]
    vec.start(3, 9)
    assert vec.pending(ATTACKER)[0] == [0, 1, 3]


def test_reset_options_reach_every_slot(vec):
    scenario = toy_scenarios()[3]
    vec.reset(options={"scenario": scenario})
    assert [env.unwrapped.scenario for env in vec.envs] == [scenario] * 4


def test_last_result(vec):
    vec.reset(seed=0)
    with pytest.raises(ValueError, match="slot 0 has no finished turn yet"):
        vec.last_result(0)
    vec.submit(ATTACKER, [0], ["a"])
    vec.submit(STUDENT, [0], ["b"])
    assert vec.last_result(0).reward == vec.envs[0].rewards[STUDENT] != 0.0


# -- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "utterances", "message"),
    [
        ([0, 1], ["a"], "1 utterances for 2 dialogues of attacker_0; expected one each"),
        ([0], ["a", "b"], "2 utterances for 1 dialogues"),
        ([0], [], "0 utterances"),
        (
            [0, 1],
            "ab",
            "'ab' as utterances for 2 dialogues of attacker_0, expected a list of one string each",
        ),
        ([0], None, "None as utterances"),
        ([0, 0], ["a", "b"], r"ids=\[0, 0\], expected each slot at most once"),
        ([7], ["a"], r"slot 7 does not exist, expected 0\.\.3"),
        ([-1], ["a"], "slot -1 does not exist"),
    ],
)
def test_wrong_numbers_change_nothing(vec, ids, utterances, message):
    vec.reset(seed=0)
    before = vec.pending(ATTACKER)
    with pytest.raises(ValueError, match=message):
        vec.submit(ATTACKER, ids, utterances)
    assert vec.pending(ATTACKER) == before


def test_one_bad_utterance_steps_no_slot(vec):
    vec.reset(seed=0)
    before = vec.pending(ATTACKER)
    for bad in (None, 3, "x" * 5000):
        with pytest.raises(InvalidUtterance):
            vec.submit(ATTACKER, [0, 1, 2, 3], ["fine", "fine", bad, "fine"])
    assert vec.pending(ATTACKER) == before


def test_a_slot_that_waits_for_the_other_seat(vec):
    vec.reset(seeds=[0, 1, 2])
    with pytest.raises(ValueError, match="slot 1 waits for attacker_0, not for student_0"):
        vec.submit(STUDENT, [1], ["reply"])
    with pytest.raises(ValueError, match=r"slot 3 waits for nobody \(finished or idle\)"):
        vec.submit(ATTACKER, [3], ["hello"])


def test_a_judge_that_breaks_its_contract_steps_no_slot():
    class Short(ToyJudge):
        def judge(self, requests):
            return super().judge(requests)[1:]

    vec = VectorDialogueEnv([lambda: testing.toy_env(Short())])
    vec.reset(seed=0)
    vec.submit(ATTACKER, [0], ["hello"])
    with pytest.raises(TypeError, match=r"judge 'toy' returned \[\] for 1 requests"):
        vec.submit(STUDENT, [0], ["reply"])
    assert vec.pending(STUDENT)[0] == [0] and not vec.envs[0].unwrapped.turns


def test_a_judge_that_raises_leaves_the_batch_unscored(vec):
    class Down(ToyJudge):
        def judge(self, requests):
            raise TimeoutError("no answer")

    judge = Down()
    vec = VectorDialogueEnv([lambda: TCSR(TurnReward(testing.toy_env(judge)))] * 3)
    vec.reset(seed=0)
    vec.submit(ATTACKER, [0, 1, 2], ["hello"] * 3)
    with pytest.warns(RuntimeWarning, match="3 turns are unscored"):
        vec.submit(STUDENT, [0, 1, 2], ["reply"] * 3)
    assert [(vec.last_result(i).reward, vec.last_result(i).info["scored"]) for i in range(3)] == [
        (0.0, False)
    ] * 3


def test_bad_construction():
    with pytest.raises(ValueError, match=r"factories=\[\], expected at least one"):
        VectorDialogueEnv([])
    with pytest.raises(TypeError, match="expected an AEC environment around a DialogueEnv"):
        VectorDialogueEnv([lambda: testing.toy_env().action_space(ATTACKER)])
    with pytest.raises(ValueError, match="num_envs=0, expected an integer of at least 1"):
        steer_env.make_vec(num_envs=0)


def test_more_seeds_than_slots(vec):
    with pytest.raises(ValueError, match="5 seeds for 4 slots"):
        vec.reset(seeds=range(5))


def test_a_dropped_seed_does_not_shift_the_groups():
    from steer_env.rollout import rollout

    trajectories = rollout(VectorDialogueEnv([make] * 3), *AGENTS.values(), seeds=[1, 1, 2, 2])
    assert [len(group) for group in group_by_seed(trajectories, 2)] == [2, 2]
    with pytest.raises(ValueError, match="do not divide into groups"):
        group_by_seed(trajectories[1:], 2)
    with pytest.raises(ValueError, match="a group shares one seed"):
        group_by_seed([*trajectories[1:], trajectories[0]], 2)


# -- Gymnasium's view -----------------------------------------------------------------------------------


def student_vec(n=3, **options):
    return StudentVectorEnv(
        VectorDialogueEnv([lambda: TCSR(TurnReward(testing.toy_env(**options)))] * n), ToyAttacker()
    )


def test_final_observation_and_reward_survive_autoreset():
    vec = student_vec(1)
    student = ToyStudent()
    observations, _ = vec.reset(seed=2)
    alone = play(make(), 2, script_of(*AGENTS.values()))
    rewards, over = [], False
    while not over:
        seen = {key: observations[key][0] for key in observations}
        observations, reward, terminated, _, infos = vec.step(student.act([seen]))
        rewards.append(float(reward[0]))
        over = bool(terminated[0])
    assert rewards == alone.replies
    assert {key: observations[key][0] for key in observations} == alone.final
    assert infos["return"][0] == pytest.approx(sum(rewards))
    observations, reward, terminated, truncated, infos = vec.step(["ignored"])
    assert (reward[0], terminated[0], truncated[0], infos) == (0.0, False, False, {})
    assert len(observations["transcript"][0]) == 1


def test_truncation_is_told_from_termination():
    vec = student_vec(1, max_cycles=1)
    vec.reset(options={"scenario": toy_scenarios()[3]})
    _, _, terminated, truncated, _ = vec.step(["a"])
    assert (bool(terminated[0]), bool(truncated[0])) == (False, True)


def test_infos_mask_unscored_turns():
    """Gymnasium fills missing numbers with 0; its mask says which are real."""
    vec = student_vec(2)
    vec.reset(seed=0)
    *_, infos = vec.step(["fine", "unjudgeable"])
    assert infos["_reward_safety"].tolist() == [True, False]
    assert infos["scored"].tolist() == [True, False]


@pytest.mark.parametrize("actions", [["a"], ["a"] * 4, "abc", None])
def test_wrong_number_of_actions(actions):
    vec = student_vec(3)
    vec.reset(seed=0)
    with pytest.raises(ValueError, match="actions for 3 dialogues"):
        vec.step(actions)


def test_seeds():
    vec = student_vec(3)
    one, _ = vec.reset(seed=4)
    for seeds in ([4, 5, 6], (4, 5, 6), np.array([4, 5, 6]), np.int64(4)):
        two, _ = vec.reset(seed=seeds)
        assert one == two
    with pytest.raises(ValueError, match="2 seeds for 3 dialogues"):
        vec.reset(seed=[1, 2])


def test_a_reward_emitted_while_the_attacker_speaks_is_not_lost():
    from steer_env.student_env import StudentEnv
    from steer_env.wrappers import DialogueWrapper

    class AnyStep(DialogueWrapper):
        """Gives the student 1 for every utterance, also the attacker's."""

        @property
        def rewards(self):
            return {agent: 1.0 for agent in self.agents}

        @rewards.setter
        def rewards(self, value):
            pass

    scenario = toy_scenarios()[3]  # four turns
    env = StudentEnv(AnyStep(testing.toy_env()), ToyAttacker())
    env.reset(options={"scenario": scenario})
    assert [env.step("a")[1] for _ in range(4)] == [2.0] * 4
    vec = StudentVectorEnv(VectorDialogueEnv([lambda: AnyStep(testing.toy_env())]), ToyAttacker())
    vec.reset(options={"scenario": scenario})
    assert [float(vec.step(["a"])[1][0]) for _ in range(4)] == [2.0] * 4


def test_verdicts_of_one_slot_do_not_reach_another():
    class ByText(ToyJudge):
        def _one(self, reply):
            return Scored(Terms(int(reply), 5, 5))

    vec = VectorDialogueEnv([lambda: testing.toy_env(ByText())] * 10)
    vec.reset(seed=0)
    ids = list(range(10))
    vec.submit(ATTACKER, ids, ["hello"] * 10)
    shuffled = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    vec.submit(STUDENT, shuffled, [str(i + 1) for i in shuffled])
    assert [vec.last_result(i).info["reward_terms"]["safety"] for i in ids] == [i + 1 for i in ids]


@pytest.mark.parametrize("reward", [float("inf"), -float("inf"), None, "much"])
def test_a_reward_that_is_no_finite_number_is_named(reward):
    class Odd(DialogueEnv):
        def _reply(self, utterance):
            super()._reply(utterance)
            self.rewards["student_0"] = reward

    env = VectorDialogueEnv([lambda: Odd(FixedScenarios([Scenario((DraftTurn("hello"),), id="one")]), None)])
    env.reset(0)
    env.submit("attacker_0", env.pending("attacker_0")[0], ["hi"])
    with pytest.raises(
        ValueError, match=r"rewards\['student_0'\]=.* in turn 1 of scenario 'one', expected a finite"
    ):
        env.submit("student_0", env.pending("student_0")[0], ["no"])
