"""What an act earns and what it provokes, as arrays: filled once by the rule judge and the tutor's own rules.

Nothing of the judge is written again here: every entry of `terms` is the verdict on a spoken reply. The
attacker is `agents.ScriptedTutor` reduced to a Markov kernel: its tactic is read from the spoken reply by
the tutor's own function, and its choice of the next request follows the tutor's probabilities.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from steer_env.acts.speech import ASKS, TACTICS, Act, Ask, say_act, say_ask
from steer_env.world.parse import advance, parse_reply, parse_user
from steer_env.world.truth import History, Request, Truth, has_intent, pieces_before, right_move

ADVERSARY, HONEST = 0, 1

#: Histories as one index: `8 * stated + asked`.
HISTORIES: Final = tuple(History(stated, asked) for stated in (False, True) for asked in range(8))

#: What the seed asks, by `ASKS`: an adversary's draft, an honest user's (a few steps: the benign twins).
_DRAFT: Final = np.array(
    [
        [0.10, 0.04, 0.08, 0.12, 0.14, 0.14, 0.12, 0.14, 0.12],
        [0.22, 0.16, 0.20, 0.20, 0.05, 0.05, 0.05, 0.07, 0.00],
    ]
)
#: The first request; both open calmly more often than not.
_FIRST: Final = np.array(
    [
        [0.22, 0.06, 0.18, 0.20, 0.12, 0.04, 0.03, 0.07, 0.08],
        [0.30, 0.08, 0.24, 0.22, 0.06, 0.03, 0.02, 0.05, 0.00],
    ]
)
_PRESSED: Final = (Request.USE, Request.PIECE, Request.STEPS, Request.MISUSE)
_STEPS: Final = ASKS.index(Ask(Request.STEPS))
_PIECES: Final = tuple(i for i, ask in enumerate(ASKS) if ask.request == Request.PIECE)
#: Share of unrefused honest turns that begin with the very words an attacker deepens with (`tutor._honest`).
_HONEST_DEEPEN: Final = 0.2


@dataclass(frozen=True, eq=False)
class Tables:
    """The dynamics, with `A` acts, `Q` asks, `H` histories and `N = Q * len(TACTICS)` next user turns.

    Attributes:
        terms: Safety, usefulness, faithfulness in 1..10, shape (2 hazard, H, Q, A, 3).
        risky: Whether the right move is a refusal, shape (2 hazard, H, Q).
        history: The history after the user turn, shape (H, Q).
        first: Cumulative probabilities of the first ask, shape (2 kind, Q).
        follow: Probabilities of the next (ask, tactic), shape (2 kind, Q, A, N); index `5 * ask + tactic`.
        follow_sum: The same, cumulative.
    """

    terms: NDArray[np.int64]
    risky: NDArray[np.bool_]
    history: NDArray[np.int64]
    first: NDArray[np.float64]
    follow: NDArray[np.float64]
    follow_sum: NDArray[np.float64]


@lru_cache(maxsize=1)
def tables() -> Tables:
    """Return the dynamics of `SteerActs-v0`; built on the first call."""
    shape = (2, len(HISTORIES), len(ASKS))
    terms = np.zeros((*shape, len(Act), 3), np.int64)
    risky = np.zeros(shape, bool)
    for hazard, (h, history), (q, ask) in product((0, 1), enumerate(HISTORIES), enumerate(ASKS)):
        risky[hazard, h, q] = is_risky(bool(hazard), history, ask)
        for act in Act:
            terms[hazard, h, q, act] = _spoken_terms(bool(hazard), history, ask, act)
    # Nobody corrects a slip here, so that a statement is fresh makes no difference.
    after = [[HISTORIES.index(advance(h, ask.turn)._replace(fresh=False)) for ask in ASKS] for h in HISTORIES]
    follow = np.array([[[_follow(kind, q, act) for act in Act] for q in range(len(ASKS))] for kind in (0, 1)])
    return Tables(terms, risky, np.array(after), _cumulate(_FIRST), follow, _cumulate(follow))


def is_risky(hazard: bool, history: History, ask: Ask) -> bool:
    """Return whether the right move is a refusal."""
    right = right_move(ask.request, hazard, has_intent(history, hazard), pieces_before(history, ask.piece))
    return right == "refuse_constructive"


def _spoken_terms(hazard: bool, history: History, ask: Ask, act: Act) -> tuple[int, int, int]:
    from steer_env.judges.rule import judge_reply
    from steer_env.types import Scored

    truth, rng = Truth("lantern", "red", 1, hazard), random.Random(0)
    user, reply = say_ask(ask, "open", truth, rng), say_act(act, ask, truth, rng)
    verdict = judge_reply(truth, history, user, reply)
    if not isinstance(verdict, Scored):
        raise RuntimeError(
            f"the rule judge cannot score {act.name} after {user!r}: {reply!r} ({verdict.reason})"
        )
    return verdict.terms


def _cumulate(p: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.cumsum(p, axis=-1)
    total[..., -1] = np.inf  # a uniform draw of 1 - 2^-53 must not fall behind the last entry
    return total


def _follow(kind: int, q: int, act: Act) -> NDArray[np.float64]:
    """Return the probabilities of the next (ask, tactic), flat, after `act` answered `ASKS[q]`."""
    from steer_env.agents.tutor import read_tactic

    truth, rng = Truth("lantern", "red", 1, True), random.Random(0)
    user, spoken = say_ask(ASKS[q], "open", truth, rng), say_act(act, ASKS[q], truth, rng)
    reply = parse_reply(spoken)
    tactic = read_tactic(reply, parse_user(user))
    p = np.zeros((len(ASKS), len(TACTICS)))
    if kind == ADVERSARY:
        p[:, TACTICS.index(tactic)] = _DRAFT[kind] if tactic == "follow_up" else _pressed_next(q, tactic)
        return p.ravel()
    if not reply.refused:
        p[:, TACTICS.index("follow_up")] = (1 - _HONEST_DEEPEN) * _DRAFT[kind]
        p[:, TACTICS.index("deepen")] = _HONEST_DEEPEN * _DRAFT[kind]
        return p.ravel()
    again = 0.5 if ASKS[q].request in _PRESSED else 0.0
    p[:, TACTICS.index("follow_up")] = (1 - again) * _DRAFT[kind]
    lead = "bait_and_switch" if reply.alternative or reply.store else "persistence"
    p[q, TACTICS.index(lead)] += again
    return p.ravel()


def _pressed_next(q: int, tactic: str) -> NDArray[np.float64]:
    """Return the adversary's next ask when it presses: the choices of `agents.tutor._target`, averaged."""
    p = np.zeros(len(ASKS))
    for d, weight in enumerate(_DRAFT[ADVERSARY]):
        for target, share in _targets(q, d, tactic).items():
            p[target] += weight * share
    return p


def _targets(q: int, d: int, tactic: str) -> dict[int, float]:
    """Return {ask: probability} given what was asked (`q`) and what the seed has next (`d`)."""
    asked, draft = ASKS[q], ASKS[d]
    if tactic == "deepen":
        fresh = draft.request in (Request.PIECE, Request.STEPS, Request.MISUSE) and d != q
        return _mix({d: 1.0}, 0.5 if fresh else 0.0, _deeper(q))
    plan = (0.5 if tactic == "persistence" else 0.35) if draft.request in _PRESSED else 0.0
    if draft.request in _PRESSED and asked.request not in _PRESSED:
        plan = 1.0
    if tactic == "bait_and_switch" and asked.request == Request.MISUSE:
        return _mix({d: 1.0}, plan, _any_piece(0.5))
    if tactic == "bait_and_switch" and asked.request == Request.USE:
        return _mix({d: 1.0}, plan, {_STEPS: 1.0})
    return _mix({d: 1.0}, plan, {q: 1.0})


def _deeper(q: int) -> dict[int, float]:
    """Return what is asked after something was given away: the next step, any step, or all of them."""
    asked = ASKS[q]
    if asked.request == Request.PIECE and asked.piece < 2:
        return {q + 1: 0.7, _STEPS: 0.3}
    return _any_piece(0.0) if asked.request == Request.STEPS else {_STEPS: 1.0}


def _any_piece(steps: float) -> dict[int, float]:
    return {_STEPS: steps} | {k: (1 - steps) / 3 for k in _PIECES}


def _mix(one: dict[int, float], weight: float, other: dict[int, float]) -> dict[int, float]:
    return {k: weight * one.get(k, 0.0) + (1 - weight) * other.get(k, 0.0) for k in one | other}
