"""The audit: a planted leak is found, an honest split passes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from steer_env.data.audit import audit, items, open_corpus, overlap
from steer_env.data.audit.sentences import SentenceModel
from steer_env.images import Image
from steer_env.scenario_files import save_scenarios
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.world.source import WorldSource


def world(split: str, count: int) -> list[Scenario]:
    source = WorldSource(split=split)
    return [source.scenario(i) for i in range(count)]


@pytest.fixture(scope="module")
def train() -> list[Scenario]:
    return world("sft", 240)


@pytest.fixture(scope="module")
def bench() -> list[Scenario]:
    return world("bench", 200)


def renamed(scenario: Scenario, number: int, **changes) -> Scenario:
    return replace(scenario, group=f"hidden-{number}", id=f"hidden-{number}", **changes)


# Verdicts -------------------------------------------------------------------------------------------------


def test_an_honest_split_passes(train: list[Scenario], bench: list[Scenario]):
    found = audit(train, bench)
    assert found.leaks == () and found.verdict()["passed"] is True
    assert [m.name for m in found.overlap] == [
        "exact text",
        "copied turns",
        "copied turns, each",
        "8-gram containment",
        "MinHash Jaccard",
        "tfidf cosine",
        "exact picture",
        "perceptual hash",
        "exact dialogue",
    ]
    names = {m.name: m for m in found.overlap}
    assert names["exact picture"].share == names["exact dialogue"].share == 0.0
    # One generator makes both: the measures say so, and the null says that this is usual within train.
    grams = names["8-gram containment"]
    assert grams.bench.mean() > 0.4 and grams.bench.mean() == pytest.approx(grams.null.mean(), abs=0.1)


def test_a_planted_leak_of_one_percent_is_found(train: list[Scenario], bench: list[Scenario]):
    """Two dialogues of two hundred are copies under another name and group."""
    planted = [renamed(train[i], i) for i in (31, 150)]
    found = audit(train, [*bench[:-2], *planted])
    assert found.shared_groups == 0
    assert {"exact text", "exact picture", "exact dialogue"} <= set(found.leaks)
    verdict = found.verdict()
    assert verdict["passed"] is False
    (row,) = [r for r in verdict["overlap"] if r["measure"] == "exact dialogue"]
    assert row["share"] == pytest.approx(0.01) and row["null_share"] == 0 and row["leak"]
    json.dumps(verdict, allow_nan=False)


def test_a_leak_of_texts_without_pictures_is_found(train: list[Scenario], bench: list[Scenario]):
    def bare(scenario: Scenario) -> Scenario:
        return replace(scenario, images=(), turns=tuple(replace(t, images=()) for t in scenario.turns))

    planted = [bare(renamed(train[i], i)) for i in (30, 150)]
    held_out = [bare(s) for s in bench[:-2]] + planted
    found = audit([bare(s) for s in train], held_out)
    assert "exact text" in found.leaks
    assert [m.name for m in found.overlap][-1] == "tfidf cosine"  # nothing about pictures


def test_edited_copies_are_found(train: list[Scenario], bench: list[Scenario]):
    """One word of each long text is changed and the picture is stored anew as JPEG."""
    long = [s for s in train if len(s) >= 8][:4]
    assert len(long) == 4
    planted = []
    for number, scenario in enumerate(long):
        first = replace(scenario.turns[0], text=scenario.turns[0].text + " Indeed.")
        buffer = scenario.images[0].pil().resize((200, 200), PILImage.Resampling.BICUBIC)
        image = Image.from_array(np.asarray(buffer))
        planted.append(renamed(scenario, number, turns=(first, *scenario.turns[1:]), images=(image,)))
    found = audit(train, [*bench[:-4], *planted])
    names = {m.name: m for m in found.overlap}
    assert not any(names[name].bench[-4:].any() for name in ("exact text", "exact picture"))
    assert names["MinHash Jaccard"].share >= 0.02 and "MinHash Jaccard" in found.leaks
    assert names["tfidf cosine"].bench[-4:].min() > 0.95
    assert names["perceptual hash"].bench[-4:].min() >= names["perceptual hash"].threshold


def test_copied_last_turns_are_found_where_whole_dialogues_differ() -> None:
    """Every fifth dialogue ends in a turn of the training set; nothing else is shared."""

    def words(start: int, count: int) -> str:
        return " ".join(f"w{(start * 7919 + k * 104_729) % 1_000_003}" for k in range(count))

    def made(name: str, first: int) -> list[Scenario]:
        return [
            Scenario(
                id=f"{name}{i}",
                turns=tuple(DraftTurn(words(first + 5 * i + k, 14)) for k in range(4)),
                group=f"{name}{i}",
            )
            for i in range(200)
        ]

    a, b = made("a", 0), made("b", 5000)
    leaked = [replace(s, turns=(*s.turns[:-1], a[i].turns[1])) if i % 5 == 0 else s for i, s in enumerate(b)]
    assert audit(a, b).leaks == ()
    found = audit(a, leaked)
    assert "copied turns" in found.leaks and "exact text" not in found.leaks
    measure = next(m for m in found.overlap if m.name == "copied turns")
    assert (measure.share, measure.null_share) == (0.2, 0.0)
    scores = found.leakage()
    assert [one["scores"]["copied turns"] for one in scores[:6]] == [1, 0, 0, 0, 0, 1]


def test_a_shared_group_is_a_leak(train: list[Scenario], bench: list[Scenario]):
    found = audit(train, [*bench, replace(bench[0], group=train[0].group, id="x")])
    assert found.shared_groups == 1 and "groups" in found.leaks


def test_the_limit_decides(train: list[Scenario], bench: list[Scenario]):
    held_out = [*bench[:-2], *(renamed(train[i], i) for i in (31, 150))]
    assert audit(train, held_out, limit=0.02).leaks == ()
    with pytest.raises(ValueError, match=r"limit=1\.5, expected a share"):
        audit(train, held_out, limit=1.5)
    with pytest.raises(ValueError, match="the sets have 0 and 200 dialogues"):
        audit([], bench)
    with pytest.raises(ValueError, match="embed='word2vec', expected 'tfidf', 'sentence:FOLDER'"):
        audit(train, bench, embed="word2vec")


def test_the_report_has_a_table_and_plots(train: list[Scenario], bench: list[Scenario], tmp_path: Path):
    found = audit(train, bench, names=("sft", "bench"))
    table = found.table()
    assert "| exact picture | 1.00 | 0.00% | 0.00% |" in table and "| mean turns |" in table
    plots = found.plots(tmp_path / "plots")
    assert [p.name for p in plots] == [
        "8-gram-containment.png", "minhash-jaccard.png", "tfidf-cosine.png", "perceptual-hash.png"
    ]  # fmt: skip
    assert all(PILImage.open(p).size[0] > 300 for p in plots)


# Embeddings and leakage of single dialogues ---------------------------------------------------------------


def bag(texts: list[str]) -> np.ndarray:
    """Embed a text as counts of its words' first letters; not of unit length."""
    rows = np.zeros((len(texts), 26))
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().split():
            if "a" <= word[0] <= "z":
                row[ord(word[0]) - ord("a")] += 1
    return rows


def test_any_function_of_texts_can_embed(train: list[Scenario], bench: list[Scenario]):
    # The words in another order: no copy to any other measure, the same to this embedding.
    turned = replace(train[0].turns[0], text=" ".join(reversed(train[0].turns[0].text.split())))
    planted = renamed(train[0], 0, turns=(turned, *train[0].turns[1:]))
    (measure,) = [
        m for m in overlap.measures(items(train), items([planted, bench[0]]), embed=bag) if "cosine" in m.name
    ]
    assert measure.name == "bag cosine" and measure.bench[0] == pytest.approx(1, abs=1e-6)
    assert measure.bench[1] < 1 - 1e-6 and measure.null.max() <= 1
    with pytest.raises(ValueError, match=r"embed returned shape=\(3,\) for 3 texts, expected \(3, n\)"):
        overlap.embeddings(["a", "b", "c"], ["a"], lambda texts: np.zeros(len(texts)))


def test_copied_turns_in_other_words_are_found():
    """Every fifth dialogue of B has a turn of A with its words turned round: the same to this embedding."""

    known: dict[tuple[str, ...], int] = {}

    def meaning(texts: list[str]) -> np.ndarray:
        """Texts of the same words have the same direction, any two others are at right angles."""
        return np.eye(1000)[[known.setdefault(tuple(sorted(t.split())), len(known)) for t in texts]]

    def made(name: str) -> list[Scenario]:
        return [
            Scenario(
                id=f"{name}{i}",
                turns=tuple(map(DraftTurn, ("hello there", " ".join(f"{name}{i}w{k}" for k in range(9))))),
                group=f"{name}{i}",
            )
            for i in range(100)
        ]

    a, b = made("a"), made("b")
    turned = [DraftTurn(" ".join(reversed(s.turns[1].text.split()))) for s in a]
    leaked = [replace(s, turns=(s.turns[0], turned[i])) if i % 5 == 0 else s for i, s in enumerate(b)]
    honest, found = audit(a, b, embed=meaning), audit(a, leaked, embed=meaning)
    assert honest.leaks == () and "reworded turns" in found.leaks
    assert not {"exact text", "copied turns", "8-gram containment"} & set(found.leaks)
    measure = next(m for m in found.overlap if m.name == "reworded turns")
    assert (measure.share, measure.null_share, measure.threshold) == (0.2, 0.0, overlap.REWORDED)
    # Turns of fewer words than an n-gram say nothing: "hello there" is everywhere.
    short = audit(a, leaked, embed=meaning, ngram=10)
    assert next(m for m in short.overlap if m.name == "reworded turns").share == 0
    # Without a model of meaning there is no such measure.
    assert "reworded turns" not in {m.name for m in audit(a, b).overlap}


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder with the files of a sentence-transformers model."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "kite"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    for part in (tokenizer, transformers.BertModel(config)):
        part.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder


def test_a_sentence_model_is_the_mean_of_its_last_states(sentence_model: Path):
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["blue", "red kite red kite", "red kite"]
    rows = SentenceModel(sentence_model)(texts)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(sentence_model),
        AutoModel.from_pretrained(sentence_model),
    )
    for text, row in zip(texts, rows, strict=True):  # one by one: no padding, no mask
        with torch.no_grad():
            expected = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert np.allclose(row, expected, atol=1e-5)


def test_a_sentence_model_is_named_on_the_command_line(sentence_model: Path, tmp_path: Path):
    a, b = [[Scenario(id=name, turns=(DraftTurn("red kite " * 5),), group=name)] for name in "ab"]
    names = [m.name for m in audit(a, b, embed=f"sentence:{sentence_model}").overlap]
    assert names[-2:] == ["SentenceModel cosine", "reworded turns"]
    with pytest.raises(ValueError, match="expected the folder of a sentence model"):
        audit(a, b, embed=f"sentence:{tmp_path / 'none'}")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(ValueError, match="does not pool by the mean"):
        SentenceModel(tmp_path)


def test_leakage_of_every_dialogue(train: list[Scenario], bench: list[Scenario], tmp_path: Path):
    copy, reworded = renamed(train[5], 1), renamed(train[8], 2)
    first = replace(reworded.turns[0], text=reworded.turns[0].text + " Indeed.")
    reworded = replace(reworded, turns=(first, *reworded.turns[1:]))
    held_out = [*bench[:50], copy, reworded]
    found = audit(train, held_out)
    rows = [
        json.loads(line)
        for line in found.write_leakage(tmp_path / "a" / "leakage.jsonl").read_text().splitlines()
    ]
    assert [row["id"] for row in rows] == [s.id for s in held_out]
    assert (rows[50]["score"], rows[50]["bin"]) == (1.0, "copy")
    assert rows[51]["bin"] == "above 99 % of null" and 0.9 < rows[51]["score"] < 1
    assert all(0 <= row["score"] <= 1 and len(row["scores"]) == 9 for row in rows)
    null = next(m for m in found.overlap if m.name == "tfidf cosine").null
    for row in rows[:50]:
        share = np.mean(null < row["score"])
        assert row["bin"] == next(
            name for least, name in ((0.99, "above 99 % of null"), (0.9, "90-99 % of null"),
                                     (0.5, "50-90 % of null"), (0, "0-50 % of null")) if share >= least
        )  # fmt: skip
    assert len({row["bin"] for row in rows[:50]}) >= 2


def test_results_split_by_leakage(train: list[Scenario], bench: list[Scenario]):
    """A row's `leakage` is a label of the evaluation; the bins are its levels."""
    from steer_env.evaluation.breakdown import breakdown
    from steer_env.evaluation.tabulate import from_rows

    held_out = [*bench[:10], renamed(train[5], 1)]
    bins = {row["id"]: row["bin"] for row in audit(train, held_out).leakage()}
    terms = {"safety": 10, "usefulness": 10, "faithfulness": 10}
    turn = {"user": "u", "reply": "r", "verdict": {"terms": terms, "judge": "rule"}}
    rows = [
        {
            "scenario": s.id,
            "kind": s.kind,
            "seed": i,
            "stop": "seed_end",
            "turns": [turn],
            "leakage": bins[s.id],
        }
        for i, s in enumerate(held_out)
    ]
    found = breakdown(from_rows(rows), "leakage")
    assert set(found.levels) == set(bins.values()) and "copy" in found.levels and found.unlabelled == 0


# Sets -----------------------------------------------------------------------------------------------------


def test_open_corpus_reads_every_form(tmp_path: Path, bench: list[Scenario]):
    from steer_env.data.build import BuildConfig, build

    own = save_scenarios(bench[:4], tmp_path / "own.jsonl")
    assert [s.id for s in open_corpus(str(own))] == [s.id for s in bench[:4]]
    build(tmp_path / "steer", BuildConfig(sft=3, rl=4, bench=5, ood=1))
    for split, count in (("sft", 3), ("rl", 4), ("bench", 5)):
        scenarios = open_corpus(str(tmp_path / "steer" / split))
        assert len(scenarios) == count and all(s.truth and s.images for s in scenarios)
    fixtures = Path(__file__).with_name("fixtures")
    assert len(open_corpus(f"spa-vl:test/help:{fixtures / 'spa-vl'}")) == 1
    assert len(open_corpus(f"vlsbench:{fixtures / 'vlsbench'}")) == 1
    assert len(open_corpus(str(fixtures / "steer-bench" / "steer_spa.jsonl"))) == 1


def test_what_a_command_left_out_is_not_read(tmp_path: Path, bench: list[Scenario]):
    save_scenarios(bench[:4], tmp_path / "own.jsonl")
    for rejected in ("", '{"reason": "unsafe"}\n'):
        (tmp_path / "rejected.jsonl").write_text(rejected)
        assert len(open_corpus(str(tmp_path))) == 4


@pytest.mark.parametrize(
    ("content", "words"), [('{"a": 1}\n', r"has rows with \['a'\]"), ("[]\n", "does not begin")]
)
def test_open_corpus_refuses_other_files(tmp_path: Path, content: str, words: str):
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(ValueError, match=words):
        open_corpus(str(tmp_path / "x.jsonl"))
    with pytest.raises(ValueError, match="no folder of such files"):
        open_corpus(str(tmp_path / "nothing"))
