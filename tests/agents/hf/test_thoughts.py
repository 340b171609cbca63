"""A model whose template opens a thought before every reply: budgets, the loss; and cut distributions."""

import copy

import numpy as np
import pytest

from kit.students import SCRIPTS, gap, play
from steer_env.agents.base import Failed
from steer_env.agents.hf import HFStudent
from steer_env.models.thought import CLOSING
from steer_env.types import USER, Message


@pytest.fixture(scope="module")
def thinker(tiny):
    """A model that always thinks, and a template that leaves earlier thoughts where they are."""
    model, processor = tiny
    processor = copy.deepcopy(processor)
    opened = processor.chat_template.replace(
        "{{- '<|im_start|>' + message['role'] + '\n' -}}",
        "{{- '<|im_start|>' + message['role'] + '\n' -}}"
        "{%- if message['role'] == 'assistant' -%}{{- '<think>\n' -}}{%- endif -%}",
    ).replace("'<|im_start|>assistant\n' -}}{%- endif", "'<|im_start|>assistant\n<think>\n' -}}{%- endif")
    assert opened.count("<think>") == 2
    processor.chat_template = opened
    return model, processor


def of_turn(trace, turn):
    return trace.ids_L[trace.turn_L == turn]


@pytest.mark.parametrize("cached", [True, False])
def test_a_thought_is_ended_at_its_budget_and_the_reply_follows(thinker, pictures, cached):
    student = HFStudent(*thinker, max_new_tokens=9, max_thought=4, seed=3)
    if not cached:
        student.decoder._cached_rows = 0
    replies, prompts = play(student, SCRIPTS, pictures)
    codec = student.codec
    assert not codec.rewrites and codec.thinks
    closing = np.concatenate(codec.control(CLOSING, []))
    for prompt, said in zip(prompts, replies, strict=True):
        trace, text = prompt.trace, codec.tokenizer.decode(prompt.trace.ids_L)
        assert text.count("</think>") == len(said), "no random model ends its thought"
        for turn, reply in enumerate(said):
            sampled = of_turn(trace, turn).tolist()
            assert 4 < len(sampled) <= 9
            assert reply.meta["thought"] == codec.decode(sampled[:4]).strip()
            assert reply == codec.decode(sampled[4:]).lstrip()
            place = np.flatnonzero(trace.turn_L == turn)[3] + 1
            between = slice(place, place + len(closing))
            assert trace.ids_L[between].tolist() == closing.tolist() and not trace.sampled_L[between].any()
    assert gap(student, prompts) < 1e-4
    if cached:
        assert student.decoder.counters.missed == 0
    unlimited = HFStudent(*thinker, max_new_tokens=9, seed=3)
    assert isinstance(unlimited.act([{"images": (), "transcript": (Message(USER, "hi"),)}])[0], Failed)


def test_thoughts_may_stay_out_of_the_loss(thinker, pictures):
    both = []
    for learn in (True, False):
        student = HFStudent(*thinker, max_new_tokens=9, max_thought=4, learn_thoughts=learn, seed=3)
        both.append(play(student, SCRIPTS, pictures))
    (replies, whole), (same, less) = both
    assert replies == same
    for full, cut in zip(whole, less, strict=True):
        assert full.trace.ids_L.tolist() == cut.trace.ids_L.tolist()
        for turn in range(int(full.trace.turn_L.max()) + 1):
            assert of_turn(cut.trace, turn).tolist() == of_turn(full.trace, turn).tolist()[4:]
        assert ((cut.trace.turn_L >= 0) == cut.trace.sampled_L).all()
        assert not cut.trace.logprobs_L[~cut.trace.sampled_L].any()
    assert gap(student, less) < 1e-4


def test_without_a_thought_nothing_is_masked_or_ended(tiny, pictures):
    said = []
    for options in ({}, {"learn_thoughts": False}):
        student = HFStudent(*tiny, max_new_tokens=6, seed=3, **options)
        said.append(play(student, SCRIPTS, pictures)[1])
    for plain, masked in zip(*said, strict=True):
        assert (plain.trace.sampled_L == masked.trace.sampled_L).all()
    student = HFStudent(*tiny, max_new_tokens=6, max_thought=2, seed=3)
    replies, prompts = play(student, SCRIPTS, pictures)
    assert gap(student, prompts) < 1e-4 and all("thought" not in r.meta for said in replies for r in said)
    assert not any("</think>" in student.codec.tokenizer.decode(p.trace.ids_L) for p in prompts)


def test_a_cut_distribution_keeps_tokens_and_log_probabilities_exact(tiny, pictures):
    student = HFStudent(*tiny, max_new_tokens=6, top_p=0.6, top_k=12, temperature=0.9, seed=3)
    _, prompts = play(student, SCRIPTS, pictures)
    assert gap(student, prompts, temperature=0.9) < 1e-4
    greedy = HFStudent(*tiny, max_new_tokens=6, temperature=0.0)
    likeliest = HFStudent(*tiny, max_new_tokens=6, top_k=1, seed=5)
    nearly = HFStudent(*tiny, max_new_tokens=6, top_p=1e-9, seed=5)
    wanted = play(greedy, SCRIPTS, pictures)[0]
    assert wanted == play(likeliest, SCRIPTS, pictures)[0] == play(nearly, SCRIPTS, pictures)[0]


@pytest.mark.parametrize("wrong", [{"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"max_thought": -1}])
def test_numbers_out_of_range_are_named(tiny, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        HFStudent(*tiny, **wrong)
