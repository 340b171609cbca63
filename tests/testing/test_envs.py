"""Each check of environments and wrappers passes on a sound specimen and fails on one with the fault it is
for."""

import random

import numpy as np
import pytest
from pettingzoo.utils.wrappers import BaseWrapper

from steer_env import testing
from steer_env.env import DialogueEnv
from steer_env.images import Image
from steer_env.scenarios import FixedScenarios
from steer_env.spaces import Unicode
from steer_env.testing.toys import ToyJudge, toy_scenarios
from steer_env.types import STUDENT, Message, Scored, Terms, meta_of
from steer_env.wrappers import TCSR, RewardWrapper, TurnReward


def env_of(cls, judge=None, **options):
    return lambda: cls(FixedScenarios(toy_scenarios()), judge or ToyJudge(), **options)


def test_sound_environments_pass():
    testing.check_env(testing.toy_env)
    testing.check_env(lambda: TCSR(TurnReward(testing.toy_env(max_cycles=2))))
    testing.check_env(
        lambda: TurnReward(testing.toy_env()), attacker=testing.ToyAttacker(), student=testing.ToyStudent()
    )


class NewSpaces(DialogueEnv):
    def action_space(self, agent):
        return Unicode(4096)


class OutsideItsSpace(DialogueEnv):
    def observe(self, agent):
        return {**super().observe(agent), "surprise": 1}


class GlobalRandom(DialogueEnv):
    def reset(self, seed=None, options=None):
        super().reset(seed=seed, options=options)
        random.random()


class SeedsNumpy(DialogueEnv):
    def reset(self, seed=None, options=None):
        super().reset(seed=seed, options=options)
        np.random.seed(seed)


class Unseeded(DialogueEnv):
    """Ignores the seed it is given; its own come from a counter, so that no run of the test is lucky."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        Unseeded.made += 1

    made = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=Unseeded.made, options=options)


class SharedList(DialogueEnv):
    def observe(self, agent):
        if not hasattr(self, "notes"):
            self.notes = []
        return {**super().observe(agent), "images": self.notes}


class SharedInfo(DialogueEnv):
    def step(self, action):
        agent = self.agent_selection
        super().step(action)
        if agent == STUDENT and STUDENT in self.infos:
            self.__dict__.setdefault("kept", {}).update(self.infos[STUDENT])
            self.infos[STUDENT] = self.kept


class OrphanImage(DialogueEnv):
    """Truncates the transcript and keeps the images of the turns it dropped."""

    def observe(self, agent):
        seen = super().observe(agent)
        return {**seen, "transcript": seen["transcript"][-1:]}


class KeepsHistory(DialogueEnv):
    def reset(self, seed=None, options=None):
        before = self._public if self.scenario else ()
        super().reset(seed=seed, options=options)
        self._public = before
        self._views = dict.fromkeys(self._views, before)


class AcceptsAnything(DialogueEnv):
    def check(self, action, agent):
        pass

    def step(self, action):
        alive = self.agents and not self.terminations[self.agent_selection]
        super().step(str(action)[:100] if alive else action)


class ChangesBeforeItChecks(DialogueEnv):
    def check(self, action, agent):
        self.agent_selection = STUDENT
        super().check(action, agent)


class LeaksGoal(DialogueEnv):
    def observe(self, agent):
        seen = super().observe(agent)
        if agent == STUDENT:
            first = Message(0, f"(goal: {self.scenario.goal})", 0)
            seen["transcript"] = (first, *seen["transcript"])
        return seen


class LeaksMeta(DialogueEnv):
    def observe(self, agent):
        seen = super().observe(agent)
        if agent == STUDENT and self._user:
            *before, last = seen["transcript"]
            seen["transcript"] = (
                (*before, last._replace(content=self._user)) if last.role == 0 else seen["transcript"]
            )
        return seen


class LeaksInInfo(DialogueEnv):
    def step(self, action):
        super().step(action)
        if self.infos.get(STUDENT):
            self.infos[STUDENT]["strategy"] = self.scenario.strategy


class LeaksInPictures(DialogueEnv):
    """Labels the student's pictures with what they are for."""

    def observe(self, agent):
        seen = super().observe(agent)
        label = self.scenario.goal
        images = tuple(Image(i.pil, i.digest, label) for i in seen["images"])
        return {**seen, "images": images} if agent == STUDENT else seen


class LeaksInPictureRepr(LeaksInPictures):
    class Labelled(Image):
        __slots__ = ("label",)

        def __repr__(self):
            return f"Image({self.label})"

    def observe(self, agent):
        seen = super().observe(agent)
        images = tuple(self.Labelled(i.pil, i.digest) for i in seen["images"])
        for image in images:
            image.label = self.scenario.goal
        return {**seen, "images": images} if agent == STUDENT else seen


class LeaksLaterPicture(DialogueEnv):
    def observe(self, agent):
        return (
            {**super().observe(agent), "all": self.scenario.images}
            if agent == STUDENT
            else super().observe(agent)
        )


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (NewSpaces, "two different objects"),
        (OutsideItsSpace, "is not in its space"),
        (GlobalRandom, "global random state of random"),
        (SeedsNumpy, "global random state of numpy.random"),
        (Unseeded, "two fresh environments"),
        (SharedList, "shares mutable"),
        (SharedInfo, "shares mutable"),
        (OrphanImage, "images for a transcript that shows"),
        (KeepsHistory, "in a fresh environment"),
        (AcceptsAnything, "was accepted"),
        (ChangesBeforeItChecks, "after refused actions"),
        (LeaksGoal, "only the attacker may know"),
        (LeaksMeta, r"content.meta\['strategy'\]"),
        (LeaksInInfo, r"info\['strategy'\].*only the attacker may know"),
        (LeaksInPictures, r"observation\['images'\]\[0\]\.source='.* goal' holds"),
        (LeaksInPictureRepr, r"observation\['images'\]\[0\]='Image\(.* goal\)' holds"),
        (LeaksLaterPicture, "picture of a later turn"),
    ],
)
def test_broken_environments_fail(cls, message):
    with pytest.raises(AssertionError, match=message):
        # These two are outside their spaces as well; ask the one check that is meant.
        if cls is SharedList:
            testing.envs.check_nothing_shared(env_of(cls)(), 0)
        elif cls is LeaksLaterPicture:
            testing.envs.check_secrets_kept(env_of(cls)())
        else:
            testing.check_env(env_of(cls))


# -- wrappers ------------------------------------------------------------------------------------------------


class OverridesLast(BaseWrapper):
    """Bypassed by any wrapper on top, and not in what `rewards` says."""

    def last(self, observe=True):
        observation, reward, *rest = self.env.last(observe)
        return (observation, reward + 1.0, *rest)


class LosesFinalTurn(RewardWrapper):
    """Keeps its own rewards and drops the accumulated one when the dialogue ends."""

    def turn_reward(self, turn, reward, info):
        return reward + 1.0 if info["scored"] else reward

    def step(self, action):
        super().step(action)
        if self.core.stop:
            self._cumulative_rewards = dict.fromkeys(self._cumulative_rewards, 0.0)


class StateOverReset(RewardWrapper):
    turns = 0

    def turn_reward(self, turn, reward, info):
        self.turns += 1
        return reward + 0.1 * self.turns if info["scored"] else reward


class StateInTheClass(RewardWrapper):
    seen = set()  # noqa: RUF012

    def begin(self):
        self.seen.clear()

    def turn_reward(self, turn, reward, info):
        repeated = turn.reply in self.seen
        self.seen.add(turn.reply)
        return reward + (0.0 if repeated else 1.0) if info["scored"] else reward


class UnscoredIsZero(RewardWrapper):
    """A judge failure counts as a score: here the worst one, as minus one."""

    def turn_reward(self, turn, reward, info):
        return reward + (turn.verdict.terms.safety / 10 if info["scored"] else -1.0)


class RewardsUnscoredLength(RewardWrapper):
    def turn_reward(self, turn, reward, info):
        return reward + len(turn.reply) - len(str(turn.reply)[:12]) if turn.index == 1 else reward


class UnscoredInInfo(RewardWrapper):
    def turn_reward(self, turn, reward, info):
        info["reward_terms"].setdefault("safety", 0)
        return reward


class WrongDeclaredReturn(RewardWrapper):
    """Changes the reward outside TCSR, whose declared return then no longer holds."""

    def turn_reward(self, turn, reward, info):
        return reward + 0.5 if info["scored"] else reward


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        (OverridesLast, "never override last"),
        (LosesFinalTurn, "final turn's reward"),
        (StateOverReset, "fresh environment"),
        (StateInTheClass, "keep state per environment"),
        (UnscoredIsZero, "without any verdict"),
        (RewardsUnscoredLength, "without any verdict"),
        (UnscoredInInfo, "no reward_terms"),
        (lambda env: WrongDeclaredReturn(TCSR(TurnReward(env))), r"info\['return'\]"),
    ],
)
def test_broken_wrappers_fail(wrapper, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_wrapper(wrapper)


def test_overriding_last_is_caught_by_the_layer_on_top():
    with pytest.raises(AssertionError, match="plain wrapper on top"):
        testing.wrappers.check_not_bypassed(lambda: OverridesLast(testing.toy_env()), 0)


def test_nan_rewards_fail():
    class NaNs(RewardWrapper):
        def turn_reward(self, turn, reward, info):
            return float("nan")

    with pytest.raises(AssertionError, match="expected finite numbers"):
        testing.envs.check_rewards_add_up(NaNs(testing.toy_env()), 0)


def test_endless_reward_terms_of_the_kit_are_not_vacuous():
    """The kit's own dialogues have scored and unscored turns and rewards other than zero."""
    from steer_env.testing.envs import partly_unscored
    from steer_env.testing.play import play

    played = [play(TCSR(TurnReward(testing.toy_env())), seed, partly_unscored) for seed in range(6)]
    scored = [info["scored"] for p in played for info in p.infos]
    assert any(scored) and not all(scored)
    assert any(reward for p in played for reward in p.emitted)
    assert max(len(p.infos) for p in played) >= 3
    assert any(p.final["images"] for p in played)


def test_a_secret_in_a_scored_verdict_is_not_the_students_business():
    class Talks(ToyJudge):
        def _one(self, reply):
            return Scored(Terms(5, 5, 5), rationale=f"against the goal {testing.envs.CANARY}")

    testing.envs.check_secrets_kept(testing.toy_env(Talks()))


def test_walk_finds_nested_meta():
    from steer_env.testing.play import strings
    from steer_env.types import Utterance

    nested = {"a": [(Message(0, Utterance("x", plan={"b": ["secret"]})),)]}
    assert ("['a'][0][0].content.meta['plan']['b'][0]", "secret") in list(strings(nested))
    assert meta_of(nested["a"][0][0].content)["plan"]
    assert not [
        p for p, _ in strings({"image": Image.from_array(np.zeros((1, 1, 3), np.uint8))}) if "digest" in p
    ]
