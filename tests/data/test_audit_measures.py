"""The audit's measures, by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from steer_env.data.audit import Item, items, overlap
from steer_env.data.audit import variety as diverse
from steer_env.images import Image
from steer_env.scenarios import DraftTurn, Scenario


def item(text: str, group: str = "", risks: Sequence[int] = (), **labels: str) -> Item:
    known = dict.fromkeys(("kind", "strategy", "technique", "mechanism", "category"), "")
    return Item(text, (text,), (), group or text, {**known, **labels}, tuple(risks))


def test_containment_by_hand():
    a = [item("one two three four", "g"), item("one two three five", "h"), item("six seven eight nine", "h")]
    b = [item("zero one two three"), item("one two five six seven"), item("six seven eight nine")]
    found = overlap.containment(a, b, 2)
    assert found.bench.tolist() == pytest.approx([2 / 3, 1 / 4 + 1 / 4, 1.0])
    # "one two" and "two three" occur in another group; nothing of the third does, group h is its own.
    assert found.null.tolist() == pytest.approx([2 / 3, 2 / 3, 0.0])


def test_minhash_estimates_jaccard_and_skips_the_own_group():
    words = [f"w{i}" for i in range(100)]
    a = [item(" ".join(words), "g"), item(" ".join(words[:-1]), "g"), item("quite another text here", "h")]
    b = [item(" ".join([*words[:-1], "x"])), item("nothing of the kind")]
    found = overlap.minhash(a, b)
    exact = len(overlap._shingles(a[0]) & overlap._shingles(b[0])) / 99
    assert found.bench[0] == pytest.approx(exact, abs=0.06) and found.bench[1] == 0
    assert found.null.tolist() == [0, 0, 0]


def test_shares_excess_and_error():
    null = np.array([1.0, 1.0, 0.0, 0.0])
    three = np.full(4, 3)
    measure = overlap.Measure("x", np.array([1.0, 0.2]), null, 0.5, np.array([0, 0, 1, 1]), three, three[:2])
    assert (measure.share, measure.null_share, measure.excess) == (0.5, 0.5, 0.0)
    # Two groups, deviations +1 and -1: variance (1 + 1) / 16, times 1 + 4 / 2.
    assert measure.error == pytest.approx(math.sqrt(2 / 16 * 3))
    ones = np.ones(100, dtype=int)
    alone = overlap.Measure("x", np.eye(1, 100)[0], np.zeros(50), 0.5, np.arange(50), ones[:50], ones)
    assert alone.error == 0 and alone.leaks(0.005) and not alone.leaks(0.01)


def test_perceptual_null_skips_the_own_group():
    one, two = (
        Image.from_array(np.random.default_rng(s).integers(0, 255, (32, 32, 3), dtype=np.uint8))
        for s in (1, 2)
    )

    def shown(image: Image, group: str) -> Scenario:
        return Scenario((DraftTurn("Look.", (0,)),), (image,), group=group)

    a = items([shown(one, "g"), replace(shown(one, "g"), id="other"), shown(two, "h")])
    exact, near, both = overlap.pictures(a, items([shown(one, "new")]))
    assert exact.null.tolist() == [0, 0, 0] and exact.bench.tolist() == [1]
    assert near.null.max() < near.threshold and near.bench.tolist() == [1]
    assert both.bench.tolist() == [1]


def test_diversity_by_hand():
    same, other = ("a", "b", "c", "d"), ("e", "f", "g", "h")
    assert diverse.self_bleu([same, same]) == pytest.approx(1)
    assert diverse.self_bleu([same]) is None
    # No order has a match: half a match each, over 4, 3, 2, 1 grams.
    assert diverse.self_bleu([same, other]) == pytest.approx((0.5**4 / 24) ** 0.25)
    assert diverse.vendi(np.eye(3)) == pytest.approx(3)
    assert diverse.vendi(np.ones((4, 1))) == pytest.approx(1)
    assert (
        diverse.entropy("aabb") == pytest.approx(1)
        and diverse.entropy("aa") == 0
        and diverse.entropy("") is None
    )
    assert [diverse.escalation(r) for r in ((1, 2, 3), (3, 2, 1), (1, 1, 5, 5), ())] == [2, 0, 1, 0]
    assert diverse.distinct([item("a b a b")], 1) == 0.5 and diverse.distinct([item("a b a b")], 2) == 2 / 3
    found = diverse.diversity(
        [item("one two", risks=(1,), strategy="roleplay"), item("three four", risks=(4,))]
    )
    assert (
        found["strategy entropy"] == 0 and found["visual entropy"] is None and found["escalation depth"] == 0
    )
    assert found["Vendi score, text"] == pytest.approx(2) and found["Vendi score, pictures"] is None


def test_self_bleu_matches_a_slow_computation():
    rng = np.random.default_rng(0)
    texts = [tuple(rng.choice(list("abcde"), size=n)) for n in (7, 9, 6, 8)]
    scores = []
    for k, text in enumerate(texts):
        logs = 0.0
        for n in range(1, 5):
            own = [text[i : i + n] for i in range(len(text) - n + 1)]
            hit = 0
            for gram in set(own):
                most = max(
                    sum(t[i : i + n] == gram for i in range(len(t) - n + 1))
                    for j, t in enumerate(texts)
                    if j != k
                )
                hit += min(own.count(gram), most)
            logs += math.log(max(hit, 0.5) / len(own)) / 4
        scores.append(math.exp(logs))
    assert diverse.self_bleu(texts) == pytest.approx(np.mean(scores))
