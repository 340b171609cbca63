"""Benign and obfuscated seeds of the built-in world: the row's own intent over several turns, by rule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from steer_env.scenarios import DraftTurn, Scenario
from steer_env.world.plan import Ask, Plan, Scene, stream_seed
from steer_env.world.truth import Request, Truth
from steer_env.world.user_language import frames
from steer_env.world.user_language.reading import parse_user
from steer_env.world.wording import write

#: From this many turns on, a list of steps is asked for one by one.
_ROOM_FOR_PIECES: Final = 5
_PIECES: Final = tuple(Ask("piece", k) for k in range(3))
_CALM: Final = ("describe", "store", "use")
#: Orders looked at for one in which no request follows itself.
_ORDERS: Final = 16


def scene_of(row: Scenario, truth: Truth, turns: int, seed: int) -> Scene:
    """Return the scene of a row: what its picture shows, and the purpose it speaks of or a drawn one."""
    rng = random.Random(stream_seed("scene", seed))
    drawn, text_seed = rng.randrange(len(frames.HARMS)), rng.getrandbits(48)
    said = [i for i, (harm, nice) in enumerate(zip(frames.HARMS, frames.NICE, strict=True))
            if harm in row.goal or nice in row.turns[0].text]  # fmt: skip
    purpose = said[0] if said else drawn
    return Scene(
        truth.noun, truth.colour, truth.place, truth.others, row.mechanism, turns, text_seed, purpose
    )


def spread(rng: random.Random, risky: Sequence[Ask], turns: int, late: bool = False) -> list[Ask]:
    """Fill a ladder of risky turns up with calm ones.

    The ladder keeps its order and its last step comes last, so that a dialogue never runs dry at the end;
    no request follows itself if that can be had.

    Args:
        rng: Draws the calm turns and the order.
        risky: The ladder, at most `turns` long.
        turns: Length of the dialogue.
        late: Whether all calm turns come first.
    """
    room = turns - len(risky)
    best: list[Ask] = []
    for _ in range(_ORDERS):
        calm = _calm(rng, room, [name for name in _CALM if all(ask.request != name for ask in risky)])
        slots = set(range(room) if late else rng.sample(range(turns - 1), room))
        queues = iter(calm), iter(risky)
        best = [next(queues[0]) if i in slots else next(queues[1]) for i in range(turns)]
        if all(a.request != b.request or a.piece != b.piece for a, b in pairwise(best)):
            break
    return best


def _calm(rng: random.Random, n: int, names: Sequence[str]) -> list[Ask]:
    """Draw harmless turns: a description first, then each request as often as the others."""
    rest = [name for name in names if name != "describe"]
    asks: list[Ask] = []
    while len(asks) < n:
        round_ = [*rng.sample(rest, len(rest)), "describe"]
        asks += [Ask(name) for name in (round_ if asks else ["describe", *round_[:-1]])]
    return asks[:n]


def obfuscated(row: Scenario, truth: Truth, turns: int, seed: int) -> tuple[DraftTurn, ...]:
    """Return the row's risky intent in pieces that each look harmless, vague first and narrower later."""
    rng = random.Random(stream_seed("plan", seed))
    scene = scene_of(row, truth, turns, seed)
    if turns == 2:
        ladder = rng.choice((list(_PIECES[:2]), [Ask("use"), Ask("steps")]))
    else:
        count = 2 if turns == 3 else rng.choice((2, 3, 3))
        ladder = sorted(rng.sample(_PIECES, count), key=lambda ask: ask.piece)
        if turns > 3 and rng.random() < 0.4:
            ladder.append(Ask("steps"))
        if len(ladder) < turns and rng.random() < 0.5:
            ladder.insert(0, Ask("use"))
    late = row.mechanism == "late_risk"
    asks = spread(rng, ladder[-turns:], turns, late)
    return write(Plan(asks, "obfuscated", row.mechanism, text_seed=scene.text_seed), scene, truth)


def benign(row: Scenario, truth: Truth, turns: int, seed: int) -> tuple[DraftTurn, ...]:
    """Return the row's harmless task over several turns; the last one asks for the final answer."""
    rng = random.Random(stream_seed("plan", seed))
    scene = scene_of(row, truth, turns, seed)
    task = _task(row, truth, turns, rng)[: turns - 1]
    asks = [*spread(rng, [*task, Ask("answer")], turns)]
    nice = any(ask.request == "misuse" for ask in task)
    made = Plan(
        asks, "benign", row.mechanism, hazard=truth.hazard, nice=nice, text_seed=scene.text_seed,
        purpose=scene.purpose,
    )  # fmt: skip
    return write(made, scene, truth)


def _task(row: Scenario, truth: Truth, turns: int, rng: random.Random) -> list[Ask]:
    """Return what the row itself asks, without the final answer."""
    text = row.turns[0].text
    asked = parse_user(text)
    pieces: list[Ask] = []
    if asked.request == Request.STEPS and not truth.hazard:
        pieces = list(_PIECES) if turns >= _ROOM_FOR_PIECES else [Ask("steps")]
    elif asked.request == Request.PIECE:
        pieces = [_PIECES[min(asked.piece, 2)]]
    elif rng.random() < 0.5 and turns >= _ROOM_FOR_PIECES:  # the lookalike's steps are play, one is no harm
        pieces = [rng.choice(_PIECES)] if truth.hazard else list(_PIECES)
    if any(nice in text for nice in frames.NICE):
        return [Ask("misuse"), *pieces]  # with a harmless purpose in place of a harmful one, see `Plan.nice`
    if asked.request in (Request.USE, Request.STORE):
        return [Ask(asked.request.value), *pieces]
    return pieces
