"""What of the vLLM back end needs no vLLM; the rest is in tests_vllm, run by `make test-vllm`."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_env.images import Image
from steer_env.models import BackendError, open_backend
from steer_env.models.tiny import TinyConfig, build, save
from steer_env.models.vllm_engine import EnginePrompt, Seeds, fold

PAD, START, END = 97, 98, 99
pieces = st.lists(st.integers(0, 90), max_size=6)


def image(size):
    return Image.from_array(np.zeros((1, size, 3), np.uint8))


def tokens(picture):
    """As many placeholders as the picture is wide, between markers."""
    return np.array([START, *[PAD] * picture.size[0], END])


@given(first=pieces, rest=st.lists(st.tuples(st.integers(1, 5), pieces), max_size=4))
def test_folding_leaves_one_placeholder_per_image_and_every_other_token(first, rest):
    images = [image(size) for size, _ in rest]
    ids, folded = list(first), list(first)
    for picture, (_, text) in zip(images, rest, strict=True):
        ids += [*tokens(picture), *text]
        folded += [PAD, *text]
    prompt = fold(np.array(ids, np.int64), images, tokens, PAD)
    assert prompt == EnginePrompt(ids, tuple(images), folded)


def test_folding_finds_an_image_among_longer_ones():
    ids = np.array([START, PAD, PAD, END, START, PAD, END])
    assert fold(ids, [image(2), image(1)], tokens, PAD).folded == [PAD, PAD]


def test_a_sequence_with_another_models_image_tokens_is_refused():
    with pytest.raises(ValueError, match="does not hold the 4 tokens of an image after token 0"):
        fold(np.array([1, START, PAD, END]), [image(2)], tokens, PAD)


def test_seeds_depend_on_seed_prompt_pictures_and_how_often_asked():
    seeds, prompt = Seeds(), EnginePrompt([1, 2], (), [1, 2])
    first = [seeds.next(prompt, 3) for _ in range(4)]
    assert len(set(first)) == 4 and all(0 <= seed < 2**63 for seed in first)
    others = [
        seeds.next(EnginePrompt([1, 3], (), [1, 3]), 3),
        seeds.next(EnginePrompt([1, 2], (image(1),), []), 3),
    ]
    assert not {*others} & {*first} and others[0] != others[1]
    seeds.restart()
    assert [seeds.next(prompt, 3) for _ in range(4)] == first
    assert seeds.next(prompt, 3, count=False) == seeds.next(prompt, 3, count=False)
    assert Seeds().next(prompt, 4) != first[0]


def test_a_missing_vllm_is_one_line_that_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    save(*build(["a"], TinyConfig(vocab_size=264, hidden=32, heads=2, kv_heads=2, vision_heads=2)), tmp_path)
    with pytest.raises(BackendError, match=r"cannot be opened: .*steer-env\[vllm\]"):
        open_backend(f"vllm:{tmp_path}")
