"""Supervised fine-tuning on the student's tokens only (SaFeR-Steer, arXiv 2604.16358, Stage II).

Teacher forcing on whole dialogues: the loss covers the replies and the token that closes each, nothing the
user said. The same code trains the helpful-only base and the bootstrapped student.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from steer_env.agents.hf.adapter import ModelAdapter
from steer_env.agents.hf.codec import Exchange, Prompt
from steer_env.agents.hf.packed import microbatches, packed_logprobs
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.base import Progress
from steer_env.algorithms.checkpoints import drop_rows_from, load_state, save_state
from steer_env.algorithms.forward import autocast, prepared, updating
from steer_env.algorithms.monitor import METRICS, MetricsLogger
from steer_env.algorithms.muon import Muon
from steer_env.configs.sft import SFTConfig
from steer_env.configs.train import Scaling
from steer_env.records import Row
from steer_env.runs import RunFolder, locked

Dialogue = Sequence[Exchange]

#: Weights and optimisers of an unfinished run.
STATE: Final = "sft_state.pt"
#: The one before it, for the case that the newest is damaged.
BEFORE: Final = "sft_state_before.pt"

#: Batches are cut from pools of this many batches sorted by length, so that little is padding.
_POOL = 16


@locked("run_dir")
def train(
    student: HFStudent,
    dialogues: Sequence[Dialogue | Prompt],
    config: SFTConfig,
    *,
    scaling: Scaling | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    checkpoint_every: int = 100,
    progress: Progress | None = None,
) -> list[Row]:
    """Train `student` in place on dialogues.

    Args:
        student: The model to train.
        dialogues: What to imitate, encoded (`encode`) or not; images are given where they are shown.
        config: Settings.
        scaling: Precision, gradient checkpointing, LoRA; the default changes nothing. Adapters that the
            student did not come with are merged into the weights at the end.
        run_dir: Gets `metrics.jsonl`, a row per step, and `sft_state.pt`, from which `resume` goes on.
        resume: Go on with the run in `run_dir`; the weights end bitwise as those of a run in one go.
        checkpoint_every: Steps between two writes of that state.
        progress: Called after every step with the number of finished steps, of all, and the step's metrics.

    Returns:
        One row per step: step, loss (mean negative log-likelihood per reply token, in nats), lr, tokens,
        seconds.

    Raises:
        ValueError: If there are no dialogues, the weights to train are not float32, or a dialogue has no
            reply to learn.
        ImportError: If LoRA is asked for and peft is not installed.
    """
    scaling = scaling or Scaling()
    if not dialogues:
        raise ValueError("dialogues is empty, expected at least one")
    examples = [d if isinstance(d, Prompt) else student.codec.dialogue(d) for d in dialogues]
    model, folder = student.model, None if run_dir is None else Path(run_dir)
    student.check_trainable()
    try:
        with prepared(student, scaling, config.seed), updating(model, scaling):
            optimizers = make_optimizers(model, config)
            first = 0 if folder is None else _open(folder, model, optimizers, resume)
            stream = batches(examples, config.batch_size, config.seed)
            with MetricsLogger(folder) as log:
                for step, batch in zip(range(config.steps), stream, strict=False):
                    if step < first:
                        continue
                    log.write(_step(student, optimizers, batch, step, config, scaling))
                    if folder and ((step + 1) % checkpoint_every == 0 or step + 1 == config.steps):
                        log.sync()  # the rows that the state counts
                        _save(folder, model, optimizers, step + 1)
                    if progress is not None:
                        progress(step + 1, config.steps, log.rows[-1])
    finally:
        student.weights_changed()  # not before adapters are merged into them
    return log.rows


def encode(
    student: HFStudent, dialogues: Sequence[Dialogue], max_length: int = 0
) -> tuple[list[Prompt], int]:
    """Return the encoded dialogues that fit, and how many do not.

    Args:
        student: Whose tokens.
        dialogues: What to encode.
        max_length: Most tokens of a dialogue, those of its pictures included; 0 takes the model's context.
    """
    limit = min(max_length or 2**31, student.decoder.adapter.max_length)
    encoded = [student.codec.dialogue(dialogue) for dialogue in dialogues]
    fitting = [prompt for prompt in encoded if len(prompt.trace) <= limit]
    return fitting, len(encoded) - len(fitting)


def _step(
    student: HFStudent,
    optimizers: list[torch.optim.Optimizer],
    batch: list[Prompt],
    step: int,
    config: SFTConfig,
    scaling: Scaling,
) -> Row:
    started = time.perf_counter()
    lr = learning_rate(step, config)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr / config.lr * group["peak_lr"]
    loss, tokens = _accumulate(student.decoder.adapter, batch, config, scaling)
    torch.nn.utils.clip_grad_norm_(student.model.parameters(), config.max_grad_norm)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - started
    return {"step": step, "loss": loss, "lr": lr, "tokens": tokens, "seconds": seconds}


def _accumulate(
    adapter: ModelAdapter, batch: list[Prompt], config: SFTConfig, scaling: Scaling
) -> tuple[float, int]:
    """Add the gradient of one batch; returns its mean loss and number of tokens."""
    learned = torch.tensor([int(example.trace.sampled_L.sum()) for example in batch])
    total = int(learned.sum())
    weight_B = 1 / learned / len(batch) if config.per_dialogue else torch.full((len(batch),), 1 / total)
    value = 0.0
    for part in microbatches([len(e.trace) for e in batch], len(batch), config.microbatch_tokens):
        with autocast(scaling, adapter.device):
            packed = packed_logprobs(adapter, [batch[i] for i in part])
        weight_N = weight_B.to(adapter.device)[torch.tensor(part, device=adapter.device)][packed.rows_N]
        loss = -(weight_N * packed.logprobs_N).sum()
        loss.backward()
        value += loss.item()
    return value, total


def _save(folder: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    learned = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if (folder / STATE).exists():  # what resuming falls back to
        (folder / STATE).replace(folder / BEFORE)
    states = {"weights": learned, "optimizers": [o.state_dict() for o in optimizers]}
    save_state({"step": step, **states}, folder / STATE)


def _open(folder: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], resume: bool) -> int:
    """Prepare the folder and go to where a run broke off; returns the number of finished steps."""
    state = load_state(folder / STATE, folder / BEFORE) if resume else None
    finished = 0
    if state is not None:
        finished = int(state["step"])
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in state["weights"].items():
                parameters[name].copy_(value)
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    RunFolder(folder).check(resume=resume, marks=(METRICS,))
    drop_rows_from(folder / METRICS, finished)
    return finished


def make_optimizers(model: torch.nn.Module, config: SFTConfig) -> list[torch.optim.Optimizer]:
    """Return the optimisers of a run; each parameter group knows its peak learning rate as "peak_lr".

    Muon is for the matrices within layers, those of the vision tower included; embeddings, the language head,
    norms, biases and the convolution over pixels stay with AdamW.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden = {
        name
        for name, parameter in parameters.items()
        if config.optimizer == "muon"
        and parameter.ndim == 2
        and not any(part in name for part in ("embed", "lm_head"))
    }
    rest = [parameter for name, parameter in parameters.items() if name not in hidden]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    ]
    if hidden:
        matrices = [parameters[name] for name in parameters if name in hidden]
        optimizers.append(Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def learning_rate(step: int, config: SFTConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine (Loshchilov and Hutter 2017).

    Example:
        >>> config = SFTConfig(steps=11, warmup=1, lr=1.0, final_lr=0.0)
        >>> [round(learning_rate(step, config), 3) for step in (0, 1, 6, 11)]
        [0.5, 1.0, 0.5, 0.0]
    """
    if step < config.warmup:
        return config.lr * (step + 1) / (config.warmup + 1)
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * done)))


def batches(examples: Sequence[Prompt], size: int, seed: int) -> Iterator[list[Prompt]]:
    """Yield batches without end: every example once per pass, dialogues of like length together."""
    rng = np.random.default_rng(seed)
    size = min(size, len(examples))
    while True:
        order = rng.permutation(len(examples))
        cut: list[list[Prompt]] = []
        for start in range(0, len(order), _POOL * size):
            pool = sorted(order[start : start + _POOL * size], key=lambda i: len(examples[i].trace))
            cut += [[examples[i] for i in pool[at : at + size]] for at in range(0, len(pool), size)]
        yield from (cut[i] for i in rng.permutation(len(cut)))
