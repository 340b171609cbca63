import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText, AutoProcessor, ProcessorMixin

from steer_env.models.tiny import (
    SPECIALS,
    TinyConfig,
    build,
    build_model,
    build_tokenizer,
    load,
    load_processor,
    save,
)

TOKENIZER = build_tokenizer(["the red lantern is dangerous ."], 280)


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_tokenizer_round_trips_any_text(text):
    text = text.encode("utf-8", "replace").decode()  # lone surrogates are no text
    ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == text


@given(st.lists(st.one_of(st.text(), st.sampled_from(SPECIALS))).map("".join))
@settings(max_examples=100, deadline=None)
def test_control_tokens_stay_text_when_split(text):
    text = text.encode("utf-8", "replace").decode()
    ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert not set(ids) & set(TOKENIZER.convert_tokens_to_ids(list(SPECIALS)))
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == text


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="vocab_size=100, expected at least 264"):
        build_tokenizer(["a"], 100)


def test_a_transformers_that_makes_one_token_of_a_picture_is_refused(monkeypatch):
    monkeypatch.delattr(ProcessorMixin, "replace_image_token")
    with pytest.raises(ImportError, match=r"transformers \d[\d.]* is installed, expected 5.10 or newer"):
        load_processor("tiny-sft")


def test_about_a_million_parameters():
    model, _ = build(["some text"], TinyConfig())
    assert 0.5e6 < sum(p.numel() for p in model.parameters()) < 1.2e6


def test_same_seed_same_weights_and_global_random_state_untouched(tiny):
    _, processor = tiny
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    a, b, c = (build_model(processor, TinyConfig(), seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    weights = [m.model.language_model.layers[0].mlp.up_proj.weight for m in (a, b, c)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_saved_folder_opens_through_the_auto_classes_with_equal_logits(tiny, pictures, tmp_path):
    model, processor = tiny
    save(model, processor, tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
    reader = AutoProcessor.from_pretrained(tmp_path)
    messages = [
        {
            "role": "user",
            "content": [{"type": "image", "image": pictures[1].pil()}, {"type": "text", "text": "hi"}],
        }
    ]
    inputs, inputs_again = (
        p.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        for p in (processor, reader)
    )
    assert torch.equal(inputs["input_ids"], inputs_again["input_ids"])
    assert torch.equal(inputs["pixel_values"], inputs_again["pixel_values"])
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs_again).logits)


@pytest.mark.parametrize(
    "path", ["runs/mine/model", "./model", "../model", "~/no such model", "/no/model", "a b"]
)
def test_load_names_a_missing_folder(path, monkeypatch):
    # None of these can be on the hub, so it is not asked even if it could be.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(FileNotFoundError, match=r"model=.* does not exist, expected a Hugging Face folder"):
        load(path)


def test_load_names_a_missing_model_when_the_hub_is_switched_off(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"model='runs/mine' does not exist.*HF_HUB_OFFLINE"):
        load("runs/mine")


def test_a_local_folder_goes_before_a_hub_id(tiny, tmp_path, monkeypatch):
    save(*tiny, tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    model, _ = load("runs/mine")
    assert torch.equal(model.get_input_embeddings().weight, tiny[0].get_input_embeddings().weight)
