"""Students that see less: what they are shown, and that nothing else changes."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_env.agents.base import KeyedObservation, stream_of, to_answer
from steer_env.agents.controls import Constant, blind, forgetful, swapped, swaps
from steer_env.drawing import PictureAct, with_acts
from steer_env.images import Image
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.types import ASSISTANT, USER, Message, Utterance


def picture(shade: int, size: tuple[int, int] = (6, 4)) -> Image:
    return Image.from_array(np.full((size[1], size[0], 3), shade, np.uint8))


class Witness:
    """Answers with nothing and remembers what it saw."""

    temperature = 0.5

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def act(self, observations: Sequence[Any]) -> list[Utterance]:
        self.seen += observations
        return [Utterance("yes", trace="t")] * len(observations)


class AsyncWitness(Witness):
    def submit(self, observation: Any) -> Future[Utterance]:
        future: Future[Utterance] = Future()
        future.set_result(self.act([observation])[0])
        return future


OBSERVATION = KeyedObservation(
    {
        "images": (picture(10), picture(20, (3, 5))),
        "transcript": (Message(USER, "first", 1), Message(ASSISTANT, "ok", 0), Message(USER, "second", 1)),
    },
    "7.0",
)


def scenario(group: str, *images: Image) -> Scenario:
    return Scenario((DraftTurn("t", tuple(range(len(images)))),), images, group=group)


def test_blind_sees_grey_of_the_same_size_and_the_same_words() -> None:
    witness = Witness()
    (reply,) = blind(witness).act([OBSERVATION])
    (seen,) = witness.seen
    assert [image.size for image in seen["images"]] == [(6, 4), (3, 5)]
    assert all((image.array() == 128).all() for image in seen["images"])
    assert seen["transcript"] == OBSERVATION["transcript"]
    assert reply.meta["trace"] == "t"
    assert stream_of(seen) == "7.0", "streams of random numbers stay those of the dialogue"


def test_forgetful_sees_the_last_user_turn_with_all_pictures() -> None:
    witness = Witness()
    forgetful(witness).act([OBSERVATION])
    transcript, images = to_answer(witness.seen[0])
    assert transcript == (Message(USER, "second", 2),)
    assert images == OBSERVATION["images"]


def test_swapped_sees_pictures_of_another_group() -> None:
    first, second = OBSERVATION["images"]
    other = picture(99)
    witness = Witness()
    swapped(witness, [scenario("a", first, second), scenario("b", other)]).act([OBSERVATION])
    assert witness.seen[0]["images"] == (other, other)


def test_swapped_leaves_a_page_where_there_was_no_picture() -> None:
    first, second = OBSERVATION["images"]
    page = PictureAct("typography", "a page")
    bare = with_acts(Scenario((DraftTurn("a"),)), 0, [page]).images[0]
    drawn = with_acts(scenario("a", first, second), 0, [page]).images[-1]
    other, witness = picture(99), Witness()
    student = swapped(witness, [scenario("a", first, second), scenario("b", other)])
    student.act([{**OBSERVATION, "images": (bare, drawn)}])
    assert witness.seen[0]["images"] == (bare, other)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 30), min_size=0, max_size=4), min_size=2, max_size=8), st.integers(0, 9)
)
def test_no_picture_is_swapped_for_one_of_its_group(shades: list[list[int]], seed: int) -> None:
    scenarios = [
        scenario(f"g{number}", *map(picture, dict.fromkeys(some))) for number, some in enumerate(shades)
    ]
    shown = {s.group: {image.digest for image in s.images} for s in scenarios}
    try:
        found = swaps(scenarios, seed)
    except ValueError as error:
        # Only where a group shows all there is to choose from.
        everything = set().union(*shown.values())
        assert not everything or any(mine and not everything - mine for mine in shown.values()), error
        return
    assert set(found) == set().union(*shown.values())
    for digest, image in found.items():
        homes = [mine for mine in shown.values() if digest in mine]
        assert image.digest != digest and any(image.digest not in mine for mine in homes)
    assert swaps(scenarios, seed) == found


def test_without_other_pictures_there_is_nothing_to_swap() -> None:
    with pytest.raises(ValueError, match="expected pictures of at least two groups"):
        swaps([scenario("a", picture(1)), scenario("b")])
    with pytest.raises(ValueError, match="show no pictures"):
        swaps([scenario("a"), scenario("b")])


def test_a_student_that_answers_one_by_one_still_does() -> None:
    witness = AsyncWitness()
    wrapped: Any = blind(witness)
    assert str(wrapped.submit(OBSERVATION).result()) == "yes"
    assert (witness.seen[0]["images"][0].array() == 128).all()
    assert not hasattr(blind(Witness()), "submit")


def test_everything_else_is_the_students_own() -> None:
    wrapped: Any = forgetful(Witness())
    assert wrapped.temperature == 0.5
    with pytest.raises(AttributeError):
        wrapped.nothing  # noqa: B018


def test_constant_says_one_thing() -> None:
    assert Constant("No.").act([OBSERVATION] * 2) == ["No.", "No."]
    assert pickle.loads(pickle.dumps(Constant("No."))).reply == "No."
