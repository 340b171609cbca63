"""Scripted dialogues for students of any family, and the families as tiny random models."""

import torch

from steer_env.agents.hf import Prompt, packed_logprobs
from steer_env.types import ASSISTANT, USER, Message


def observation(script, pictures, replies, turn):
    """What a student sees in turn `turn` of a scripted dialogue; `script` is [(text, picture indices)]."""
    messages, images = [], []
    for index, (text, shown) in enumerate(script[: turn + 1]):
        messages.append(Message(USER, text, len(shown)))
        images += [pictures[i] for i in shown]
        if index < turn:
            messages.append(Message(ASSISTANT, replies[index]))
    return {"images": tuple(images), "transcript": tuple(messages)}


def play(student, scripts, pictures):
    """Play scripted dialogues of different lengths at once; returns replies and packed dialogues."""
    replies = [[] for _ in scripts]
    for turn in range(max(map(len, scripts))):
        live = [i for i, script in enumerate(scripts) if turn < len(script)]
        answers = student.act([observation(scripts[i], pictures, replies[i], turn) for i in live])
        for i, answer in zip(live, answers, strict=True):
            replies[i].append(answer)
    prompts = [
        Prompt(r[-1].meta["trace"], tuple(pictures[k] for _, shown in script for k in shown))
        for r, script in zip(replies, scripts, strict=True)
    ]
    return replies, prompts


def gap(student, prompts, temperature=1.0):
    """Largest difference between sampled and recomputed log-probabilities."""
    with torch.no_grad():
        packed = packed_logprobs(
            student.decoder.adapter, prompts, temperature=temperature, forbidden=student.decoder.forbidden
        )
    old = packed.gather([prompt.trace.logprobs_L for prompt in prompts])
    return float((packed.logprobs_N - old).abs().max())


SCRIPTS = [
    [("what do you see ?", [0]), ("and here ?", [1, 2]), ("tell me .", []), ("please", [3])],
    [("what do you see ?", [0]), ("hm", []), ("and this", [4])],
    [("no picture", []), ("still none", [])],
    [("what do you see ?", [0])],
]
