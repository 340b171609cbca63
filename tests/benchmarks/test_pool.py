from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pool_tasks
import pytest

from steer_env.cli.pool import Pool


def test_jobs_wait_for_what_they_need_and_a_bad_one_costs_only_its_heirs(tmp_path):
    jobs = {name: name for name in ("child", "root", "bad", "heir", "orphan", "dies", "last")}
    needs = {"child": "root", "heir": "bad", "orphan": "heir", "last": "ready"}
    pool = Pool(partial(pool_tasks.write, str(tmp_path)), workers=2, tick=20)
    events = list(pool.run(jobs, needs, ready=["ready"]))
    ends = {e.job: (e.kind, e.body) for e in events if e.kind in ("done", "failed", "skipped")}
    assert {name: kind for name, (kind, _) in ends.items()} == {
        "root": "done", "child": "done", "last": "done", "bad": "failed", "dies": "failed",
        "heir": "skipped", "orphan": "skipped",
    }  # fmt: skip
    assert "no good" in ends["bad"][1] and "exit code -9" in ends["dies"][1] and ends["root"][1] == "ROOT"
    order = [(e.job, e.kind) for e in events]
    assert order.index(("root", "trained")) < order.index(("child", "started"))


def test_what_nobody_can_run_is_said(tmp_path):
    pool = Pool(partial(pool_tasks.write, str(tmp_path)))
    with pytest.raises(ValueError, match="nothing can be run: a need"):
        list(pool.run({"a": "a"}, {"a": "elsewhere"}))


def test_workers_die_with_a_killed_parent(tmp_path):
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
    code = (
        f"import sys; sys.path[:0] = {paths!r}\n"
        "from functools import partial\nimport pool_tasks\nfrom steer_env.cli.pool import Pool\n"
        "if __name__ == '__main__':\n"
        f"    list(Pool(partial(pool_tasks.write, {str(tmp_path)!r})).run({{'w': 'waits'}}, {{}}))\n"
    )
    (tmp_path / "parent.py").write_text(code)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")])
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)
    worker = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    while time.monotonic() < deadline and _alive(worker):
        time.sleep(0.05)
    assert not _alive(worker)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended stays listed until somebody asks for it.
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
