"""How much of one set of dialogues is in another, against what is usual within the first.

Every measure gives each dialogue of B one number: how much it resembles the nearest thing in A. The null is
the same number for dialogues of A, compared with all groups of A but their own. A leak shows as dialogues of
B that resemble A more often than A's own groups, in dialogues of the same length, resemble each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from steer_env.data.audit.corpus import _WORD, Item
from steer_env.data.audit.null import matched_null
from steer_env.data.audit.sentences import SentenceModel
from steer_env.extras import need

Scores = NDArray[np.float64]
#: Texts in, one row of numbers each out; any length, directions are compared.
Embedder = Callable[[list[str]], NDArray[Any]]
#: Seeds the permutations of MinHash and the SVD; results are the same in every run.
_SEED: Final = 1
_PERMUTATIONS: Final = 64
_CHUNK: Final = 512
_BITS: Final = 64
#: Cosine of two turns from which one may be the other in other words, with all-MiniLM-L6-v2: of pairs of news
#: sentences that people called paraphrases (MRPC, train) 66 % are above. See docs/data.md.
REWORDED: Final = 0.8


@dataclass(frozen=True)
class Measure:
    """One measure of overlap.

    Attributes:
        name: What is measured.
        bench: One score in [0, 1] per dialogue of B; 1 is a copy.
        null: The same for dialogues of A against the other groups of A.
        threshold: Score from which a dialogue counts as overlapping; None if its score is what counts.
        groups: Group of every dialogue of A, as integers from 0; dialogues of a group are not independent.
        lengths: Turns of every dialogue of A.
        wanted: Turns of every dialogue of B.
    """

    name: str
    bench: Scores
    null: Scores
    threshold: float | None
    groups: NDArray[np.int64]
    lengths: NDArray[np.int64]
    wanted: NDArray[np.int64]

    @property
    def share(self) -> float:
        """Share of B at or above the threshold, or mean score of B."""
        return float(self._counts(self.bench).mean())

    @property
    def null_share(self) -> float:
        """The same for the null, at the lengths of B's dialogues."""
        return self._matched[0]

    @property
    def excess(self) -> float:
        """How much larger B's share is than the null's."""
        return self.share - self.null_share

    @property
    def error(self) -> float:
        """Standard error of the excess if B were like the groups of A; see `matched_null`."""
        return self._matched[1]

    @cached_property
    def _matched(self) -> tuple[float, float]:
        return matched_null(self._counts(self.null), self.groups, self.lengths, self.wanted)

    def _counts(self, scores: Scores) -> Scores:
        return scores if self.threshold is None else (scores >= self.threshold).astype(float)

    def leaks(self, limit: float) -> bool:
        """Return whether the excess is above the limit, and not by chance (three standard errors)."""
        return bool(self.excess > limit and self.excess > 3 * self.error)


def _measure(
    name: str,
    bench: Sequence[float] | Scores,
    null: Sequence[float] | Scores,
    threshold: float | None,
    a: Sequence[Item],
    b: Sequence[Item],
) -> Measure:
    lengths, wanted = (np.array([len(item.turns) for item in side]) for side in (a, b))
    return Measure(
        name, np.array(bench, float), np.array(null, float), threshold, _numbers(a), lengths, wanted
    )


def measures(
    a: Sequence[Item],
    b: Sequence[Item],
    ngram: int = 8,
    embed: str | Embedder = "tfidf",
    tell: Callable[[str, int, int], None] | None = None,
) -> list[Measure]:
    """Measure how much of B is in A.

    Args:
        a: The training set.
        b: The held-out set.
        ngram: Words of an n-gram for containment.
        embed: "tfidf", "sentence:FOLDER" for a sentence model, or a function that turns texts into rows of
            numbers.
        tell: Called with (measure, done, total).

    Returns:
        Exact texts, copied turns (dialogues with one, and turns), n-gram containment, MinHash, embeddings;
        with an embedding other than TF-IDF reworded turns; with pictures in both sets exact pictures,
        perceptual hashes, exact dialogues.

    Raises:
        ValueError: If a set is empty, or `embed` is not known.
        ImportError: If a library of the extra `data` is missing.
    """
    if not a or not b:
        raise ValueError(f"the sets have {len(a)} and {len(b)} dialogues, expected at least one each")
    tell = tell or (lambda what, done, total: None)
    if isinstance(embed, str) and embed.startswith("sentence:"):
        embed = SentenceModel(embed.removeprefix("sentence:"))
    found = [
        _exact("exact text", [" ".join(i.words) for i in a], [" ".join(i.words) for i in b], a, b),
        *copied_turns(a, b, ngram),
        containment(a, b, ngram),
        minhash(a, b, tell=tell),
        neighbours(a, b, embed),
    ]
    if not isinstance(embed, str):
        found.append(reworded_turns(a, b, embed, ngram))
    if any(i.images for i in a) and any(i.images for i in b):
        found += pictures(a, b, tell)
    return found


def _exact(
    name: str, keys_a: Sequence[Hashable], keys_b: Sequence[Hashable], a: Sequence[Item], b: Sequence[Item]
) -> Measure:
    """Return a measure that is 1 where a key occurs in A (in another group), else 0; None is no key."""
    owner = _owners((key, item.group) for key, item in zip(keys_a, a, strict=True) if key is not None)
    null = [float(key is not None and owner[key] != item.group) for key, item in zip(keys_a, a, strict=True)]
    bench = [float(key is not None and key in owner) for key in keys_b]
    return _measure(name, bench, null, 1.0, a, b)


def copied_turns(a: Sequence[Item], b: Sequence[Item], least: int) -> list[Measure]:
    """Return whether, and how many, user turns of at least so many words are, word for word, turns of A.

    Whole dialogues need not match: of a dialogue of several turns one is enough to give it away. Where users
    share their sentences nearly every dialogue has one, and only the share of turns can tell.
    """
    of_a, of_b = ([list(_turns(item, least)) for item in side] for side in (a, b))
    owner = _owners((turn, item.group) for turns, item in zip(of_a, a, strict=True) for turn in turns)
    null = [[owner[turn] != item.group for turn in turns] for turns, item in zip(of_a, a, strict=True)]
    bench = [[turn in owner for turn in turns] for turns in of_b]
    return [
        _measure("copied turns", _each(any, bench), _each(any, null), 1.0, a, b),
        _measure("copied turns, each", _each(_mean, bench), _each(_mean, null), None, a, b),
    ]


def _each(function: Callable[[list[bool]], float], rows: list[list[bool]]) -> list[float]:
    return [float(function(row)) for row in rows]


def _mean(row: list[bool]) -> float:
    return sum(row) / len(row) if row else 0.0


def _turns(item: Item, least: int) -> Iterable[tuple[str, ...]]:
    words = (tuple(_WORD.findall(turn.lower())) for turn in item.turns)
    return (one for one in words if len(one) >= least)


def _numbers(items: Sequence[Item]) -> NDArray[np.int64]:
    """Return the groups as integers."""
    return np.unique([item.group for item in items], return_inverse=True)[1].astype(np.int64)


#: Stands for "more than one group".
_MANY: Final = object()


def _owners(pairs: Iterable[tuple[Hashable, str]]) -> dict[Hashable, Any]:
    """Map every key to the only group it occurs in, or to `_MANY`."""
    owner: dict[Hashable, Any] = {}
    for key, group in pairs:
        if owner.setdefault(key, group) != group:
            owner[key] = _MANY
    return owner


def grams(item: Item, n: int) -> set[int]:
    """Return the hashes of the distinct n-grams of words; of a shorter text its one gram."""
    words = item.words
    return {hash(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def containment(a: Sequence[Item], b: Sequence[Item], n: int, threshold: float = 0.9) -> Measure:
    """Measure which share of a dialogue's n-grams occur in A."""
    owner = _owners((gram, item.group) for item in a for gram in grams(item, n))
    bench = [float(np.mean([gram in owner for gram in grams(item, n)])) for item in b]
    null = [float(np.mean([owner[gram] != item.group for gram in grams(item, n)])) for item in a]
    return _measure(f"{n}-gram containment", bench, null, threshold, a, b)


def minhash(
    a: Sequence[Item],
    b: Sequence[Item],
    threshold: float = 0.9,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Measure:
    """Measure the largest Jaccard similarity with a dialogue of A, by MinHash over word shingles."""
    sketch = need("datasketch")
    total = 2 * len(a) + len(b)
    hashes, count = [], 0
    for item in (*a, *b):
        one = sketch.MinHash(num_perm=_PERMUTATIONS, seed=_SEED)
        one.update_batch([str(gram).encode() for gram in _shingles(item)])
        hashes.append(one)
        count += 1
        tell("MinHash", count, total)
    of_a, of_b = hashes[: len(a)], hashes[len(a) :]
    # Candidates come from a looser index, so that nothing at the threshold is missed.
    index = sketch.MinHashLSH(threshold=threshold - 0.1, num_perm=_PERMUTATIONS)
    with index.insertion_session() as session:
        for number, one in enumerate(of_a):
            session.insert(number, one)
    bench = [max((one.jaccard(of_a[k]) for k in index.query(one)), default=0.0) for one in of_b]
    null = []
    for item, one in zip(a, of_a, strict=True):
        others = (k for k in index.query(one) if a[k].group != item.group)
        null.append(max((one.jaccard(of_a[k]) for k in others), default=0.0))
        count += 1
        tell("MinHash", count, total)
    return _measure("MinHash Jaccard", bench, null, threshold, a, b)


def _shingles(item: Item) -> set[str]:
    words = item.words
    return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def neighbours(
    a: Sequence[Item], b: Sequence[Item], embed: str | Embedder = "tfidf", threshold: float = 0.98
) -> Measure:
    """Measure the largest cosine with a dialogue of A in an embedding."""
    of_a, of_b = embeddings([" ".join(i.turns) for i in a], [" ".join(i.turns) for i in b], embed)
    name = embed if isinstance(embed, str) else getattr(embed, "__name__", type(embed).__name__)
    bench, null = _nearest(of_a, of_b, _numbers(a))
    return _measure(f"{name} cosine", bench, null, threshold, a, b)


def _nearest(of_a: NDArray[Any], of_b: NDArray[Any], groups: NDArray[np.int64]) -> tuple[Scores, Scores]:
    """Return the largest cosine of each row of B, and of each of A, with a row of A of another group."""
    bench, null = [], []
    for start in range(0, len(of_b), _CHUNK):
        bench.append((of_b[start : start + _CHUNK] @ of_a.T).max(axis=1))
    for start in range(0, len(of_a), _CHUNK):
        cosines = of_a[start : start + _CHUNK] @ of_a.T
        cosines[groups[start : start + _CHUNK, None] == groups[None, :]] = 0.0
        null.append(cosines.max(axis=1))
    first, second = (np.clip(np.concatenate(rows), 0, 1).astype(float) for rows in (bench, null))
    return first, second


def reworded_turns(
    a: Sequence[Item], b: Sequence[Item], embed: Embedder, least: int, threshold: float = REWORDED
) -> Measure:
    """Measure the largest cosine of a user turn of at least so many words with one of A's."""
    groups, scores = _numbers(a), (np.zeros(len(b)), np.zeros(len(a)))
    of_a, of_b = (
        [(k, turn) for k, item in enumerate(side) for turn in item.turns if len(_WORD.findall(turn)) >= least]
        for side in (a, b)
    )
    if of_a and of_b:
        texts = list(dict.fromkeys(turn for _, turn in (*of_a, *of_b)))
        rows = dict(zip(texts, _embedded(embed, texts), strict=True))
        of_a_ND, of_b_ND = (np.array([rows[turn] for _, turn in side]) for side in (of_a, of_b))
        found = _nearest(of_a_ND, of_b_ND, groups[[k for k, _ in of_a]])
        for score, side, cosines in zip(scores, (of_b, of_a), found, strict=True):
            np.maximum.at(score, [k for k, _ in side], cosines)
    bench, null = scores
    return _measure("reworded turns", bench, null, threshold, a, b)


def embeddings(
    a: Sequence[str], b: Sequence[str], embed: str | Embedder = "tfidf", size: int = 128
) -> tuple[Any, Any]:
    """Return unit vectors of texts: TF-IDF and SVD learned from A, or any function.

    Raises:
        ValueError: If `embed` is none of these, or a function does not give a row of finite numbers per text.
    """
    if not isinstance(embed, str):
        return _embedded(embed, a), _embedded(embed, b)
    if embed != "tfidf":
        raise ValueError(f"embed={embed!r}, expected 'tfidf', 'sentence:FOLDER' or a function of texts")
    text, decomposition = need("sklearn.feature_extraction.text"), need("sklearn.decomposition")
    vectorizer = text.TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+", max_features=50_000
    )
    of_a, of_b = vectorizer.fit_transform(a), vectorizer.transform(b)
    if min(of_a.shape) > size + 1:
        reduce = decomposition.TruncatedSVD(size, random_state=_SEED)
        of_a, of_b = reduce.fit_transform(of_a), reduce.transform(of_b)
    else:
        of_a, of_b = of_a.toarray(), of_b.toarray()
    return _unit(of_a), _unit(of_b)


def _embedded(embed: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    rows = np.asarray(embed(list(texts)), dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(texts) or not np.isfinite(rows).all():
        raise ValueError(
            f"embed returned shape={rows.shape} for {len(texts)} texts, expected ({len(texts)}, n) of finite "
            "numbers"
        )
    return _unit(rows)


def _unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12), dtype=np.float32)


def pictures(
    a: Sequence[Item],
    b: Sequence[Item],
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Measure]:
    """Measure exact pictures (same pixels, whatever the file), perceptual hashes, and exact dialogues."""
    pixels, near = _picture_hashes([*a, *b], tell)
    of_a, of_b = pixels[: len(a)], pixels[len(a) :]
    both_a = [(k, " ".join(i.words)) if k else None for k, i in zip(of_a, a, strict=True)]
    both_b = [(k, " ".join(i.words)) if k else None for k, i in zip(of_b, b, strict=True)]
    return [
        _exact("exact picture", of_a, of_b, a, b),
        _perceptual(a, b, near[: len(a)], near[len(a) :]),
        _exact("exact dialogue", both_a, both_b, a, b),
    ]


def _picture_hashes(
    every: Sequence[Item], tell: Callable[[str, int, int], None]
) -> tuple[list[Hashable], list[int | None]]:
    """Return the pixel hash of all pictures and the perceptual hash of the first, None without pictures."""
    imagehash = need("imagehash")
    known: dict[str, tuple[str, int]] = {}
    exact: list[Hashable] = []
    near: list[int | None] = []
    for number, item in enumerate(every, 1):
        for image in item.images:
            if image.digest not in known:
                picture = image.decode()
                digest = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()
                known[image.digest] = digest, int(str(imagehash.phash(picture)), 16)
        exact.append(tuple(known[i.digest][0] for i in item.images) or None)
        near.append(known[item.images[0].digest][1] if item.images else None)
        tell("pictures", number, len(every))
    return exact, near


def _perceptual(
    a: Sequence[Item],
    b: Sequence[Item],
    near_a: Sequence[int | None],
    near_b: Sequence[int | None],
    threshold: float = 1 - 2 / _BITS,
) -> Measure:
    """Return 1 minus the smallest share of differing bits of the perceptual hashes."""
    shown = [k for k, value in enumerate(near_a) if value is not None]
    table = np.array([near_a[k] for k in shown], dtype=np.uint64)
    numbers = _numbers(a)
    groups = numbers[shown]
    bench = [0.0 if value is None else _alike(table, value) for value in near_b]
    null = [
        0.0 if value is None else _alike(table[groups != number], value)
        for number, value in zip(numbers, near_a, strict=True)
    ]
    return _measure("perceptual hash", bench, null, threshold, a, b)


def _alike(table: NDArray[np.uint64], value: int) -> float:
    if not len(table):
        return 0.0
    return 1.0 - int(np.bitwise_count(table ^ np.uint64(value)).min()) / _BITS
