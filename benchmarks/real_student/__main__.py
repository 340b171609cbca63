"""A pretrained language model learns to see the built-in world, then takes Stages II and III: what came out.

    make real
    python -m benchmarks.real_student              # goes on where it stopped, until the core hours are spent
    python -m benchmarks.real_student --only-table

The student is `models/smollm2-vl`: SmolLM2-135M inside the paper's model class, Qwen2.5-VL, behind a vision
tower with random weights. First the tower and its projector alone learn to write captions in the frozen
model's words (`words`), until held-out pictures are told (gate); from then on they are frozen. Then a
helpful-only base, Stage II and Stage III (`stages`) on the demo's dialogues, at rates for a pretrained model.
Stages are evaluated on the same dialogues of two or three turns, with their controls: a result counts if
the blind and the forgetful do worse.

`results/result.json` says what is finished, how many core seconds each part took, what was seen at every
look and what its gate missed, and which gate stopped it, if one did; `results/dialogues.md` has dialogues
to read.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.real_student.stages import cold_start, tutored
from benchmarks.real_student.words import THINGS, WORDS, learn_words
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.grpo import GRPOConfig
from steer_env.algorithms.pretraining import GATES, GateFailed, frozen_vision, pretrain
from steer_env.algorithms.recipe_data import base_data
from steer_env.algorithms.recipes import DemoConfig, build
from steer_env.cli.main import main as steer_env
from steer_env.configs.sft import Gate, Phase, SFTConfig
from steer_env.files import write_json
from steer_env.records import read_jsonl

RESULTS = Path(__file__).parent / "results"
SEE = SFTConfig(steps=400, batch_size=64, optimizer="muon", lr=2e-3, muon_lr=2e-2, warmup=20, final_lr=0.05)
SEEN = Gate(noun=0.9, colour=0.95, mark=0.95, place=0.95, count=96)
SHORT = Phase(
    "short",
    SFTConfig(steps=24, batch_size=4, lr=1e-4, warmup=5),
    Gate("describe", noun=0.6, colour=0.9, mark=0.9, place=0.5, count=48),
    extensions=2,
)
CONFIG = DemoConfig(
    base=(SHORT,),
    sft=SFTConfig(steps=40, batch_size=4, lr=1e-4, warmup=5),
    sft_dialogues=240,
    sft_pairs=0,
    sft_turns=3,
    sft_taken_back=False,
    sft_keeps_tell=False,
    grpo=GRPOConfig(
        steps=24,
        seeds_per_step=4,
        group_size=4,
        lr=3e-4,
        credit="own_turn",
        scale=True,
        beta=0.0,
        max_new_tokens=44,
        checkpoint_every=1,
        unscored_limit=1.0,
    ),
    grpo_turns=3,
    # With all members alike it learns in these steps to refuse something in every harmless dialogue.
    grpo_shares=(1.0, 1.0, 1.0, 3.0),
    grpo_imitation=0.0,
)
#: Stage II goes on with adapters, other dialogues and ten times the rate: after 40 steps of all weights the
#: student spoke and saw, but a dialogue in which every answer was right was rarer than one in 24.
MORE = replace(
    CONFIG,
    seed=1,
    sft=SFTConfig(steps=48, batch_size=4, lr=1e-3, warmup=5, final_lr=0.1),
    sft_dialogues=400,
)
#: Core seconds of Stage III.
TUTORED = 1800.0
#: Most turns of the dialogues that are evaluated.
TURNS = 3
#: Dialogues of each evaluation in `dialogues.md`: whole contrast groups.
SHOWN = 12
MEASURES = (
    "twin_pass",
    "multi_turn_joint",
    "multi_turn_safety",
    "multi_turn_helpfulness",
    "harm_rate",
    "leak_rate",
)


class Spent(RuntimeError):
    """The core hours are spent."""


class Clock:
    """Core seconds of every part, kept over restarts; raises `Spent` when they pass the limit."""

    def __init__(self, spent: dict[str, float], limit: float, write: Callable[[], None]) -> None:
        self.spent, self.limit, self.write = spent, limit, write
        self.part, self._last = "start", time.process_time()
        self._written = self._last

    def __call__(self, *_: Any) -> None:
        """Add what was spent since; takes and ignores what a progress callback is told."""
        now = time.process_time()
        self.spent[self.part] = self.spent.get(self.part, 0.0) + now - self._last
        self._last = now
        if now - self._written > 60:  # so that a restart knows of it
            self._written = now
            self.write()
        if sum(self.spent.values()) > self.limit:
            raise Spent(f"{self.limit / 3600:g} core hours are spent")

    def of(self, part: str) -> Clock:
        """Count for another part from here on."""
        self()
        self.part = part
        return self


def run(
    model: Path, out: Path, results: Path, config: DemoConfig, *, hours: float, episodes: int
) -> dict[str, Any]:
    """Do what is missing; returns the result, which is also written."""
    place = results / "result.json"
    before = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    result: dict[str, Any] = {
        "student": model.name,
        "core_seconds": before.get("core_seconds", {}),
        "ended": "",
    }

    def written(ended: str) -> None:
        result["ended"] = ended
        result["seen"] = _seen(out)
        result["runs"] = {name: _numbers(out / "eval" / name) for name in ("base", "sft", "grpo")}
        results.mkdir(parents=True, exist_ok=True)
        write_json(place, result)
        (results / "dialogues.md").write_text(_dialogues(out), encoding="utf-8")

    clock = Clock(result["core_seconds"], hours * 3600, lambda: written("under way"))
    try:
        folders = {"base": _base(model, out, config, clock)}
        written("base is there")
        first = out / "sft" / "model"
        if not first.exists():
            clock.of("sft")
            build(config, "sft", out / "sft", before=folders["base"], resume=True, progress=clock)
        folders["sft"] = out / "more" / "model"
        if not folders["sft"].exists():
            clock.of("more")
            cold_start(first, out / "more", MORE, clock)
        # What matters most first: the hours may end before everything is evaluated.
        for name in ("sft", "base"):
            _evaluate(name, folders[name], out, episodes, clock)
            written(f"{name} is evaluated")
        _evaluate("sft", folders["sft"], out, episodes, clock, "--controls")
        written("Stage II is evaluated with its controls")
        folders["grpo"] = out / "grpo" / "model"
        if not folders["grpo"].exists():
            clock.of("grpo")
            tutored(folders["sft"], out / "grpo", config, TUTORED, clock)
        _evaluate("grpo", folders["grpo"], out, episodes, clock, "--controls")
        written("finished")
    except (Spent, GateFailed) as stopped:
        written(str(stopped))
    return result


def _base(model: Path, out: Path, config: DemoConfig, clock: Clock) -> Path:
    """Train the tower, then the base; returns its folder."""
    folder = out / "base" / "model"
    if folder.exists():
        return folder

    def data(name: str, count: int, extension: int) -> Any:
        return base_data(name, count, config.seed + 1000 * extension)

    student = HFStudent.from_pretrained(model, dtype=torch.float32)
    clock.of("see")
    for parameter in student.model.parameters():
        parameter.requires_grad_(False)
    with frozen_vision(student, False):
        learn_words(student, SEE, SEEN, out / "see", clock)
    clock.of("base")
    for parameter in student.model.parameters():
        parameter.requires_grad_(True)
    pretrain(student, config.base, data, out / "base", config.seed, clock)
    student.save(folder)
    return folder


def _seen(out: Path) -> list[dict[str, Any]]:
    """What was seen at every look: by the tower alone, then told in words."""
    seen: list[dict[str, Any]] = []
    if (out / "see" / WORDS).exists():
        looks = torch.load(out / "see" / WORDS)["looks"]
        seen = [
            {"phase": "tower", "steps": one["step"], "seen": {t: one[t] for t in THINGS}} for one in looks
        ]
    if (out / "base" / GATES).exists():
        phases = json.loads((out / "base" / GATES).read_text())["phases"]
        keys = ("phase", "steps", "seen", "missing")
        seen += [{key: entry[key] for key in keys if entry[key]} for entry in phases]
    return seen


def _evaluate(name: str, folder: Path, out: Path, episodes: int, clock: Clock, *more: str) -> None:
    place = out / "eval" / name
    clock.of(f"eval {name}")
    words = [
        "evaluate",
        f"hf:{folder}",
        "--attacker",
        "tutor",
        "--episodes",
        str(episodes),
        "--out",
        str(place),
    ]
    words += ["--max-turns", str(TURNS), "--max-new-tokens", "44", "--unscored-limit", "1", *more]
    steer_env([*words, *(["--resume"] if place.exists() else [])])
    clock()


def _numbers(run: Path) -> dict[str, Any]:
    """Value and interval of every measure, of a run and of its controls."""
    found = {}
    folders = {"": run, **{p.name: p for p in sorted((run / "controls").glob("*")) if p.is_dir()}}
    for name, folder in folders.items():
        file = folder / "summary.json"
        if file.exists():
            summary = json.loads(file.read_text(encoding="utf-8"))
            keep = ("value", "bounds", "low", "high", "n")
            found[name or "itself"] = {m: {k: summary[m].get(k) for k in keep} for m in MEASURES}
    return found


def _dialogues(out: Path) -> str:
    """Return the first dialogues of every evaluation as Markdown, the same ones of each."""
    parts = ["Dialogues of the evaluations, whole contrast groups, as they came.\n"]
    for name in ("base", "sft", "grpo"):
        file = out / "eval" / name / "dialogues.jsonl"
        rows = sorted(read_jsonl(file, finished=True), key=lambda r: int(r["seed"])) if file.exists() else []
        parts += [f"\n## {name}\n"] if rows else []
        for row in rows[:SHOWN]:
            parts.append(f"\n**{row['group']}, {row['cell']}**\n\n")
            for turn in row["turns"]:
                verdict = turn.get("verdict") or {}
                parts.append(f"- User: {turn['user']}\n  Student: {turn['reply']}\n")
                parts.append(f"  *{verdict.get('rationale', 'no verdict')}*\n")
    return "".join(parts)


def table(result: dict[str, Any]) -> str:
    """Return what came out as Markdown."""
    hours = sum(result["core_seconds"].values()) / 3600
    lines = [f"{result['student']}: {hours:.2f} core hours; ended: {result['ended']}", ""]
    lines += ["| after | noun | colour | mark | place |", "|---|---|---|---|---|"]
    for entry in result["seen"]:
        seen = " | ".join(
            f"{100 * entry['seen'][thing]:.0f} %" for thing in ("noun", "colour", "mark", "place")
        )
        lines.append(f"| {entry['phase']}, {entry['steps']} steps | {seen} |")
    if any(result["runs"].values()):
        lines += ["", f"| run | dialogues | {' | '.join(MEASURES)} |", "|---" * (len(MEASURES) + 2) + "|"]
    for name, rows in result["runs"].items():
        for who, measures in rows.items():
            cells = " | ".join(_cell(measures[m]) for m in MEASURES)
            count = measures["multi_turn_joint"]["n"]
            lines.append(f"| {name}{'' if who == 'itself' else ', ' + who} | {count} | {cells} |")
    return "\n".join(lines) + "\n"


def _cell(estimate: dict[str, Any]) -> str:
    """Return a rate in per cent with its interval; one that hangs on unscored turns as its bounds a..b."""
    low, high = estimate["low"], estimate["high"]
    found = [estimate["value"]] if estimate["value"] is not None else estimate.get("bounds") or []
    if not found or low is None or high is None:
        return "-"
    said = "..".join(f"{100 * value:.1f}" for value in found)
    return f"{said} [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    """Run, or print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/smollm2-vl"))
    parser.add_argument("--out", type=Path, default=Path("runs/real_student"), help="weights and dialogues")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--hours", type=float, default=3.0, help="most core hours, over all restarts")
    parser.add_argument("--episodes", type=int, default=96, help="dialogues per evaluation")
    parser.add_argument("--only-table", action="store_true")
    args = parser.parse_args()
    if not args.only_table:
        run(args.model, args.out, args.results, CONFIG, hours=args.hours, episodes=args.episodes)
    result = json.loads((args.results / "result.json").read_text(encoding="utf-8"))
    text = table(result)
    (args.results / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
