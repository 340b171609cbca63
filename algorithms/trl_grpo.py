"""GRPO with TRL's trainer on the same environments: images in any turn, credit per turn, token-exact.

TRL's own hooks do not fit a user who speaks: `environment_factory` turns methods into tools and ends with the
first reply without a call, `rollout_func` passes images of the first turn only. `SteerGRPOTrainer` plays the
dialogues with `rollout` and an `HFStudent` around the trainer's model, and hands TRL the tokens. Everything
after that is TRL's: loss types, clipping, accumulation, accelerate, logging, checkpoints.

Private parts of TRL that this file relies on, guarded by the tests that compare loss and gradient:

- `_generate_and_score_completions(inputs)`, overridden: its arguments, and the names, shapes and padding of
  what it returns (`_prepare_inputs` shuffles and splits it, `_compute_loss` reads it);
- `_get_per_token_logps_and_entropies`, for the KL reference and for weights that correct for vLLM's
  log-probabilities, and, from 1.16 on, `trl.trainer.utils.add_fused_lm_head`: TRL would load a reference from
  where the model came from, which is not the policy that starts here;
- `importance_sampling_ratio`, `sampling_per_token_logps`: names of those weights and what they correct;
- `_metrics[mode]`, lists of values that `log` averages.

And of transformers: `_load_from_checkpoint`, overridden, see there. Needs the extra `trl`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from steer_env.agents.base import Acts, Agent, as_agent
from steer_env.agents.hf.student import HFStudent
from steer_env.agents.vllm_student import TrainableVLLMStudent
from steer_env.algorithms.advantages import group_advantages, trajectory_return
from steer_env.algorithms.checkpoints import attacker_state
from steer_env.algorithms.credit import group_turn_values, split
from steer_env.algorithms.forward import adapters_off, has_adapters
from steer_env.algorithms.trl_rows import columns, has_tokens, importance_weights, padded, passes
from steer_env.algorithms.trl_settings import check, check_adapters, check_vllm, check_whole
from steer_env.algorithms.trl_vllm import vllm_sampler
from steer_env.arrays import Floats
from steer_env.extras import need
from steer_env.rollout import rollout
from steer_env.trajectory import Trajectory, group_by_seed
from steer_env.unscored import dialogue_metrics
from steer_env.vector import VectorDialogueEnv

#: TRL versions that are supported. 1.15 scores tokens with Triton kernels or not at all.
TRL_VERSIONS = ">=1.0,!=1.15.*,<1.17"
#: The attacker's memory in a checkpoint's folder.
_MEMORY = "attacker.pt"
#: Added to the logits of tokens that are never sampled: no probability, and no infinity in TRL's products.
_FORBIDDEN_LOGIT = -1e4
#: Inputs of pictures that TRL splits among micro-batches as they come from the codec (Qwen-VL's).
_IMAGE_INPUTS = {"pixel_values", "image_grid_thw"}


def check_version(version: str) -> None:
    """Refuse a TRL whose private parts are not known.

    Raises:
        ImportError: If it is outside `TRL_VERSIONS`.
    """
    if version not in need("packaging.specifiers", "trl").SpecifierSet(TRL_VERSIONS):
        raise ImportError(
            f"trl {version} is installed, expected {TRL_VERSIONS}: SteerGRPOTrainer overrides private "
            f"methods; run: pip install 'trl{TRL_VERSIONS}', or use steer_env.algorithms.train, which does "
            "without TRL"
        )


trl = need("trl", "trl")
check_version(trl.__version__)
_Trainer: Any = trl.GRPOTrainer


class SteerGRPOTrainer(_Trainer):
    """`trl.GRPOTrainer` that plays dialogues instead of completing prompts.

    Per training step it plays `num_generations` dialogues for each of several seeds; a row is a dialogue, its
    "completion" all that follows the first user turn, with the student's tokens in the loss mask. Turns
    without a verdict are masked. From TRL's settings come `temperature`, `num_generations`, `beta`,
    `scale_rewards` ("group" or "none", the paper's) and all that the loss and the optimiser use; replies are
    as long as `student.max_new_tokens` allows.

    The tokens a student never samples (`student.decoder.forbidden`) get no probability in TRL's forward pass
    either: the language head is given a bias that is not saved and not trained.

    Args:
        env: A vector environment whose wrappers emit the reward to maximise.
        attacker: Plays `attacker_0`; if it has `learn`, it sees the dialogues (of all processes) after they
            were played, and if it has `state_dict` and `load_state_dict`, its memory is in the checkpoints.
        student: The policy; its model is trained in place. It is also the KL reference as it is now. With
            `use_vllm` its replies are sampled by the vLLM that TRL starts or reaches, or, if it is a
            `TrainableVLLMStudent`, by its own engine, and what is learned is weighted for the gap.
        args: `trl.GRPOConfig`. Its defaults `bf16=True` and `gradient_checkpointing=True` change results.
        seeds: Reset seeds, one per group; None draws enough for `max_steps` from `args.seed`.
        credit: What the tokens of a turn answer for, one of `CREDITS` (see `credit`), compared with the
            siblings' at the same turn; "trajectory" is the paper's.
        discount: Discount of the credit "discounted", in [0, 1].
        **options: Options of `trl.GRPOTrainer`: `callbacks`, `optimizers`, `peft_config`. With the last one
            only adapters learn, checkpoints hold only them, and the KL reference is the model without them.

    Raises:
        ValueError: If a setting has no meaning here, the weights to train are not float32, or the student
            has adapters already.
        TypeError: If the attacker's memory could not be read back from a checkpoint.
    """

    def __init__(
        self,
        env: VectorDialogueEnv,
        attacker: Acts,
        student: HFStudent,
        args: Any,
        *,
        seeds: Sequence[int] | None = None,
        credit: str = "own_turn",
        discount: float = 0.5,
        **options: Any,
    ) -> None:
        check(args, credit, discount, options)
        adapters = options.get("peft_config") is not None
        check_adapters(student.model)
        if not adapters:  # else what does not learn may be of lower precision
            student.check_trainable()
        attacker = as_agent(attacker)
        attacker_state(attacker)  # refused now rather than at the first checkpoint
        _rule_out(student.model, student.decoder.forbidden)
        copied = args.beta and not adapters  # with adapters the reference is the model without them
        reference = copy.deepcopy(student.model).requires_grad_(False) if copied else None
        theirs = copy.copy(args)  # without what this class does itself
        theirs.beta = 0.0
        theirs.use_vllm = args.use_vllm and not isinstance(student, TrainableVLLMStudent)
        if theirs.use_vllm:
            check_vllm(args, student)
        super().__init__(
            model=student.model,
            reward_funcs=_no_reward,
            args=theirs,
            train_dataset=_dataset(args, seeds),
            processing_class=student.processor,
            **options,
        )
        if adapters:
            student.model._hf_peft_config_loaded = True  # so that student.save knows of them
            student.check_trainable()
        self.env, self.attacker, self.student = env, attacker, student
        self.credit, self.discount = credit, discount
        self.beta = self.args.beta = args.beta
        self.sampler: Any = vllm_sampler(self.vllm_generation, student) if theirs.use_vllm else student
        check_whole(self, theirs.use_vllm)
        self.use_vllm = self.args.use_vllm = args.use_vllm
        if reference is not None:
            utils = need("trl.trainer.utils", "trl")
            if hasattr(utils, "add_fused_lm_head"):  # before, log-probabilities came from the logits
                utils.add_fused_lm_head(reference, temperature=args.temperature)
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)
        self.sampler.temperature = args.temperature
        self.add_callback(_SaveMemory(attacker))

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """Train as TRL does; resuming puts the attacker's memory back as well.

        Raises:
            FileNotFoundError: If the attacker has a memory and the checkpoint none.
        """
        folder: str | bool | None = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)
        if folder and (memory := _memory(Path(str(folder)), self.attacker)):
            self.attacker.load_state_dict(memory)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)

    def _generate_and_score_completions(self, inputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Play one dialogue per input; returns what TRL's loss reads, rows in the order of the inputs."""
        mode = "train" if self.model.training else "eval"
        started = time.perf_counter()
        trajectories = self._play([int(row["seed"]) for row in inputs])
        # A group may be spread over processes, and every process's attacker learns the same.
        everyone = need("accelerate.utils", "trl").gather_object(trajectories)
        size = self.num_generations if mode == "train" else self.num_generations_eval
        advantages, metrics = self._compare(everyone, size)
        first = self.accelerator.process_index * len(trajectories)
        batch = self._batch(trajectories, advantages[first : first + len(trajectories)])
        if self.use_vllm and self.vllm_importance_sampling_correction:
            metrics |= self._correct(batch)
        if mode == "train":
            self.attacker.learn(everyone)
        for name, value in (metrics | {"seconds_play": time.perf_counter() - started}).items():
            if value is not None:
                self._metrics[mode][name].append(value)
        return batch

    def _play(self, seeds: Sequence[int]) -> list[Trajectory]:
        """Play one dialogue per seed; the setting `seed`, the step and the process decide what is sampled."""
        entropy = [self.args.seed, self.state.global_step, 1, self.accelerator.process_index]
        self.sampler.reseed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self.student.weights_changed()
        if self.sampler is not self.student:
            self.vllm_generation.sync_weights()  # every process takes part
            self.sampler.engine.reset_caches()
            self.accelerator.wait_for_everyone()
        training = self.student.model.training
        self.student.model.eval()
        try:
            return rollout(self.env, self.attacker, self.sampler, seeds)
        finally:
            self.student.model.train(training)
            self.student.weights_changed()

    def _compare(
        self, trajectories: Sequence[Trajectory], size: int
    ) -> tuple[list[Floats], dict[str, float | None]]:
        """Return the advantages of each dialogue's turns, groups of `size` in a row, and metrics."""
        scale = self.args.scale_rewards == "group" or self.credit == "turn_normalised"
        advantages: list[Floats] = []
        for group in group_by_seed(trajectories, size):
            values_TK = group_turn_values(group, self.credit, discount=self.discount)
            advantages += split(group_advantages(values_TK, scale=scale), group.trajectories)
        returns_GK = np.array([trajectory_return(t) for t in trajectories]).reshape(-1, size)
        metrics = dialogue_metrics(trajectories, returns_GK)
        return advantages, metrics | {"reward": metrics["return"]}

    def _batch(self, trajectories: Sequence[Trajectory], advantages: Sequence[Floats]) -> dict[str, Any]:
        """Cut each trace before its first sampled token: prompts padded left, the rest right."""
        device = self.accelerator.device
        pad = int(self.student.codec.tokenizer.pad_token_id or 0)
        rows = [
            columns(trajectory, advantage, pad)
            for trajectory, advantage in zip(trajectories, advantages, strict=True)
        ]
        cuts = [int(np.flatnonzero(row["sampled"])[0]) for row in rows]

        def prompts(name: str, fill: int) -> Tensor:
            return padded([row[name][:cut] for row, cut in zip(rows, cuts, strict=True)], fill, left=True)

        def rest(name: str, fill: float = 0) -> Tensor:
            return padded([row[name][cut:] for row, cut in zip(rows, cuts, strict=True)], fill, left=False)

        batch: dict[str, Any] = {
            "prompt_ids": prompts("ids", pad), "prompt_mask": prompts("valid", 0),
            "completion_ids": rest("ids", pad), "completion_mask": rest("valid"),
            "tool_mask": rest("mask"), "advantages": rest("advantages"),
            "old_per_token_logps": rest("logprobs"),
        }  # fmt: skip
        batch = {name: value.to(device) for name, value in batch.items()} | self._images(trajectories, batch)
        batch["num_items_in_batch"] = self.accelerator.gather(batch["tool_mask"].sum()).sum()
        return batch

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return TRL's loss of a micro-batch."""
        if "pixel_values" in inputs and not inputs["pixel_values"].numel():
            for name in _IMAGE_INPUTS & inputs.keys():  # no row has pictures, models do not take none
                del inputs[name]
        if self.beta and "ref_per_token_logps" not in inputs:
            inputs["ref_per_token_logps"] = self._reference_logprobs(inputs)  # kept for later iterations
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _images(self, trajectories: Sequence[Trajectory], batch: dict[str, Any]) -> dict[str, Any]:
        """Return the model's inputs for pictures, wherever they were shown, and their number per row."""
        shown = [
            t.scenario.images[: t.trace.images] if t.trace is not None and has_tokens(t) else ()
            for t in trajectories
        ]
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        adapter, images = self.student.decoder.adapter, [image for row in shown for image in row]
        inputs = adapter.inputs(ids, None, torch.zeros(0), images)
        found = {k: v for k, v in inputs.items() if k not in ("input_ids", "position_ids")}
        unknown = set(found) - _IMAGE_INPUTS - {"mm_token_type_ids", "token_type_ids"}
        if unknown:
            raise ValueError(
                f"{type(self.student.processor).__name__} makes {sorted(unknown)}, expected only "
                f"{sorted(_IMAGE_INPUTS)}: TRL could not split these; train a model of the "
                "Qwen-VL family, or use steer_env.algorithms.train"
            )
        return found | ({"num_images": [len(row) for row in shown]} if images else {})

    def _correct(self, batch: dict[str, Any]) -> dict[str, float | None]:
        """Put the policy's log-probabilities and what corrects for vLLM's into a batch; returns metrics."""
        sampled_BC, mask_BC = batch["old_per_token_logps"], batch["tool_mask"]
        own_BC = self._logprobs(self.model, batch)
        low = getattr(self.args, "vllm_importance_sampling_clip_min", None)
        high = getattr(self.args, "vllm_importance_sampling_clip_max", None)
        if not hasattr(self.args, "vllm_importance_sampling_clip_max"):  # its name in older versions
            high = self.args.vllm_importance_sampling_cap
        mode = self.vllm_importance_sampling_mode
        weights = importance_weights(own_BC, sampled_BC, mask_BC, mode, low, high)
        batch["old_per_token_logps"], batch["sampling_per_token_logps"] = own_BC, sampled_BC
        batch["importance_sampling_ratio"] = weights
        learnt = mask_BC.bool()
        gaps, ratios = (own_BC - sampled_BC).abs()[learnt], weights.expand_as(own_BC)[learnt]
        parts = need("accelerate.utils", "trl").gather_object([(gaps.cpu().numpy(), ratios.cpu().numpy())])
        gaps_N, ratios_N = (np.concatenate(part) for part in zip(*parts, strict=True))
        if not len(gaps_N):
            return {}
        return {  # under the names that TRL gives them
            "sampling/sampling_logp_difference/mean": float(gaps_N.mean()),
            "sampling/sampling_logp_difference/max": float(gaps_N.max()),
            "sampling/importance_sampling_ratio/min": float(ratios_N.min()),
            "sampling/importance_sampling_ratio/mean": float(ratios_N.mean()),
            "sampling/importance_sampling_ratio/max": float(ratios_N.max()),
        }

    def _reference_logprobs(self, batch: dict[str, Any]) -> Tensor:
        if self.ref_model is not None:
            return self._logprobs(self.ref_model, batch)
        with adapters_off(self.student.model):
            return self._logprobs(self.model, batch)

    @torch.no_grad()
    def _logprobs(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """Return the log-probabilities of a batch's completions, by as many rows a pass as the loss takes."""
        found = []
        for part in passes(batch, self.args.per_device_train_batch_size):
            prompts, completions = part.pop("prompt_ids"), part.pop("completion_ids")
            masks = torch.cat([part.pop("prompt_mask"), part.pop("completion_mask")], 1)
            ids = torch.cat([prompts, completions], 1)
            found.append(
                self._get_per_token_logps_and_entropies(model, ids, masks, completions.shape[1], **part)[0]
            )
        return torch.cat(found)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # transformers 5.23 writes a Qwen2.5-VL under the names of the hub's files and reads them back as
        # names of modules: none fits, it warns, and goes on with the weights it started from.
        adapters = has_adapters(self.student.model)
        if adapters or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            saved = type(self.student.model).from_pretrained(resume_from_checkpoint, dtype=torch.float32)
            self.student.model.load_state_dict(saved.state_dict())


class _SaveMemory(TrainerCallback):
    """Writes the attacker's memory beside the model of a checkpoint."""

    def __init__(self, attacker: Agent) -> None:
        self._attacker = attacker

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero and (memory := attacker_state(self._attacker)):
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            torch.save(memory, folder / _MEMORY)


def _memory(folder: Path, attacker: Agent) -> Any:
    path = folder / _MEMORY
    if not path.exists():
        if not attacker.state_dict():
            return {}
        raise FileNotFoundError(
            f"checkpoint {str(folder)!r} holds no {_MEMORY}, expected the attacker's memory beside the "
            "model: it was not written to its end, or by another trainer; resume from an earlier one"
        )
    return torch.load(path, weights_only=True, map_location="cpu")


def _rule_out(model: Any, forbidden: Tensor) -> None:
    """Give the language head a bias that leaves forbidden tokens no probability; it is not saved."""
    head = model.get_output_embeddings()
    if "bias" in dict(head.named_buffers()):
        return  # from an earlier trainer
    if head.bias is not None:
        raise ValueError(
            f"the language head of {type(model).__name__} has a bias, expected one without; use "
            "steer_env.algorithms.train"
        )
    bias = torch.zeros(head.weight.shape[0], dtype=head.weight.dtype, device=head.weight.device)
    bias[forbidden.to(bias.device)] = _FORBIDDEN_LOGIT
    del head.bias
    head.register_buffer("bias", bias, persistent=False)


def _dataset(args: Any, seeds: Sequence[int] | None) -> Any:
    if seeds is None:
        groups = max(1, args.generation_batch_size // args.num_generations) * max(1, args.max_steps)
        seeds = np.random.SeedSequence(args.seed).generate_state(groups).tolist()
    if not len(seeds):
        raise ValueError("seeds=[], expected at least one reset seed per group of a step")
    rows = {"prompt": [""] * len(seeds), "seed": [int(seed) for seed in seeds]}
    return need("datasets", "trl").Dataset.from_dict(rows)


def _no_reward(**columns: Any) -> None:
    """TRL asks for a reward function; rewards come from the environment."""
