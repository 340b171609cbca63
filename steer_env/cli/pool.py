"""Worker processes that take one job after another, some of which wait for others.

Unlike the standard library's pools, a worker that is killed costs its job and nothing else, and a killed
parent leaves no workers behind.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

#: Called in the worker with a job and `tell(kind, body)`; returns the body of its "done" event.
Task = Callable[[Any, Callable[[str, Any], None]], Any]
#: Seconds that workers get to save their state after Ctrl-C.
PATIENCE = 60.0


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        job: Its name.
        kind: "started", "progress", "trained", "done", "failed", "skipped", or "tick" (nothing for a while;
            its job is "").
        body: What the worker said; the error of a failed job.
    """

    job: str
    kind: str
    body: Any = None


@dataclass
class _Worker:
    process: Any
    pipe: connection.Connection
    job: str = ""


@dataclass
class Pool:
    """Runs jobs in processes.

    Attributes:
        task: What a worker does with a job; importable, as it crosses into new processes.
        workers: How many processes.
        tick: Seconds without news after which a "tick" is yielded.
    """

    task: Task
    workers: int = 2
    tick: float = 30.0
    _all: list[_Worker] = field(default_factory=list, init=False)

    def run(
        self, jobs: Mapping[str, Any], needs: Mapping[str, str | None], ready: Sequence[str] = ()
    ) -> Iterator[Event]:
        """Run jobs, the first one that can be run first, and yield what happens.

        Args:
            jobs: Name -> job, in the order they should run.
            needs: Name -> the job that must have told "trained" or be done before.
            ready: Names of jobs that are so already.
        """
        waiting, available, lost = dict(jobs), set(ready), set[str]()
        try:
            while waiting or any(worker.job for worker in self._all):
                for name in [n for n in waiting if needs.get(n) in lost]:
                    del waiting[name]
                    lost.add(name)
                    yield Event(name, "skipped", f"{needs[name]} failed")
                yield from self._start(waiting, needs, available)
                busy = [worker for worker in self._all if worker.job]
                heard = connection.wait([worker.pipe for worker in busy], timeout=self.tick) if busy else []
                for worker in [worker for worker in busy if worker.pipe in heard]:
                    event = self._hear(worker)
                    if event.kind in ("trained", "done"):
                        available.add(event.job)
                    if event.kind == "failed" and event.job not in available:
                        lost.add(event.job)
                    yield event
                if busy and not heard:
                    yield Event("", "tick")
                if not busy and waiting and not any(needs.get(n) in lost for n in waiting):
                    raise ValueError(f"nothing can be run: {', '.join(waiting)} need jobs that are not there")
        finally:
            self._stop()

    def _start(
        self, waiting: dict[str, Any], needs: Mapping[str, str | None], available: set[str]
    ) -> Iterator[Event]:
        while len(busy := [w for w in self._all if w.job]) < self.workers:
            name = next((n for n in waiting if needs.get(n) is None or needs[n] in available), None)
            if name is None:
                return
            worker = next((w for w in self._all if w not in busy), None) or self._hire()
            worker.job = name
            worker.pipe.send(waiting.pop(name))
            yield Event(name, "started")

    def _hire(self) -> _Worker:
        context = multiprocessing.get_context("spawn")  # torch and its threads do not survive a fork
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(self.task, theirs, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        self._all.append(_Worker(process, ours))
        return self._all[-1]

    def _hear(self, worker: _Worker) -> Event:
        name = worker.job
        try:
            kind, body = worker.pipe.recv()
        except (EOFError, ConnectionError):
            worker.process.join()
            self._all.remove(worker)
            return Event(name, "failed", f"the worker died with exit code {worker.process.exitcode}")
        if kind in ("done", "failed"):
            worker.job = ""
        return Event(name, kind, body)

    def _stop(self) -> None:
        for worker in self._all:
            try:
                worker.pipe.send(None)
            except OSError:
                continue
        deadline = time.monotonic() + PATIENCE
        for worker in self._all:
            if worker.job:  # interrupted: the terminal's Ctrl-C has reached it too, and it saves its state
                worker.process.join(max(0.0, deadline - time.monotonic()))
            else:
                worker.process.join(5.0)
            if worker.process.is_alive():
                worker.process.terminate()
                worker.process.join()
        self._all.clear()


def _work(task: Task, pipe: connection.Connection, parent: int) -> None:
    """Take jobs until there are none; die with the parent."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    try:
        while (job := pipe.recv()) is not None:
            try:
                pipe.send(("done", task(job, lambda kind, body: pipe.send((kind, body)))))
            except Exception:
                pipe.send(("failed", traceback.format_exc()))
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        return


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
