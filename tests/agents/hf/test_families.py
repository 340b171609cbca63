"""Which transformers families play token-exactly: tiny models of each real class, and the table in the docs.

The reference is the model's own forward pass over a whole dialogue, with positions of its own: it knows
nothing of caches, batches and shared pictures. Where a stock processor needs torchvision, a stand-in expands
the placeholder as it would.
"""

import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BatchFeature,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    GenerationConfig,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    Phi4MultimodalConfig,
    Phi4MultimodalForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from kit.families import LLAVA_TEMPLATE, idefics3, llava, qwen3vl, stock_template, tokenizer
from kit.students import SCRIPTS, gap, play
from steer_env.agents.hf import HFStudent
from steer_env.types import ASSISTANT, USER, Message

DOCS = Path(__file__).parents[3] / "docs/backends.md"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<image>' }}"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: Turns end with a token that is not the tokenizer's eos.
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else "
    "m['role']) + '\n' }}{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
#: Nothing ends a turn but the next speaker's name.
GLM = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<|begin_of_image|><image><|end_of_image|>' }}"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "initializer_range": 0.3, "max_position_embeddings": 1024,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


class StandIn:
    """A processor made of parts: expands one placeholder per picture, as the stock one does."""

    def __init__(self, images, tok, template, expand, token="<image>"):
        self.image_processor, self.tokenizer, self.chat_template = images, tok, template
        self.expand, self.image_token = expand, token
        tok.chat_template = template

    def apply_chat_template(self, messages, **options):
        return self.tokenizer.apply_chat_template(messages, **options)

    def __call__(self, text, images=None, return_tensors="pt", **options):
        inputs = self.image_processor(images, return_tensors="pt")
        filled = [one.replace(self.image_token, self.expand(self.image_token, inputs)) for one in text]
        tokens = self.tokenizer(filled, add_special_tokens=False, return_tensors="pt")
        return BatchFeature({**tokens, **inputs})


def chatml():
    specials = ["<|im_start|>", "<|im_end|>", "<image>"]
    return tokenizer(specials, eos_token="<|im_end|>", pad_token="<|im_end|>")


def sizes(tok, **named):
    return {"vocab_size": len(tok) + 3, "pad_token_id": tok.pad_token_id, **TEXT, **named}


def llava_next():
    tok = tokenizer(["<s>", "</s>", "<image>"], bos_token="<s>", eos_token="</s>", pad_token="</s>")
    grid = [[28, 56], [56, 28], [56, 56]]
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=grid
    )
    processor = LlavaNextProcessor(
        images, tok, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )  # fmt: skip
    config = LlavaNextConfig(
        text_config=LlamaConfig(**sizes(tok)), image_grid_pinpoints=grid, vision_feature_layer=-1,
        vision_config=CLIPVisionConfig(**VISION, image_size=28, patch_size=14),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return LlavaNextForConditionalGeneration(config), processor


def onevision():
    tok, grid = chatml(), [[28, 56], [56, 28], [56, 56]]
    images = LlavaOnevisionImageProcessorPil(size={"height": 28, "width": 28}, image_grid_pinpoints=grid)
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**sizes(tok)).to_dict(), image_grid_pinpoints=grid, vision_feature_layer=-1,
        vision_config={"model_type": "siglip_vision_model", **VISION, "image_size": 28, "patch_size": 14},
        image_token_index=tok.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = LlavaOnevisionForConditionalGeneration(config)

    def expand(token, inputs):
        with torch.no_grad():
            found = model.model.get_image_features(**inputs, return_dict=True).pooler_output
        return token * len(found[0])

    return model, StandIn(images, tok, CHATML, expand)


def mistral3():
    tok = tokenizer(["<s>", "</s>", "<image>"], bos_token="<s>", eos_token="</s>", pad_token="</s>")
    images = PixtralImageProcessorPil(size={"longest_edge": 112}, patch_size={"height": 28, "width": 28})

    def expand(token, inputs):
        height, width = inputs["image_sizes"][0]
        return token * int(height // 28 * (width // 28))

    config = Mistral3Config(
        text_config=MistralConfig(**sizes(tok, head_dim=16)).to_dict(), spatial_merge_size=2,
        vision_config={"model_type": "pixtral", **VISION, "image_size": 112, "patch_size": 14},
        image_token_index=tok.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
    )  # fmt: skip
    return Mistral3ForConditionalGeneration(config), StandIn(images, tok, LLAVA_TEMPLATE, expand)


def gemma3():
    specials = [
        "<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>",
        "<image_soft_token>",
    ]  # fmt: skip
    tok = tokenizer(specials, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    names = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    for name, token in names.items():
        setattr(tok, name, token)
        setattr(tok, f"{name}_id", tok.convert_tokens_to_ids(token))
    images = Gemma3ImageProcessorPil(size={"height": 28, "width": 28}, image_seq_length=4)
    processor = Gemma3Processor(images, tok, chat_template=GEMMA, image_seq_length=4)
    token = tok.convert_tokens_to_ids
    config = Gemma3Config(
        text_config=sizes(
            tok, head_dim=16, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
        ),
        vision_config={**VISION, "image_size": 28, "patch_size": 7}, mm_tokens_per_image=4,
        boi_token_index=token("<start_of_image>"), eoi_token_index=token("<end_of_image>"),
        image_token_index=token("<image_soft_token>"), eos_token_id=[token("<eos>"), token("<end_of_turn>")],
    )  # fmt: skip
    model = Gemma3ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(eos_token_id=[token("<eos>"), token("<end_of_turn>")])
    return model, processor


def patched():
    """Pictures as GLM-4V cuts them, which is as Qwen2-VL does."""
    pixels = 56**2
    return Qwen2VLImageProcessorPil(
        min_pixels=pixels, max_pixels=pixels, patch_size=14, merge_size=2, temporal_patch_size=2
    )


def by_grid(token, inputs):
    return token * int(inputs["image_grid_thw"][0].prod() // 4)


def qwen2vl(tiny):
    _, processor = stock_template(tiny)
    token = processor.tokenizer.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config=sizes(processor.tokenizer, rope_parameters=ROPE), image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"), vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"), vision_config={
            "depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14,
        },
    )  # fmt: skip
    return Qwen2VLForConditionalGeneration(config), processor


def glm4v():
    specials = [
        "<|endoftext|>",
        "<|user|>",
        "<|assistant|>",
        "<image>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
    ]
    tok = tokenizer(specials, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    token = tok.convert_tokens_to_ids
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [2, 3, 3],
        "partial_rotary_factor": 1.0,
    }
    config = Glm4vConfig(
        text_config=sizes(tok, rope_parameters=rope), image_token_id=token("<image>"),
        image_start_token_id=token("<|begin_of_image|>"), image_end_token_id=token("<|end_of_image|>"),
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 14,
            "out_hidden_size": 32, "image_size": 56,
        },
    )  # fmt: skip
    return Glm4vForConditionalGeneration(config), StandIn(patched(), tok, GLM, by_grid)


def internvl():
    tok = chatml()
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=[[28, 28]]
    )

    class Square:
        def __call__(self, pictures, return_tensors):
            return {"pixel_values": images(pictures, return_tensors=return_tensors)["pixel_values"][:, 0]}

    config = InternVLConfig(
        text_config=Qwen2Config(**sizes(tok)).to_dict(), image_token_id=tok.convert_tokens_to_ids("<image>"),
        vision_config={**VISION, "image_size": [28, 28], "patch_size": [7, 7]}, downsample_ratio=0.5,
        image_seq_length=4,
    )  # fmt: skip
    return InternVLForConditionalGeneration(config), StandIn(
        Square(), tok, CHATML, lambda token, inputs: token * 4
    )


def text_of(config, model, template, tok=chatml, **named):
    def make():
        made = tok()
        made.chat_template = template
        return model(config(**sizes(made, **named))), made

    return make


def sentencepiece():
    """Llama 2's and Mistral's layout: a space before every text, bytes for what has no token."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=specials, show_progress=False)
    made.train_from_iterator(["[INST] what do you see ? [/INST] I see a dog"] * 5, trainer)
    # No token spans a space, as in the real ones, which do not split either.
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def smolvlm():
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    return idefics3(SmolVLMConfig, SmolVLMForConditionalGeneration)


def phi4():
    tok = chatml()
    tok.chat_template = CHATML
    named = {"bos_token_id": tok.eos_token_id, "eos_token_id": tok.eos_token_id}
    config = Phi4MultimodalConfig(
        **sizes(tok, **named), original_max_position_embeddings=1024,
        vision_config={**VISION, "image_size": 28, "crop_size": 28},
        audio_config={
            "hidden_size": 32, "intermediate_size": 64, "num_blocks": 1, "num_attention_heads": 2,
            "ext_pw_out_channel": 32, "nemo_conv_channels": 32,
        },
    )  # fmt: skip
    return Phi4MultimodalForCausalLM(config), tok


#: Name in the docs -> maker.
FAMILIES = {
    "Qwen2-VL": qwen2vl,
    "Qwen2.5-VL": stock_template,
    "Qwen3-VL": qwen3vl,
    "LLaVA 1.5": llava,
    "LLaVA-NeXT": llava_next,
    "LLaVA-OneVision": onevision,
    "Idefics3": idefics3,
    "SmolVLM": smolvlm,
    "InternVL": internvl,
    "Gemma 3": gemma3,
    "Mistral 3 (Pixtral)": mistral3,
    "GLM-4V": glm4v,
    "Llama (text)": text_of(LlamaConfig, LlamaForCausalLM, CHATML),
    "Qwen2 (text)": text_of(Qwen2Config, Qwen2ForCausalLM, CHATML),
    "Mistral (text)": text_of(MistralConfig, MistralForCausalLM, MISTRAL, sentencepiece, head_dim=16),
    "Phi-4-multimodal (text)": phi4,
}


#: Name in the docs -> class, and why its pictures are refused.
REFUSED = {
    "Phi-4-multimodal, with pictures": ("Phi4MultimodalForCausalLM", "it takes no `pixel_values`"),
    "Llama 3.2 Vision": ("MllamaForConditionalGeneration", "cross-attention"),
}


def made(maker, tiny):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return maker(tiny) if maker in (qwen2vl, qwen3vl, stock_template) else maker()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tiny):
    return made(FAMILIES[request.param], tiny)


def own_forward(student, prompt):
    """Log-probabilities of the sampled tokens by the model's own pass over the whole dialogue."""
    codec, model = student.codec, student.model
    ids_BL = torch.from_numpy(prompt.trace.ids_L.copy())[None]
    inputs = codec.image_inputs(prompt.images) | {
        "input_ids": ids_BL,
        "attention_mask": torch.ones_like(ids_BL),
    }
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in student.decoder.adapter._accepts:
            inputs[name] = (ids_BL == codec.image_id).long()
    with torch.no_grad():
        logits_LV = model(**inputs).logits[0].float()
    logits_LV[:, student.decoder.forbidden] = float("-inf")
    picked_L = logits_LV.log_softmax(1)[:-1].gather(1, ids_BL[0, 1:, None])[:, 0]
    return picked_L[torch.from_numpy(prompt.trace.sampled_L[1:].copy())]


def test_a_family_plays_token_exactly(family, pictures):
    """Several pictures of several shapes, in one batch and over turns."""
    student = HFStudent(*family, seed=4, max_new_tokens=5)
    takes = student.codec.takes_images
    scripts = [[(text, shown if takes else []) for text, shown in script] for script in SCRIPTS]
    _, prompts = play(student, scripts, pictures)
    assert gap(student, prompts) < 1e-4
    for prompt in prompts:
        told = torch.from_numpy(prompt.trace.logprobs_L[prompt.trace.sampled_L].copy())
        assert (own_forward(student, prompt) - told).abs().max() < 1e-4


def test_the_template_says_what_ends_a_turn(family):
    student = HFStudent(*family, max_new_tokens=2)
    codec, words = student.codec, "no"
    close = codec.tokenizer.convert_ids_to_tokens(codec.close_id)
    assert codec.close_id not in student.decoder.forbidden.tolist()
    rendered = codec.render([("user", 0, "hi"), ("assistant", 0, words), ("user", 0, "so")])
    behind = rendered.split(words, 1)[1]
    assert behind.startswith(close) or not any(
        behind.startswith(token) for token in codec.tokenizer.all_special_tokens
    )


def test_sentencepiece_gets_no_second_space():
    tok = sentencepiece()
    tok.chat_template = MISTRAL
    student = HFStudent(LlamaForCausalLM(LlamaConfig(**sizes(tok))), tok, max_new_tokens=2)
    messages = [("user", "what do you see ?"), ("assistant", "I see a dog"), ("user", "what ?")]
    chat = [{"role": role, "content": words} for role, words in messages]
    whole = tok(tok.apply_chat_template(chat, tokenize=False), add_special_tokens=False)["input_ids"]
    transcript = tuple(Message(USER if r == "user" else ASSISTANT, words) for r, words in messages)
    assert student.codec.prompt({"images": (), "transcript": transcript}).trace.ids_L.tolist() == whole


def test_phi4_is_refused_with_pictures():
    _, tok = phi4()
    images = StandIn(patched(), tok, CHATML, by_grid)
    with pytest.raises(ValueError, match="takes no pixel_values, expected a model that does; use it behind"):
        HFStudent(phi4()[0], images)


def shown(name, student):
    """A row of the table in the docs."""
    codec, model = student.codec, type(student.model).__name__
    close = codec.tokenizer.convert_ids_to_tokens(codec.close_id).replace("|", "\\|")
    return f"| {name} | `{model}` | {'yes' if codec.takes_images else 'text only'} | `{close}` |"


def test_the_table_in_the_docs_is_made_from_the_families(tiny):
    """REFRESH=1 pytest tests/agents/hf/test_families.py -k table writes it."""
    rows = [
        "| family | class | pictures | a turn ends with |",
        "|---|---|---|---|",
        *(shown(name, HFStudent(*made(maker, tiny), max_new_tokens=2)) for name, maker in FAMILIES.items()),
        *(f"| {name} | `{model}` | refused: {why} | |" for name, (model, why) in REFUSED.items()),
    ]
    begin, end = "<!-- families: begin -->\n", "<!-- families: end -->\n"
    before, rest = DOCS.read_text(encoding="utf-8").split(begin)
    table, behind = rest.split(end)
    wanted = "\n".join(rows) + "\n"
    if os.environ.get("REFRESH"):
        DOCS.write_text(before + begin + wanted + end + behind, encoding="utf-8")
        return
    assert table == wanted, f"{DOCS.name} is out of date, run REFRESH=1 pytest {Path(__file__).name} -k table"
