"""`steer-env train`: multi-turn GRPO, or another algorithm, against a live environment."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, asdict, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from steer_env.cli.command import Command, arg, check_trusted
from steer_env.cli.common import (
    SCRIPTED_STUDENTS,
    STEP,
    RunConfig,
    Setting,
    best_device,
    check_unchanged,
    judge_content,
    model_hash,
    open_folder,
    open_setting,
    open_student,
    run_meta,
    step_of,
)
from steer_env.cli.progress import Bar
from steer_env.cli.together import together
from steer_env.configs.base import Natural, Positive, config
from steer_env.configs.env import REWARD, EnvConfig
from steer_env.configs.student import ModelConfig
from steer_env.configs.train import Scaling, TrainConfig
from steer_env.data.licences import check_training_allowed
from steer_env.judges.independence import check_independent
from steer_env.runs import RunFolder
from steer_env.versions import versions_of

_EXAMPLES = """  steer-env train --student hf:tiny-sft --out runs/mine --steps 100
  steer-env train --out runs/mine --resume
  steer-env train --student hf:Qwen/Qwen2.5-VL-3B-Instruct --lr 1e-6 \\
      --max-new-tokens 512 --microbatch-size 2 --out runs/qwen-3b
  steer-env train --student "vllm:runs/sft/model?max_model_len=4096" --lora-rank 16 --lr 1e-5 --out runs/vllm
  steer-env train --student hf:tiny-sft --attacker learning --returns final --beta 0.01
  steer-env train --student hf:tiny-sft --scenarios my.jsonl --unscored-limit 1 --out runs/photos
  steer-env train --student hf:tiny-sft --attacker openai:MODEL@http://localhost:8000/v1 --judge tutor
  steer-env train --algorithm rloo --credit reward_to_go --tracker tensorboard --out runs/rloo
  steer-env train --algorithm constrained_grpo --limit 0.02 --out runs/constrained
  steer-env train --student hf:Qwen/Qwen2.5-VL-3B-Instruct --precision bf16 --lora-rank 16 \\
      --gradient-checkpointing --lr 1e-5 --out runs/qwen-3b-lora
  accelerate launch --config_file examples/accelerate/ddp_8gpu.yaml -m steer_env.cli.main train \\
      --student hf:Qwen/Qwen2.5-VL-7B-Instruct --precision bf16 --lora-rank 16 --lr 1e-5 --out runs/qwen-7b"""


@config(frozen=True, kw_only=True)
class Train(RunConfig):
    """Train a model with group-relative policy optimisation against a live attacker.

    K dialogues are played per seed. --algorithm takes others; docs/algorithms.md says which to pick, and
    `steer-env train --algorithm NAME --help` lists its own options. The run folder gets metrics.jsonl (a row
    per step), checkpoints (ordinary Hugging Face folders that also --resume) and the trained model in
    `model`.

    Attributes:
        out: Run folder.
        student: What is trained: a shipped student, model folder, run folder, hf:ORGANISATION/MODEL,
            vllm:PATH (a vLLM engine samples, options of which may stand in the name), or your own as
            MODULE:OBJECT or FILE.py:OBJECT.
        env: The dialogues; --split is train unless it is given.
        reward: What is maximised: tcsr, or helpfulness alone; tcsr unless it is given (constrained_grpo:
            helpfulness, its cost being harm).
        algorithm: Name of the algorithm, see docs/algorithms.md, or your own as MODULE:CLASS or
            FILE.py:CLASS.
        loop: The training loop.
        scaling: For large models.
        curriculum: File with a JSON list of stages: options, steps, until.
        tracker: Also send metrics to tensorboard, wandb or trackio.
        record_every: Write the dialogues of every Nth step with tokens and advantages, for steer-env report;
            0 writes none.
        num_envs: Dialogues at a time.
        allow_licence: Train although a licence forbids it; names a gate (non-commercial, no-training,
            unstated) or a dataset.
        model: How the student runs.
    """

    out: str = "runs/train"
    student: str = "hf:tiny-sft"
    env: EnvConfig = field(default_factory=EnvConfig)
    reward: Literal["tcsr", "helpfulness"] | None = None
    algorithm: str = "grpo"
    loop: TrainConfig = field(default_factory=TrainConfig)
    scaling: Scaling = field(default_factory=Scaling)
    curriculum: str | None = None
    tracker: tuple[str, ...] = ()
    record_every: Natural = 0
    num_envs: Positive = 64
    allow_licence: tuple[str, ...] = ()
    model: ModelConfig = field(default_factory=ModelConfig)

    def free(self) -> tuple[str, ...]:
        """Return the names of what may change when the run goes on."""
        loop = ("steps", "checkpoint_every", "microbatch_size", "microbatch_tokens")
        return (*loop, "tracker", "record_every", "num_envs", "allow_licence", "device", "batch_size")

    def __post_init__(self) -> None:
        why = {"openai": "is behind a server and cannot learn here, expected a model folder"}
        why["inspect"] = why["openai"]
        scheme = self.student.partition(":")[0]
        if self.student in SCRIPTED_STUDENTS or scheme in why:
            said = why.get(scheme, "is scripted and cannot learn, expected a model")
            raise ValueError(f"student={self.student!r} {said}")


def config_for(words: Sequence[str], values: Mapping[str, Any]) -> type[Train]:
    """Return the config class of an algorithm: `Train` with the algorithm's own options.

    They are those of its class, which needs torch; the help on no algorithm in particular does without.
    """
    given = [word for at, word in enumerate(words) if at and words[at - 1] == "--algorithm"]
    given += [word.partition("=")[2] for word in words if word.startswith("--algorithm=")]
    if not given and {"-h", "--help"} & set(words):
        return Train
    if not given and "--resume" in words:
        out = [word for at, word in enumerate(words) if at and words[at - 1] == "--out"]
        stored = RunFolder(Path(out[-1] if out else Train().out)).stored()
        if "--trust" not in words:  # its class is loaded for the options, before the whole line can be read
            check_trusted("algorithm", stored.get("algorithm"), words, values)
        values = {**stored, **values}
    options = _options_of(given[-1] if given else str(values.get("algorithm", "grpo")))
    body = {
        "__annotations__": {"options": options},
        "options": field(default_factory=options),
        "__doc__": f"{Train.__doc__}    options: Of the algorithm.\n",
        "__module__": __name__,
    }
    return config(frozen=True, kw_only=True)(type("Train", (Train,), body))


def _options_of(name: str) -> type:
    """Return the options of an algorithm as a config, with the documentation of their fields."""
    import docstring_parser

    from steer_env.algorithms.base import algorithm_class

    cls = algorithm_class(name)
    told = [docstring_parser.parse(one.__doc__ or "").params for one in reversed(cls.__mro__)]
    helps = {param.arg_name: param.description for params in told for param in params}
    hints = get_type_hints(cls)
    own = [f for f in fields(cls) if f.init and f.default is not MISSING]
    body: dict[str, Any] = {f.name: f.default for f in own}
    body["__annotations__"] = {f.name: Annotated[hints[f.name], arg(help=helps.get(f.name))] for f in own}
    body |= {"__doc__": f"Options of {name}.", "__module__": __name__}
    return config(frozen=True, kw_only=True)(type("Options", (), body))


def run(config: Train) -> int:
    """Train and say where everything is."""
    with together():
        return _run(config)


def _run(config: Train) -> int:
    out = open_folder(config)
    setting = open_setting(config.env, "train")
    content = {"scenario_hash": setting.digest, "model_hash": model_hash(config.student)}
    content |= judge_content(setting.judge)
    check_unchanged(out, **content)
    if setting.scenarios is not None:
        check_training_allowed(setting.scenarios, allow=config.allow_licence)
    from steer_env.algorithms import trainer
    from steer_env.algorithms.base import make_algorithm
    from steer_env.algorithms.monitor import check_trackers
    from steer_env.algorithms.parallel import launched

    algorithm = make_algorithm(config.algorithm, **asdict(config.options))  # type: ignore[attr-defined]
    algorithm.check(config.loop.group_size)
    check_trackers(config.tracker)
    env = _environments(config, setting)
    parallel = launched()
    device = None if parallel.device is None else str(parallel.device)
    # Many models are saved in bfloat16, in which small updates are lost.
    model = replace(
        config.model,
        dtype=config.model.dtype or "float32",
        device=config.model.device or device,
    )
    student: Any = _open(config.student, model, config.scaling.lora_rank, parallel.size)
    allowed = config.env.allow_self_judge
    check_independent(setting.judge, student, setting.attacker, allow=allowed)
    parallel.wait()  # until all have looked at the folder, before the first one writes
    start: AbstractContextManager[None] = nullcontext()
    if parallel.main:
        start = RunFolder(out).starting(run_meta("train", config, content) | versions_of(setting.judge))
        print(f"metrics go to {out / 'metrics.jsonl'}")
    with start, Bar("train", config.loop.steps) if parallel.main else nullcontext() as bar:
        rows = trainer.train(
            env,
            setting.attacker,
            student,
            algorithm,
            config.loop,
            out,
            scaling=config.scaling,
            parallel=parallel,
            trackers=config.tracker,
            resume=config.resume,
            progress=None if bar is None else lambda done, total, row: bar.update(done, total, note(row)),
            record_every=config.record_every,
            allow_self_judging=allowed,
        )
    if parallel.main:
        _save(student, config.loop, out)
        _report(rows, config, out)
    return 0


def _open(name: str, model: ModelConfig, lora_rank: int, processes: int) -> Any:
    """Return the student; one of vLLM's comes with the model that learns."""
    if not name.startswith("vllm:"):
        return open_student(name, model)
    if processes > 1:
        raise ValueError(
            f"student={name!r} in {processes} processes, expected one: each would start an engine on every "
            "GPU; the engine of a single process takes several (tensor_parallel_size=4 in the name)"
        )
    from steer_env.agents.named import open_learner

    given = {key: value for key, value in asdict(model).items() if value is not None}
    return open_learner(name, lora_rank=lora_rank, **{"device": best_device(), **given})


def _environments(config: Train, setting: Setting) -> Any:
    """Return the vector environment, or the curriculum of such."""
    make = partial(setting.make, config.num_envs, **_wrappers(config))
    if config.curriculum is None:
        return make()
    from steer_env.algorithms.curriculum import Curriculum, read_stages

    curriculum = Curriculum(read_stages(config.curriculum), make)
    curriculum.check()
    return curriculum


def _wrappers(config: Train) -> dict[str, Any]:
    """Return the option of the environment that makes the reward asked for."""
    if config.env.wrappers:
        if config.reward is not None:
            raise ValueError(
                f"reward={config.reward!r} beside wrappers, which make the reward; leave one out"
            )
        return {}
    plain = "helpfulness" if config.algorithm == "constrained_grpo" else "tcsr"
    if (config.reward or plain) == "tcsr":
        return {}
    for name, value in config.env.changed(REWARD).items():
        raise ValueError(f"{name}={value!r} is of the TCSR reward; leave it out or use --reward tcsr")
    from steer_env.wrappers import HelpfulnessReward

    return {"wrappers": [partial(HelpfulnessReward, usefulness=2 / 3, faithfulness=1 / 3)]}


def _save(student: Any, config: Any, out: Path) -> None:
    """Write the trained model."""
    from steer_env.algorithms.checkpoints import checkpoints
    from steer_env.algorithms.forward import save_merged
    from steer_env.files import replacing_folder, write_json

    saved = checkpoints(out)
    with replacing_folder(out / "model") as part:
        save_merged(student, part)
        write_json(part / STEP, {"step": step_of(saved[-1]) if saved else config.steps})


def note(row: dict[str, Any]) -> str:
    """Return a step's metrics in a few words; what is undefined is left out."""
    names = (
        ("return", "return"),
        ("safety", "safety"),
        ("usefulness", "usefulness"),
        ("unscored", "unscored"),
    )
    return "  ".join(f"{label} {row[key]:.2f}" for label, key in names if row.get(key) is not None)


def _report(rows: list[dict[str, Any]], config: Train, out: Path) -> None:
    returns = [row["return"] for row in rows if row.get("return") is not None]
    tenth = max(1, len(returns) // 10)
    if returns:
        first, last = (sum(part) / tenth for part in (returns[:tenth], returns[-tenth:]))
        said = "" if len(returns) >= 20 else "; so few steps show that it runs, not whether it learns"
        print(f"mean return: {first:.3f} in the first tenth of training, {last:.3f} in the last{said}")
    else:
        print("mean return: not available (no turn was scored, so nothing was learned)")
    print(f"model: {out / 'model'}")
    # By others the numbers are not these.
    played = config.env.changed(("env", "scenarios", "attacker", "judge"))
    words = [word for name, value in played.items() for word in (f"--{name}", str(value))]
    print(f"next: {shlex.join(['steer-env', 'evaluate', str(out), *words])}")


COMMAND = Command(config_for, run, _EXAMPLES)
