"""Comparing anybody's scores: numbers against hand-worked cases."""

import json
import math

import pytest

from steer_env.cli.main import main
from steer_env.evaluation.intervals import mcnemar
from steer_env.play.logs import compare_scores, read_scores, value_of


def write(path, rows, columns="sample,score"):
    path.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.mark.parametrize(
    ("score", "value"), [("C", 1), ("i", 0), ("P", 0.5), (True, 1), ("0.25", 0.25), ("true", 1), (3, 3)]
)
def test_what_counts_as_a_score(score, value):
    assert value_of(score) == value


@pytest.mark.parametrize("score", ["", None, "NaN", "unscored"])
def test_what_counts_as_none(score):
    assert math.isnan(value_of(score))


def test_passes_get_the_exact_test_of_mcnemar(tmp_path):
    # 10 samples: a alone passes 1, b alone 6, both 2, neither 1.
    a = write(tmp_path / "a.csv", [(i, int(i in (0, 7, 8))) for i in range(10)])
    b = write(tmp_path / "b.csv", [(i, int(i in (1, 2, 3, 4, 5, 6, 7, 8))) for i in reversed(range(10))])
    (found,) = compare_scores(read_scores(a), read_scores(b))
    assert (found.a, found.b, found.difference.value) == (0.3, 0.8, pytest.approx(0.5))
    # Two-sided binomial of 1 or fewer among 7: 2 * (1 + 7) / 2^7.
    assert found.p == pytest.approx(16 / 128) == mcnemar(6, 1) and found.test == "exact McNemar"


def test_epochs_of_a_sample_are_a_cluster_and_the_interval_is_that_of_their_means(tmp_path):
    # Two epochs of each of 3 samples; differences 1, 2, 3 in both epochs: three independent numbers, not six.
    first = [(f"s{i}", epoch, 0.5) for i in range(3) for epoch in (1, 2)]
    second = [(f"s{i}", epoch, 1.5 + i) for i in range(3) for epoch in (1, 2)]
    a, b = (
        read_scores(write(tmp_path / f"{name}.csv", rows, "sample,epoch,score"))
        for name, rows in (("a", first), ("b", second))
    )
    (found,) = compare_scores(a, b)
    # Mean 2, standard error 1/sqrt(3), t(2) at 97.5 %: 4.302653.
    half = 4.302653 / math.sqrt(3)
    assert found.difference.value == pytest.approx(2)
    assert (found.difference.low, found.difference.high) == pytest.approx((2 - half, 2 + half), abs=1e-4)


def test_holm_over_the_measures_and_unscored_pairs_left_out(tmp_path):
    rows = [(f"s{i}", m, "" if (i, m) == (0, "x") else 0) for i in range(9) for m in ("x", "y")]
    other = [(f"s{i}", m, int(m == "x" or i < 2)) for i in range(9) for m in ("x", "y")]
    a = write(tmp_path / "a.csv", rows, "sample,measure,score")
    b = write(tmp_path / "b.csv", other, "sample,measure,score")
    x, y = compare_scores(read_scores(a), read_scores(b))
    assert (x.difference.n, x.difference.undecided) == (8, 1)
    assert x.p == pytest.approx(2 / 2**8) and x.p_holm == pytest.approx(4 / 2**8)
    assert y.p == pytest.approx(2 / 2**2) == y.p_holm


def test_parquet_reads_as_csv_does(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"sample": ["a", "b"], "score": [1.0, None]}), tmp_path / "a.parquet")
    write(tmp_path / "a.csv", [("a", 1), ("b", "")])
    read = [
        [(r.sample, str(r.score)) for r in read_scores(tmp_path / f"a.{end}")] for end in ("parquet", "csv")
    ]
    assert read[0] == read[1]


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([("a", 1), ("a", 0)], "sample,score", "more than once"),
        ([], "sample,score", "no scores"),
        ([("a", "good")], "sample,score", "expected a finite number"),
        ([("a", 1)], "id,score", "no column 'sample'"),
    ],
)
def test_a_bad_file_is_refused(rows, columns, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        read_scores(write(tmp_path / "a.csv", rows, columns))


def test_the_command_compares_files_and_writes_json(tmp_path, capsys):
    a = write(tmp_path / "a.csv", [(i, 0) for i in range(6)])
    b = write(tmp_path / "b.csv", [(i, 1) for i in range(6)])
    out = tmp_path / "out.json"
    assert main(["compare", str(a), f"new={b}", "--out", str(out)]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "exact McNemar" in said and "new" in said
    (result,) = json.loads(out.read_text())["results"]
    assert result["p"] == pytest.approx(2 / 2**6) and result["methods"] == ["a", "new"]
    assert main(["compare", str(a), str(tmp_path)]) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_as_spreadsheets_save_them_read_alike(tmp_path, encoding, separator):
    plain = "sample,score,cluster\r\ncafé,1,a\r\nb,0,a\r\nc,,b\r\n"
    path = tmp_path / "a.csv"
    path.write_bytes(plain.replace(",", separator).encode(encoding))
    found = read_scores(path)
    assert [(r.sample, r.cluster) for r in found] == [("café", "a"), ("b", "a"), ("c", "b")]
    assert [r.score for r in found[:2]] == [1, 0] and math.isnan(found[2].score)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sample,score\na,1\nb,inf\n", r"a\.csv:3: score='inf', expected a finite number"),
        ("sample,score\na,1\nb," + "9" * 5000 + "\n", r"a\.csv:3: score="),
        ("sample,score,epoch\na,1,x\n", r"a\.csv:2: could not convert"),
        ("sample,score,epoch\na,1,1.5\n", r"a\.csv:2: epoch='1\.5', expected an integer"),
        ("sample,score,score\na,1,0\n", "has the column 'score' twice"),
        ("sample,score\na,1,2\n", r"a\.csv:2 has 3 cells, expected 2"),
        ("sample,score\n" + "x" * 200_000 + ",1\n", r"a\.csv:2: field larger"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_by_line(tmp_path, text, said):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_scores(path)


def test_samples_of_one_file_only_are_counted_as_left_out(tmp_path):
    """Half a file is no whole one: 10 samples against 6 of them and 2 others are 6 pairs, 6 left out."""
    a = read_scores(write(tmp_path / "a.csv", [(i, i % 2) for i in range(10)]))
    b = read_scores(write(tmp_path / "b.csv", [(i, 1) for i in (*range(6), 20, 21)]))
    (found,) = compare_scores(a, b)
    assert (found.difference.n, found.difference.undecided) == (6, 6)
    assert (found.a, found.b) == (0.5, 1.0)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", b"{}", b"[" * 100_000])
@pytest.mark.parametrize("name", ["a.eval", "a.json"])
def test_a_file_that_is_no_log_is_named_in_one_line(tmp_path, capsys, name, content):
    pytest.importorskip("inspect_ai")
    (tmp_path / name).write_bytes(content)
    other = write(tmp_path / "b.csv", [("a", 1)])
    assert main(["compare", str(tmp_path / name), str(other)]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert f"{name}' is no log of Inspect AI" in err[-1]
