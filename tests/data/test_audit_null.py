"""What is usual at the lengths of the held-out set: by hand, by another computation, by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_env.data.audit import items
from steer_env.data.audit.null import matched_null
from steer_env.data.audit.overlap import copied_turns
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.world.source import WorldSource


def matched(hits, groups, lengths, wanted, least=1) -> tuple[float, float]:
    return matched_null(
        np.array(hits, dtype=float), np.array(groups), np.array(lengths), np.array(wanted), least
    )


# By hand --------------------------------------------------------------------------------------------------


def test_each_length_counts_as_often_as_in_the_held_out_set():
    """Of A's dialogues of two turns one in four counts, of those of eight turns all; B has three of eight."""
    hits, lengths = [1, 0, 0, 0, 1, 1], [2, 2, 2, 2, 8, 8]
    assert matched(hits, range(6), lengths, [8, 8, 8, 2])[0] == pytest.approx(3 / 4 + 1 / 4 / 4)
    assert matched(hits, range(6), lengths, [8])[0] == 1
    assert matched(hits, range(6), lengths, lengths)[0] == pytest.approx(3 / 6)


def test_the_error_by_hand():
    """One length: two groups of two, residuals +-1/2, weights 1/4; groups double the variance."""
    found = matched([1, 1, 0, 0], [0, 0, 1, 1], [3, 3, 3, 3], [3, 3])
    null = 2 * (2 * 1 / 4 * 1 / 2) ** 2
    assert found == pytest.approx((1 / 2, math.sqrt(null + null * 4 / 2)))
    # Two lengths, all of A's short dialogues count and no long one: nothing is by chance.
    assert matched([1, 1, 0, 0], range(4), [1, 1, 9, 9], [1, 9, 9])[1] == 0
    # Where A holds nothing a copy counts in full.
    assert matched([0] * 5, range(5), [2] * 5, [2]) == (0, 0)


def test_too_few_of_a_length_are_joined_by_the_next():
    hits, lengths = [1, 0, 0, 0, 0], [5, 4, 6, 7, 1]
    assert matched(hits, range(5), lengths, [5], least=1)[0] == 1
    assert matched(hits, range(5), lengths, [5], least=2)[0] == pytest.approx(1 / 3)  # 4 and 6 are as near
    assert matched(hits, range(5), lengths, [5], least=4)[0] == pytest.approx(1 / 4)
    assert matched(hits, range(5), lengths, [5], least=20)[0] == pytest.approx(1 / 5)
    # A has nothing as long: its longest stand in.
    assert matched([1, 0], range(2), [2, 3], [40], least=1)[0] == 0


# By another computation, and properties -------------------------------------------------------------------


def slow(hits, groups, lengths, wanted, least) -> tuple[float, float]:
    """Dialogue by dialogue, with the residuals summed group by group."""

    def pool(turns):
        order = sorted(abs(one - turns) for one in lengths)
        return [i for i, one in enumerate(lengths) if abs(one - turns) <= order[min(least, len(order)) - 1]]

    def usual(turns):
        return sum(hits[i] for i in pool(turns)) / len(pool(turns))

    weights = [sum((i in pool(w)) / len(pool(w)) for w in wanted) / len(wanted) for i in range(len(hits))]
    rest = [hits[i] - usual(lengths[i]) for i in range(len(hits))]
    sums: dict[int, float] = {}
    for group, weight, one in zip(groups, weights, rest, strict=True):
        sums[group] = sums.get(group, 0) + weight * one
    variance = sum(one**2 for one in sums.values())
    alone = sum((w * r) ** 2 for w, r in zip(weights, rest, strict=True))
    single = sum(w * r**2 for w, r in zip(weights, rest, strict=True))
    # variance of B = (variance of one dialogue) x (design effect) / (number of B)
    of_b = single * (variance / alone) / len(wanted) if alone > 0 else 0.0
    return sum(map(usual, wanted)) / len(wanted), math.sqrt(variance + of_b)


train_rows = st.lists(
    st.tuples(st.sampled_from((0, 0.25, 1)), st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=25
)
held_out = st.lists(st.integers(1, 8), min_size=1, max_size=12)


@given(train_rows, held_out, st.integers(1, 8))
def test_it_equals_the_slow_computation(rows, wanted, least):
    hits, groups, lengths = zip(*rows, strict=True)
    found = matched(hits, groups, lengths, wanted, least)
    assert found == pytest.approx(slow(hits, groups, lengths, wanted, least), abs=1e-9)
    assert min(hits) - 1e-9 <= found[0] <= max(hits) + 1e-9 and found[1] >= 0


@given(train_rows, st.integers(1, 3))
def test_with_the_same_lengths_it_is_the_plain_share(rows, times):
    hits, groups, lengths = zip(*rows, strict=True)
    assert matched(hits, groups, lengths, lengths * times)[0] == pytest.approx(sum(hits) / len(hits))


@given(train_rows, held_out, st.randoms())
def test_the_order_of_dialogues_does_not_matter(rows, wanted, random):
    turned, others = random.sample(rows, len(rows)), random.sample(wanted, len(wanted))
    assert matched(*zip(*rows, strict=True), wanted) == pytest.approx(
        matched(*zip(*turned, strict=True), others), abs=1e-9
    )


# By simulation --------------------------------------------------------------------------------------------


def test_the_error_is_that_of_repeated_draws():
    """Groups of three that hang together, chances by length, B longer than A: the excess is N(0, error)."""
    rng = np.random.default_rng(0)

    def drawn(groups: int, lengths: np.ndarray) -> np.ndarray:
        mean = 0.2 + 0.08 * lengths  # by dialogue
        own, shared = rng.random((2, groups, 3))
        latent = np.where(rng.random((groups, 3)) < 0.5, shared[:, :1], own)
        return latent < mean.reshape(groups, 3)

    scores = []
    for _ in range(400):
        lengths, wanted = rng.integers(1, 9, 600), rng.integers(4, 9, 300)
        null, bench = drawn(200, lengths).ravel(), drawn(100, wanted).ravel()
        share, error = matched_null(null.astype(float), np.repeat(np.arange(200), 3), lengths, wanted)
        scores.append((bench.mean() - share) / error)
    assert abs(np.mean(scores)) < 0.15 and 0.9 < np.std(scores) < 1.1


# Audits ---------------------------------------------------------------------------------------------------


def dialogues(name: str, lengths: list[int], seed: int) -> list[Scenario]:
    """Every turn is one of 40 stock sentences with chance 0.2, else its own words."""
    rng = np.random.default_rng(seed)

    def turn(k: int) -> DraftTurn:
        stock = rng.random() < 0.2
        words = [f"stock{rng.integers(40)}"] * 9 if stock else [f"{name}{k}w{i}" for i in range(9)]
        return DraftTurn(" ".join(words))

    return [
        Scenario(id=f"{name}{i}", group=f"{name}{i}", turns=tuple(turn(100 * i + k) for k in range(length)))
        for i, length in enumerate(lengths)
    ]


def planted(a: list[Scenario], b: list[Scenario], share: float) -> list[Scenario]:
    """Such a share of B's turns, stock sentences or not, in place of the last turns of dialogues of A."""
    turns = [turn.text for s in b for turn in s.turns]
    chosen = np.random.default_rng(0).permutation(len(turns))[: int(share * len(turns))]
    assert len(chosen) <= len(a)
    return [
        replace(s, turns=(*s.turns[:-1], replace(s.turns[-1], text=turns[chosen[i]])))
        if i < len(chosen)
        else s
        for i, s in enumerate(a)
    ]


def test_longer_dialogues_are_no_leak_and_a_fifth_of_their_turns_in_training_is():
    rng = np.random.default_rng(1)
    a = dialogues("a", [int(n) for n in rng.integers(1, 9, 600)], 2)
    b = dialogues("b", [int(n) for n in rng.integers(6, 9, 300)], 3)
    some, each = copied_turns(items(a), items(b), 8)
    assert (
        some.share - some.null.mean() > 0.1 and some.share - some.null.mean() > 3 * some.error
    )  # uncorrected
    assert not some.leaks(0.005) and not each.leaks(0.005)
    assert all(m.leaks(0.005) for m in copied_turns(items(planted(a, b, 0.2)), items(b), 8))


def test_a_fifth_of_the_turns_of_the_worlds_bench_in_training_is_a_leak():
    """In the built-in world users share sentences: most dialogues have a copied turn, not most turns."""
    sft, bench = ([WorldSource(split=s).scenario(i) for i in range(600)] for s in ("sft", "bench"))
    bench = [s for s in bench if len(s.turns) >= 7]
    assert not any(m.leaks(0.005) for m in copied_turns(items(sft), items(bench), 8))
    some, each = copied_turns(items(planted(sft, bench, 0.2)), items(bench), 8)
    assert each.leaks(0.005) and not some.leaks(0.005)


def test_the_share_of_turns_by_hand():
    def one(name: str, *turns: str) -> Scenario:
        return Scenario(id=name, group=name, turns=tuple(map(DraftTurn, turns)))

    first, second, third = (" ".join([letter] * 8) for letter in "xyz")
    a = [one("p", first, second), one("q", first, "short one"), one("r", third)]
    b = [one("s", first, third, "short one"), one("t", "w " * 8, second), one("u", "short one")]
    some, each = copied_turns(items(a), items(b), 8)
    assert (some.bench.tolist(), each.bench.tolist()) == ([1, 1, 0], [1, 1 / 2, 0])
    assert (some.null.tolist(), each.null.tolist()) == ([1, 1, 0], [1 / 2, 1, 0])
    assert each.share == pytest.approx(1 / 2) and each.threshold is None
