"""Counterfactual credit against continuations that are known, and in a training run."""

import dataclasses
from functools import partial

import numpy as np
import pytest

import steer_env
from kit.dialogues import advantages, dialogue, group
from kit.training import SMALL, Learner
from steer_env.agents.scripted import AlwaysComply, Constructive, RandomStudent
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.credit import FORKED, group_turn_values
from steer_env.algorithms.lookahead import look_ahead, turns_in_dispute
from steer_env.algorithms.trainer import train
from steer_env.rollout import rollout, rollout_from
from steer_env.trajectory import group_by_seed


def test_turns_in_dispute():
    members = group([1.0, 0.0, 0.5, None], [1.0, 1.0, 0.75, 0.5], [1.0, 0.0, 0.5, 0.5])
    assert turns_in_dispute(members, 9) == [1, 2]
    assert turns_in_dispute(members, 1) == [1]


def test_effects_are_differences_of_means_by_hand():
    """Returns of continuations are dealt out by point; siblings with the same past share them."""
    one, two = dialogue([1.0, 0.0]), dialogue([1.0, 1.0])  # the first turns agree, in words too
    worth = {0: (2.0, 1.0), 1: (1.0, 0.0)}
    asked = []

    def play_on(points, k):
        asked.extend(turn for _, turn in points)
        return [[dialogue([v]) for v in worth[turn]] for _, turn in points]

    members = group(one, two)
    look_ahead([members], play_on, 2, 9)
    assert asked == [1]  # once for both, and nothing for the first turn or the end
    # Before the second reply 0.5 is to be expected; the dialogues end at 1 and 2.
    assert group_turn_values(members, "counterfactual").tolist() == [[0.0, 0.0], [0.5, 1.5]]
    found = advantages("grpo", one, two, credit="counterfactual")
    assert found == [[0.0, -0.5], [0.0, 0.5]]


def test_turns_without_a_verdict_have_no_credit():
    one, two = dialogue([1.0, None]), dialogue([0.0, 0.5])
    look_ahead([group(one, two)], lambda points, k: [[dialogue([1.0])] * k for _ in points], 2, 9)
    values = group_turn_values(group(one, two), "counterfactual")
    assert np.isnan(values[1, 0]) and not np.isnan(values[[0, 0, 1], [0, 1, 1]]).any()


def test_where_nobody_looked_there_is_no_credit_to_give():
    with pytest.raises(ValueError, match="credit='counterfactual' of a dialogue without"):
        advantages("grpo", [1.0], [0.0], credit="counterfactual")
    for name in ("reinforce", "constrained_grpo", "rae", "ppo"):
        with pytest.raises(ValueError, match="credit='counterfactual'"):
            make_algorithm(name, credit="counterfactual")


class Siblings:
    """Three students, one for each member of a group."""

    members = (Constructive(), AlwaysComply(), RandomStudent(1))

    def act(self, observations):
        return [self.members[int(o.stream.rpartition(".")[2])].act([o])[0] for o in observations]


def test_a_student_that_does_not_sample_is_as_good_as_expected():
    """Continuations of what was always going to be said are the dialogue itself: no reply did anything."""
    env = steer_env.make_vec("SteerEscalation-v0", 8, max_turns=4)
    attacker = steer_env.make_agent("tutor")
    (members,) = group_by_seed(rollout(env, attacker, Siblings(), [3] * 3), 3)
    play_on = partial(rollout_from, env, attacker, Constructive())
    look_ahead([members], play_on, 2, 9)
    disputed = turns_in_dispute(members, 9)
    assert disputed
    for trajectory in members.trajectories:
        effects = [result.info[FORKED] for result in trajectory.turns]
        assert all(effect == 0.0 for turn, effect in enumerate(effects) if turn not in disputed)
        # Against a perfect student no reply can have helped: constructive replies earn all there is.
        assert max(effects) < 1e-9
    (same,) = group_by_seed(rollout(env, attacker, Constructive(), [3] * 3), 3)
    look_ahead([same], play_on, 2, 9)
    assert not group_turn_values(same, "counterfactual").any()


def test_training_plays_on(make_vec, make_student, tmp_path):
    algorithm = make_algorithm("grpo", credit="counterfactual", forks=2, fork_turns=1)
    config = dataclasses.replace(SMALL, steps=1)
    rows = [
        train(make_vec(), Learner(), make_student(), algorithm, config, tmp_path / name)
        for name in ("a", "b")
    ]
    assert rows[0][0]["loss"] == rows[1][0]["loss"] and rows[0][0]["grad_norm"] > 0
