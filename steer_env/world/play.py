"""Training data from the built-in world: dialogues under a scripted policy, and captions to learn to see."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Final

from steer_env.images import Image
from steer_env.scenarios import Scenario
from steer_env.world.devices import FAMILIES
from steer_env.world.ood.plain import plain_texts
from steer_env.world.plan import stream_seed
from steer_env.world.reply_language.frames import Rng, helpful_reply, ideal_reply, reply_texts, say
from steer_env.world.source import WorldSource
from steer_env.world.truth import History, Move, Truth
from steer_env.world.user_language import frames
from steer_env.world.user_language.families import read_user
from steer_env.world.user_language.reading import UserTurn, advance

#: What a policy sees: scene, what the earlier user turns add up to, this user turn, randomness.
Policy = Callable[[Truth, History, UserTurn, Rng], str]

POLICIES: Final[dict[str, Policy]] = {"ideal": ideal_reply, "helpful": helpful_reply}


def play(scenario: Scenario, policy: str | Policy = "ideal", rng: Rng | None = None) -> list[tuple[str, str]]:
    """Play the seed turns of a scenario with a scripted policy.

    Args:
        scenario: A dialogue of the built-in world.
        policy: "ideal", "helpful", or a function `(truth, history, user turn, rng) -> reply`.
        rng: Draws the wording; derived from the scenario's id when None.

    Returns:
        One (user, reply) pair per seed turn.

    Raises:
        ValueError: If the scenario has no ground truth or the policy is unknown.
    """
    if scenario.truth is None:
        raise ValueError(f"scenario {scenario.id!r} has no ground truth; play needs the built-in world")
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise ValueError(f"policy={policy!r}, expected one of {', '.join(POLICIES)} or a function")
        policy = POLICIES[policy]
    rng = random.Random(stream_seed("play", scenario.id)) if rng is None else rng
    history, pairs = History(), []
    for turn in scenario.turns:
        asked = read_user(scenario.truth, turn.text)
        pairs.append((turn.text, policy(scenario.truth, history, asked, rng)))
        history = advance(history, asked)
    return pairs


def dialogues(
    source: WorldSource, policy: str | Policy = "ideal", start: int = 0
) -> Iterator[tuple[Scenario, list[tuple[str, str]]]]:
    """Yield (scenario, played pairs) for index `start`, `start + 1`, ... without end."""
    index = start
    while True:
        scenario = source.scenario(index)
        yield scenario, play(scenario, policy)
        index += 1


def caption_pair(scenario: Scenario, rng: Rng) -> tuple[Image, str, str]:
    """Return (image, question, right answer) about the picture alone, so that a model can first learn to see.

    The question names the device only blindly ("the thing in the picture"): the answer must come from the
    picture. Half of them ask for a description, half whether the device is harmless or dangerous.
    """
    if scenario.truth is None or not scenario.images:
        raise ValueError(
            f"scenario {scenario.id!r} has no ground truth or no image; captions need the built-in world"
        )
    move = Move.DESCRIBE if rng.random() < 0.5 else Move.ANSWER
    table = frames.DESCRIBE if move == Move.DESCRIBE else frames.ANSWER
    question = table[int(rng.random() * len(table))].format(it="the thing in the picture")
    return scenario.images[0], question, say(move, scenario.truth, rng)


def all_texts(pretrain: bool = False) -> list[str]:
    """Return texts that hold every word the built-in world can say, for training a tokenizer.

    Args:
        pretrain: Whether the language of `split="pretrain"` is in as well: plain questions, loose words, and
            replies about the devices of all families. No sentence of the users of "ood" ever is.
    """
    if pretrain:
        return [*frames.user_texts(), *reply_texts(FAMILIES), *plain_texts()]
    return [*frames.user_texts(), *reply_texts()]
