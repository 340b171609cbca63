"""Students that see less: without pictures, with others, without the history; and one with a constant reply.

Wrap any student, scripted, in process or behind a server, to see what it makes of what it is shown;
`steer_env.play.controls` plays them beside an evaluation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from steer_env.agents.base import Acts, Agent, AgentWrapper, KeyedObservation, Observation, stream_of
from steer_env.drawing import drawn_from
from steer_env.images import Image
from steer_env.scenarios import Scenario
from steer_env.types import USER, Message, Utterance


class _Through(AgentWrapper):
    """A student that sees a changed observation; everything else is the student's own."""

    def __init__(self, student: Acts, see: Callable[[Observation], dict[str, Any]]) -> None:
        super().__init__(student)
        self._see = see

    def seen(self, observation: Observation) -> Observation:
        """Return the changed observation, with the random numbers of the dialogue."""
        changed = self._see(observation)
        if not isinstance(observation, KeyedObservation):
            return changed
        return KeyedObservation(changed, stream_of(observation))


def blind(student: Acts) -> Agent:
    """Return a student whose every picture is plain grey of the same size."""
    sizes: dict[str, tuple[int, int]] = {}

    def instead(image: Image) -> Image:
        if image.digest not in sizes:
            sizes[image.digest] = image.decode().size
        return _grey(sizes[image.digest])

    return _Through(student, lambda o: {**o, "images": tuple(map(instead, o["images"]))})


@lru_cache(maxsize=64)
def _grey(size: tuple[int, int]) -> Image:
    return Image.from_array(np.full((size[1], size[0], 3), 128, np.uint8), "grey")


def swapped(student: Acts, scenarios: Iterable[Scenario], seed: int = 0) -> Agent:
    """Return a student whose every picture is one of another scenario group.

    A picture always has the same other one in its place, drawn by `seed` whatever that shows. What an
    attacker drew where there was no picture stays.

    Args:
        student: The student.
        scenarios: All that will be played.
        seed: Of the draw.

    Raises:
        ValueError: If the pictures are all of one group, or there are none.
    """
    others = swaps(scenarios, seed)

    def instead(image: Image) -> Image:
        source = drawn_from(image)
        return others[source] if source else image

    return _Through(student, lambda o: {**o, "images": tuple(map(instead, o["images"]))})


def swaps(scenarios: Iterable[Scenario], seed: int = 0) -> dict[str, Image]:
    """Return, for the digest of every picture, a picture of another group; raises as `swapped`."""
    groups: dict[str, dict[str, Image]] = {}
    for one in scenarios:
        groups.setdefault(one.group or one.id, {}).update({image.digest: image for image in one.images})
    shown = {name: pictures for name, pictures in groups.items() if pictures}
    rng, names = random.Random(seed), sorted(shown)
    rng.shuffle(names)
    found: dict[str, Image] = {}
    for at, name in enumerate(names):
        for digest in shown[name]:
            # Groups may share a picture: it must not be swapped for itself.
            turns = (names[(at + step) % len(names)] for step in range(1, len(names)))
            options = (sorted(shown[other].items()) for other in turns)
            fitting = ([image for key, image in some if key not in shown[name]] for some in options)
            choice = next((some for some in fitting if some), None)
            if choice is None:
                raise ValueError(
                    f"{len(names)} scenario groups with pictures, expected pictures of at least two groups; "
                    "leave the control 'swapped' out"
                )
            found.setdefault(digest, rng.choice(choice))
    if not found:
        raise ValueError("the scenarios show no pictures; leave the control 'swapped' out")
    return found


def forgetful(student: Acts) -> Agent:
    """Return a student that sees the last user turn, with all pictures so far, and nothing before it."""

    def see(observation: Observation) -> dict[str, Any]:
        last = observation["transcript"][-1]
        message = Message(USER, last.content, len(observation["images"]))
        return {**observation, "transcript": (message,)}

    return _Through(student, see)


class Constant(Agent):
    """A student that gives one and the same reply to everything."""

    def __init__(self, reply: str) -> None:
        self.reply = Utterance(reply)

    def act(self, observations: Sequence[Observation]) -> list[Utterance]:
        """Return the reply, once per observation."""
        return [self.reply] * len(observations)
