"""Checks of trajectories and token traces fail on a specimen with the fault they are for."""

import dataclasses

import numpy as np
import pytest

from steer_env import testing
from steer_env.rollout import rollout
from steer_env.testing.toys import ToyAttacker, ToyStudent, toy_env
from steer_env.trajectory import StopReason, TokenTrace
from steer_env.types import Utterance
from steer_env.vector import VectorDialogueEnv
from steer_env.wrappers import TCSR, TurnReward

IMAGE = 1000


def decode(ids):
    return "".join(chr(i) for i in ids)


class TracingStudent(ToyStudent):
    """Keeps its tokens (one per character) as a model back end does: prompt appended, reply sampled."""

    def act(self, observations):
        return [self._trace(o, str(self._one(o))) for o in observations]

    def _trace(self, observation, reply):
        ids, mask, turn = [], [], []
        pieces = []
        k = images = 0
        for message in observation["transcript"]:
            for _ in range(message.images):
                pieces += [(0, -1, ord("[")), (0, -1, IMAGE), (0, -1, IMAGE)]
                images += 1
            own = message.role == 1
            pieces += [(own, k if own else -1, ord(c)) for c in message.content]
            k += own
        pieces += [(1, k, ord(c)) for c in reply]
        mask, turn, ids = (list(column) for column in zip(*pieces, strict=True))
        trace = TokenTrace(
            np.array(ids),
            np.array(mask, bool),
            np.where(np.array(mask, bool), np.float32(-0.5), np.float32(0.0)),
            np.array(turn, np.int32),
            images,
        )
        return Utterance(reply, trace=trace)


@pytest.fixture
def trajectories():
    vec = VectorDialogueEnv([lambda: TCSR(TurnReward(toy_env()))] * 4)
    return rollout(vec, ToyAttacker(), TracingStudent(unscored=0.2), seeds=[3, 3, 5, 5, 0, 1, 2])


def test_sound_trajectories_pass(trajectories):
    testing.check_trajectories(trajectories, decode=decode, image_token=IMAGE)
    assert max(len(t.turns) for t in trajectories) > 2
    assert any(t.trace.images for t in trajectories)


def test_failures_have_a_reason_and_are_checked_up_to_it(trajectories):
    failed = {"stop": StopReason.FAILED, "error": "student_0: connection lost"}
    whole = max(trajectories, key=lambda t: len(t.turns))
    half = dataclasses.replace(whole, turns=whole.turns[:-1], trace=None, **failed)
    testing.check_trajectories([dataclasses.replace(whole, turns=(), trace=None, **failed), half])
    with pytest.raises(AssertionError, match="expected a reason exactly where it failed"):
        testing.check_trajectories([dataclasses.replace(half, error="")])
    with pytest.raises(AssertionError, match="expected finite numbers"):
        testing.check_trajectories([edit_turn(half, 0, reward=float("nan"))])


def edit(trajectory, **changes):
    return dataclasses.replace(trajectory, **changes)


def edit_turn(trajectory, k, **changes):
    turns = list(trajectory.turns)
    turns[k] = dataclasses.replace(turns[k], **changes)
    return edit(trajectory, turns=tuple(turns))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: edit(t, turns=()), "has no turns"),
        (lambda t: edit_turn(t, 0, reward=float("nan")), "expected finite numbers"),
        (lambda t: edit_turn(t, -1, reward=-5.0), "declared return"),
        (lambda t: edit_turn(t, -1, info={**t.turns[-1].info, "scored": "maybe"}), r"info\['scored'\]"),
        (lambda t: edit(t, turns=tuple(dataclasses.replace(x, info={}) for x in t.turns[1:])), "has index"),
    ],
)
def test_broken_turns_fail(trajectories, change, message):
    whole = max(trajectories, key=lambda t: len(t.turns))
    with pytest.raises(AssertionError, match=message):
        testing.check_trajectories([change(whole)])


def test_terms_of_an_unscored_turn_fail(trajectories):
    trajectory, k = next((t, k) for t in trajectories for k, scored in enumerate(t.scored) if not scored)
    info = {**trajectory.turns[k].info, "reward_terms": {"safety": 0}}
    with pytest.raises(AssertionError, match="of an unscored turn"):
        testing.check_trajectories([edit_turn(trajectory, k, info=info)])


def test_a_group_of_two_scenarios_fails(trajectories):
    stray = edit(trajectories[4], seed=trajectories[0].seed)
    with pytest.raises(AssertionError, match="as its siblings"):
        testing.check_trajectories([trajectories[0], stray])


def with_trace(trajectory, **changes):
    fields = {f.name: getattr(trajectory.trace, f.name) for f in dataclasses.fields(TokenTrace)}
    return edit(trajectory, trace=TokenTrace(**{**fields, **{k: v(fields[k]) for k, v in changes.items()}}))


def poked(value, at=0):
    def poke(array):
        array = array.copy()
        array[at] = value
        return array

    return poke


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampled_L": poked(True)}, "disagree at positions"),
        ({"turn_L": lambda a: np.where(a >= 0, a.max() - a, a)}, "never to fall"),
        ({"logprobs_L": poked(np.nan, -1)}, "not finite"),
        ({"logprobs_L": poked(0.7, -1)}, "values above 0"),
        ({"logprobs_L": poked(-1.0)}, "not 0 at unsampled"),
        ({"sampled_L": lambda a: np.zeros_like(a), "turn_L": lambda a: np.full_like(a, -1),
          "logprobs_L": np.zeros_like}, "expected all of"),
        ({"images": lambda n: n + 1}, "trace.images="),
        ({"ids_L": poked(66, 4)}, "append ids to the last prompt"),
        ({"ids_L": poked(66, -1)}, "append ids|decode to"),
        ({"ids_L": lambda a: np.where(a == IMAGE, 65, a)}, "append ids|placeholders"),
    ],
)  # fmt: skip
def test_broken_traces_fail(trajectories, changes, message):
    whole = next(t for t in trajectories if len(t.turns) > 1 and t.trace.images)
    with pytest.raises(AssertionError, match=message):
        testing.check_trajectories([with_trace(whole, **changes)], decode=decode, image_token=IMAGE)


def test_text_encoded_again_fails(trajectories):
    trace = trajectories[0].trace
    with pytest.raises(AssertionError, match="decode to"):
        testing.check_trace(trace, trajectories[0].turns, decode=lambda ids: decode(ids).upper())


def test_lost_placeholder_fails(trajectories):
    trace = next(t.trace for t in trajectories if t.trace.images)
    bare = dataclasses.replace(trace, ids_L=np.where(trace.ids_L == IMAGE, 65, trace.ids_L))
    with pytest.raises(AssertionError, match="0 runs of image placeholders"):
        testing.check_trace(bare, image_token=IMAGE)
