"""Replies that were cut: told by the trace, counted, left out or penalised; a plain loop says the same."""

import dataclasses
import doctest
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.training import Learner
from steer_env.agents.hf.codec import Prompt
from steer_env.algorithms import advantages, update
from steer_env.algorithms.advantages import cut_turns, share_cut
from steer_env.algorithms.base import Example, make_algorithm
from steer_env.algorithms.trainer import TrainConfig, train
from steer_env.algorithms.update import treat_cut
from steer_env.configs.train import Overlong
from steer_env.trajectory import TokenTrace, group_by_seed

CLOSE = 9


def test_examples_in_docstrings():
    assert doctest.testmod(advantages).failed == 0


def trace_of(replies):
    """A user token before each reply; what was not closed by the student is closed behind it, unsampled."""
    ids, sampled, turns = [], [], []
    for turn, reply in enumerate(replies):
        own = [5, *reply] + ([] if reply[-1] == CLOSE else [CLOSE])
        ids += own
        sampled += [False] + [True] * len(reply) + [False] * (len(own) - len(reply) - 1)
        turns += [-1] + [turn] * len(reply) + [-1] * (len(own) - len(reply) - 1)
    n = len(ids)
    return TokenTrace(np.array(ids), np.array(sampled), np.zeros(n, np.float32), np.array(turns, np.int32))


replies = st.lists(st.lists(st.sampled_from([3, 4, CLOSE]), min_size=1, max_size=4), min_size=1, max_size=5)


@given(replies, replies)
def test_cut_replies_are_those_that_the_student_did_not_end(some, others):
    for dialogue in (some, others):
        expected = [turn for turn, reply in enumerate(dialogue) if reply[-1] != CLOSE]
        assert cut_turns(trace_of(dialogue), CLOSE).tolist() == expected


@given(replies, st.lists(st.booleans(), min_size=5, max_size=5), st.sampled_from(get_args(Overlong)))
def test_treated_by_a_plain_loop(dialogue, scored, how):
    trace = trace_of(dialogue)
    mask = np.array([s and scored[t] for s, t in zip(trace.sampled_L, trace.turn_L, strict=True)])
    advantages = np.where(mask, trace.turn_L + 1.0, 0.0).astype(np.float32)
    found = treat_cut([Example(Prompt(trace, ()), advantages, mask)], how, 0.5, CLOSE)
    kept, values = [], []
    for place, turn in enumerate(trace.turn_L):
        cut = turn >= 0 and dialogue[turn][-1] != CLOSE
        kept.append(bool(mask[place]) and not (cut and how == "mask"))
        less = 0.5 if cut and how == "penalise" else 0.0
        values.append(turn + 1.0 - less if kept[-1] else 0.0)
    if not any(kept):
        assert found == [] or how == "keep"
    else:
        (example,) = found
        assert example.mask_L.tolist() == kept
        assert example.advantages_L.tolist() == values
        assert example.advantages_L.dtype == np.float32


@pytest.mark.parametrize("how", get_args(Overlong))
def test_in_a_run(how, make_vec, make_student, tmp_path, monkeypatch):
    seen, played = [], []
    accumulate = update.accumulate

    def spy(forward, algorithm, batch, *args, **kwargs):
        seen.extend(batch)
        return accumulate(forward, algorithm, batch, *args, **kwargs)

    def keep(trajectories, close_id):
        played.extend(trajectories)
        return share_cut(trajectories, close_id)

    monkeypatch.setattr(update, "accumulate", spy)
    monkeypatch.setattr("steer_env.algorithms.trainer.share_cut", keep)
    student = make_student()
    close = student.codec.close_id
    config = TrainConfig(
        steps=1, seeds_per_step=6, group_size=4, max_new_tokens=40, unscored_limit=1.0, seed=1, overlong=how
    )
    algorithm = make_algorithm("grpo", beta=0.0)
    (row,) = train(make_vec(), Learner(), student, algorithm, config, tmp_path / "run")
    lengths = [
        (int((t.trace.turn_L == turn).sum()), int(t.trace.ids_L[t.trace.turn_L == turn][-1]))
        for t in played
        for turn in range(len(t.turns))
    ]
    cut = [last != close for _, last in lengths]
    # Cut replies have the full length; one may also end just there.
    assert all(length == 40 for (length, _), c in zip(lengths, cut, strict=True) if c)
    assert all(c for (length, _), c in zip(lengths, cut, strict=True) if length == 40 or c)
    assert row["truncated"] == pytest.approx(np.mean(cut)) and 0 < row["truncated"] < 1
    plain = {id(e.dialogue.trace): e for e in algorithm.examples(group_by_seed(played, 4))}
    for example in seen:
        trace = example.dialogue.trace
        before, turns = plain[id(trace)], cut_turns(trace, close)
        at = np.isin(trace.turn_L, turns) & before.mask_L
        assert np.array_equal(example.mask_L, before.mask_L & ~at if how == "mask" else before.mask_L)
        less = np.where(at, 0.5 if how == "penalise" else 0.0, 0.0)
        expected = np.where(example.mask_L, before.advantages_L - less, 0.0)
        assert np.allclose(example.advantages_L, expected)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="overlong='drop', expected one of 'keep', 'mask', 'penalise'"):
        dataclasses.replace(TrainConfig(), overlong="drop")
    with pytest.raises(ValueError, match=r"overlong_penalty=-1.0, expected a finite number of at least 0"):
        dataclasses.replace(TrainConfig(), overlong_penalty=-1.0)
