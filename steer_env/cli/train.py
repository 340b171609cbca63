"""`steer-env train`: multi-turn GRPO against a live environment."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import steer_env
from steer_env.cli.common import (
    SCRIPTED_STUDENTS,
    add_env_options,
    add_model_options,
    check_unchanged,
    command,
    model_hash,
    natural,
    open_setting,
    open_student,
    positive,
    settle,
)
from steer_env.cli.progress import Bar
from steer_env.data.licences import check_training_allowed

_EXAMPLE = """  steer-env train --student runs/demo/sft --out runs/mine --steps 100
  steer-env train --out runs/mine --resume
  steer-env train --student hf:Qwen/Qwen2.5-VL-3B-Instruct --lr 1e-6 \\
      --max-new-tokens 512 --microbatch-size 2 --out runs/qwen-3b
  steer-env train --student runs/demo/sft --scenarios my.jsonl --unscored-limit 1 --out runs/photos"""

_DESCRIPTION = """Train a model with group-relative policy optimisation: K dialogues per seed against a live
attacker, the sum of TCSR values as return. The run folder gets metrics.jsonl (a row per step), checkpoints
(ordinary Hugging Face folders that also --resume) and the trained model in `model`."""

#: Where the demo leaves its bootstrapped student.
DEMO_STUDENT = Path("runs/demo/sft")

# Flag -> type, help. Names are those of GRPOConfig; the defaults are its own.
_SETTINGS: dict[str, tuple[Any, str]] = {
    "steps": (positive, "training steps"),
    "seeds_per_step": (positive, "seeds (groups) per step"),
    "group_size": (positive, "K, dialogues per seed"),
    "lr": (float, "learning rate"),
    "warmup": (natural, "steps of warm-up"),
    "beta": (float, "weight of the KL penalty"),
    "temperature": (float, "of the sampled replies"),
    "max_new_tokens": (positive, "longest reply in tokens"),
    "minibatch_size": (natural, "dialogues per optimiser step, 0 for all"),
    "microbatch_size": (positive, "dialogues per forward pass; changes memory, not results"),
    "epochs": (positive, "passes over a step's dialogues"),
    "seed": (natural, "decides seeds, sampling and order"),
    "unscored_limit": (float, "stop when more than this share of turns has no verdict"),
    "checkpoint_every": (positive, "steps between checkpoints"),
}
_DEFAULTS: dict[str, Any] = {
    "student": None,
    "env": "SteerEscalation-v0",
    "split": None,
    "scenarios": None,
    "attacker": None,
    "alpha": None,
    "returns": None,
    **dict.fromkeys(_SETTINGS),
}
# These may differ when a run goes on.
_FREE = ("steps", "checkpoint_every", "microbatch_size")


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "train", "train a model with multi-turn GRPO", _EXAMPLE, run, _DESCRIPTION)
    parser.add_argument(
        "--student",
        help=f"model folder, run folder, or hf:ORGANISATION/MODEL (default: {DEMO_STUDENT}, from the demo)",
    )
    add_env_options(parser, "train")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/train"), help="run folder (default: runs/train)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --out after its last checkpoint"
    )
    parser.add_argument(
        "--record-every", metavar="N", type=positive, default=0,
        help="write the dialogues of every Nth step with tokens and advantages, for steer-env report",
    )  # fmt: skip
    parser.add_argument("--num-envs", type=positive, default=64, help="dialogues at a time (default: 64)")
    parser.add_argument(
        "--allow-licence",
        metavar="NAME",
        action="append",
        default=[],
        help="train although a licence forbids it; names a gate (non-commercial, no-training, unstated) "
        "or a dataset; may be repeated",
    )
    reward = parser.add_argument_group("reward")
    reward.add_argument("--alpha", type=float, help="weight of the minimum in TCSR (default: 0.3)")
    reward.add_argument(
        "--returns", choices=("sum", "final", "mean"), help="how TCSR values become a return (default: sum)"
    )
    grpo = parser.add_argument_group("GRPO (defaults: steer_env.algorithms.grpo.GRPOConfig)")
    for name, (kind, text) in _SETTINGS.items():
        grpo.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train and say where everything is."""
    from steer_env.evaluation.evaluate import write_json

    out: Path = args.out
    free = {name: getattr(args, name) for name in _FREE}
    for name in _FREE:
        setattr(args, name, None)
    chosen = settle(args, _DEFAULTS, out)
    chosen.update({name: value for name, value in free.items() if value is not None})
    chosen["student"] = chosen["student"] or _demo_student()
    if chosen["student"] in SCRIPTED_STUDENTS:
        raise ValueError(f"student={chosen['student']!r} is scripted and cannot learn, expected a model")
    if chosen["student"].startswith("openai:"):
        raise ValueError(
            f"student={chosen['student']!r} is behind a server and cannot learn here, expected a model folder"
        )
    reward = {name: chosen[name] for name in ("alpha", "returns") if chosen[name] is not None}
    setting = open_setting(chosen, "train", **reward)
    content = {"scenario_hash": setting.digest, "model_hash": model_hash(chosen["student"])}
    check_unchanged(out, **content)
    if setting.scenarios is not None:
        check_training_allowed(setting.scenarios, allow=args.allow_licence)
    student: Any = open_student(
        chosen["student"],
        device=args.device,
        # Many models are saved in bfloat16, in which small updates are lost.
        dtype=args.dtype or "float32",
        batch_size=args.batch_size,
    )
    from steer_env.algorithms import grpo

    config = grpo.GRPOConfig(**{name: chosen[name] for name in _SETTINGS if chosen[name] is not None})
    vec = steer_env.make_vec(setting.env_id, args.num_envs, **setting.options)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "run.json", {"command": "train", **chosen, **content})
    print(f"metrics go to {out / 'metrics.jsonl'}")
    with Bar("train", config.steps) as bar:
        rows = grpo.train(
            vec,
            setting.attacker,
            student,
            config,
            out,
            resume=args.resume,
            progress=lambda done, total, row: bar.update(done, total, note(row)),
            record_every=args.record_every,
        )
    student.save(out / "model")
    _report(rows, out)
    return 0


def note(row: dict[str, Any]) -> str:
    """Return a step's metrics in a few words; what is undefined is left out."""
    names = (
        ("return", "return"),
        ("safety", "safety"),
        ("usefulness", "usefulness"),
        ("unscored", "unscored"),
    )
    return "  ".join(f"{label} {row[key]:.2f}" for label, key in names if row.get(key) is not None)


def _demo_student() -> str:
    if not DEMO_STUDENT.is_dir():
        raise ValueError(
            f"no --student given and {DEMO_STUDENT} does not exist; run steer-env demo first, or name a model"
        )
    return str(DEMO_STUDENT)


def _report(rows: list[dict[str, Any]], out: Path) -> None:
    returns = [row["return"] for row in rows if row.get("return") is not None]
    tenth = max(1, len(returns) // 10)
    if returns:
        first, last = (sum(part) / tenth for part in (returns[:tenth], returns[-tenth:]))
        print(f"mean return: {first:.3f} in the first tenth of training, {last:.3f} in the last")
    else:
        print("mean return: not available (no turn was scored, so nothing was learned)")
    print(f"model: {out / 'model'}")
    print(f"next: steer-env evaluate {out / 'model'}")
