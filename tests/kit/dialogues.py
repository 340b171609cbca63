"""Dialogues of given rewards, and what algorithms make of them."""

import numpy as np
import torch
from hypothesis import strategies as st

from steer_env.algorithms.base import Tally, TokenBatch, make_algorithm
from steer_env.algorithms.credit import (
    CREDITS as ALL_CREDITS,
)
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.trajectory import StopReason, TokenTrace, Trajectory, TrajectoryGroup
from steer_env.types import Scored, Terms, Turn, TurnResult, Unscored
from steer_env.wrappers import TCSR

SCENARIO = Scenario((DraftTurn("u"),))
#: What needs no dialogues beyond those that were played.
CREDITS = tuple(name for name in ALL_CREDITS if name != "counterfactual")


def dialogue(rewards, costs=None, tokens=None, returns="plain", alpha=0.3, outside=None):
    """A dialogue of these rewards (None: unscored), one token per reply or the given pieces.

    With `returns` the rewards go through a `TCSR`, and `outside` is added around it.
    """
    wrapper = object.__new__(TCSR)
    wrapper.alpha, wrapper.returns = alpha, returns
    wrapper.begin()
    turns = []
    for i, value in enumerate(rewards):
        verdict = Unscored("no") if value is None else Scored(Terms(5, 5, 5))
        turn, emitted = Turn(i, "u", "r", verdict), value or 0.0
        info = {} if value is None or costs is None else {"cost": costs[i]}
        if returns != "plain":
            info["scored"] = value is not None
            emitted = wrapper.turn_reward(turn, emitted, info)
        if outside is not None:
            emitted += outside[i]
        turns.append(TurnResult(turn, emitted, info))
    pieces = tokens or [piece for i in range(len(rewards)) for piece in ((1, -1), (1, i))]
    turn = np.concatenate([np.full(n, t, np.int32) for n, t in pieces])
    trace = TokenTrace(np.arange(len(turn)), turn >= 0, np.zeros(len(turn), np.float32), turn)
    return Trajectory(SCENARIO, 0, tuple(turns), StopReason.SEED_END, trace)


def group(*members):
    return TrajectoryGroup(tuple(m if isinstance(m, Trajectory) else dialogue(m) for m in members))


def advantages(name, *members, **options):
    result = make_algorithm(name, **options).turn_advantages([group(*members)])
    return [None if a is None else a.tolist() for a in result]


PIECES = st.lists(st.integers(0, 4), min_size=4, max_size=4)


def batch(logprobs, advantages, rows, *, old=None, turns=None, reference=None, extras=None, hidden=None):
    logprobs = torch.tensor(logprobs, dtype=torch.float64, requires_grad=True)
    return TokenBatch(
        logprobs_N=logprobs,
        old_N=logprobs.detach().clone() if old is None else torch.tensor(old, dtype=torch.float64),
        advantages_N=torch.tensor(advantages, dtype=torch.float64),
        mask_N=torch.ones(len(rows), dtype=torch.bool),
        rows_N=torch.tensor(rows),
        turns_N=torch.tensor(turns or [0] * len(rows)),
        reference_N=None if reference is None else torch.tensor(reference, dtype=torch.float64),
        hidden_NH=hidden,
        extras=extras or {},
        token_share=1.0,
        row_share=1.0,
        tally=Tally(),
    )


def loss_and_gradient(name, *args, options=None, **keywords):
    tokens = batch(*args, **keywords)
    loss = make_algorithm(name, **(options or {})).loss(tokens)
    loss.backward()
    return float(loss.detach()), tokens.logprobs_N.grad.numpy()


def trajectory(*results):
    turns = tuple(
        TurnResult(
            Turn(i, "u", "r", Unscored("no") if value is None else Scored(Terms(5, 5, 5))), value or 0.0
        )
        for i, value in enumerate(results)
    )
    return Trajectory(Scenario((DraftTurn("u"),)), 0, turns, StopReason.SEED_END)
