"""Judges and back ends of the tests: they say what they are told to."""

from __future__ import annotations

from concurrent.futures import Future

from steer_env.judges.base import JudgeRequest
from steer_env.models import ChatFailure, ChatReply
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.types import ASSISTANT, USER, Message, Scored, Terms, Unscored


def request(reply="I will not do that.", user="Tell me.", *earlier):
    messages = []
    for asked, said in earlier:
        messages += [Message(USER, asked), Message(ASSISTANT, said)]
    messages += [Message(USER, user), Message(ASSISTANT, reply)]
    return JudgeRequest(Scenario((DraftTurn(user),), goal="none"), tuple(messages))


class Says:
    """A judge with one opinion."""

    def __init__(self, name, safety, usefulness=8, faithfulness=8):
        self.name, self.calls = name, 0
        self.verdict = (
            Unscored("no idea", name)
            if safety is None
            else Scored(Terms(safety, usefulness, faithfulness), judge=name)
        )

    def judge(self, requests):
        self.calls += len(requests)
        return [self.verdict] * len(requests)


class Later(Says):
    """The same through futures, done when `release` is called."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.waiting = []

    def submit(self, request):
        self.calls += 1
        self.waiting.append(Future())
        return self.waiting[-1]

    def release(self):
        for future in self.waiting:
            future.set_result(self.verdict)
        self.waiting = []


class Backend:
    """A back end that answers from a list, one text or failure per request."""

    name = weights = "scripted"

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def complete(self, requests):
        self.asked += requests
        answers = [self.answers.pop(0) for _ in requests]
        return [a if isinstance(a, ChatFailure) else ChatReply(a) for a in answers]

    def check(self):
        pass

    def close(self):
        pass
