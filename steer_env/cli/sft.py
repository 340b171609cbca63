"""`steer-env sft`: supervised fine-tuning on the student's tokens, Stage II."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from steer_env.cli.legacy import (
    SCRIPTED_STUDENTS,
    add_trust,
    command,
    model_hash,
    natural,
    open_student,
    positive,
    settle,
)
from steer_env.cli.progress import Bar

_EXAMPLE = """  steer-env sft --model runs/demo/base --data boot --out runs/sft
  steer-env sft --model hf:Qwen/Qwen2.5-VL-3B-Instruct --data boot --precision bf16 \\
      --gradient-checkpointing --lora-rank 16 --lr 1e-4 --out runs/qwen-sft
  steer-env sft --model tiny --data boot --lr 5e-4 --steps 50 --out runs/tiny
  steer-env sft --out runs/sft --resume"""

_DESCRIPTION = """Fine-tune a model on dialogues with answers: those kept by `steer-env data bootstrap`, or
STEER-SFT as `steer-env data build` writes it. The loss covers the student's replies and the token that closes
each, and a run repeats bitwise. The run folder gets metrics.jsonl and the trained model in `model`, an
ordinary Hugging Face folder."""

#: Name of a model with random weights, built on the spot.
NEW = "new"

# Flag -> type, default, help.
_SETTINGS: dict[str, tuple[Any, Any, str]] = {
    "epochs": (float, 2.0, "passes over the dialogues"),
    "steps": (positive, None, "training steps, instead of --epochs"),
    "batch_size": (positive, 16, "dialogues per step"),
    "lr": (float, 1e-5, "peak learning rate"),
    "warmup": (natural, 0, "steps of warm-up"),
    "final_lr": (float, 0.1, "share of the learning rate left at the end of the cosine"),
    "weight_decay": (float, 0.01, "AdamW's"),
    "max_grad_norm": (float, 1.0, "gradients are clipped to this norm"),
    "seed": (natural, 0, "decides order and adapters"),
    "lora_rank": (natural, 0, "rank of LoRA adapters, merged at the end; 0 trains all weights"),
    "lora_alpha": (float, 32.0, "their scale"),
    "max_length": (positive, None, "leave out dialogues with more tokens than this"),
}
#: May differ when a run goes on.
_FREE: dict[str, tuple[Any, Any, str]] = {
    "microbatch_tokens": (positive, 2048, "most tokens per forward pass"),
    "checkpoint_every": (positive, 100, "steps between checkpoints"),
}
_SWITCHES = {
    "gradient_checkpointing": "less memory, a third slower",
}
_DEFAULTS: dict[str, Any] = {
    "model": None,
    "data": None,
    "precision": "float32",
    "dtype": None,
    **{name: default for name, (_, default, _) in _SETTINGS.items()},
    **dict.fromkeys(_SWITCHES, False),
}


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "sft", "fine-tune a model on good dialogues", _EXAMPLE, run, _DESCRIPTION)
    text = "model folder, run folder, hf:ORGANISATION/MODEL, tiny (the trained base that comes with the "
    text += "package), or new: a small one with random weights"
    parser.add_argument("--model", help=text)
    text = "folder of data bootstrap or data build, or a file of rows; may be several"
    parser.add_argument("--data", nargs="+", metavar="PATH", help=text)
    parser.add_argument("--out", type=Path, default=Path("runs/sft"), help="run folder (default: runs/sft)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    add_trust(parser)
    text = "of the forward passes; trained weights stay float32 (default: float32)"
    parser.add_argument("--precision", choices=("float32", "bf16"), help=text)
    text = "train although a licence forbids it; names a gate or a dataset; may be repeated"
    parser.add_argument("--allow-licence", metavar="NAME", action="append", default=[], help=text)
    parser.add_argument("--device", help="where the model runs (default: cuda if there is one)")
    text = "of the weights; with --lora-rank the frozen ones may be bfloat16 (default: float32)"
    parser.add_argument("--dtype", help=text)
    group = parser.add_argument_group("settings (the paper's, where it gives them)")
    for name, (kind, default, text) in {**_SETTINGS, **_FREE}.items():
        shown = "" if default is None else f" (default: {default:g})"
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text + shown)
    for name, text in _SWITCHES.items():
        group.add_argument(f"--{name.replace('_', '-')}", action="store_const", const=True, help=text)


def run(args: argparse.Namespace) -> int:
    """Train, save the model and say where it is."""
    from steer_env.cli.legacy import check_unchanged
    from steer_env.data.training import load_training_dialogues
    from steer_env.files import replacing_folder
    from steer_env.runs import RunFolder

    out: Path = args.out
    chosen = settle(args, _DEFAULTS, out)
    _check(chosen)
    dialogues = load_training_dialogues(*chosen["data"], allow=args.allow_licence)
    content = {"model_hash": "" if chosen["model"] == NEW else model_hash(chosen["model"])}
    content["data_hash"] = _hash(dialogues)
    check_unchanged(out, **content)
    student = _student(chosen, args)
    from steer_env.agents.hf import Exchange
    from steer_env.algorithms import sft
    from steer_env.algorithms.scaling import Scaling

    names = ("precision", "gradient_checkpointing", "lora_rank", "lora_alpha")
    scaling = Scaling(**{name: chosen[name] for name in names})
    exchanges = [[Exchange(*turn) for turn in dialogue.turns()] for dialogue in dialogues]
    examples, long = sft.encode(student, exchanges, chosen["max_length"] or 0)
    if long:
        print(
            f"left out: {long} of {len(dialogues)} dialogues, longer than --max-length or the model's context"
        )
    config = _config(chosen, args, len(examples))
    RunFolder(out).write({"command": "sft", **chosen, **content, "left_out": long})
    print(f"{len(examples)} dialogues, {config.steps} steps; metrics go to {out / 'metrics.jsonl'}")
    rows = _train(args, student, examples, config, scaling)
    with replacing_folder(out / "model") as part:
        student.save(part)
    print(f"loss: {rows[0]['loss']:.3f} at the first step, {rows[-1]['loss']:.3f} at the last")
    print(f"model: {out / 'model'}\nnext: steer-env evaluate {out / 'model'}")
    return 0


def _train(args: argparse.Namespace, student: Any, examples: Any, config: Any, scaling: Any) -> Any:
    from steer_env.algorithms import sft

    with Bar("sft", config.steps) as bar:

        def tell(done: int, total: int, row: dict[str, Any]) -> None:
            bar.update(done, total, "" if row["loss"] is None else f"loss {row['loss']:.3f}")

        return sft.train(
            student,
            examples,
            config,
            scaling=scaling,
            run_dir=args.out,
            resume=args.resume,
            checkpoint_every=args.checkpoint_every or _FREE["checkpoint_every"][1],
            progress=tell,
        )


def _check(chosen: dict[str, Any]) -> None:
    for name, remedy in (
        ("model", "name a model to train"),
        ("data", "make some with steer-env data bootstrap"),
    ):
        if not chosen[name]:
            raise ValueError(f"no --{name} given, expected one; {remedy}")
    if chosen["model"] in SCRIPTED_STUDENTS:
        raise ValueError(f"model={chosen['model']!r} is scripted and cannot learn, expected a model")
    if not 0 < chosen["epochs"] < math.inf:
        raise ValueError(f"epochs={chosen['epochs']!r}, expected a number above 0")


def _config(chosen: dict[str, Any], args: argparse.Namespace, dialogues: int) -> Any:
    from steer_env.algorithms.sft import SFTConfig

    if not dialogues:
        raise ValueError(f"max_length={chosen['max_length']!r} leaves no dialogue, expected a larger one")
    size = chosen["batch_size"]
    steps = chosen["steps"] or max(1, round(chosen["epochs"] * -(-dialogues // min(size, dialogues))))
    names = ("lr", "warmup", "final_lr", "weight_decay", "max_grad_norm", "seed")
    tokens = args.microbatch_tokens or _FREE["microbatch_tokens"][1]
    return SFTConfig(
        steps=steps, batch_size=size, microbatch_tokens=tokens, **{name: chosen[name] for name in names}
    )


def _student(chosen: dict[str, Any], args: argparse.Namespace) -> Any:
    if chosen["model"] != NEW:
        return open_student(chosen["model"], device=args.device, dtype=chosen["dtype"] or "float32")
    from steer_env.agents.hf import HFStudent
    from steer_env.models.tiny import TinyConfig, build
    from steer_env.world.play import all_texts

    config = TinyConfig(vocab_size=1024, init_std=0.1)
    return HFStudent(*build(all_texts(), config, chosen["seed"]), name=NEW)


def _hash(dialogues: Any) -> str:
    """Return a hash of what is trained on, to recognise on resume."""
    import hashlib

    digest = hashlib.sha256()
    for scenario, replies in dialogues:
        digest.update(
            repr((scenario.id, [t.text for t in scenario.turns], replies)).encode("utf-8", "replace")
        )
    return digest.hexdigest()[:16]
