"""Which of TRL's settings have a meaning for dialogues, and which are refused."""

from __future__ import annotations

from typing import Any

from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.credit import CREDITS as ALL_CREDITS
from steer_env.algorithms.forward import has_adapters

#: Ways to give credit; TRL's trainer plays no dialogue on.
CREDITS = tuple(name for name in ALL_CREDITS if name != "counterfactual")
#: Settings of TRL's that have no effect on a rollout of dialogues, and the value they must have.
_FIXED = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": None,
    "repetition_penalty": 1.0,
    "generation_kwargs": None,
    "sync_ref_model": False,
    "log_completions": False,
    "mask_truncated_completions": False,
    "vllm_enable_sleep_mode": False,
    "vllm_structured_outputs_regex": None,
}


def check(args: Any, credit: str, discount: float, options: dict[str, Any]) -> None:
    """Refuse settings and options that have no meaning for dialogues.

    Raises:
        ValueError: See above.
    """
    if credit not in CREDITS:
        raise ValueError(f"credit={credit!r}, expected one of {CREDITS}")
    if not 0 <= discount <= 1:
        raise ValueError(f"discount={discount!r}, expected a number in [0, 1]")
    for name, expected in _FIXED.items():
        if getattr(args, name) != expected:
            raise ValueError(
                f"{name}={getattr(args, name)!r}, expected {expected!r}: the dialogues are played by the "
                "HFStudent, which has no such setting"
            )
    if args.scale_rewards not in ("group", "none"):
        raise ValueError(
            f"scale_rewards={args.scale_rewards!r}, expected 'group' or 'none' (the paper's): siblings are "
            "compared with each other"
        )
    if args.loss_type == "vespo":
        raise ValueError(
            "loss_type='vespo', expected one with advantages per token, such as 'dapo' or 'grpo'"
        )
    unknown = set(options) - {"callbacks", "optimizers", "peft_config"}
    if unknown:
        raise ValueError(
            f"options {sorted(unknown)}, expected only 'callbacks', 'optimizers' and 'peft_config'"
        )


def check_adapters(model: Any) -> None:
    """Refuse a model that has adapters.

    Raises:
        ValueError: See above.
    """
    if has_adapters(model):
        raise ValueError(
            "the student's model has adapters already, expected one without: merge them with "
            "steer_env.algorithms.forward.save_merged, or resume the run that made them"
        )


def check_vllm(args: Any, student: HFStudent) -> None:
    """Refuse settings with which TRL's vLLM could not sample dialogues.

    Raises:
        ValueError: If the model is not one on disk or on the hub, its replies are cut to the likeliest
            tokens, or GPUs share an engine in the trainer.
    """
    if student.top_p < 1 or student.top_k:
        raise ValueError(
            f"top_p={student.top_p!r} and top_k={student.top_k!r} with use_vllm=True, expected 1 and 0: vLLM "
            "tells the log-probabilities after the cut, which no loss can recompute"
        )
    if not student.model.name_or_path:
        raise ValueError(
            "use_vllm=True with a student made in memory, expected one of HFStudent.from_pretrained: vLLM "
            "opens the same folder; save the student and open it"
        )
    if args.vllm_mode == "colocate" and args.vllm_tensor_parallel_size != 1:
        raise ValueError(
            f"vllm_tensor_parallel_size={args.vllm_tensor_parallel_size!r} with vllm_mode='colocate', "
            "expected 1: every process plays dialogues of its own, and an engine that they share would wait "
            "for all of them; use vllm_mode='server' for a model that no GPU holds alone"
        )


def check_whole(trainer: Any, use_vllm: bool) -> None:
    """Refuse to sample with transformers where the weights lie in shards.

    Raises:
        ValueError: See above.
    """
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    sharded = trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3)
    if sharded and not use_vllm:
        raise ValueError(
            "use_vllm=False with FSDP or ZeRO-3, expected True: a process holds a part of each weight, and "
            "the HFStudent samples with whole ones; set use_vllm=True, or take DDP"
        )
