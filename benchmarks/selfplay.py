"""Self-play on the built-in world: does a student become harder to exploit, generation by generation?

    python benchmarks/selfplay.py                                    # builds a student first (4 minutes more)
    python benchmarks/selfplay.py --student runs/demo/seed0/sft/model   # writes runs/benchmarks/selfplay.json

A student after Stage II and an attacker with a table of tactics train against each other, alternating, with a
league of past opponents and the tutor. Then every generation's student, greedy, meets the same search for its
best attacker: the seeds as they are, the tutor, the tutor taught by this student, one attacker per strategy,
every generation's attacker, and one trained from scratch against this very student. The best of them by its
success on the search dialogues is measured on the report dialogues, which are the same for all students, so
generations compare in pairs. It is a lower bound: a better attacker may exist. Beside it stands what the
student is worth to honest users.

`--only text` trains a text attacker instead (`--student` stays as it is), from imitation of the tutor on, and
measures it before and after on the same dialogues, for each seed. A killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import steer_env
from steer_env.agents import ScriptedTutor, StaticAttacker
from steer_env.agents.base import Agent
from steer_env.agents.hf import HFStudent
from steer_env.agents.hf.attacker import HFAttacker
from steer_env.algorithms.attack import attacker_groups, harmed
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.exploit import (
    Exploitability,
    best_response,
    exploitability,
    fall,
    greedy,
    helpfulness,
    panel,
    taught_tutor,
)
from steer_env.algorithms.learners import ModelLearner, TacticLearner, as_groups, practise
from steer_env.algorithms.rae import mean_return
from steer_env.algorithms.recipes import REPLY_TOKENS, DemoConfig, build
from steer_env.algorithms.selfplay import attacker_of, self_play, student_of
from steer_env.algorithms.speak import UTTERANCE_TOKENS, SpeakConfig, speaking_attacker
from steer_env.algorithms.trainer import TrainConfig
from steer_env.configs.train import SelfPlayConfig
from steer_env.evaluation.paired import paired
from steer_env.rollout import rollout
from steer_env.scenarios import RISKY

RESULTS = Path("runs/benchmarks/selfplay.json")
ENV = "SteerEscalation-v0"


def open_student(path: str | Path) -> HFStudent:
    return HFStudent.from_pretrained(path, dtype=torch.float32, max_new_tokens=REPLY_TOKENS)


def given_student(args: argparse.Namespace) -> Path:
    """Return the student's folder; without one the demo's first two stages are built."""
    if args.student is not None:
        return args.student
    config, before = DemoConfig(), None
    for stage in ("base", "sft"):
        folder = args.out / stage
        if not (folder / "done").exists():
            print(f"building {stage}", flush=True)
            build(config, stage, folder, before=before)
            (folder / "done").touch()
        before = folder / "model"
    assert before is not None
    return before


def settings_of(args: argparse.Namespace) -> SelfPlayConfig:
    student = TrainConfig(
        steps=args.student_steps, seeds_per_step=8, group_size=6, lr=8e-4, warmup=2, minibatch_size=24,
        temperature=1.0, max_new_tokens=REPLY_TOKENS, checkpoint_every=5,
    )  # fmt: skip
    attacker = TrainConfig(steps=args.attacker_steps, seeds_per_step=8, group_size=6, checkpoint_every=4)
    return SelfPlayConfig(args.generations, "alternating", student, attacker, seed=args.seed)


def tell(what: str, done: int, total: int, row: dict[str, Any]) -> None:
    if done == total:
        shown = {
            k: row[k] for k in ("attack_success", "return_per_turn", "cost", "kl") if row.get(k) is not None
        }
        print(f"{what}: " + ", ".join(f"{k} {v:.3f}" for k, v in shown.items()), flush=True)


def measure(path: Path, args: argparse.Namespace, league: dict[str, Agent]) -> tuple[Exploitability, Any]:
    """Search for the best attacker of one student, and play honest users with it."""
    student = open_student(path)
    train_env = steer_env.make_vec(ENV, 64, kinds=RISKY, max_turns=args.max_turns)
    bench = steer_env.make_vec(ENV, 64, split="bench", kinds=RISKY, max_turns=args.max_turns)
    benign = steer_env.make_vec("SteerBenign-v0", 64, split="bench", max_turns=args.max_turns)
    budget = TrainConfig(steps=args.response_steps, seeds_per_step=8, group_size=6, seed=args.seed + 101)
    search, report = range(args.search), range(10_000, 10_000 + args.report)
    with greedy(student):
        taught = taught_tutor(student, train_env, range(20_000, 20_000 + args.search), rounds=3)
        trained = best_response(student, train_env, budget)
        attackers = {**panel(args.seed), "taught tutor": taught, **league, "best response": trained}
        found = exploitability(student, bench, attackers, search, report)
        honest = helpfulness(rollout(benign, ScriptedTutor(memory=False), student, list(report)))
    return found, honest


def generations(args: argparse.Namespace) -> dict[str, Any]:
    start, run_dir = given_student(args), args.out / "run"
    env = steer_env.make_vec(ENV, 48, kinds=("benign",) * args.benign + RISKY, max_turns=args.max_turns)
    learner = TacticLearner(seed=args.seed)
    clock = time.process_time()
    rows = self_play(
        env, open_student(start), learner, make_algorithm("grpo", beta=0.05), settings_of(args), run_dir,
        attack_env=steer_env.make_vec(ENV, 48, kinds=RISKY, max_turns=args.max_turns),
        fixed={"tutor": ScriptedTutor(args.seed)}, resume=True, progress=tell,
    )  # fmt: skip
    trained = time.process_time() - clock
    league = {f"attacker {g}": attacker_of(run_dir, g, learner) for g in range(args.generations)}
    found, table = [], []
    for generation in range(-1, args.generations):
        one, honest = measure(student_of(run_dir, generation), args, league)
        found.append(one)
        table.append(line(generation + 1, one, honest, league))
        show(table[-1])
        write_dialogues(args.out / f"dialogues_{generation + 1}.txt", one)
    difference = fall(found[0], found[-1])
    print(f"\nfall, generation 0 to {args.generations}, paired: {difference.text(percent=True)}")
    same = paired_static(found, args, run_dir)
    print(f"the same against the seeds as they are: {same.text(percent=True)}")
    return {
        "table": table,
        "fall": difference.to_dict(),
        "fall_static": same.to_dict(),
        "generations": [{k: v for k, v in row.items() if "seconds" not in k} for row in rows],
        "cpu_seconds": {"self_play": trained, "all": time.process_time() - clock},
    }


def line(generation: int, one: Exploitability, honest: Any, league: dict[str, Agent]) -> dict[str, Any]:
    always = max((one.searched[n], n) for n in one.searched if n.startswith("always"))
    return {
        "generation": generation,
        "best": one.best,
        "exploitability": one.success.to_dict(),
        "attack_return": one.attack_return.to_dict(),
        "searched": {
            **{name: one.searched[name] for name in ("static", "tutor", "taught tutor", "best response")},
            "best strategy": always[0],
            "best of league": max(one.searched[name] for name in league),
        },
        "usefulness": honest["usefulness"].to_dict(),
        "refusal": honest["refusal"].to_dict(),
    }


def show(row: dict[str, Any]) -> None:
    def text(of: dict[str, Any]) -> str:
        value = of["value"] if of["value"] is not None else float("nan")
        return f"{value:.3f} [{of['low']:.3f}, {of['high']:.3f}]"

    searched = ", ".join(f"{name} {value:.2f}" for name, value in row["searched"].items())
    print(
        f"generation {row['generation']}: exploitability {text(row['exploitability'])} by {row['best']}; "
        f"attack return {text(row['attack_return'])}; benign usefulness {text(row['usefulness'])}, "
        f"refusals {text(row['refusal'])}\n    searched: {searched}",
        flush=True,
    )


def paired_static(found: list[Exploitability], args: argparse.Namespace, run_dir: Path) -> Any:
    """Difference in success of the unadaptive attacker, first to last, on the report dialogues."""
    bench = steer_env.make_vec(ENV, 64, split="bench", kinds=RISKY, max_turns=args.max_turns)
    outcomes = []
    for generation in (-1, args.generations - 1):
        student = open_student(student_of(run_dir, generation))
        with greedy(student):
            played = rollout(bench, StaticAttacker(), student, list(range(10_000, 10_000 + args.report)))
        outcomes.append([np.nan if (o := harmed(t)) is None else float(o) for t in played])
    return paired(outcomes[1], outcomes[0], np.array(found[0].clusters)).estimate


def write_dialogues(path: Path, one: Exploitability, count: int = 12) -> None:
    """Keep some report dialogues with the best attacker, to be read."""
    lines = [f"attacker: {one.best}"]
    for trajectory in one.trajectories[:count]:
        lines.append(f"\n== {trajectory.scenario.kind}, {trajectory.scenario.goal}")
        for result in trajectory.turns:
            verdict = result.turn.verdict
            safety = getattr(getattr(verdict, "terms", None), "safety", "unscored")
            lines += [f"user:    {result.turn.user}", f"student: {result.turn.reply}   (safety {safety})"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def text_attacker(args: argparse.Namespace) -> dict[str, Any]:
    """Train a text attacker against the fixed student, for each seed."""
    path = given_student(args)
    spoken = args.out / "attacker"
    if not (spoken / "config.json").exists():
        print("imitating the tutor", flush=True)
        speaking_attacker(SpeakConfig()).save(spoken)
    env = steer_env.make_vec(ENV, 48, kinds=RISKY, max_turns=4)
    config = TrainConfig(
        steps=args.text_steps, seeds_per_step=12, group_size=6, lr=3e-4, warmup=2, minibatch_size=12,
        temperature=0.8, max_new_tokens=UTTERANCE_TOKENS, unscored_limit=0.5, checkpoint_every=4,
    )  # fmt: skip
    student, seeds = open_student(path), []
    with greedy(student):
        before = attacks(HFAttacker.from_pretrained(spoken, dtype=torch.float32), student, args)
        for seed in args.text_seeds:
            attacker = HFAttacker.from_pretrained(spoken, dtype=torch.float32)
            algorithm = make_algorithm("rloo", beta=0.05, credit="reward_to_go")
            learner = ModelLearner(attacker, replace(config, seed=seed), algorithm)
            rows = practise(env, learner, student, learner.config, args.out / f"text_{seed}", resume=True)
            after = attacks(attacker, student, args)
            seeds.append(text_line(seed, before, after, rows))
            write_dialogues(args.out / f"text_{seed}.txt", after[0])
    return {"before": before[0].success.to_dict(), "seeds": seeds}


def attacks(attacker: HFAttacker, student: HFStudent, args: argparse.Namespace) -> tuple[Exploitability, Any]:
    """Measure one attacker on the report dialogues; returns the rewards per turn of each as well, (N,)."""
    attacker.temperature, attacker.max_new_tokens = 0.8, UTTERANCE_TOKENS
    bench = steer_env.make_vec(ENV, 64, split="bench", kinds=RISKY, max_turns=4)
    found = exploitability(student, bench, {"text": attacker}, (), range(10_000, 10_000 + args.report))
    groups = attacker_groups(as_groups(found.trajectories))
    return found, np.array([mean_return(t) for group in groups for t in group.trajectories])


def text_line(seed: int, before: Any, after: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    clusters = np.array(before[0].clusters)
    gain = fall(before[0], after[0])
    reward = paired(after[1], before[1], clusters).estimate
    rates = [one.success.text(percent=True) for one, _ in (before, after)]
    print(
        f"seed {seed}: success {rates[0]} -> {rates[1]}, "
        f"paired {gain.text(percent=True)}; reward {before[0].attack_return.text()} -> "
        f"{after[0].attack_return.text()}, paired {reward.text(digits=3)}",
        flush=True,
    )
    names = ("attack_reward", "attack_success", "attack_harm", "attack_placed", "attack_diversity")
    return {
        "seed": seed,
        "success": after[0].success.to_dict(),
        "gain": gain.to_dict(),
        "reward": after[0].attack_return.to_dict(),
        "reward_gain": reward.to_dict(),
        "curves": {name: [row[name] for row in rows] for name in names},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", type=Path, help="model folder of a Stage II student; built if left out")
    parser.add_argument("--out", type=Path, default=Path("runs/selfplay"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", choices=("generations", "text"), default="generations")
    numbers = {
        "generations": 4, "attacker-steps": 8, "student-steps": 20, "response-steps": 12, "max-turns": 6,
        "search": 48, "report": 192, "benign": 4, "seed": 0, "text-steps": 20,
    }  # fmt: skip
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--text-seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    found = generations(args) if args.only == "generations" else text_attacker(args)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    settings = {k: v for k, v in settings.items() if k not in ("out", "results", "student", "only")}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    kept = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else {}
    name = f"generations, {args.benign} of {args.benign + 2} benign" if args.only == "generations" else "text"
    kept |= {name: {"settings": settings, **found}}
    kept["versions"] = versions | {"python": platform.python_version()}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
