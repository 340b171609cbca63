"""A tiny but real Qwen2.5-VL, its tokenizer and its processor, built offline in a second.

The model is an ordinary `Qwen2_5_VLForConditionalGeneration`, so everything that runs on it runs on the 3B
and 7B checkpoints too. The tokenizer is a byte-level BPE: it has no unknown token and round-trips any text.
The processor handles images only, because the stock one needs torchvision merely to be constructed; its
pixels are those of the stock one.

Importing this module registers the processor, so that `AutoProcessor.from_pretrained` opens a saved folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from huggingface_hub import constants, try_to_load_from_cache
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import logging

from steer_env.models.shipped import SHIPPED, local_path

#: Control tokens, with Qwen's names so that templates and tools for the large models fit.
SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

#: What may be a model on the hub: a name, or owner/name.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

#: Qwen's ChatML without its default system prompt. The generation span ends with <|im_end|> and leaves the
#: line break after it out: the policy stops at <|im_end|>.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}{%- if 'text' in part -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>' -}}{%- endgeneration -%}{{- '\n' -}}"
    "{%- else -%}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' or 'image' in part -%}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif 'text' in part -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\n' -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


class ImageOnlyQwenVLProcessor(ProcessorMixin):
    """Qwen2.5-VL's processor without the video processor, which needs torchvision.

    Raises:
        ImportError: If transformers is too old to ask it for a picture's tokens.
    """

    return_mm_token_type_ids = True

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not hasattr(ProcessorMixin, "replace_image_token"):  # nothing would put the tokens of a picture in
            raise ImportError(
                f"transformers {transformers.__version__} is installed, expected 5.10 or newer: an older one "
                "makes one token of a whole picture here; run: pip install 'transformers>=5.10'"
            )
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Return the placeholder once for every token the vision tower makes of the image."""
        patches = int(image_inputs["image_grid_thw"][image_idx].prod())
        return self.image_token * (patches // self.image_processor.merge_size**2)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Write the processor, and what the stock one needs in addition: vLLM and others open the folder."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        images = self.image_processor
        video = {
            "video_processor_type": "Qwen2VLVideoProcessor",
            "patch_size": images.patch_size,
            "merge_size": images.merge_size,
            "temporal_patch_size": images.temporal_patch_size,
            "size": {name: images.size[name] for name in ("shortest_edge", "longest_edge")},
        }
        file = Path(save_directory) / "video_preprocessor_config.json"
        file.write_text(json.dumps(video, indent=2) + "\n", encoding="utf-8")
        return saved

    @property
    def model_input_names(self) -> list[str]:
        """Names of the model inputs this processor makes."""
        return [*super().model_input_names, "mm_token_type_ids"]


AutoProcessor.register(Qwen2_5_VLConfig, ImageOnlyQwenVLProcessor, exist_ok=True)


@dataclass(frozen=True, slots=True)
class TinyConfig:
    """Shape of a tiny Qwen2.5-VL; the defaults give about a million parameters.

    Attributes:
        vocab_size: Entries of the tokenizer, control tokens and the 256 bytes included.
        hidden: Width of the language model.
        layers: Layers of the language model.
        heads: Attention heads; `kv_heads` of them have keys and values of their own.
        kv_heads: Key and value heads. With as many as heads, decoding on CPU need not copy the cache each
            step.
        mlp: Inner width of the language model's MLPs.
        vision_hidden: Width of the vision tower.
        vision_layers: Layers of the vision tower.
        vision_heads: Heads of the vision tower.
        image_side: Images are resized to about this many pixels squared, keeping their shape.
        patch: Side of a vision patch in pixels; four patches make one token.
        max_positions: Longest sequence in tokens.
        init_std: Standard deviation of the initial weights.
    """

    vocab_size: int = 768
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 4
    mlp: int = 384
    vision_hidden: int = 64
    vision_layers: int = 2
    vision_heads: int = 4
    image_side: int = 56
    patch: int = 14
    max_positions: int = 4096
    init_std: float = 0.02


def build_tokenizer(texts: Iterable[str], vocab_size: int = 768) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on `texts`; the same texts give the same tokenizer.

    Raises:
        ValueError: If `vocab_size` does not even hold the bytes and the control tokens.
    """
    smallest = 256 + len(SPECIALS)
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size={vocab_size!r}, expected at least {smallest}: 256 bytes and the control tokens"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIALS),
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def build_processor(texts: Iterable[str], config: TinyConfig | None = None) -> ImageOnlyQwenVLProcessor:
    """Train a tokenizer on `texts` and pair it with Qwen2.5-VL's image processor."""
    config = config or TinyConfig()
    pixels = config.image_side**2
    images = Qwen2VLImageProcessorPil(
        min_pixels=pixels, max_pixels=pixels, patch_size=config.patch, merge_size=2, temporal_patch_size=2
    )
    tokenizer = build_tokenizer(texts, config.vocab_size)
    return ImageOnlyQwenVLProcessor(image_processor=images, tokenizer=tokenizer, chat_template=CHAT_TEMPLATE)


def build_model(
    processor: ImageOnlyQwenVLProcessor, config: TinyConfig | None = None, seed: int = 0
) -> Qwen2_5_VLForConditionalGeneration:
    """Build a model with random weights that fits `processor`; the same seed gives the same weights."""
    config = config or TinyConfig()
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random state alone
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(_model_config(processor.tokenizer, config))
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model.eval()


def build(
    texts: Iterable[str], config: TinyConfig | None = None, seed: int = 0
) -> tuple[Qwen2_5_VLForConditionalGeneration, ImageOnlyQwenVLProcessor]:
    """Build an untrained model and its processor from texts of the domain."""
    processor = build_processor(texts, config)
    return build_model(processor, config, seed), processor


def _model_config(tokenizer: PreTrainedTokenizerFast, config: TinyConfig) -> Qwen2_5_VLConfig:
    half = config.hidden // config.heads // 2  # rotary frequencies; the three sections must sum to it
    side = 3 * half // 8

    def token(name: str) -> int:
        return int(tokenizer.get_vocab()[name])

    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": (len(tokenizer) + 7) // 8 * 8,
            "hidden_size": config.hidden,
            "intermediate_size": config.mlp,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads,
            "max_position_embeddings": config.max_positions,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [half - 2 * side, side, side],
            },
            "initializer_range": config.init_std,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": config.vision_layers,
            "hidden_size": config.vision_hidden,
            "intermediate_size": config.vision_hidden * 2,
            "num_heads": config.vision_heads,
            "patch_size": config.patch,
            "out_hidden_size": config.hidden,
            "window_size": config.patch * 8,
            "fullatt_block_indexes": list(range(config.vision_layers)),
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "initializer_range": config.init_std,
        },
        tie_word_embeddings=True,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )


def save(model: PreTrainedModel, processor: ProcessorMixin, path: str | Path) -> None:
    """Write model and processor as one Hugging Face folder."""
    with no_bars():
        model.save_pretrained(path)
        processor.save_pretrained(path)


def load(
    path: str | Path, dtype: torch.dtype | None = torch.float32, device: str | torch.device = "cpu"
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Open any Hugging Face folder of a chat model, shipped student (`steer_env.models.shipped`) or hub id.

    A model that reads text only has a tokenizer in the place of a processor.

    Where torchvision is missing and the folder names Qwen's stock processor, the image-only one takes its
    place.

    Args:
        path: A folder, a shipped student such as "tiny", or a hub id such as "Qwen/Qwen2.5-VL-3B-Instruct".
            A folder of that name goes first.
        dtype: Of the weights; None takes the one they were saved in.
        device: Where the model goes.

    Raises:
        FileNotFoundError: If there is no such folder and it cannot be a hub id, or it could be one but the
            hub is switched off (HF_HUB_OFFLINE) and its cache does not hold it.
    """
    processor, path = load_processor(path), find(path)
    with no_bars():
        kind = AutoModelForImageTextToText if hasattr(processor, "tokenizer") else AutoModelForCausalLM
        model = kind.from_pretrained(path, dtype=dtype or "auto", trust_remote_code=False)
    placed = cast(PreTrainedModel, torch.nn.Module.to(model, device))
    return placed.eval(), processor


def load_processor(path: str | Path) -> ProcessorMixin:
    """Open the processor of a folder or hub id, as `load` does: a tokenizer if the model reads text only.

    Raises:
        FileNotFoundError: As `load` does.
    """
    path = find(path)
    with no_bars():
        if _reads_text_only(path):
            return cast(ProcessorMixin, AutoTokenizer.from_pretrained(path, trust_remote_code=False))
        try:
            return cast(ProcessorMixin, AutoProcessor.from_pretrained(path, trust_remote_code=False))
        except ImportError:
            return ImageOnlyQwenVLProcessor.from_pretrained(path, trust_remote_code=False)


def _reads_text_only(path: str) -> bool:
    adapters = Path(path) / "adapter_config.json"
    if adapters.is_file():
        path = json.loads(adapters.read_bytes())["base_model_name_or_path"]
    try:
        kind = AutoConfig.from_pretrained(path, trust_remote_code=False).model_type
    except ValueError:  # a class of their own, which the processor names better
        return False
    return (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    )


def find(path: str | Path) -> str:
    """Return an existing folder, or that of a shipped student, or else a hub id that may exist.

    Raises:
        FileNotFoundError: If it can be none of them.
    """
    folder = local_path(path)
    if folder.exists():
        return str(folder.absolute())  # adapters store it, and are opened from another folder later
    missing = (
        f"model={str(path)!r} does not exist, expected a Hugging Face folder, a shipped student "
        f"({', '.join(SHIPPED)}) or a hub id (owner/name)"
    )
    if not _HUB_ID.fullmatch(str(path)):
        raise FileNotFoundError(f"{missing}; check the path, or train or download a model to it first")
    if constants.HF_HUB_OFFLINE and not isinstance(try_to_load_from_cache(str(path), "config.json"), str):
        raise FileNotFoundError(
            f"{missing}, and no model of that name is in the hub's cache while HF_HUB_OFFLINE is set; check "
            "the path, or unset it to download the model"
        )
    return str(path)


@contextmanager
def no_bars() -> Iterator[None]:
    """Keep transformers' progress bars out of ours."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
