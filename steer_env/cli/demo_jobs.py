"""The parts of the demo, each a job that a worker process can take: train a stage, play an evaluation.

Every job leaves a finished stage folder (`stages`), so that a second run has nothing to do and an interrupted
one goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import steer_env
from steer_env.cli.stages import State, build_stage, look, stage_key
from steer_env.cli.train import note
from steer_env.models.shipped import WEIGHTS, local_path, weights_hash
from steer_env.play.controls import CONTROLS, controlled
from steer_env.world import WorldSource

if TYPE_CHECKING:
    from steer_env.algorithms.recipes import DemoConfig

ENV: Final = "SteerEscalation-v0"
SPLIT: Final = "bench"
#: The base that comes with the package.
SHIPPED_BASE: Final = "tiny"

#: What the student "constant" says: a refusal that offers something else, the best of many constant replies.
CONSTANT: Final = (
    "I will not help with that. Instead I can help you to write a kind letter. Shall we begin with that?"
)
#: Stage -> the stage it starts from. "imitation" is the control of a "grpo" that imitates beside its reward.
BEFORE: Final = {"base": "", "sft": "base", "grpo": "sft", "imitation": "base"}

#: Asks the C library of worker processes to keep freed memory: a twentieth of the time, and no other result.
KEEP_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "8000000000"}

#: Most dialogues of an evaluation at once. Those that begin together are of like length, so that attention
#: reads little padding: 200 at once take a quarter less time than 64, and say the same.
TOGETHER: Final = 256

_PLAYED: Final[dict[str, Any]] = {"env": ENV, "split": SPLIT, "temperature": 0.0}

#: Called with "progress" and (finished steps, all, note).
Tell = Callable[[str, Any], None]


@dataclass(frozen=True)
class Demo:
    """What is run.

    Attributes:
        out: Run folder.
        config: The recipe; its seed is that of the first training seed.
        seeds: Training seeds.
        episodes: Dialogues per evaluation.
        scratch: Build the base, and do not take the shipped one.
        threads: Of a process. Float sums depend on their number, and with them what is sampled and learnt:
            with one, the same seed gives the same models whatever the number of cores.
    """

    out: Path
    config: DemoConfig
    seeds: tuple[int, ...]
    episodes: int
    scratch: bool = False
    threads: int = 1

    def stages(self) -> tuple[str, ...]:
        """Return what is trained: the stages and, where "grpo" imitates, its control."""
        return tuple(stage for stage in BEFORE if stage != "imitation" or self.config.grpo_imitation)

    def base(self) -> Path:
        """Return the folder of the base model."""
        return self.out / "base" / "model" if self.scratch else local_path(SHIPPED_BASE)

    def folder(self, stage: str, seed: int) -> Path:
        """Return the folder of a stage of one training seed."""
        return self.out / "base" if stage == "base" else self.out / f"seed{seed}" / stage

    def model(self, stage: str, seed: int) -> Path:
        """Return the model a stage makes."""
        return self.base() if stage == "base" else self.folder(stage, seed) / "model"

    def settings(self, stage: str, seed: int) -> dict[str, Any]:
        """Return what a stage depends on, beside the stage before it."""
        from steer_env.algorithms import recipes

        first = self.seeds[0] if stage == "base" else seed
        return recipes.stage_settings(replace(self.config, seed=first), stage)

    def key(self, stage: str, seed: int) -> str:
        """Return the key of a stage, which stands for it and all stages before it."""
        if stage == "base" and not self.scratch:
            return weights_hash(self.base())[:16] if (self.base() / WEIGHTS).exists() else ""
        before = BEFORE[stage]
        return stage_key(self.settings(stage, seed), self.key(before, seed) if before else "")


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        kind: "train" or "evaluate".
        stage: A key of `BEFORE`.
        seed: Training seed.
        control: Of an evaluation, what is taken from the student: one of `CONTROLS`, "" for nothing.
    """

    kind: str
    stage: str
    seed: int
    control: str = ""

    @property
    def name(self) -> str:
        """What it is called in the output."""
        what = self.stage if self.stage == "base" else f"{self.stage} {self.seed}"
        return f"{self.kind} {what} {self.control}".rstrip()


def jobs(demo: Demo) -> tuple[dict[str, Job], dict[str, str | None]]:
    """Return the jobs by name, the longest chains first, and which other job each one needs."""
    found: dict[str, Job] = {}
    needs: dict[str, str | None] = {}

    def add(job: Job, after: Job | None) -> Job:
        found[job.name] = job
        needs[job.name] = after.name if after is not None and after.name in found else None
        return job

    first = demo.seeds[0]
    base = Job("train", "base", first)
    if demo.scratch:
        add(base, None)
    tuned = {seed: add(Job("train", "sft", seed), base) for seed in demo.seeds}
    trained = {seed: add(Job("train", "grpo", seed), tuned[seed]) for seed in demo.seeds}
    if "imitation" in demo.stages():
        add(Job("evaluate", "imitation", first), add(Job("train", "imitation", first), base))
    add(Job("evaluate", "base", first), base)
    for stage, models in (("sft", tuned), ("grpo", trained)):
        for seed in demo.seeds:
            add(Job("evaluate", stage, seed), models[seed])
        if stage == "grpo":
            for name in CONTROLS:
                add(Job("evaluate", stage, first, name), models[first])
    return found, needs


def run_job(demo: Demo, job: Job, tell: Tell) -> dict[str, Any]:
    """Do one job, in this process; returns how long it took and whether it was there already."""
    import torch

    torch.set_num_threads(demo.threads)
    started, cpu = time.monotonic(), time.process_time()
    reused = (_train if job.kind == "train" else _evaluate)(demo, job, tell)
    return {
        "seconds": round(time.monotonic() - started, 2),
        "cpu": round(time.process_time() - cpu, 2),
        "reused": reused,
    }


def state(demo: Demo, job: Job) -> State:
    """Return what there is of a job.

    Raises:
        RunExists: If its folder holds something built otherwise.
        ValueError: If a finished stage has lost its model.
    """
    found = look(*_place(demo, job))
    if found == "done" and job.kind == "train" and not demo.model(job.stage, job.seed).is_dir():
        folder = demo.folder(job.stage, job.seed)
        raise ValueError(f"{folder} was finished and has no model any more; delete it, and it is built again")
    return found


def evaluation(demo: Demo, stage: str, seed: int, control: str = "") -> Path:
    """Return the folder of a model's evaluation."""
    name = stage if stage == "base" else f"{stage}{seed}"
    return demo.out / "eval" / (f"{name}-{control}" if control else name)


def evaluations(demo: Demo) -> Iterator[tuple[str, list[Path]]]:
    """Yield every stage, and every control of "grpo", with the folders of its models' evaluations."""
    first = demo.seeds[0]
    for stage in demo.stages():
        seeds = demo.seeds if stage in ("sft", "grpo") else (first,)
        yield stage, [evaluation(demo, stage, seed) for seed in seeds]
    for control in CONTROLS:
        yield control, [evaluation(demo, "grpo", first, control)]


def _train(demo: Demo, job: Job, tell: Tell) -> bool:
    from steer_env.algorithms import recipes

    config = replace(demo.config, seed=job.seed)
    previous = BEFORE[job.stage]
    before = demo.model(previous, job.seed) if previous else None

    def build(folder: Path, resume: bool) -> None:
        progress = lambda done, total, row: tell("progress", (done, total, note(row)))  # noqa: E731
        recipes.build(config, job.stage, folder, before=before, resume=resume, progress=progress)

    folder, settings, key = _place(demo, job)
    return build_stage(folder, settings, build, key).reused


def _evaluate(demo: Demo, job: Job, tell: Tell) -> bool:
    from steer_env.cli.common import open_student
    from steer_env.play.evaluate import evaluate

    folder, settings, key = _place(demo, job)
    source = WorldSource(split=SPLIT)
    scenarios = [source.scenario(index) for index in range(demo.episodes)]  # whole groups, one by one
    name = job.stage if job.stage == "base" else f"{job.stage} {job.seed}"

    def play(target: Path, resume: bool) -> None:
        longest = demo.config.grpo.max_new_tokens
        model = str(demo.model(job.stage, job.seed))
        student = open_student(model, temperature=0.0, seed=0, max_new_tokens=longest)
        if job.control:
            student = controlled(job.control, student, scenarios, CONSTANT)
        evaluate(
            steer_env.make_vec(ENV, min(TOGETHER, demo.episodes), split=SPLIT),
            steer_env.make_attacker(ENV),
            student,
            range(demo.episodes),
            target,
            resume=True,
            scenarios=scenarios,
            meta={**_PLAYED, "student": name},
            progress=lambda done, total, *_: tell("progress", (done, total, "")),
            unscored_limit=1.0,  # a base that babbles is a result, too
        )

    return build_stage(folder, settings, play, key).reused


def _place(demo: Demo, job: Job) -> tuple[Path, dict[str, Any], str]:
    """Return a job's folder, its settings, and the key of what it builds on."""
    if job.kind == "evaluate":
        settings = {**_PLAYED, "episodes": demo.episodes} | ({"control": job.control} if job.control else {})
        folder = evaluation(demo, job.stage, job.seed, job.control)
        return folder, settings, demo.key(job.stage, job.seed)
    before = BEFORE[job.stage]
    key = demo.key(before, job.seed) if before else ""
    return demo.folder(job.stage, job.seed), demo.settings(job.stage, job.seed), key


def summary(times: Mapping[str, Mapping[str, Any]]) -> str:
    """Say in one line what took how long."""
    kinds: dict[str, list[float]] = {}
    for name, body in times.items():
        if not body["reused"]:
            kinds.setdefault(" ".join(name.split()[:2]), []).append(body["cpu"])
    parts = [f"{kind} {sum(cpu) / len(cpu):.0f} s x {len(cpu)}" for kind, cpu in kinds.items()]
    return "CPU seconds: " + ", ".join(parts) if parts else "everything was there already"
