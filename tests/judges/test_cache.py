import multiprocessing
import sqlite3
from dataclasses import replace

import pytest

from kit import judges as models
from steer_env.judges.cache import CachedJudge, verdict_key
from steer_env.types import ASSISTANT, Message, Unscored

Says, Later, request = models.Says, models.Later, models.request


def test_judged_once_across_objects(tmp_path):
    first = Says("a", 7)
    judge = CachedJudge(first, tmp_path / "v.sqlite")
    [fresh] = judge.judge([request("one")])
    assert not fresh.cached
    judge.judge([request("one"), request("two"), request("two")])
    assert (first.calls, judge.hits, judge.misses) == (2, 2, 2)
    second = Says("a", 7)
    [stored] = CachedJudge(second, tmp_path / "v.sqlite").judge([request("one")])
    assert second.calls == 0
    assert stored == replace(fresh, cached=True)


def test_another_judge_prompt_or_content_is_another_key(tmp_path):
    base = verdict_key("a", "p", request("one"))
    assert verdict_key("a", "p", request("one")) == base
    assert verdict_key("b", "p", request("one")) != base
    assert verdict_key("a", "q", request("one")) != base
    assert verdict_key("a", "p", request("one ")) != base
    assert verdict_key("a", "p", request("one", "Tell me!")) != base
    assert verdict_key("a", "p", request("one", "Tell me.", ("x", "y"))) != base
    swapped = request("one")
    swapped = replace(swapped, transcript=(*swapped.transcript[:-1], Message(ASSISTANT, "one", 1)))
    assert verdict_key("a", "p", swapped) != base


def test_failures_are_tried_again(tmp_path):
    judge = Says("a", None)
    cached = CachedJudge(judge, tmp_path / "v.sqlite")
    for _ in range(2):
        [verdict] = cached.judge([request()])
        assert isinstance(verdict, Unscored)
    assert judge.calls == 2


def test_futures(tmp_path):
    slow = Later("a", 6)
    cached = CachedJudge(slow, tmp_path / "v.sqlite")
    future = cached.submit(request())
    assert not future.done()
    slow.release()
    assert future.result(1).terms.safety == 6
    assert cached.submit(request()).result(1).cached
    assert slow.calls == 1


def _write(path, start):
    judge = CachedJudge(Says("a", 5), path)
    for k in range(start, start + 60):
        judge.judge([request(f"reply {k % 80}")])


def test_several_processes_share_one_file(tmp_path):
    path = tmp_path / "v.sqlite"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write, args=(path, start)) for start in (0, 20, 40)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("SELECT COUNT(*) FROM verdicts").fetchone() == (80,)


def test_a_file_that_is_no_cache_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, " * 100)
    with pytest.raises(ValueError, match="is no verdict cache"):
        CachedJudge(Says("a", 5), path)
    assert path.read_text().startswith("not a database")
    with pytest.raises(ValueError, match="existing folder"):
        CachedJudge(Says("a", 5), tmp_path / "missing" / "v.sqlite")


def test_the_prompt_of_a_member_is_part_of_the_key(tmp_path):
    """An ensemble has no prompt of its own; a changed rubric of a member must not find old verdicts."""
    from steer_env.judges.combine import Ensemble
    from steer_env.judges.independence import prompt_hash_of

    first, second = Says("one", 3), Says("two", 5)
    second.prompt_hash = "p1"
    path = tmp_path / "v.sqlite"
    cached = CachedJudge(Ensemble([first, second]), path)
    cached.judge([request()])
    assert cached.prompt_hash == prompt_hash_of(cached) == "p1"
    second.prompt_hash = "p2"
    again = CachedJudge(Ensemble([first, second]), path)
    again.judge([request()])
    assert again.misses == 1 and second.calls == 2
