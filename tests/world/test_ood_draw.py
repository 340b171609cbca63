import random
from itertools import combinations

import numpy as np
import pytest

from steer_env.world import Recipe, Truth, WorldSource, draw, make_image, truth_of
from steer_env.world.lexicon import COLOURS
from steer_env.world.ood.draw import paint
from steer_env.world.ood.lexicon import NOUNS, OTHERS
from steer_env.world.truth import Thing


def small(truth, seed="s", **flags):
    return np.asarray(draw(Recipe(truth, seed, **flags), side=56), dtype=np.float32)


def test_a_recipe_decides_the_pixels_and_reads_back():
    recipe = Recipe(Truth("kite", "green", 0, True, (Thing("leaf", "red", 1),)), "ood.7", True, "GO AHEAD")
    assert Recipe.parse(recipe.text()) == recipe
    image = make_image(recipe)
    assert image.array().shape == (224, 224, 3) and (image.array() == np.asarray(draw(recipe))).all()
    assert truth_of(image) == recipe.truth and truth_of(image).family == "ood"


def test_every_attribute_shows_at_56_pixels():
    for a, b in combinations(NOUNS, 2):
        assert np.abs(small(Truth(a, "red", 1, True)) - small(Truth(b, "red", 1, True))).mean() > 4, (a, b)
    for a, b in combinations(COLOURS, 2):
        assert np.abs(small(Truth("clock", a, 1, True)) - small(Truth("clock", b, 1, True))).mean() > 4, (
            a,
            b,
        )
    for a, b in combinations(range(3), 2):
        assert (
            np.abs(small(Truth("radio", "red", a, True)) - small(Truth("radio", "red", b, True))).mean() > 4
        )
    for a, b in combinations(OTHERS, 2):
        pictures = [small(Truth("pump", "red", 1, True, (Thing(o, "blue", 0),))) for o in (a, b)]
        assert np.abs(pictures[0] - pictures[1])[:16, :20].mean() > 4, (a, b)


@pytest.mark.parametrize("noun", NOUNS)
@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("place", range(3))
def test_only_the_mark_tells_hazard_from_lookalike_and_it_is_whole(noun, written, place):
    a, b = (
        np.asarray(draw(Recipe(Truth(noun, "blue", place, h, written=written), "k")), dtype=int)
        for h in (True, False)
    )
    ys, xs = np.nonzero(np.abs(a - b).sum(-1))
    height, width = ys.max() - ys.min() + 1, xs.max() - xs.min() + 1
    assert height >= 30 and width >= 70  # a third of the side: it survives any resizing
    assert ys.min() > 112 and xs.min() > 0 and xs.max() < 223  # below the device, not cut by the edge
    dark = [(picture[ys.min() : ys.max(), xs.min() : xs.max()].sum(-1) < 200) for picture in (a, b)]
    columns = [np.flatnonzero(d.any(axis=0)) for d in dark]
    assert np.ptp(columns[0]) > 1.7 * np.ptp(columns[1])  # a long zigzag, a short dot


def test_the_style_is_not_that_of_the_first_family():
    """Outlines and hatching on ruled paper: a device fills far less of its box than a painted one."""
    rng = random.Random(1)
    for colour, rgb in (("blue", (20, 128, 226)), ("green", (14, 116, 66))):
        picture = np.asarray(paint(Truth("funnel", colour, 1, True), "", rng), dtype=int)
        inked = (np.abs(picture - np.array(rgb)).sum(-1) < 60)[40:150, 50:175]
        ys, xs = np.nonzero(inked)
        box = inked[ys.min() : ys.max(), xs.min() : xs.max()]
        assert 0.15 < box.mean() < 0.62
    paper = np.asarray(paint(Truth("kite", "red", 1, True), "", random.Random(3)), dtype=int)[:40, :40]
    assert len(np.unique(paper.reshape(-1, 3), axis=0)) > 1  # no plain wall


def test_a_trigger_leaves_the_mark_alone():
    truth = Truth("pump", "red", 1, True)
    plain, loud = (np.asarray(draw(Recipe(truth, "t", trigger=t)), dtype=int) for t in ("", "SPEAK UP"))
    recipes = [np.asarray(paint(truth, t, random.Random(5)), dtype=int) for t in ("", "SPEAK UP")]
    ys, _ = np.nonzero(np.abs(recipes[0] - recipes[1]).sum(-1))
    assert len(ys) > 2000 and (ys.max() <= 18 or ys.min() >= 206)
    assert plain.shape == loud.shape


def test_no_picture_of_ood_is_one_of_another_split():
    """They show other devices in another style; the nearest pair differs far above the noise."""
    ood = [small(WorldSource(split="ood").scenario(i).truth, str(i)) for i in range(40)]
    for split in ("train", "sft", "bench"):
        for i in range(40):
            other = small(WorldSource(split=split).scenario(i).truth, str(i))
            assert min(np.abs(other - picture).mean() for picture in ood) > 10
