"""Means over training seeds and dialogues: by hand, against `paired`, and with unknown results."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steer_env.evaluation.crossed import difference, hierarchical, level, middle
from steer_env.evaluation.intervals import t_value
from steer_env.evaluation.paired import paired


def test_two_seeds_on_two_groups_by_hand():
    # Group means are 1 and 1/2 for the seeds in the first group, 0 and 0 in the second.
    values = [[1, 1, 0, 0], [1, 0, 0, 0]]
    effect = hierarchical(values, [0, 0, 1, 1], replicates=40_000)
    # Two draws of 3/4 or 0: variance (3/8)^2 / 2. Seed means 1/2 and 1/4 have variance 1/32; the seeds'
    # deviations of +-1/4 or 0 have (1/8)^2 / 2 in the samples, times 2 for the one that is not free.
    own, between, chance = 9 / 128, 1 / 32, 1 / 64
    added = (between - chance) / 2
    df = (own + added) ** 2 / (own**2 + (between / 2) ** 2)
    half = t_value(0.95, df) * math.sqrt(own + added)
    assert effect.estimate.value == 3 / 8 and effect.by_seed == (0.5, 0.25)
    assert effect.df == pytest.approx(df, rel=0.03)
    assert (effect.estimate.high - effect.estimate.low) / 2 == pytest.approx(half, rel=0.05)


def test_agrees_with_the_library_on_differences_within_seed_and_dialogue():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(30), 3)
    values = rng.normal(0.1, 0.3, (4, 90)) + rng.normal(0, 0.1, (4, 1)) + rng.normal(0, 0.1, 30)[group]
    ours = hierarchical(values, group, replicates=5000)
    theirs = paired(values, np.zeros((1, 90)), group, replicates=5000).estimate
    assert ours.estimate.value == pytest.approx(theirs.value)
    assert [ours.estimate.low, ours.estimate.high] == pytest.approx([theirs.low, theirs.high], abs=0.02)


def test_what_two_arms_share_cancels():
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(40), 3)
    shared = rng.normal(0, 0.5, (5, 1)) + rng.normal(0, 0.5, 40)[group]
    a, b = shared + 0.1 + rng.normal(0, 0.1, (5, 120)), shared + rng.normal(0, 0.1, (5, 120))
    effect = difference(a, b, group).estimate
    assert 0.06 < effect.low < 0.1 < effect.high < 0.14
    apart = difference(a, b[::-1], group).estimate
    assert apart.high - apart.low > 3 * (effect.high - effect.low)


def test_no_spread_is_no_certainty():
    group = np.repeat(np.arange(20), 3)
    zero, one = np.zeros((5, 60)), np.ones((5, 60))
    never = level(zero, group).estimate
    assert never.value == 0 == pytest.approx(never.low) and 0.05 < never.high < 0.2
    same = difference(zero, zero, group)
    assert same.p == 1.0 and same.estimate.low < -0.1 and same.estimate.high > 0.1
    assert difference(one, zero, group).estimate.low > 0.7
    assert hierarchical(zero[:, :3], group[:3]).estimate.value is None


def test_unknown_results_give_bounds():
    group = np.arange(40)
    a, b = np.ones((3, 40)), np.zeros((3, 40))
    a[:, :10] = 0
    a[0, 20] = b[1, 21] = np.nan
    one = level(a, group).estimate
    assert one.value is None and one.undecided == 1
    assert one.bounds == pytest.approx((89 / 120, 90 / 120)) and one.low < one.bounds[0]
    both = difference(a, b, group)
    assert both.estimate.bounds == pytest.approx((88 / 120, 90 / 120)) and both.estimate.undecided == 2
    assert both.p < 0.001 and middle(both.estimate) == pytest.approx(89 / 120)
    a[:] = b[:] = np.nan
    assert difference(a, b, group).p in (1.0, None)
    with pytest.raises(ValueError, match="known results"):
        hierarchical(a, group)


def test_seeds_of_a_cluster_count_as_their_mean():
    rng = np.random.default_rng(2)
    group, clusters = np.repeat(np.arange(10), 2), [0, 0, 1, 1, 2, 2]
    lines = rng.random((6, 20)) + 0.2 * np.array(clusters)[:, None]
    of_means = hierarchical(lines.reshape(3, 2, 20).mean(axis=1), group)
    clustered = hierarchical(lines, group, clusters=clusters)
    assert clustered.estimate == of_means.estimate and clustered.by_seed == of_means.by_seed
    assert clustered.seeds == 3
    unknown = lines.round()
    unknown[0, 0] = np.nan  # bounds are taken before the mean: one line of two, of three clusters
    effect = level(np.clip(unknown, 0, 1), group, clusters=clusters)
    assert effect.estimate.bounds[1] - effect.estimate.bounds[0] == pytest.approx(1 / (6 * 20))
    assert len(effect.by_seed) == 3 and effect.by_seed[0] == pytest.approx(
        np.nanmean(np.clip(unknown[:2], 0, 1))
    )
