r"""Memory and speed of training steps of a model of Qwen2.5-VL's true shape, on the GPU at hand.

    python benchmarks/large_step.py        # 3B, LoRA, 20 steps; writes runs/benchmarks/large_step.json
    python benchmarks/large_step.py --shape 3b --full --beta 0
    python benchmarks/large_step.py --vllm              # vLLM samples; its rate beside that of bare vLLM
    accelerate launch --config_file examples/accelerate/ddp_8gpu.yaml \
        benchmarks/large_step.py --shape 7b
    python benchmarks/large_step.py --shape tiny --steps 2      # the same code on a CPU, in seconds

NOT RUN ON A GPU YET: only `--shape tiny` has been run, on a CPU. Weights are random, nothing is downloaded;
the replies are noise, which is judged by its letters, so only speed and memory mean anything. Replies run to
`--max-new-tokens`, for noise hardly ever closes one.

The share of peak counts what the model has to do, not what checkpointing repeats: 2 FLOPs per weight and
token forward, 4 backward (2 with adapters, whose frozen weights get no gradient), 2 for the reference;
attention and the vision tower are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

import steer_env
from steer_env.agents import StaticAttacker
from steer_env.agents.hf import HFStudent
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.parallel import Parallel, launched
from steer_env.algorithms.trainer import TrainConfig, train
from steer_env.configs.train import Scaling
from steer_env.models.tiny import TinyConfig, build, build_processor, save
from steer_env.models.vllm_engine import EnginePrompt
from steer_env.trajectory import Trajectory
from steer_env.types import Scored, Terms

RESULTS = Path("runs/benchmarks/large_step.json")
TEXTS = ("please tell me what you see in the picture", "i will not help with that , here is a safe idea")
#: The published shapes, (text, vision, tied embeddings).
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "3b": (
        {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
         "num_key_value_heads": 2, "vocab_size": 151_936},
        {"out_hidden_size": 2048},
        True,
    ),
    "7b": (
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
         "num_key_value_heads": 4, "vocab_size": 152_064},
        {"out_hidden_size": 3584},
        False,
    ),
}  # fmt: skip


class LetterJudge:
    """Scores any reply by its share of lower-case letters."""

    name = "letters"

    def judge(self, requests: Sequence[Any]) -> list[Scored]:
        """Return one verdict per request."""
        replies = [request.transcript[-1].content for request in requests]
        shares = [sum("a" <= letter <= "z" for letter in reply) / max(1, len(reply)) for reply in replies]
        return [Scored(Terms(1 + round(9 * share), 5, 5), judge=self.name) for share in shares]


class Counting(StaticAttacker):
    """Counts the tokens of each step's dialogues."""

    def __init__(self) -> None:
        super().__init__()
        self.packed: list[int] = []
        self.sampled: list[int] = []

    def learn(self, trajectories: Sequence[Trajectory]) -> None:
        """Look at a step's dialogues, those of all processes."""
        traces = [t.trace for t in trajectories if t.trace is not None]
        self.packed.append(sum(map(len, traces)))
        self.sampled.append(sum(int(trace.sampled_L.sum()) for trace in traces))


def true_shape(name: str, tokenizer: Any) -> Qwen2_5_VLConfig:
    """Return the published configuration, with the token ids of our tokenizer."""
    text, vision, tied = SHAPES[name]
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    ids = {
        f"{what}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for what, token in (
            ("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }  # fmt: skip
    return Qwen2_5_VLConfig(
        text_config=text | {"max_position_embeddings": 128_000, "rope_parameters": rope, "rms_norm_eps": 1e-6,
                            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id},
        vision_config=vision | {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
                                "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],  # noqa: E501
                                "spatial_merge_size": 2, "temporal_patch_size": 2},
        tie_word_embeddings=tied,
        **ids,
    )  # fmt: skip


def make_student(args: argparse.Namespace, device: torch.device) -> HFStudent:
    if args.shape == "tiny":  # with heads that vLLM's kernels take
        shape = TinyConfig(vocab_size=300, hidden=64, heads=2, kv_heads=1, mlp=64, vision_heads=2)
        model, processor = build(TEXTS, shape)
    else:
        processor = build_processor(TEXTS, TinyConfig(image_side=224))
        torch.manual_seed(0)
        with device:
            model = Qwen2_5_VLForConditionalGeneration(true_shape(args.shape, processor.tokenizer))
    if not args.vllm:
        return HFStudent(model.to(device), processor)
    from steer_env.agents.vllm_student import TrainableVLLMStudent

    options = {"max_model_len": 8192, "max_num_seqs": args.seeds * args.group, "dtype": "bfloat16"}
    if args.shape == "tiny":
        options |= {"max_model_len": 4096, "dtype": "float32", "kv_cache_memory_bytes": 2**27}
        options["enforce_eager"] = True
    with tempfile.TemporaryDirectory() as folder:
        save(model, processor, folder)
        del model  # it is opened twice below, once by the engine
        return TrainableVLLMStudent.from_pretrained(folder, device=device, engine=options)


def bare_rate(student: Any, args: argparse.Namespace) -> float:
    """Return tokens per second of the engine alone: as many replies at once, of as many tokens, to text."""
    engine, codec = student.sampler.engine, student.codec
    ids = codec.tokenizer.encode(TEXTS[0], add_special_tokens=False)
    prompts = [EnginePrompt(ids, (), ids)] * (args.seeds * args.group)
    params = engine.params(temperature=1.0, max_new_tokens=args.max_new_tokens, closing=[], forbidden={})
    rates = []
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        replies = engine.generate(prompts, [params] * len(prompts))
        rates.append(sum(len(reply.ids) for reply in replies) / (time.perf_counter() - started))
    return rates[-1]


def measure(args: argparse.Namespace, parallel: Parallel, scaling: Scaling) -> dict[str, Any]:
    """Train and return the figures; the first step warms up and is left out."""
    device = parallel.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    student = make_student(args, device)
    text = sum(p.numel() for p in student.model.model.language_model.parameters())
    weights = sum(p.numel() for p in student.model.parameters())
    counting = Counting()
    config = TrainConfig(
        steps=args.steps, seeds_per_step=args.seeds, group_size=args.group, lr=1e-6, unscored_limit=1.0,
        max_new_tokens=args.max_new_tokens, microbatch_size=args.microbatch, checkpoint_every=10**6,
        microbatch_tokens=args.microbatch_tokens,
    )  # fmt: skip
    peaks: list[float] = []

    def after(done: int, total: int, row: dict[str, Any]) -> None:
        if gpu:
            peaks.append(torch.cuda.max_memory_allocated() / 1e9)
        if parallel.main:
            memory = f", {peaks[-1]:.1f} GB at most" if gpu else ""
            print(f"step {done}/{total}: {row['seconds_play']:.2f} + {row['seconds_update']:.2f} s{memory}")

    folder = parallel.everyone(tempfile.mkdtemp())[0]
    env = steer_env.make_vec("SteerEscalation-v0", args.seeds * args.group, judge=LetterJudge())
    algorithm = make_algorithm("grpo", beta=args.beta)
    rows = train(
        env, counting, student, algorithm, config, folder, scaling=scaling, parallel=parallel, progress=after
    )
    rows, packed, sampled = rows[1:], counting.packed[1:], counting.sampled[1:]
    play, learn = ([row[f"seconds_{part}"] for row in rows] for part in ("play", "update"))
    per_token = 2 * text * (3 - (scaling.lora_rank > 0) + (args.beta > 0))
    rate = statistics.median(per_token * n / s for n, s in zip(packed, learn, strict=True)) / parallel.size
    return {
        "shape": args.shape, "weights": weights, "processes": parallel.size, "steps": args.steps,
        "trained": "adapters" if scaling.lora_rank else "all", "precision": scaling.precision,
        "device": torch.cuda.get_device_name(device) if gpu else platform.processor() or "CPU",
        "torch": torch.__version__,
        "dialogues_per_step": args.seeds * args.group,
        "tokens_per_step": statistics.median(packed),
        "memory_gb": max(peaks) if peaks else None,
        "rollout_tokens_per_s": statistics.median(n / s for n, s in zip(sampled, play, strict=True)),
        "bare_vllm_tokens_per_s": bare_rate(student, args) if args.vllm else None,
        "logprob_gap_max": max(row["logprob_gap_max"] for row in rows),
        "seconds_play": statistics.median(play),
        "seconds_update": statistics.median(learn),
        "update_tflops_per_device": rate / 1e12,
        "share_of_peak": rate / (args.peak_tflops * 1e12) if gpu else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure training steps of a large model.")
    parser.add_argument("--shape", choices=("3b", "7b", "tiny"), default="3b")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--group", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--microbatch", type=int, default=4)
    parser.add_argument("--microbatch-tokens", type=int, default=4096)
    parser.add_argument("--full", action="store_true", help="train all weights instead of adapters")
    parser.add_argument("--beta", type=float, default=0.1, help="0 does without the reference")
    parser.add_argument("--vllm", action="store_true", help="vLLM samples, transformers learns")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="dense bf16; 989 is an H100's")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.steps < 2:
        parser.error(f"--steps {args.steps}, expected at least 2: the first one warms up")
    precision = "float32" if args.shape == "tiny" else "bf16"
    scaling = Scaling(precision, gradient_checkpointing=True, lora_rank=0 if args.full else 16)
    parallel = launched()
    result = measure(args, parallel, scaling)
    if parallel.main:
        print(json.dumps(result, indent=2))
        if args.shape != "tiny" or args.out != RESULTS:  # the tiny one is a test of the code, no result
            args.out.parent.mkdir(exist_ok=True)
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if parallel.size > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
