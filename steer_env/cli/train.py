"""`steer-env train`: multi-turn GRPO, or another algorithm, against a live environment."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import steer_env
from steer_env.cli.legacy import (
    SCRIPTED_STUDENTS,
    STEP,
    Setting,
    add_env_options,
    add_model_options,
    add_trust,
    check_unchanged,
    command,
    judge_content,
    model_hash,
    natural,
    open_setting,
    open_student,
    positive,
    settle,
    step_of,
)
from steer_env.cli.progress import Bar
from steer_env.cli.together import together
from steer_env.data.licences import check_training_allowed
from steer_env.judges.independence import check_independent
from steer_env.runs import RunFolder
from steer_env.versions import versions_of

_EXAMPLE = """  steer-env train --student hf:tiny-sft --out runs/mine --steps 100
  steer-env train --out runs/mine --resume
  steer-env train --student hf:Qwen/Qwen2.5-VL-3B-Instruct --lr 1e-6 \\
      --max-new-tokens 512 --microbatch-size 2 --out runs/qwen-3b
  steer-env train --student hf:tiny-sft --attacker learning --returns final --beta 0.01
  steer-env train --student hf:tiny-sft --scenarios my.jsonl --unscored-limit 1 --out runs/photos
  steer-env train --student hf:tiny-sft --attacker openai:MODEL@http://localhost:8000/v1 --judge tutor
  steer-env train --algorithm rloo --option credit=reward_to_go --tracker tensorboard --out runs/rloo
  steer-env train --algorithm constrained_grpo --option limit=0.02 --out runs/constrained
  steer-env train --student hf:Qwen/Qwen2.5-VL-3B-Instruct --precision bf16 --lora-rank 16 \\
      --gradient-checkpointing --lr 1e-5 --out runs/qwen-3b-lora
  accelerate launch --config_file examples/accelerate/fsdp_8gpu.yaml -m steer_env.cli.main train \\
      --student hf:Qwen/Qwen2.5-VL-7B-Instruct --precision bf16 --lr 1e-6 --out runs/qwen-7b"""

_DESCRIPTION = """Train a model with group-relative policy optimisation: K dialogues per seed against a live
attacker, the sum of TCSR values as return. --algorithm takes others; docs/algorithms.md says which to pick,
and `--option help` lists their options. The run folder gets metrics.jsonl (a row per step), checkpoints
(ordinary Hugging Face folders that also --resume) and the trained model in `model`."""

#: What is trained where nothing is named: the shipped student after Stage II.
STUDENT = "hf:tiny-sft"

# Flag -> type, help. Names are those of TrainConfig, and beta of all algorithms; the defaults are theirs.
_SETTINGS: dict[str, tuple[Any, str]] = {
    "steps": (positive, "training steps"),
    "seeds_per_step": (positive, "seeds (groups) per step"),
    "group_size": (positive, "K, dialogues per seed"),
    "lr": (float, "learning rate"),
    "warmup": (natural, "steps of warm-up"),
    "lr_schedule": (str, "constant, linear or cosine, after the warm-up"),
    "final_lr": (float, "share of the learning rate at its end"),
    "beta": (float, "weight of the KL penalty"),
    "temperature": (float, "of the sampled replies"),
    "max_new_tokens": (positive, "longest reply in tokens"),
    "overlong": (str, "replies cut there: keep, mask or penalise"),
    "overlong_penalty": (float, "what penalise takes from the advantage of their tokens"),
    "minibatch_size": (natural, "dialogues per optimiser step, 0 for all"),
    "microbatch_size": (positive, "dialogues per forward pass; changes memory, not results"),
    "epochs": (positive, "passes over a step's dialogues"),
    "target_kl": (
        float,
        "leave out a step's further updates once it moved this far (KL per token); 0 for never",
    ),
    "seed": (natural, "decides seeds, sampling and order"),
    "unscored_limit": (float, "stop when more than this share of turns has no verdict"),
    "checkpoint_every": (positive, "steps between checkpoints"),
    "average": (str, "keep a mean of the weights as well: of the tail (last half of the steps), or ema"),
    "average_decay": (float, "of ema, share kept per step"),
    "eval_every": (natural, "steps between evaluations on fixed dialogues; 0 for none"),
    "eval_dialogues": (positive, "how many dialogues that is"),
    "final_weights": (str, "what the run ends with: last, average, or best of the evaluations"),
}
_SCALING: dict[str, tuple[Any, str]] = {
    "precision": (str, "forward passes in float32 or bf16; weights stay float32"),
    "lora_rank": (natural, "train LoRA adapters of this rank only; 0 trains all weights"),
    "lora_alpha": (float, "scale of the adapters, times 1/rank"),
    "lora_targets": (str, "layers that get adapters, separated by commas"),
    "gradient_checkpointing": (None, "recompute activations: less memory, slower"),
}
_DEFAULTS: dict[str, Any] = {
    "student": None,
    "env": "SteerEscalation-v0",
    "split": None,
    "scenarios": None,
    "attacker": None,
    "judge": "rule",
    "allow_self_judge": None,
    "alpha": None,
    "returns": None,
    "algorithm": "grpo",
    "option": None,
    "reward": None,
    "curriculum": None,
    "dtype": None,
    "tracker": None,
    "record_every": None,
    **dict.fromkeys(_SCALING),
    **dict.fromkeys(_SETTINGS),
}
#: Rewards of `--reward`, inside out; "tcsr" is the environments' default.
REWARDS = ("tcsr", "helpfulness")
# These may differ when a run goes on.
_FREE = ("steps", "checkpoint_every", "microbatch_size", "tracker", "record_every")


def add(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "train",
        "train a model with multi-turn GRPO or another algorithm",
        _EXAMPLE,
        run,
        _DESCRIPTION,
    )
    parser.add_argument(
        "--student",
        help=f"a shipped student, model folder, run folder, or hf:ORGANISATION/MODEL (default: {STUDENT})",
    )
    add_env_options(parser, "train")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/train"), help="run folder (default: runs/train)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --out after its last checkpoint"
    )
    add_trust(parser)
    parser.add_argument(
        "--record-every", metavar="N", type=positive,
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
    reward.add_argument(
        "--reward",
        choices=REWARDS,
        help="tcsr, or helpfulness alone (default: tcsr; constrained_grpo: helpfulness, its cost being harm)",
    )
    _add_algorithm(parser)
    add_model_options(parser)


def _add_algorithm(parser: argparse.ArgumentParser) -> None:
    loop = parser.add_argument_group("training (defaults: steer_env.algorithms.trainer.TrainConfig)")
    loop.add_argument("--algorithm", metavar="NAME", help="see docs/algorithms.md (default: grpo)")
    loop.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        help="of the algorithm; may be repeated; help lists them",
    )
    for name, (kind, text) in _SETTINGS.items():
        loop.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    loop.add_argument("--curriculum", metavar="FILE", help="JSON list of stages: options, steps, until")
    loop.add_argument(
        "--tracker",
        metavar="NAME",
        action="append",
        help="also send metrics to tensorboard, wandb or trackio; may be repeated",
    )
    large = parser.add_argument_group("large models (defaults: steer_env.algorithms.scaling.Scaling)")
    for name, (kind, text) in _SCALING.items():
        how: dict[str, Any] = {"type": kind} if kind else {"action": "store_true", "default": None}
        large.add_argument(f"--{name.replace('_', '-')}", help=text, **how)


def run(args: argparse.Namespace) -> int:
    """Train and say where everything is."""
    if args.option == ["help"]:
        print(_list_options(args.algorithm or "grpo"))
        return 0
    with together():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    out: Path = args.out
    chosen = settle(args, _DEFAULTS, out, free=_FREE, unset=_unset())
    chosen["student"] = chosen["student"] or STUDENT
    if chosen["student"] in SCRIPTED_STUDENTS:
        raise ValueError(f"student={chosen['student']!r} is scripted and cannot learn, expected a model")
    if chosen["student"].startswith("openai:"):
        raise ValueError(
            f"student={chosen['student']!r} is behind a server and cannot learn here, expected a model folder"
        )
    if chosen["student"].startswith("vllm:"):
        raise ValueError(
            f"student={chosen['student']!r} samples only, expected a model folder; to train through vLLM use "
            "TrainableVLLMStudent from Python (docs/vllm.md)"
        )
    reward = {name: chosen[name] for name in ("alpha", "returns") if chosen[name] is not None}
    reward |= _wrappers(chosen)
    setting = open_setting(chosen, "train", **reward)
    content = {"scenario_hash": setting.digest, "model_hash": model_hash(chosen["student"])}
    content |= judge_content(setting.judge)
    check_unchanged(out, **content)
    if setting.scenarios is not None:
        check_training_allowed(setting.scenarios, allow=args.allow_licence)
    from steer_env.algorithms import trainer
    from steer_env.algorithms.metrics import check_trackers
    from steer_env.algorithms.parallel import launched
    from steer_env.algorithms.scaling import Scaling

    algorithm, config = _algorithm(chosen)
    check_trackers(chosen["tracker"] or ())
    scaling = Scaling(**{name: chosen[name] for name in _SCALING if chosen[name] is not None})
    env = _environments(chosen, setting, args.num_envs)
    parallel = launched()
    open_here = partial(
        open_student,
        chosen["student"],
        # Many models are saved in bfloat16, in which small updates are lost.
        dtype=chosen["dtype"] or "float32",
        batch_size=args.batch_size,
    )
    student: Any = open_here(device=args.device or parallel.device)
    allowed = chosen["allow_self_judge"] or ()
    check_independent(setting.judge, student, setting.attacker, allow=allowed)
    parallel.wait()  # until all have looked at the folder, before the first one writes
    if parallel.main:
        RunFolder(out).write({"command": "train", **chosen, **content, **versions_of(setting.judge)})
        print(f"metrics go to {out / 'metrics.jsonl'}")
    with Bar("train", config.steps) if parallel.main else nullcontext() as bar:
        rows = trainer.train(
            env,
            setting.attacker,
            student,
            algorithm,
            config,
            out,
            scaling=scaling,
            parallel=parallel,
            trackers=chosen["tracker"] or (),
            resume=args.resume,
            progress=None if bar is None else lambda done, total, row: bar.update(done, total, note(row)),
            record_every=chosen["record_every"] or 0,
            allow_self_judging=allowed,
        )
    if parallel.main:
        _save(student, config, out)
        _report(rows, out)
    return 0


def _save(student: Any, config: Any, out: Path) -> None:
    """Write the trained model."""
    from steer_env.algorithms.checkpoints import checkpoints
    from steer_env.algorithms.scaling import save_merged
    from steer_env.files import replacing_folder, write_json

    saved = checkpoints(out)
    with replacing_folder(out / "model") as part:
        save_merged(student, part)
        write_json(part / STEP, {"step": step_of(saved[-1]) if saved else config.steps})


def _unset() -> dict[str, Any]:
    """Return what options of the loop stand for that were not given."""
    from steer_env.algorithms.scaling import Scaling
    from steer_env.algorithms.trainer import TrainConfig

    return {**asdict(TrainConfig()), **asdict(Scaling())}


def _wrappers(chosen: dict[str, Any]) -> dict[str, Any]:
    """Options of the environment that make the reward asked for."""
    plain = "helpfulness" if chosen["algorithm"] == "constrained_grpo" else "tcsr"
    if (chosen["reward"] or plain) == "tcsr":
        return {}
    given = [name for name in ("alpha", "returns") if chosen[name] is not None]
    if given:
        raise ValueError(f"{given[0]}={chosen[given[0]]!r} is TCSR's; leave it out or use --reward tcsr")
    from steer_env.wrappers import HelpfulnessReward

    return {"wrappers": [partial(HelpfulnessReward, usefulness=2 / 3, faithfulness=1 / 3)]}


def _algorithm(chosen: dict[str, Any]) -> tuple[Any, Any]:
    """Return the algorithm and the settings of the loop."""
    from steer_env.algorithms.base import make_algorithm, parse_options
    from steer_env.algorithms.trainer import TrainConfig

    options = parse_options(chosen["algorithm"], chosen["option"] or [])
    if chosen["beta"] is not None:
        options.setdefault("beta", chosen["beta"])
    algorithm = make_algorithm(chosen["algorithm"], **options)
    loop = {name: chosen[name] for name in _SETTINGS if name != "beta" and chosen[name] is not None}
    config = TrainConfig(**loop)
    algorithm.check(config.group_size)
    return algorithm, config


def _environments(chosen: dict[str, Any], setting: Setting, num_envs: int) -> Any:
    """Return the vector environment, or the curriculum of such."""
    make = partial(steer_env.make_vec, setting.env_id, num_envs, **setting.options)
    if chosen["curriculum"] is None:
        return make()
    from steer_env.algorithms.curriculum import Curriculum, read_stages

    curriculum = Curriculum(read_stages(chosen["curriculum"]), make)
    curriculum.check()
    return curriculum


def _list_options(name: str) -> str:
    from steer_env.algorithms.base import algorithm_names, make_algorithm

    options = "\n".join(f"  {key}={value}" for key, value in make_algorithm(name).options().items())
    return f"options of {name} and their defaults:\n{options}\nalgorithms: {', '.join(algorithm_names())}"


def note(row: dict[str, Any]) -> str:
    """Return a step's metrics in a few words; what is undefined is left out."""
    names = (
        ("return", "return"),
        ("safety", "safety"),
        ("usefulness", "usefulness"),
        ("unscored", "unscored"),
    )
    return "  ".join(f"{label} {row[key]:.2f}" for label, key in names if row.get(key) is not None)


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
