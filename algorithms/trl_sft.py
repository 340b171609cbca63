"""Supervised fine-tuning with TRL's `SFTTrainer`: accelerate, LoRA and bf16 as its users know them.

TRL runs the steps; the tokens and the loss mask are the library's own (`ChatCodec.dialogue`), so that what
is imitated is what the policy will be asked for, token by token. TRL's own way (`assistant_only_loss=True`
and `{% generation %}` markers in the chat template) gives the same mask and the same loss on plain dialogues,
with pictures in any turn; tests hold the two equal. It does not serve where
- a text holds a control token's name: TRL's collator encodes a literal `<|im_end|>` of the user as the
  control token, and a literal `<|image_pad|>` as the place of a picture;
- a reply begins with white space that the tokenizer merges with the template's line break: the tokens are
  then not those a policy samples after the generation prompt;
- a reply is to be remembered but not imitated (`Exchange.learn`): every assistant turn is in TRL's mask;
- the chat template has no markers and TRL knows no training template for it.
Needs the extra `trl`.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from steer_env.agents.hf.codec import Prompt
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.checkpoints import drop_rows_from
from steer_env.algorithms.sft import METRICS, Dialogue, Progress, Row, SFTConfig, check_dialogues
from steer_env.algorithms.tuning import Tuning, trained_part
from steer_env.extras import need
from steer_env.records import JsonlWriter, read_jsonl
from steer_env.runs import RunFolder

#: Labels of tokens without loss.
_IGNORED: Final = -100
_NAMES: Final = {"loss": "loss", "learning_rate": "lr", "grad_norm": "grad_norm",
                 "mean_token_accuracy": "accuracy", "entropy": "entropy"}  # fmt: skip


def train(
    student: HFStudent,
    dialogues: Sequence[Dialogue | Prompt],
    config: SFTConfig,
    run_dir: str | Path,
    *,
    tuning: Tuning | None = None,
    microbatch_size: int = 1,
    resume: bool = False,
    checkpoint_every: int = 100,
    progress: Progress | None = None,
) -> list[Row]:
    """Train `student` in place with `trl.SFTTrainer`.

    Args:
        student: The model to train.
        dialogues: What to imitate, encoded (`sft.encode`) or not.
        config: Settings; `optimizer` must be "adamw", and `microbatch_tokens` has no meaning here.
        run_dir: Gets `metrics.jsonl` and TRL's checkpoints in `trl/`.
        tuning: Which weights are trained and in which precision; default: all of them, in float32.
        microbatch_size: Dialogues per forward pass and device; changes memory, not results.
        resume: Go on after the last checkpoint in `run_dir`.
        checkpoint_every: Steps between checkpoints.
        progress: Called after every step with the number of finished steps, of all, and the step's metrics.

    Returns:
        One row per step: step, loss (mean negative log-likelihood per reply token, in nats), lr, grad_norm,
        accuracy, entropy.

    Raises:
        ValueError: If there are no dialogues, or `batch_size` is no multiple of `microbatch_size`.
        ImportError: If TRL is not installed.
    """
    trl, tuning, run_dir = need("trl", "trl"), tuning or Tuning(), Path(run_dir)
    encoded = [d if isinstance(d, Prompt) else student.codec.dialogue(d) for d in check_dialogues(dialogues)]
    arguments = training_arguments(config, tuning, microbatch_size, run_dir / "trl", checkpoint_every)
    last = _last_checkpoint(run_dir / "trl") if resume else None
    metrics = run_dir / METRICS
    if resume:
        drop_rows_from(metrics, 0 if last is None else int(last.name.rpartition("-")[2]))
    else:
        RunFolder(run_dir).check(resume=False, marks=(METRICS,))
    with quiet(), random_states_kept(), trained_part(student.model, tuning, config.seed) as model:
        student.check_trainable()
        # The column `images` is what tells TRL to leave the rows to the collator.
        rows = need("datasets", "trl").Dataset.from_dict(
            {"images": [[]] * len(encoded), "index": list(range(len(encoded)))}
        )
        trainer = _trainer_class(trl)(
            model, arguments, train_dataset=rows, processing_class=student.processor,
            data_collator=Collator(student, encoded),
        )  # fmt: skip
        # TRL's loss divides by the reply tokens of the whole step, whatever the model's own loss does; unless
        # told, Qwen2.5-VL's steps would average micro-batches, and a short one would count too much.
        trainer.model_accepts_loss_kwargs = True
        with JsonlWriter(metrics) as writer:
            _listen(trainer, writer, config.steps, progress)
            try:
                trainer.train(resume_from_checkpoint=None if last is None else str(last))
            finally:
                student.model.eval()
                if tuning.gradient_checkpointing:
                    student.model.gradient_checkpointing_disable()
    student.weights_changed()
    return list(read_jsonl(metrics))


def training_arguments(
    config: SFTConfig, tuning: Tuning, microbatch_size: int, output_dir: Path, checkpoint_every: int
) -> Any:
    """Return `trl.SFTConfig` with the settings of a run.

    Raises:
        ValueError: If a setting has no counterpart there.
    """
    if config.optimizer != "adamw":
        raise ValueError(
            f"optimizer={config.optimizer!r}, expected 'adamw' with TRL; use the own loop for it"
        )
    if microbatch_size < 1 or config.batch_size % microbatch_size:
        raise ValueError(
            f"batch_size={config.batch_size} is no multiple of microbatch_size={microbatch_size}; choose one "
            "that divides it"
        )
    with quiet():
        return _arguments(config, tuning, microbatch_size, output_dir, checkpoint_every)


def _arguments(
    config: SFTConfig, tuning: Tuning, microbatch_size: int, output_dir: Path, checkpoint_every: int
) -> Any:
    return need("trl", "trl").SFTConfig(
        output_dir=str(output_dir),
        max_steps=config.steps,
        per_device_train_batch_size=microbatch_size,
        gradient_accumulation_steps=config.batch_size // microbatch_size,
        learning_rate=config.lr,
        warmup_steps=config.warmup,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": config.final_lr},
        weight_decay=config.weight_decay,
        adam_beta2=0.98,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        bf16=tuning.bf16,  # TRL's defaults, on, change results
        gradient_checkpointing=tuning.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        max_length=None,
        remove_unused_columns=False,
        save_strategy="steps",
        save_steps=checkpoint_every,
        save_total_limit=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )


class Collator:
    """Makes a batch of encoded dialogues: the tokens of the codec, labels where the loss is.

    Args:
        student: Whose processor and model the batch is for.
        encoded: The dialogues; a row names one by its "index".
    """

    def __init__(self, student: HFStudent, encoded: Sequence[Prompt]) -> None:
        self._adapter, self._encoded = student.decoder.adapter, encoded
        self._pad = student.codec.tokenizer.pad_token_id or 0

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the model's inputs and `labels`, padded at the right."""
        chosen = [self._encoded[row["index"]] for row in rows]
        shape = (len(chosen), max(len(prompt.trace) for prompt in chosen))
        ids_BL, labels_BL = np.full(shape, self._pad, np.int64), np.full(shape, _IGNORED, np.int64)
        mask_BL = np.zeros(shape, np.bool_)
        for row, trace in enumerate(prompt.trace for prompt in chosen):
            n = len(trace)
            ids_BL[row, :n], mask_BL[row, :n] = trace.ids_L, True
            labels_BL[row, :n][trace.sampled_L] = trace.ids_L[trace.sampled_L]
        images = [image for prompt in chosen for image in prompt.images[: prompt.trace.images]]
        ids, mask = torch.from_numpy(ids_BL), torch.from_numpy(mask_BL)
        inputs = self._adapter.inputs(ids, mask, torch.zeros(0), images)
        del inputs["position_ids"]  # the model makes its own from the mask
        # The trainer moves what it gets to its device.
        return {**{key: value.cpu() for key, value in inputs.items()}, "labels": torch.from_numpy(labels_BL)}


def _trainer_class(trl: Any) -> Any:
    class Trainer(trl.SFTTrainer):
        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            # transformers 5.23 writes a Qwen2.5-VL under the names of the hub's files and reads them back as
            # names of modules: none fits, it warns, and goes on with the weights it started from.
            sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
            if sharded or (Path(resume_from_checkpoint) / "adapter_config.json").is_file():
                super()._load_from_checkpoint(resume_from_checkpoint, model)
            else:
                saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
                self.model.load_state_dict(saved.state_dict())

    return Trainer


def _listen(trainer: Any, writer: JsonlWriter, total: int, progress: Progress | None) -> None:
    """Let every logged step become a row of the metrics, and keep TRL from printing it."""
    transformers: Any = need("transformers", "trl")

    class Rows(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" not in (logs or {}) or not state.is_world_process_zero:
                return
            found = {ours: _finite(logs[theirs]) for theirs, ours in _NAMES.items() if theirs in logs}
            row = {"step": state.global_step - 1, **found}
            writer.write(row)
            if progress is not None:
                progress(state.global_step, total, row)

    trainer.remove_callback(transformers.PrinterCallback)
    trainer.add_callback(Rows())


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(float(value)) else None


def _last_checkpoint(folder: Path) -> Path | None:
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    # The trainer's state is written last: a folder without it was cut short.
    return next((path for path in reversed(found) if (path / "trainer_state.json").is_file()), None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and its notes about renamed options to itself."""
    logging = need("transformers.utils.logging", "trl")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Restore the global random states at the end; transformers' trainer seeds all of them."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
