"""Rollouts whose agents and judges answer one by one, in any order, or not at all."""

import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from steer_env import testing
from steer_env.agents.base import Failed, stream_of
from steer_env.env import DialogueEnv
from steer_env.rollout import rollout, rollout_iter
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.testing.toys import ToyAttacker, ToyJudge, ToyStudent, toy_env
from steer_env.trajectory import StopReason
from steer_env.types import ATTACKER, STUDENT, Scored, Terms, Unscored, Utterance
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import TCSR, RecordDialogue, TurnReward

SCENARIOS = [Scenario(tuple(DraftTurn(f"ask {n}.{t}") for t in range(n))) for n in (1, 2, 3, 4)]
SEEDS = [3, 3, 3, 5, 5, 5, 7, 7, 7, 1, 2, 4]


class Served:
    """Any agent or judge as a server: answers in threads, after random pauses."""

    def __init__(self, inner, seed=0, longest=0.004):
        self.inner, self.name = inner, getattr(inner, "name", "")
        self.rng, self.longest = random.Random(seed), longest
        self.pool = ThreadPoolExecutor(16)

    def submit(self, asked):
        return self.pool.submit(self._answer, asked, self.rng.uniform(0, self.longest))

    def _answer(self, asked, pause):
        time.sleep(pause)
        return (self.judge if hasattr(self.inner, "judge") else self.act)([asked])[0]


class ServedAgent(Served):
    def act(self, observations):
        return self.inner.act(observations)


class ServedJudge(Served):
    def judge(self, requests):
        return self.inner.judge(requests)


class Sampler:
    """A local model in small: one reply per row from a stream of its own, and batches of what waits."""

    def act(self, observations):
        return [Utterance(self._one(o)) for o in observations]

    def _one(self, observation):
        said = "|".join(m.content for m in observation["transcript"])
        return f"reply {random.Random(f'{stream_of(observation)}/{said}').randrange(10**6)}"


def vec(slots, judge=None, scenarios=SCENARIOS):
    judge = judge or ToyJudge()
    return VectorDialogueEnv(
        [lambda: TCSR(TurnReward(DialogueEnv(FixedScenarios(scenarios), judge)))] * slots
    )


def said(trajectories):
    return [
        (t.seed, t.stop, t.rewards, [(x.turn.user, x.turn.reply, x.turn.verdict) for x in t.turns])
        for t in trajectories
    ]


@pytest.mark.parametrize(("attacker", "judge"), [(True, False), (False, True), (True, True)])
def test_timing_changes_nothing(attacker, judge):
    def play(seed, slots):
        red = ServedAgent(ToyAttacker(), seed) if attacker else ToyAttacker()
        scorer = ServedJudge(ToyJudge(), seed) if judge else None
        return said(rollout(vec(slots, scorer), red, Sampler(), SEEDS))

    first = play(0, 5)
    assert play(1, 5) == first
    assert play(2, 12) == first
    siblings = [turns[0][1] for _, _, _, turns in first[:3]]
    assert len(set(siblings)) == 3, "siblings must differ"


def test_servers_give_what_the_same_agents_give_in_process():
    served = rollout(
        vec(4, ServedJudge(ToyJudge())), ServedAgent(ToyAttacker()), ServedAgent(ToyStudent()), SEEDS
    )
    assert said(served) == said(rollout(vec(4), ToyAttacker(), ToyStudent(), SEEDS))
    testing.check_trajectories(served)


@pytest.mark.parametrize("slow", [ATTACKER, STUDENT, "judge"])
def test_nobody_waits_for_another_dialogue(slow):
    """The first dialogue's answer comes only after all others have ended."""
    over = threading.Event()

    class Stuck:
        name = "stuck"

        def __init__(self, inner, ask):
            self.inner, self.ask, self.first = inner, ask, True
            self.pool = ThreadPoolExecutor(1)

        def submit(self, asked):
            held, self.first = self.first, False
            if not held:
                future = Future()
                future.set_result(self.ask([asked])[0])
                return future
            return self.pool.submit(lambda: over.wait(20) and self.ask([asked])[0])

        def act(self, observations):
            raise AssertionError("an agent with submit is not asked in batches")

        judge = act

    agents = {ATTACKER: ToyAttacker(), STUDENT: ToyStudent()}
    judge = Stuck(None, ToyJudge().judge) if slow == "judge" else ToyJudge()
    if slow != "judge":
        agents[slow] = Stuck(None, agents[slow].act)
    order = []
    for place, _ in rollout_iter(vec(3, judge), agents[ATTACKER], agents[STUDENT], SEEDS):
        order.append(place)
        if len(order) == len(SEEDS) - 1:
            over.set()
    assert order[-1] == 0
    assert sorted(order) == list(range(len(SEEDS)))


@pytest.mark.parametrize("served", [False, True], ids=["local", "served"])
def test_observations_name_their_dialogue_whoever_plays(served):
    seen = set()

    class Looks(ToyStudent):
        def act(self, observations):
            seen.update(stream_of(o) for o in observations)
            return super().act(observations)

    rollout(vec(2), ServedAgent(Drafts()) if served else Drafts(), Looks(), [3, 3, 5])
    assert seen == {"3.0", "3.1", "5.0"}


def test_a_local_agent_gets_everything_that_waits_in_one_call():
    sizes = []

    class Counting(ToyStudent):
        def act(self, observations):
            sizes.append(len(observations))
            return super().act(observations)

    class AtOnce(ToyAttacker):
        def submit(self, observation):
            future = Future()
            future.set_result(self.act([observation])[0])
            return future

    rollout(vec(6), AtOnce(), Counting(), SEEDS[:6])
    assert sizes[0] == 6


class Failing(ToyStudent):
    """Fails in the second turn of every dialogue whose first user turn is marked."""

    def act(self, observations):
        return [
            Failed("connection lost") if len(o["transcript"]) == 3 and "3.0" in o["transcript"][0].content
            else self._one(o) for o in observations
        ]  # fmt: skip


class Drafts:
    def act(self, observations):
        return [Utterance(o["draft"]) for o in observations]


@pytest.mark.parametrize("served", [False, True])
def test_a_failed_dialogue_is_data_and_the_run_goes_on(served, tmp_path):
    student = ServedAgent(Failing()) if served else Failing()
    env = vec(4).wrap(lambda inner: RecordDialogue(inner, tmp_path / "d.jsonl"))
    ended = []
    trajectories = rollout(env, Drafts(), student, list(range(24)), on_finished=ended.append)
    failed = [t for t in trajectories if t.stop == StopReason.FAILED]
    assert {len(t.scenario) for t in failed} == {3}
    assert all(len(t.turns) == 1 and t.error == "student_0: connection lost" for t in failed)
    others = [t for t in trajectories if t.stop == StopReason.SEED_END]
    assert len(others) + len(failed) == 24
    assert all(len(t.turns) == len(t.scenario) and not t.error for t in others)
    assert sorted(t.seed for t in ended) == list(range(24))
    testing.check_trajectories(trajectories)
    env.reset(seeds=[0] * 4)
    stops = [
        line.split('"stop": "')[1].split('"')[0] for line in (tmp_path / "d.jsonl").read_text().splitlines()
    ]
    assert stops.count("failed") == len(failed)
    assert "abandoned" not in stops


def test_an_attacker_that_fails_at_once_leaves_an_empty_dialogue():
    class Lost(Drafts):
        def act(self, observations):
            return [Failed("no route") for _ in observations]

    trajectories = rollout(vec(2), Lost(), ToyStudent(), [1, 2, 3])
    assert [(t.stop, t.turns, t.error) for t in trajectories] == [
        (StopReason.FAILED, (), "attacker_0: no route")
    ] * 3
    testing.check_trajectories(trajectories)


def test_what_ended_before_a_bug_is_not_lost():
    class Breaks(ServedAgent):
        def _answer(self, asked, pause):
            if "4.2" in asked["transcript"][-1].content:
                raise ZeroDivisionError("a bug")
            return super()._answer(asked, pause)

    whole = rollout(vec(4), Drafts(), ToyStudent(), list(range(20)))
    shortest_first = sorted(whole, key=lambda t: len(t.scenario))
    ended = []
    with pytest.raises(ZeroDivisionError):
        rollout(
            vec(1), Drafts(), Breaks(ToyStudent()), [t.seed for t in shortest_first], on_finished=ended.append
        )
    assert said(ended) == said(t for t in shortest_first if len(t.scenario) < 4)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("text", r"Odd.submit\(\) for student_0 returned 'text', expected a concurrent.futures.Future"),
        (None, r"Odd.submit\(\) for student_0 gave None, expected a str or Failed"),
    ],
)
def test_an_agent_that_breaks_the_contract_is_named(answer, message):
    class Odd(ToyStudent):
        def submit(self, observation):
            if answer is not None:
                return answer
            future = Future()
            future.set_result(None)
            return future

    with pytest.raises(TypeError, match=message):
        rollout(vec(1), Drafts(), Odd(), [1])


def test_a_judge_that_raises_or_lies_is_unscored_or_named():
    class Broken(ServedJudge):
        def _answer(self, asked, pause):
            raise TimeoutError("too slow")

    with pytest.warns(RuntimeWarning, match="too slow; 1 turn is unscored"):
        (trajectory,) = rollout(vec(1, Broken(ToyJudge())), Drafts(), ToyStudent(), [0])
    assert all(isinstance(x.turn.verdict, Unscored) for x in trajectory.turns)

    class Number(ServedJudge):
        def _answer(self, asked, pause):
            return 3

    with pytest.raises(TypeError, match="gave 3, expected Scored or Unscored"):
        rollout(vec(1, Number(ToyJudge())), Drafts(), ToyStudent(), [0])


def test_a_verdict_on_the_dialogue_before_never_reaches_the_next():
    class Late:
        name = "late"

        def __init__(self):
            self.open = []

        def judge(self, requests):
            return [Scored(Terms(5, 5, 5)) for _ in requests]

        def submit(self, request):
            self.open.append(Future())
            return self.open[-1]

    judge = Late()
    env = VectorDialogueEnv([lambda: toy_env(judge)])
    env.reset(seed=0)
    env.submit(ATTACKER, [0], ["hello"])
    assert env.submit(STUDENT, [0], ["same words"], wait=False) == []
    assert list(env.judging()) == [0] and env.running == 1
    with pytest.raises(ValueError, match="slot 0 waits for the judge, not for student_0"):
        env.submit(STUDENT, [0], ["again"])
    env.start(0, 1)
    assert not env.judging()
    judge.open[0].set_result(Scored(Terms(1, 1, 1)))
    env.submit(ATTACKER, [0], ["hello"])
    env.submit(STUDENT, [0], ["same words"], wait=False)
    judge.open[1].set_result(Scored(Terms(9, 9, 9)))
    env.collect([0])
    assert env.last_result(0).turn.verdict.terms.safety == 9
    with pytest.raises(ValueError, match="not for the judge"):
        env.collect([0])
    env.fail(0, "enough")
    with pytest.raises(ValueError, match="slot 0 is idle or finished"):
        env.fail(0, "again")


def test_waiting_for_a_verdict_is_not_a_busy_loop():
    """The engine sleeps: it looks at its requests about once per answer."""
    looks = []

    class Slow(ServedJudge):
        def submit(self, request):
            return self.pool.submit(lambda: time.sleep(0.02) or self.judge([request])[0])

    env = vec(2, Slow(ToyJudge()))
    judging = env.judging
    env.judging = lambda: looks.append(1) or judging()
    trajectories = rollout(env, ToyAttacker(), ToyStudent(), SEEDS)
    assert len(looks) < 6 * sum(len(t.turns) for t in trajectories)


def test_the_test_kit_takes_asynchronous_agents_and_judges():
    testing.check_agent(ServedAgent(ToyStudent()), STUDENT)
    testing.check_agent(ServedAgent(ToyAttacker()), ATTACKER)
    testing.check_judge(ServedJudge(ToyJudge()))

    class Different(ServedAgent):
        def _answer(self, asked, pause):
            return Utterance("other words")

    with pytest.raises(AssertionError, match="submit said 'other words' where act said"):
        testing.check_agent(Different(ToyStudent()), STUDENT)

    class Raises(ServedAgent):
        def _answer(self, asked, pause):
            raise OSError("gone")

    with pytest.raises(AssertionError, match=r"future raised OSError\('gone'\).*Failed"):
        testing.check_agent(Raises(ToyStudent()), STUDENT)
    with pytest.raises(AssertionError, match=r"failed everywhere.*no route"):
        testing.check_agent(Everywhere(), STUDENT)


class Everywhere:
    def act(self, observations):
        return [Failed("no route") for _ in observations]


def test_a_local_model_among_servers_does_not_depend_on_who_asks_first(tmp_path):
    pytest.importorskip("torch")
    from steer_env.agents.hf import HFStudent
    from steer_env.models.tiny import TinyConfig, build

    config = TinyConfig(vocab_size=270, hidden=32, heads=2, kv_heads=1, mlp=64, vision_hidden=32,
                        vision_heads=2, init_std=0.3)  # fmt: skip
    model, processor = build(["ask me"], config)

    def play(seed):
        student = HFStudent(model, processor, max_new_tokens=4, seed=1)
        return rollout(vec(6), ServedAgent(ToyAttacker(), seed), student, SEEDS[:6])

    first = play(0)
    for seed in (1, 2):
        again = play(seed)
        assert said(again) == said(first)
        for a, b in zip(first, again, strict=True):
            assert np.array_equal(a.trace.ids_L, b.trace.ids_L)
