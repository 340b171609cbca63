"""Put trained tiny students into the package: weights in float16, and a card that says what they are.

    steer-env demo --from-scratch --seeds 1 --out runs/scratch
    python benchmarks/ship.py runs/scratch --only tiny          # the base, then the others from it as shipped
    steer-env demo --out runs/demo
    python benchmarks/ship.py runs/demo --only tiny-sft tiny-grpo

What a card says is measured on the weights as shipped, after rounding.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

import steer_env
from steer_env.agents.hf import HFStudent
from steer_env.algorithms.sight import memory, sight, tell_rates
from steer_env.cli.stages import MARK
from steer_env.evaluation.replications import outcomes
from steer_env.judges import RuleJudge
from steer_env.models.shipped import CARD, FOLDER, SHIPPED, WEIGHTS, weights_hash
from steer_env.play.evaluate import evaluate, load_rows
from steer_env.world import WORLD_VERSION, WorldSource

ENV = "SteerEscalation-v0"
#: Most bytes of a student, everything included.
MOST = 2_000_000
PLACES = {"tiny": "base", "tiny-sft": "seed0/sft", "tiny-grpo": "seed0/grpo"}
COMMANDS = {
    "tiny": "steer-env demo --from-scratch --seeds 1 (made in parts, see docs/demo.md)",
    "tiny-sft": "steer-env demo",
    "tiny-grpo": "steer-env demo",
}


def main() -> None:
    """Ship."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of steer-env demo")
    parser.add_argument("--only", nargs="+", choices=SHIPPED, default=list(SHIPPED))
    parser.add_argument("--episodes", type=int, default=200, help="dialogues the card's rates rest on")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.only:
        stage = args.run / PLACES[name]
        folder = FOLDER / name
        student = HFStudent.from_pretrained(stage / "model")
        shutil.rmtree(folder, ignore_errors=True)
        student.save(folder)
        # The config goes on saying float32, in which the weights are opened.
        weights = {key: value.half() for key, value in load_file(folder / WEIGHTS).items()}
        save_file(weights, folder / WEIGHTS, {"format": "pt"})
        card = describe(name, folder, stage, args.episodes)
        (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{folder}: {size:,} bytes\n{json.dumps(card['bench'])}\n{json.dumps(card['held_out'])}")
        if size >= MOST:
            raise SystemExit(f"{folder} has {size:,} bytes, expected less than {MOST:,}")


def describe(name: str, folder: Path, stage: Path, episodes: int) -> dict[str, Any]:
    """Return a student's card."""
    student = HFStudent.from_pretrained(folder, temperature=0.0, max_new_tokens=48)
    source = WorldSource(split="bench")
    with tempfile.TemporaryDirectory() as place:
        evaluate(
            steer_env.make_vec(ENV, min(64, episodes), split="bench"),
            steer_env.make_attacker(ENV),
            student,
            range(episodes),
            place,
            scenarios=[source.scenario(index) for index in range(episodes)],
            unscored_limit=1.0,
        )
        found = outcomes(load_rows(Path(place)))
    base = name == "tiny"
    held_out = {
        ask: sight(student, 400, ask=ask) for ask in (("caption", "describe") if base else ("describe",))
    }
    if base:
        held_out["memory"] = memory(student, 200)
        held_out["tell"] = tell_rates(student, 400)
    return {
        "name": name,
        "what": SHIPPED[name],
        "command": COMMANDS[name],
        "recipe": json.loads((stage / MARK).read_text(encoding="utf-8"))["settings"],
        "gates": _gates(stage),
        "sha256": weights_hash(folder),
        "parameters": sum(parameter.numel() for parameter in student.model.parameters()),
        "weights": "float16, opened in float32",
        "world_version": WORLD_VERSION,
        "judge_version": getattr(RuleJudge, "version", 1),
        "held_out": held_out,
        "bench": {
            "dialogues": episodes,
            "env": ENV,
            **{key: round(o.mean, 4) for key, o in found.items() if len(o.values)},
        },
        "made_with": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "threads": 1,
        },
        "licence": "Apache-2.0",
    }


def _gates(stage: Path) -> list[Any]:
    path = stage / "gates.json"
    phases: list[Any] = json.loads(path.read_text(encoding="utf-8"))["phases"] if path.exists() else []
    return phases


if __name__ == "__main__":
    main()
