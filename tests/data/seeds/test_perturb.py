from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import steer_env
from steer_env.data.seeds import SeedsConfig, seed_details
from steer_env.data.seeds.rows import perturb
from steer_env.images import Image
from steer_env.world import WorldSource, truth_of
from steer_env.world.draw import Recipe, recipe_of
from steer_env.world.lexicon import TRIGGERS


def grey(width: int = 200, height: int = 160) -> Image:
    return Image.from_array(np.full((height, width, 3), 128, dtype=np.uint8))


def test_shares_come_out_and_are_independent() -> None:
    done = [perturb([grey()], seed, 0.3, 0.2)[1] for seed in range(2_000)]
    noise = [("noise" in d, "typography" in d) for d in done]
    assert np.mean([n for n, _ in noise]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([t for _, t in noise]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([n and t for n, t in noise]) == pytest.approx(0.06, abs=0.02)
    assert {d["typography"] for d in done if "typography" in d} == set(TRIGGERS)


def test_noise_has_the_papers_sigma() -> None:
    (image,), done = perturb([grey()], 7, 1, 0)
    assert done == {"noise": 0.03}
    assert np.std(image.array() / 255.0) == pytest.approx(0.03, rel=0.05)
    assert np.mean(image.array()) == pytest.approx(128, abs=0.5)


@given(width=st.integers(8, 300), height=st.integers(8, 300), seed=st.integers(0, 10**6))
def test_any_picture_takes_a_phrase_and_twice_the_same(width: int, height: int, seed: int) -> None:
    original = grey(width, height)
    (a,), done = perturb([original], seed, 0, 1)
    (b,), _ = perturb([original], seed, 0, 1)
    assert done["typography"] in TRIGGERS and a == b and a != original
    assert np.array_equal(a.array(), b.array()) and a.array().shape == (height, width, 3)
    assert (a.array() != 128).any()
    assert np.array_equal(original.array(), grey(width, height).array())  # the original is untouched


def test_nothing_asked_for_nothing_done() -> None:
    image = grey()
    assert perturb([image], 3, 0, 0) == ((image,), {})
    assert perturb([], 3, 1, 1) == ((), {})


def test_a_built_in_picture_keeps_its_ground_truth() -> None:
    image = WorldSource().scenario(4).images[0]
    (made,), done = perturb([image], 1, 1, 1)
    recipe = Recipe.parse(recipe_of(made))
    assert truth_of(made) == truth_of(image) and recipe.noise and recipe.trigger == done["typography"]
    (plain,), _ = perturb([made], 1, 0, 0)  # exactly what is asked for, not what was there
    assert not Recipe.parse(recipe_of(plain)).noise and not Recipe.parse(recipe_of(plain)).trigger


def test_shares_outside_the_unit_interval_are_refused() -> None:
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"noise_share=.*expected a finite number"):
            SeedsConfig(noise_share=bad)


def test_a_run_records_what_it_did(make_world) -> None:
    out: Path = make_world("half", 40, noise_share=0.5, typography_share=0.0, kinds=("benign", "obfuscated"))
    recorded = 0
    for kind in ("benign", "obfuscated"):
        for seed in steer_env.load_scenarios(out / f"{kind}.jsonl"):
            recipe, details = Recipe.parse(recipe_of(seed.images[0])), seed_details(seed)
            assert recipe.noise == ("noise" in details) and not recipe.trigger and "typography" not in details
            recorded += recipe.noise
    summary = json.loads((out / "summary.json").read_text())
    assert summary["perturbed"]["noise"] == {"seeds": recorded, "share": recorded / 40}
    assert 10 <= recorded <= 30
