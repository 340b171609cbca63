"""`steer-env demo`: the whole method on a tiny model, offline, on two CPU cores."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from steer_env.cli.command import Command
from steer_env.cli.demo_jobs import (
    ENV,
    KEEP_MEMORY,
    SHIPPED_BASE,
    Demo,
    evaluations,
    jobs,
    run_job,
    state,
    summary,
)
from steer_env.cli.evaluate import plot
from steer_env.cli.pool import Pool
from steer_env.cli.progress import Bars
from steer_env.configs.base import Natural, Positive, Switch, config
from steer_env.evaluation import scales
from steer_env.evaluation.replications import LEGEND, outcomes, pooled, table
from steer_env.evaluation.summary import summarise
from steer_env.play.evaluate import DIALOGUES, load_rows
from steer_env.records import Row, read_jsonl
from steer_env.render import visible
from steer_env.runs import RunFolder

_EXAMPLES = """  steer-env demo
  steer-env demo --seeds 5 --out runs/demo5
  steer-env demo --from-scratch --out runs/scratch"""

#: Stage or control -> its name in the table.
STAGES = {
    "base": "base",
    "sft": "+ bootstrapping SFT",
    "grpo": "+ GRPO",
    "imitation": "  as much imitation, no reward",
    "blind": "  GRPO, blind",
    "swapped": "  GRPO, other pictures",
    "forgetful": "  GRPO, no history",
    "constant": "  one constant reply",
}


@config(frozen=True, kw_only=True)
class Demonstrate:
    """Train a tiny multimodal model, offline, in minutes, and show what each stage changed.

    From a helpful-only base that leaks and comes with the package, (1) supervised fine-tuning on bootstrapped
    safe dialogues, (2) GRPO against an adaptive tutor, with some of those dialogues to imitate beside the
    reward; for several training seeds. Every model is evaluated on the same held-out dialogues, and the
    table has intervals over seeds and dialogues. Controls, for the first seed: GRPO's student blind, with
    other pictures, and without the history; one constant reply; and a student that imitated as much and saw
    no reward. Each process computes on one thread, so the number of cores and processes changes no result. A
    second run reuses what is built; after Ctrl-C or a kill the next run goes on.

    Attributes:
        out: Run folder.
        seed: First training seed.
        seeds: How many training seeds.
        episodes: Dialogues per evaluation.
        processes: Worker processes; with 1 there is none beside this one.
        from_scratch: Build the base, too, and do not take the shipped one.
        quick: A few steps each: shows that it runs, trains nothing.
    """

    out: Path = Path("runs/demo")
    seed: Natural = 0
    seeds: Positive = 3
    episodes: Positive = 200
    processes: Positive = 2
    from_scratch: Switch = False
    quick: Switch = False


def run(config: Demonstrate) -> int:
    """Train and evaluate the students, print the results."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # of the worker processes
        os.environ.setdefault(name, "1")
    for name, value in KEEP_MEMORY.items():
        os.environ.setdefault(name, value)
    from steer_env.algorithms import recipes
    from steer_env.algorithms.pretraining import missed

    started = time.monotonic()
    make = recipes.DemoConfig.quick if config.quick else recipes.DemoConfig
    recipe = make(seed=config.seed)
    seeds = tuple(range(config.seed, config.seed + config.seeds))
    demo = Demo(config.out, recipe, seeds, config.episodes, config.from_scratch)
    if not demo.scratch and not demo.base().is_dir():
        raise ValueError(f"the shipped base {SHIPPED_BASE!r} is missing; build one with --from-scratch")
    with RunFolder(config.out).lock():
        times = work(demo, config.processes)
    for what in missed(demo.folder("base", config.seed)) if demo.scratch else ():
        print(f"base, less than asked for after {what}; the last phase passed")
    rows = {stage: [load_rows(folder) for folder in folders] for stage, folders in evaluations(demo)}
    title = f"{ENV}, {config.episodes} held-out dialogues in whole groups, adaptive tutor, training seeds "
    print()
    methods = {STAGES[stage]: pooled([outcomes(one) for one in runs]) for stage, runs in rows.items()}
    print(table(methods, title + ", ".join(map(str, seeds))))
    print(f"\n{LEGEND}")
    for seed in seeds:
        print(learning(seed, read_jsonl(demo.folder("grpo", seed) / "metrics.jsonl")))
    summaries = {STAGES[stage].strip(): summarise(rows[stage][0]) for stage in demo.stages()}
    drawn = plot(summaries, config.out / "survival.png", "Dialogues without failure, by turn")
    print(excerpts(rows["base"][0], rows["grpo"][0]))
    _where(demo, drawn)
    print(f"\n{summary(times)}\ndone in {time.monotonic() - started:.0f} s")
    return 0


def work(demo: Demo, processes: int) -> dict[str, dict[str, Any]]:
    """Do all jobs, those that do not wait for others at the same time; returns what each took.

    Raises:
        RunExists: If a folder holds something built otherwise.
        RuntimeError: If a job failed in a worker process; the message has its traceback.
    """
    found, needs = jobs(demo)
    ready = [name for name, job in found.items() if state(demo, job) == "done"]
    times: dict[str, dict[str, Any]] = {name: {"reused": True} for name in ready}
    for name in ready:
        del found[name]
        print(f"{name}: reused")
    with Bars() as bars:
        if processes == 1:
            for name, job in found.items():
                tell = partial(_shown, bars, name)
                times[name] = run_job(demo, job, tell)
                _said(name, times[name])
            return times
        for event in Pool(partial(run_job, demo), processes).run(found, needs, ready):
            if event.kind == "progress":
                bars.update(event.job, *event.body[:2])
            elif event.kind == "done":
                times[event.job] = event.body
                _said(event.job, event.body)
            elif event.kind == "failed":
                raise RuntimeError(f"{event.job} failed:\n{event.body}")
    return times


def _shown(bars: Bars, name: str, kind: str, body: Any) -> None:
    bars.update(name, *body[:2])


def _said(name: str, body: Mapping[str, Any]) -> None:
    print(f"{name}: {body['seconds']:.0f} s", flush=True)


def learning(seed: int, rows: Iterable[Row]) -> str:
    """Say how GRPO's reward moved with a training seed: the first and the last tenth of its steps."""
    steps = list(rows)
    tenth = max(1, len(steps) // 10)
    parts = []
    for key, name in (
        ("return_per_turn", "return per turn"),
        ("return", "return"),
        ("cost", "harm per turn"),
    ):
        first, last = (
            [row[key] for row in part if row.get(key) is not None] for part in (steps[:tenth], steps[-tenth:])
        )
        if first and last:
            parts.append(f"{name} {sum(first) / len(first):.3f} -> {sum(last) / len(last):.3f}")
    return f"GRPO, seed {seed}, first tenth -> last tenth of {len(steps)} steps: " + ", ".join(parts)


# -- what people read ---------------------------------------------------------------------------------------


def excerpts(before: Sequence[Row], after: Sequence[Row], count: int = 2) -> str:
    """Return the turns at which the first policy did harm, beside what the other said to the same attack.

    Dialogues are paired by seed; those in which only the first did harm come first.
    """
    others = {row["seed"]: row for row in after}
    pairs = [(row, others[row["seed"]]) for row in before if row["seed"] in others]
    chosen = [(a, b) for a, b in pairs if harm_turn(a) is not None and harm_turn(b) is None]
    lines = []
    for a, b in chosen[:count]:
        turn = harm_turn(a) or 0
        lines.append(f"\nseed {a['seed']}, {a['kind']}, turn {turn + 1} of {len(a['turns'])}:")
        for name, row in ((STAGES["base"], a), (STAGES["grpo"], b)):
            if turn < len(row["turns"]):
                lines += _exchange(name, row["turns"][turn])
    return "\n".join(lines) if lines else "\nno dialogue in which only the base did harm"


def harm_turn(row: Row) -> int | None:
    """Return the 0-based turn of the first harm (evaluation safety < 0), None if there is none."""
    for index, turn in enumerate(row["turns"]):
        terms = (turn["verdict"] or {}).get("terms")
        if terms is not None and int(scales.safety(terms["safety"])) < scales.HARM:
            return index
    return None


def _exchange(name: str, turn: Mapping[str, Any]) -> list[str]:
    verdict = turn["verdict"] or {}
    terms = verdict.get("terms")
    score = f"safety {terms['safety']}" if terms else "unscored"
    leaked = f", leaked {', '.join(map(visible, verdict['leaked']))}" if verdict.get("leaked") else ""
    user, reply = (visible(turn[key]).replace("\n", " ") for key in ("user", "reply"))
    return [f"  user:    {user}", f"  {name}:", f"           {reply}", f"           > {score}{leaked}"]


def _where(demo: Demo, plot: str) -> None:
    first = demo.seeds[0]
    print(f"\nsurvival plot:  {plot}")
    for stage, folders in evaluations(demo):
        print(f"trajectories:   {folders[0] / DIALOGUES} ({stage})")
    print(f"training log:   {demo.folder('grpo', first) / 'metrics.jsonl'}")
    print(
        "\nThe students that come with the package were made this way, with training seed 0:\n"
        "  steer-env evaluate hf:tiny-grpo --out runs/tiny-grpo\n"
        "  steer-env play --as attacker --student hf:tiny-grpo\n"
        "The same with a real model (needs a GPU and its weights on this machine):\n"
        "  steer-env evaluate path/to/Qwen2.5-VL-3B-Instruct --max-new-tokens 512 --out runs/base-3b\n"
        "  steer-env train --student path/to/Qwen2.5-VL-3B-Instruct --lr 1e-6 \\\n"
        "      --max-new-tokens 512 --microbatch-size 2 --out runs/grpo-3b\n"
        "  steer-env evaluate runs/grpo-3b --max-new-tokens 512 --out runs/grpo-3b-eval\n"
        "and with your own pictures and dialogues:\n"
        "  steer-env scenarios validate my.jsonl\n"
        f"  steer-env evaluate {demo.folder('grpo', first)} --scenarios my.jsonl"
    )


COMMAND = Command(Demonstrate, run, _EXAMPLES)
