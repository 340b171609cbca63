"""Settings of training that need no torch: the loop's, a curriculum's, self-play's; how a student is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from steer_env.configs.base import AboveZero, Amount, Natural, Positive, Share, Switch, config, real
from steer_env.spaces import MAX_NEW_TOKENS

Overlong = Literal["keep", "mask", "penalise"]
Schedule = Literal["constant", "linear", "cosine"]
Weights = Literal["last", "average", "best"]


@config(frozen=True)
class TrainConfig:
    """Settings of a training run that do not depend on the algorithm.

    Attributes:
        steps: Number of steps.
        seeds_per_step: Seeds (groups) per step.
        group_size: K, dialogues per seed; the paper has 5.
        lr: Learning rate of AdamW.
        warmup: Steps over which the learning rate rises to `lr`.
        lr_schedule: After that "constant", or a "linear" or "cosine" fall over the steps left.
        final_lr: Share of `lr` at the end of that fall, in [0, 1].
        weight_decay: AdamW's.
        epochs: Passes over a step's dialogues.
        minibatch_size: Dialogues per optimiser step, 0 for all.
        microbatch_size: Most dialogues per forward pass; changes memory and speed, not results.
        microbatch_tokens: Most tokens per forward pass, padding included.
        target_kl: Leave out the updates of a step that are still to come once the policy is this far from
            where the step began: mean estimate of KL(before to now) per token, in nats; 0 takes them all.
        max_grad_norm: Gradients are clipped to this norm.
        temperature: Temperature that replies are sampled at.
        max_new_tokens: Longest reply; one that is cut there trains as any other ("keep"), not at all
            ("mask"), or with `overlong_penalty` taken off its advantage ("penalise"); see `update.treat_cut`.
        overlong: Which of the three.
        overlong_penalty: For "penalise".
        seed: Decides the dialogues' seeds, the sampling and the order of mini-batches.
        unscored_limit: Stop when more than this share of turns, beyond chance, has no verdict.
        unscored_window: Steps over which that share is taken.
        checkpoint_every: Steps between checkpoints; the last step always gets one.
        average: Keep a mean of the weights after each step beside them: over the last half of the steps
            ("tail"), or exponential ("ema"); see `checkpoints.Average`.
        average_decay: For "ema": share of the mean that a step keeps, in [0, 1).
        eval_every: Steps between evaluations on dialogues that stay the same, after the last step as well; 0
            does without. See `monitor.Validation`.
        eval_dialogues: How many dialogues that is.
        final_weights: What the student has at the end: its "last" weights, the "average", or those of the
            step that was evaluated "best" (the last where no evaluation had a verdict).

    Raises:
        ValueError: If a setting is out of its range.
    """

    steps: Positive = 100
    seeds_per_step: Positive = 8
    group_size: Positive = 5
    lr: Amount = 1e-4
    warmup: Natural = 0
    lr_schedule: Schedule = "constant"
    final_lr: Share = 0.0
    weight_decay: Amount = 0.0
    epochs: Positive = 1
    minibatch_size: Natural = 0
    microbatch_size: Positive = 32
    microbatch_tokens: Positive = 2048
    target_kl: Amount = 0.0
    max_grad_norm: Annotated[float, real(above=True, why="; a huge one switches clipping off")] = 1.0
    temperature: Annotated[float, real(above=True, why=": greedy siblings are all equal")] = 1.0
    max_new_tokens: Positive = MAX_NEW_TOKENS
    overlong: Overlong = "keep"
    overlong_penalty: Amount = 0.5
    seed: Natural = 0
    unscored_limit: Share = 0.05
    unscored_window: Positive = 20
    checkpoint_every: Positive = 20
    average: Literal["none", "tail", "ema"] = "none"
    average_decay: Share = 0.9
    eval_every: Natural = 0
    eval_dialogues: Positive = 64
    final_weights: Weights = "last"

    def __post_init__(self) -> None:
        for final, needed, why in (
            ("average", self.average != "none", "average"),
            ("best", self.eval_every, "eval_every"),
        ):
            if self.final_weights == final and not needed:
                raise ValueError(
                    f"final_weights={final!r} with {why}={getattr(self, why)!r}, expected {why} to be set: "
                    "there would be no such weights"
                )


@config(frozen=True)
class Stage:
    """One stage of a curriculum, see `algorithms.curriculum`.

    Attributes:
        options: Options of the environments, such as `{"max_turns": 2, "strategies": ["roleplay"]}`.
        steps: Training steps it lasts at most, 0 for ever.
        until: Ends earlier once a step's `return_per_turn` reaches this, None never.

    Raises:
        ValueError: If a setting is out of its range.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    steps: Natural = 0
    until: float | None = None


@config(frozen=True)
class SelfPlayConfig:
    """Settings of a self-play run, see `algorithms.selfplay`.

    Attributes:
        generations: How many times both seats are trained.
        mode: "alternating" or "simultaneous".
        student: The student's loop; `steps` are those of one generation. Its seed is derived from `seed`.
        attacker: The same of the attacker's practice; not used in "simultaneous", where it plays along.
        league_share: Probability that a dialogue's opponent is a past or fixed one.
        sampling: How that one is drawn, "uniform" or "pfsp", see `league.League`.
        power: Sharpness of "pfsp".
        seed: Decides everything that is drawn.

    Raises:
        ValueError: If a setting is out of its range.
    """

    generations: Positive = 4
    mode: Literal["alternating", "simultaneous"] = "alternating"
    student: TrainConfig = field(default_factory=lambda: TrainConfig(steps=15))
    attacker: TrainConfig = field(default_factory=lambda: TrainConfig(steps=15))
    league_share: Share = 0.5
    sampling: Literal["uniform", "pfsp"] = "pfsp"
    power: Amount = 1.0
    seed: Natural = 0


@config(frozen=True)
class Scaling:
    """How a student is run and which of its weights are trained; the defaults change nothing.

    Attributes:
        precision: "float32", or "bf16": forward passes in bfloat16 autocast, weights in float32.
            Sampled and recomputed log-probabilities then differ by some hundredths (`logprob_gap`).
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third slower.
        lora_rank: Rank of LoRA adapters (Hu et al. 2021, arXiv 2106.09685); 0 trains all weights. With
            adapters nothing else is trained, checkpoints hold only them, and the KL reference is the model
            with the adapters off, so no second copy is kept.
        lora_alpha: Adapters are scaled by `lora_alpha / lora_rank`.
        lora_targets: Names of the linear layers that get adapters, separated by commas.
    """

    precision: Literal["float32", "bf16"] = "float32"
    gradient_checkpointing: Switch = False
    lora_rank: Natural = 0
    lora_alpha: AboveZero = 32.0
    lora_targets: str = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
