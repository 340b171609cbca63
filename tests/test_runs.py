"""One process per run folder: who comes second is told who holds it, and nobody waits for the dead."""

import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from steer_env.runs import LOCK, RunBusy, RunExists, RunFolder, holds_more, outward_links, run_lock

HOLD = """
import sys, time
from steer_env.runs import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds `tmp_path/run`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_with_pid_and_host(holder, tmp_path):
    with pytest.raises(RunBusy) as caught, run_lock(tmp_path / "run"):
        pass
    message = str(caught.value)
    assert f"process {holder.pid} on host {socket.gethostname()} since" in message
    assert "wait for it" in message and "\n" not in message


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_lock_ends_with_its_process(holder, tmp_path, how):
    holder.send_signal(how)
    holder.wait()
    with run_lock(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_folder_that_was_there_stays_and_has_no_lock_left(tmp_path):
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        assert not holds_more(tmp_path)
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())


def test_the_same_thread_may_hold_it_twice_another_may_not(tmp_path):
    found = []

    def other():
        try:
            with run_lock(tmp_path):
                found.append("held")
        except RunBusy as error:
            found.append(str(error))

    with run_lock(tmp_path), run_lock(tmp_path / "." / ".." / tmp_path.name):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in found[0]
    with run_lock(tmp_path):
        pass


def test_only_one_of_many_gets_it(tmp_path):
    code = (
        "import sys,time\nfrom steer_env.runs import run_lock, RunBusy\n"
        "try:\n with run_lock(sys.argv[1]):\n  print('held', flush=True); sys.stdin.read()\n"
        "except RunBusy: print('busy', flush=True)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "run")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    said = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        process.communicate()
    assert sorted(said) == ["busy", "busy", "busy", "held"]


def sign(folder, **who):
    folder.mkdir()
    (folder / LOCK).write_text(json.dumps({"pid": 1, "host": socket.gethostname(), **who}))


def test_without_locks_of_the_system_the_process_named_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("steer_env.runs.fcntl", None)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    sign(tmp_path / "dead", pid=gone.pid)
    with run_lock(tmp_path / "dead"):
        pass
    sign(tmp_path / "alive", pid=os.getppid())
    sign(tmp_path / "elsewhere", host="another-host")
    for name in ("alive", "elsewhere"):
        with pytest.raises(RunBusy, match="remove"), run_lock(tmp_path / name):
            pass
        assert (tmp_path / name / LOCK).exists()


def test_a_lock_left_by_a_killed_process_is_taken_over_whatever_it_says(tmp_path):
    sign(tmp_path / "a", host="another-host")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / LOCK).write_bytes(b"\xff\x00torn")
    for name in "ab":
        with run_lock(tmp_path / name):
            assert json.loads((tmp_path / name / LOCK).read_text())["pid"] == os.getpid()


def test_of_several_processes_of_one_run_only_the_first_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with run_lock(tmp_path / "run"):
        assert not (tmp_path / "run").exists()


def test_a_file_and_a_link_are_no_run_folders(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunExists, match="is a file"), run_lock(tmp_path / "file"):
        pass
    (tmp_path / LOCK).symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="symbolic link"), run_lock(tmp_path):
        pass


def test_links_that_lead_out_of_a_folder_are_found(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    (run / "checkpoints").mkdir(parents=True)
    other.mkdir()
    (run / "model").symlink_to(run / "checkpoints")
    (run / "images").symlink_to(other)
    (run / "checkpoints" / "step").symlink_to("/etc")
    assert [p.name for p in outward_links(run)] == ["step", "images"]
    assert not outward_links(tmp_path / "none")


def test_a_forked_child_holds_nothing(tmp_path):
    with run_lock(tmp_path):
        pid = os.fork()
        if pid == 0:
            try:
                with run_lock(tmp_path):
                    os._exit(1)
            except RunBusy:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


#: Functions that write a run folder, and the argument that names it.
DOORS = [
    ("steer_env.play.evaluate", "evaluate", "run_dir"),
    ("steer_env.play.rescore", "rescore", "out"),
    ("steer_env.data.build", "build", "out"),
    ("steer_env.data.bootstrap", "bootstrap", "out"),
    ("steer_env.data.seeds.run", "make_seeds", "out"),
    ("steer_env.algorithms.trainer", "train", "run_dir"),
    ("steer_env.algorithms.sft", "train", "run_dir"),
    ("steer_env.algorithms.learners", "practise", "run_dir"),
    ("steer_env.algorithms.selfplay", "self_play", "run_dir"),
]


@pytest.mark.parametrize(("module", "name", "argument"), DOORS)
def test_every_function_that_writes_a_run_folder_holds_it(holder, tmp_path, module, name, argument):
    function = getattr(pytest.importorskip(module), name)
    needed = [
        key
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    arguments = {**dict.fromkeys(needed), argument: tmp_path / "run"}
    with pytest.raises(RunBusy, match=f"process {holder.pid} on host"):
        function(**arguments)


def test_settings_are_written_by_who_holds_the_folder(holder, tmp_path):
    with pytest.raises(RunBusy):
        RunFolder(tmp_path / "run").write({})


# -- what a folder's run was started with -------------------------------------------------------------------


def test_a_run_goes_on_only_when_asked_and_only_as_itself(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "r")
    assert run.stored() == {} and not run.check({"lr": 1}, resume=False)
    run.write({"lr": 1, "steps": 5, "tags": ("a",)})
    with pytest.raises(RunExists, match=r"already holds a run.*--resume"):
        run.check({"lr": 1}, resume=False)
    with pytest.raises(RunExists, match=r"holds another run \(lr: 1 there, 2 now; new: None there, 3 now\)"):
        run.check({"lr": 2, "new": 3}, resume=True)
    assert run.check({"lr": 1, "steps": 9, "tags": ("a",)}, resume=True, free={"steps"})
    with pytest.raises(RunExists, match=r"\(steps: 5 there, None now\)"):
        run.check({"lr": 1, "tags": ["a"]}, resume=True, exact=True)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    assert not RunFolder(tmp_path).check({}, resume=False)
    with pytest.raises(RunExists, match="holds other files"):
        RunFolder(tmp_path).check({}, resume=True, alone=True)
    with pytest.raises(RunExists, match="is a file"):
        RunFolder(tmp_path / "thesis.tex").check({}, resume=True)
    with pytest.raises(RunExists, match="already holds a run"):
        RunFolder(tmp_path).check({}, resume=False, marks=("rows.jsonl", "thesis.tex"))


def test_settings_stay_once_the_run_wrote_something_or_was_there_before(tmp_path: Path) -> None:
    def fails(*written: str) -> bool:
        with pytest.raises(ValueError, match="no"), RunFolder(tmp_path).starting({"lr": 0.1}):
            for name in written:
                (tmp_path / name).touch()
            raise ValueError("no")
        return RunFolder(tmp_path).file.exists()

    assert not fails()
    assert fails("metrics.jsonl")
    (tmp_path / "metrics.jsonl").unlink()
    assert fails()
