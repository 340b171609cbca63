"""`steer-env demo`: the whole method on a tiny model, offline, on two CPU cores."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import steer_env
from steer_env.cli.common import command, natural, open_student, positive
from steer_env.cli.evaluate import plot
from steer_env.cli.progress import Bar, show_table
from steer_env.cli.stages import Built, build_stage
from steer_env.cli.train import note
from steer_env.evaluation import scales
from steer_env.evaluation.evaluate import DIALOGUES, load_rows
from steer_env.records import Row, read_jsonl
from steer_env.render import visible

_EXAMPLE = """  steer-env demo
  steer-env demo --out runs/demo --episodes 300"""

_DESCRIPTION = """Build a tiny multimodal model and train it, offline, in minutes: (1) a helpful-only base
that leaks, (2) supervised fine-tuning on bootstrapped safe dialogues, (3) GRPO against an adaptive tutor with
TCSR as return. Each is then evaluated on held-out dialogues. A second run reuses what is built; after Ctrl-C
the next run goes on."""

ENV = "SteerEscalation-v0"
#: Stage -> its name in the table.
STAGES = {"base": "base", "sft": "+ bootstrapping SFT", "grpo": "+ GRPO (TCSR)"}


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "demo", "the whole method on a tiny model", _EXAMPLE, run, _DESCRIPTION)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="run folder (default: runs/demo)")
    parser.add_argument("--seed", type=natural, default=0, help="decides everything (default: 0)")
    parser.add_argument(
        "--episodes", type=positive, default=200, help="dialogues per evaluation (default: 200)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few steps each: shows that it runs, trains nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Build the three stages, evaluate them, print the results."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    from steer_env.algorithms import recipes

    # Float sums depend on the number of threads, and with them what is sampled and learnt: with one, the same
    # seed gives the same demo whatever the number of cores.
    torch.set_num_threads(1)
    started = time.monotonic()
    config = recipes.DemoConfig.quick(args.seed) if args.quick else recipes.DemoConfig(seed=args.seed)
    built = train_stages(args.out, config)
    summaries, evaluations = {}, {}
    for name, stage in built.items():
        folder = args.out / "eval" / name
        summaries[STAGES[name]] = _evaluate(stage, folder, args.episodes, name)
        evaluations[name] = folder
    print()
    show_table(summaries, f"{ENV}, held-out dialogues, adaptive tutor, seed {args.seed}")
    print(learning(read_jsonl(args.out / "grpo" / "metrics.jsonl")))
    drawn = plot(summaries, args.out / "survival.png", "Dialogues without failure, by turn")
    print(excerpts(load_rows(evaluations["base"]), load_rows(evaluations["grpo"])))
    _where(args.out, drawn, evaluations)
    print(f"\ndone in {time.monotonic() - started:.0f} s")
    return 0


def train_stages(out: Path, config: Any) -> dict[str, Built]:
    """Build base, SFT and GRPO students below `out`, or reuse what is there.

    Every stage folder holds the model (an ordinary Hugging Face folder) in `model`.
    """
    from steer_env.algorithms import recipes

    built: dict[str, Built] = {}
    before = ""
    for name in STAGES:

        def build(folder: Path, resume: bool, name: str = name) -> None:
            start = out / _previous(name) / "model" if built else None
            with Bar(f"stage {name}") as bar:
                tell = lambda done, total, row: bar.update(done, total, note(row))  # noqa: E731
                recipes.build(config, name, folder, before=start, resume=resume, progress=tell)

        built[name] = build_stage(out / name, recipes.stage_settings(config, name), build, before)
        if built[name].reused:
            print(f"stage {name}: reused from {built[name].folder}")
        before = built[name].key
    return built


def _previous(name: str) -> str:
    names = list(STAGES)
    return names[names.index(name) - 1]


def _evaluate(stage: Built, folder: Path, episodes: int, name: str) -> Any:
    from steer_env.evaluation.evaluate import evaluate

    result: dict[str, Any] = {}
    settings = {"env": ENV, "split": "bench", "temperature": 0.0}

    def play(target: Path, resume: bool) -> None:
        student = open_student(str(stage.folder / "model"), temperature=0.0, seed=0)
        vec = steer_env.make_vec(ENV, min(64, episodes), split="bench")
        with Bar(f"evaluate {name}", episodes) as bar:
            result["summary"] = evaluate(
                vec,
                steer_env.make_attacker(ENV),
                student,
                range(episodes),
                target,
                resume=True,
                meta={**settings, "student": name},
                progress=bar.update,
                unscored_limit=1.0,  # a base that babbles is a result, too
            )

    built = build_stage(folder, {**settings, "episodes": episodes}, play, stage.key)
    if built.reused:
        from steer_env.evaluation.report import summarise

        result["summary"] = summarise(load_rows(folder))
    return result["summary"]


def learning(rows: Iterable[Row]) -> str:
    """Say how GRPO's reward moved: the first and the last tenth of its steps."""
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
    return f"\nGRPO, first tenth -> last tenth of {len(steps)} steps: " + ", ".join(parts)


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


def _where(out: Path, plot: str, evaluations: Mapping[str, Path]) -> None:
    print(f"\nsurvival plot:  {plot}")
    for name, folder in evaluations.items():
        print(f"trajectories:   {folder / DIALOGUES} ({name})")
    print(f"training log:   {out / 'grpo' / 'metrics.jsonl'}")
    print(
        "\nThe same with a real model (needs a GPU and its weights on this machine):\n"
        "  steer-env evaluate path/to/Qwen2.5-VL-3B-Instruct --max-new-tokens 512 --out runs/base-3b\n"
        "  steer-env train --student path/to/Qwen2.5-VL-3B-Instruct --lr 1e-6 \\\n"
        "      --max-new-tokens 512 --microbatch-size 2 --out runs/grpo-3b\n"
        "  steer-env evaluate runs/grpo-3b --max-new-tokens 512 --out runs/grpo-3b-eval\n"
        "and with your own pictures and dialogues:\n"
        "  steer-env scenarios validate my.jsonl\n"
        f"  steer-env evaluate {out / 'grpo'} --scenarios my.jsonl\n"
        f"  steer-env play --as attacker --student {out / 'grpo'}"
    )
