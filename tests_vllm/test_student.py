"""A student that vLLM samples for is, token by token, the student that transformers samples for."""

import random

import numpy as np
import pytest
import torch

from kit.training import SAME_WEIGHTS
from steer_env.agents.base import Failed
from steer_env.agents.hf import ContextOverflow, HFStudent
from steer_env.agents.vllm_student import VLLMStudent
from steer_env.testing import check_agent
from steer_env.types import STUDENT, USER, Message


def test_greedy_tokens_are_those_of_transformers_in_every_turn_with_images(student, play):
    plain = HFStudent(student.model, student.processor, max_new_tokens=12)
    plain.temperature = student.temperature = 0.0
    ours, theirs = play(student)[0], play(plain)[0]
    assert ours == theirs and len({str(said) for replies in ours for said in replies}) == 6
    for a, b in zip(ours, theirs, strict=True):
        for name in ("ids_L", "sampled_L", "turn_L", "logprobs_L"):
            np.testing.assert_array_equal(
                getattr(a[-1].meta["trace"], name), getattr(b[-1].meta["trace"], name)
            )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_logprobs_are_those_of_the_training_model(student, play, gap, temperature, record_property):
    student.temperature = temperature
    replies, images = play(student)
    found = gap(student, replies, images)
    record_property("logprob_gap_max", found)
    print(f"largest gap at temperature {temperature}: {found:.1e}")
    assert found < SAME_WEIGHTS
    traces = [said[-1].meta["trace"] for said in replies]
    sampled = np.concatenate([trace.ids_L[trace.sampled_L] for trace in traces])
    assert not set(sampled.tolist()) & set(student.decoder.forbidden.tolist())


def test_the_next_prompt_appends_to_what_was_sampled_and_reuses_its_cache(student, engine, play):
    (first, second), *_ = play(student)[0]
    a, b = first.meta["trace"], second.meta["trace"]
    np.testing.assert_array_equal(b.ids_L[: len(a)], a.ids_L)
    fresh = VLLMStudent(engine, max_new_tokens=12, seed=11)
    engine.reset_caches()
    play(fresh, turns=1)
    assert fresh.cached_tokens == 0
    play(fresh, turns=2)
    assert 0 < fresh.cached_tokens < fresh.prompt_tokens


def test_a_seed_decides_replies_whatever_else_is_in_the_batch(student, play, scripts):
    student.reseed(5)
    first = play(student)[0]
    student.reseed(5)
    assert play(student)[0] == first
    student.reseed(6)
    assert play(student)[0] != first
    student.reseed(5)
    seen = {"images": (), "transcript": first_message(scripts[1])}
    (alone,) = student.act([seen])
    assert alone == first[1][0]
    siblings = student.act([seen] * 4)
    assert len({str(reply) for reply in siblings}) == 4


def first_message(script):
    return (Message(USER, script[0][0], 0),)


def test_a_reply_that_is_cut_off_is_closed_without_being_learned(student, play):
    student.max_new_tokens = 3
    trace = play(student, turns=1)[0][1][0].meta["trace"]
    assert trace.ids_L[-1] == student.codec.close_id and not trace.sampled_L[-1]
    assert trace.sampled_L.sum() == 3


def test_a_dialogue_that_does_not_fit_fails_alone(student, scripts):
    short = {"images": (), "transcript": first_message(scripts[1])}
    long = {"images": (), "transcript": (Message(USER, "a" * 600),)}
    said, failed = student.act([short, long])
    assert (
        isinstance(failed, Failed)
        and failed.reason.startswith("too_long: ")
        and "max_model_len" in failed.reason
    )
    assert said.meta["trace"].sampled_L.any()
    with pytest.raises(ContextOverflow, match="max_model_len"):
        student.sampler.engine.generate(*refused(student, long))


def refused(student, observation):
    prompt = student.sampler._folded(student.codec.prompt(observation))
    return [prompt], [student.sampler._params(prompt, 4)]


def test_it_is_an_agent_and_leaves_the_random_state_alone(engine):
    states = random.getstate(), torch.get_rng_state()
    check_agent(VLLMStudent(engine, temperature=0.0, max_new_tokens=4), STUDENT, deterministic=False)
    assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[1])


def test_numbers_out_of_range_are_refused(engine):
    with pytest.raises(ValueError, match="temperature=-1"):
        VLLMStudent(engine, temperature=-1)
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        VLLMStudent(engine, max_new_tokens=0)
