"""`Unicode`, `Picture` and the two seats' observation spaces."""

import copy
import pickle

import numpy as np
import pytest
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, create_shared_memory
from hypothesis import given
from hypothesis import strategies as st

from steer_env.images import Image
from steer_env.spaces import Picture, Unicode, attacker_space, has_surrogate, student_space
from steer_env.testing.agents import toy_observations
from steer_env.types import ATTACKER, STUDENT


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_any_unicode_text_is_contained(text):
    assert Unicode(50).contains(text)
    text.encode("utf-8")


@pytest.mark.parametrize("bad", ["\ud800", "a\udfffb", "x" * 11, 3, None, b"bytes", ["a"]])
def test_not_contained(bad):
    assert not Unicode(10).contains(bad)


def test_min_length():
    assert not Unicode(5, min_length=2).contains("a")
    assert Unicode(5, min_length=2).contains("ab")
    with pytest.raises(ValueError, match="min_length"):
        Unicode(1, min_length=2)


def test_samples_are_contained_seeded_and_varied():
    one, two = Unicode(300, min_length=3, seed=1), Unicode(300, min_length=3, seed=1)
    drawn = [one.sample() for _ in range(50)]
    assert drawn == [two.sample() for _ in range(50)]
    assert all(one.contains(text) for text in drawn) and len(set(drawn)) == 50
    assert Unicode(1).contains(Unicode(1).sample())


def test_unicode_is_quick_to_build_and_has_a_space_character():
    """Gymnasium's Text lacks the space in its default charset; full Unicode takes seconds. Ours neither."""
    assert Unicode(10).contains("a b") and "charset" not in repr(Unicode(10))


@pytest.mark.parametrize("space", [Unicode(10), Picture(), student_space(20), attacker_space(20)], ids=str)
def test_spaces_copy_pickle_compare_and_contain_their_samples(space):
    for twin in (copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert twin == space
        space.seed(3), twin.seed(3)
        assert twin.sample() == space.sample()
    for _ in range(5):
        assert space.contains(space.sample())


def test_inequality():
    assert Unicode(10) != Unicode(11) and Unicode(10) != Picture() and Unicode(4) != Unicode(4, min_length=1)
    assert len({Unicode(10), Unicode(10), Picture(), Picture()}) == 2


@pytest.mark.parametrize(
    ("seat", "space"), [(ATTACKER, attacker_space(4096)), (STUDENT, student_space(4096))]
)
def test_observations_are_contained(seat, space):
    observations = toy_observations(seat)
    assert len(observations) > 5
    for observation in observations:
        assert space.contains(observation)
        assert not space.contains({**observation, "transcript": ((0, "a \ud800", 0),)})
        assert not space.contains({k: v for k, v in observation.items() if k != "images"})
    batch = batch_space(space, 2)
    both = concatenate(space, observations[:2], create_empty_array(space, 2))
    assert batch.contains(both) and not batch.contains({**both, "images": both["images"][:1]})


def test_pictures_only():
    image = Image.from_array(np.zeros((3, 5, 3), np.uint8))
    assert Picture().contains(image)
    assert not Picture().contains(np.asarray(image)) and not Picture().contains("image.png")
    assert not Picture().is_np_flattenable


@pytest.mark.parametrize("space", [Unicode(10), Picture()])
def test_shared_memory_is_refused(space):
    with pytest.raises(TypeError, match=r"cannot live in shared memory.*shared_memory=False.*make_vec"):
        create_shared_memory(space, n=2)


def test_surrogates():
    assert has_surrogate("\udcff") and has_surrogate("ok \ud83d") and not has_surrogate("😀 ok")
