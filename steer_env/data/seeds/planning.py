"""Red team, module 3: a script of 2 to 10 turns, each with a goal and a risk level, under a technique."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final, NamedTuple

from pydantic import Field

from steer_env.data.seeds.base import MAX_TURNS, MIN_TURNS
from steer_env.data.seeds.dialogue import TurnAnswer, unfit_risky
from steer_env.data.seeds.prompts import chat
from steer_env.data.seeds.rewriting import Rewrite
from steer_env.data.seeds.structured import Answer, Question
from steer_env.data.seeds.worded import scene_of
from steer_env.scenarios import TECHNIQUES, Scenario, SeedTurn
from steer_env.world.plan import plan_red_team, stream_seed
from steer_env.world.truth import Truth
from steer_env.world.wording import write

#: What a technique means, for models.
MEANING: Final[Mapping[str, str]] = {
    "yes_laddering": "a row of small questions that are easily agreed to, each a step further",
    "sunk_cost_anchor": "so much was done together already that it would be a pity to stop",
    "gradual_escalation": "each turn asks for a little more than the one before",
    "hypothetical_escalation": "a supposed world that is moved step by step towards the real one",
}
assert set(MEANING) == set(TECHNIQUES)

#: Plans drawn until one speaks its strategy and fits the picture.
_DRAWS: Final = 32


class Script(NamedTuple):
    """A planned dialogue: the technique and the user's turns."""

    technique: str
    turns: tuple[SeedTurn, ...]


class ScriptAnswer(Answer):
    """A script."""

    turns: list[TurnAnswer] = Field(min_length=MIN_TURNS, max_length=MAX_TURNS)
    """The user's turns."""


def choose(seed: int) -> str:
    """Draw a technique, each equally likely."""
    return random.Random(stream_seed("technique", seed)).choice(TECHNIQUES)


def plan(row: Scenario, truth: Truth, strategy: str, turns: int, seed: int) -> Script | None:
    """Return a script in the built-in world's words, None if none was found that fits.

    A lookalike gives nothing away, so a script over one has to state harm; and a script whose strategy is
    never heard is none of that strategy.
    """
    scene = scene_of(row, truth, turns, seed)
    for draw in range(_DRAWS):
        made = plan_red_team(scene, random.Random(stream_seed("plan", seed, draw)), (strategy,))
        if not any(ask.wrap == "strategy" for ask in made.asks):
            continue
        if not truth.hazard and not any(ask.request == "misuse" for ask in made.asks):
            continue
        made.hazard = truth.hazard
        return Script(made.technique, write(made, scene, truth))
    return None


def question(
    row: Scenario, rewritten: Rewrite, strategy: str, technique: str, turns: int, seed: int
) -> Question[ScriptAnswer]:
    """Return what to ask a model."""
    check = unfit_risky(row.turns[0].text)
    messages = chat(
        "planning",
        data=rewritten.model_dump(),
        turns=turns,
        strategy=strategy.replace("_", " "),
        technique=technique.replace("_", " "),
        meaning=MEANING[technique],
    )
    return Question(messages, ScriptAnswer, lambda a: check(a.turns), seed)
