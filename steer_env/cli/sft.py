"""`steer-env sft`: supervised fine-tuning on the student's tokens, Stage II."""

from __future__ import annotations

from dataclasses import asdict, field
from typing import Any

from steer_env.cli.command import Command
from steer_env.cli.common import (
    SCRIPTED_STUDENTS,
    RunConfig,
    check_unchanged,
    model_hash,
    open_folder,
    open_student,
    run_meta,
)
from steer_env.cli.progress import Bar
from steer_env.configs.base import AboveZero, Positive, config
from steer_env.configs.sft import SFTConfig, SFTSettings
from steer_env.configs.student import ModelConfig
from steer_env.configs.train import Scaling
from steer_env.render import counted
from steer_env.runs import RunFolder

_EXAMPLES = """  steer-env sft --student hf:tiny --data boot --out runs/sft
  steer-env sft --student hf:Qwen/Qwen2.5-VL-3B-Instruct --data boot --precision bf16 \\
      --gradient-checkpointing --lora-rank 16 --lr 1e-4 --out runs/qwen-sft
  steer-env sft --student hf:tiny --data boot --lr 5e-4 --steps 50 --out runs/tiny
  steer-env sft --out runs/sft --resume"""

#: Name of a model with random weights, built on the spot.
NEW = "new"


@config(frozen=True, kw_only=True)
class SFT(RunConfig):
    """Fine-tune a model on dialogues with answers.

    These are dialogues kept by `steer-env data bootstrap`, or STEER-SFT as `steer-env data build` writes it.
    The loss covers the student's replies and the token that closes each, and a run repeats bitwise. The run
    folder gets metrics.jsonl and the trained model in `model`, an ordinary Hugging Face folder.

    Attributes:
        out: Run folder.
        student: What is trained: a model folder, run folder, hf:ORGANISATION/MODEL, tiny (the trained base
            that comes with the package), or new: a small one with random weights.
        data: Folder of data bootstrap or data build, or a file of rows.
        allow_licence: Train although a licence forbids it; names a gate or a dataset.
        epochs: Passes over the dialogues.
        steps: Training steps, instead of --epochs.
        max_length: Leave out dialogues with more tokens than this.
        settings: The rest; the defaults are the paper's, where it gives them.
        scaling: For large models; adapters are merged at the end.
        checkpoint_every: Steps between checkpoints.
        device: Where the model runs; cuda if there is one unless it is given.
        dtype: Type of the weights; with --lora-rank the frozen ones may be bfloat16.
    """

    out: str = "runs/sft"
    student: str = ""
    data: tuple[str, ...] = ()
    allow_licence: tuple[str, ...] = ()
    epochs: AboveZero = 2.0
    steps: Positive | None = None
    max_length: Positive | None = None
    settings: SFTSettings = field(
        default_factory=lambda: SFTSettings(batch_size=16, lr=1e-5, warmup=0, final_lr=0.1)
    )
    scaling: Scaling = field(default_factory=Scaling)
    checkpoint_every: Positive = 100
    device: str | None = None
    dtype: str = "float32"

    def free(self) -> tuple[str, ...]:
        """Return the names of what may change when the run goes on."""
        return ("allow_licence", "microbatch_tokens", "checkpoint_every", "device")


def run(config: SFT) -> int:
    """Train, save the model and say where it is."""
    from steer_env.data.training import load_training_dialogues
    from steer_env.files import replacing_folder

    for name, remedy in (
        ("student", "name a model to train"),
        ("data", "make some with steer-env data bootstrap"),
    ):
        if not getattr(config, name):
            raise ValueError(f"no --{name} given, expected one; {remedy}")
    if config.student in SCRIPTED_STUDENTS:
        raise ValueError(f"student={config.student!r} is scripted and cannot learn, expected a model")
    if config.student.partition(":")[0] in ("vllm", "openai", "inspect"):
        raise ValueError(
            f"student={config.student!r} cannot be fine-tuned, expected a model folder or hf:PATH"
        )
    out = open_folder(config)
    dialogues = load_training_dialogues(*config.data, allow=config.allow_licence)
    content = {"model_hash": "" if config.student == NEW else model_hash(config.student)}
    content["data_hash"] = _hash(dialogues)
    check_unchanged(out, **content)
    student = _student(config)
    from steer_env.agents.hf import Exchange
    from steer_env.algorithms import sft

    exchanges = [[Exchange(*turn) for turn in dialogue.turns()] for dialogue in dialogues]
    examples, long = sft.encode(student, exchanges, config.max_length or 0)
    if long:
        print(
            f"left out: {long} of {len(dialogues)} dialogues, longer than --max-length or the model's context"
        )
    if not examples:
        raise ValueError(f"max_length={config.max_length!r} leaves no dialogue, expected a larger one")
    per_epoch = -(-len(examples) // min(config.settings.batch_size, len(examples)))
    steps = config.steps or max(1, round(config.epochs * per_epoch))
    start = RunFolder(out).starting(run_meta("sft", config, content) | {"left_out": long})
    print(
        f"{counted(len(examples), 'dialogue')}, {counted(steps, 'step')}; "
        f"metrics go to {out / 'metrics.jsonl'}"
    )
    with start, Bar("sft", steps) as bar:

        def tell(done: int, total: int, row: dict[str, Any]) -> None:
            bar.update(done, total, "" if row["loss"] is None else f"loss {row['loss']:.3f}")

        rows = sft.train(
            student,
            examples,
            SFTConfig(steps=steps, **asdict(config.settings)),
            scaling=config.scaling,
            run_dir=out,
            resume=config.resume,
            checkpoint_every=config.checkpoint_every,
            progress=tell,
        )
    with replacing_folder(out / "model") as part:
        student.save(part)
    print(f"loss: {rows[0]['loss']:.3f} at the first step, {rows[-1]['loss']:.3f} at the last")
    print(f"model: {out / 'model'}\nnext: steer-env evaluate {out / 'model'}")
    return 0


def _student(config: SFT) -> Any:
    if config.student != NEW:
        return open_student(config.student, ModelConfig(config.device, config.dtype))
    from steer_env.agents.hf import HFStudent
    from steer_env.models.tiny import TinyConfig, build
    from steer_env.world.play import all_texts

    shape = TinyConfig(vocab_size=1024, init_std=0.1)
    return HFStudent(*build(all_texts(), shape, config.settings.seed), name=NEW)


def _hash(dialogues: Any) -> str:
    """Return a hash of what is trained on, to recognise on resume."""
    import hashlib

    digest = hashlib.sha256()
    for scenario, replies in dialogues:
        digest.update(
            repr((scenario.id, [t.text for t in scenario.turns], replies)).encode("utf-8", "replace")
        )
    return digest.hexdigest()[:16]


COMMAND = Command(SFT, run, _EXAMPLES)
