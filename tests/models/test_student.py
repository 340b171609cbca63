from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_env.agents.base import AsyncAgent, Failed
from steer_env.agents.chat import FILTERED, AsyncChatStudent, ChatStudent, chat_student
from steer_env.models import ChatFailure, ChatMessage, ChatReply
from steer_env.testing.agents import check_agent, toy_observations
from steer_env.types import ASSISTANT, STUDENT, USER, Message, Utterance


class Parrot:
    """A back end that says what it was asked; `failing` messages fail."""

    name, weights = "parrot", "none"

    def __init__(self, failing=(), reply=None):
        self.failing, self.reply, self.requests = failing, reply, []

    def complete(self, requests):
        self.requests += requests
        return [self.one(request) for request in requests]

    def one(self, request):
        said = request.messages[-1].content
        if said in self.failing:
            return ChatFailure("timeout", "too slow", attempts=3)
        meta = {"attempts": 1, "seconds": 0.5, "token_ids": [1, 2], "usage": {"prompt_tokens": 3}}
        return self.reply or ChatReply(f"{said} {request.seed}", meta=meta)

    def check(self):
        pass

    def close(self):
        self.closed = True


class AsyncParrot(Parrot):
    def submit(self, request):
        future = Future()
        future.set_result(self.complete([request])[0])
        return future


def observation(*messages, images=()):
    return {"images": tuple(images), "transcript": messages}


def test_only_a_server_makes_an_asynchronous_student():
    assert isinstance(chat_student(AsyncParrot()), AsyncAgent)
    assert not isinstance(chat_student(Parrot()), AsyncAgent)
    assert type(chat_student(Parrot(), system="x")) is ChatStudent


def test_pictures_stand_at_the_messages_that_show_them(pictures):
    student = ChatStudent(Parrot(), system="be safe", temperature=0.5, max_new_tokens=9)
    seen = observation(
        Message(USER, "look", 2),
        Message(ASSISTANT, Utterance("no", secret=1)),
        Message(USER, "and?", 1),
        images=pictures,
    )
    request = student.request(seen)
    assert request.messages == (
        ChatMessage("system", "be safe"),
        ChatMessage("user", "look", tuple(pictures[:2])),
        ChatMessage("assistant", "no"),
        ChatMessage("user", "and?", (pictures[2],)),
    )
    assert type(request.messages[2].content) is str
    assert (request.temperature, request.max_tokens, request.schema) == (0.5, 9, None)


def test_bad_observations_and_options_are_refused(pictures):
    student = ChatStudent(Parrot())
    with pytest.raises(ValueError, match="transcript of 0 messages"):
        student.act([observation()])
    with pytest.raises(ValueError, match="1 images for a transcript that shows 0"):
        student.act([observation(Message(USER, "hi"), images=pictures[:1])])
    for option, value in (("temperature", -1.0), ("max_new_tokens", 0), ("max_length", 0)):
        with pytest.raises(ValueError, match=f"{option}={value}"):
            ChatStudent(Parrot(), **{option: value})


def test_what_the_back_end_knows_rides_along():
    (said,) = ChatStudent(Parrot()).act([observation(Message(USER, "hi"))])
    assert dict(said.meta) == {"finish": "stop", "attempts": 1, "seconds": 0.5, "token_ids": [1, 2]}


def test_a_failure_stands_in_its_place():
    student = chat_student(AsyncParrot(failing=("b",)))
    seen = [observation(Message(USER, text)) for text in "abc"]
    expected = [Utterance, Failed, Utterance]
    assert [type(reply) for reply in student.act(seen)] == expected
    assert [type(student.submit(one).result()) for one in seen] == expected
    assert student.act(seen)[1] == Failed("timeout: too slow (3 attempts)")


@pytest.mark.parametrize(
    ("text", "said", "thought"),
    [
        ("", FILTERED, None),
        (" \n", FILTERED, None),
        ("I cannot", "I cannot", None),
        ("<think>They want", FILTERED, "<think>They want"),
        ("<think>No.</think>I cannot", "I cannot", "No."),
    ],
)
def test_what_a_filter_stopped_is_an_answer_of_a_kind(text, said, thought):
    student = chat_student(AsyncParrot(reply=ChatFailure("refused", "a content filter", text=text)))
    seen = observation(Message(USER, "hi"))
    for reply in (*student.act([seen]), student.submit(seen).result()):
        assert reply == said and reply.meta["finish"] == "filtered" and reply.meta["attempts"] == 1
        assert reply.meta.get("thought") == thought


def test_a_bug_in_a_back_end_reaches_the_caller():
    student = AsyncChatStudent(AsyncParrot(reply="not a reply"))
    with pytest.raises(AttributeError):
        student.submit(observation(Message(USER, "hi"))).result(timeout=5)


def test_too_long_a_reply_is_cut_and_says_so():
    student = ChatStudent(Parrot(reply=ChatReply("x" * 50)), max_length=20)
    (said,) = student.act([observation(Message(USER, "hi"))])
    assert said == "x" * 20 and said.meta["finish"] == "length"


def seeds(student, observations):
    return [student.request(one).seed for one in observations]


@given(st.integers(0, 2**31), st.lists(st.text(min_size=1), min_size=2, max_size=6, unique=True))
def test_seeds_depend_on_seed_and_state_only(seed, texts):
    seen = [observation(Message(USER, text)) for text in texts]
    forwards = seeds(ChatStudent(Parrot(), seed=seed), seen)
    assert forwards == seeds(ChatStudent(Parrot(), seed=seed), seen[::-1])[::-1]
    assert len(set(forwards)) == len(texts) and all(0 <= s < 2**31 for s in forwards)
    assert forwards != seeds(ChatStudent(Parrot(), seed=seed + 1), seen)


class Named(dict):
    """An observation that knows its dialogue, as rollouts make them."""

    def __init__(self, observation, stream):
        super().__init__(observation)
        self.stream = stream


def test_a_rollout_tells_siblings_apart():
    student = ChatStudent(Parrot())
    seen = [Named(observation(Message(USER, "hi")), f"7/{number}") for number in range(4)]
    first = seeds(student, seen)
    assert len(set(first)) == 4 and seeds(student, seen) == first
    student.reseed(1)
    assert not set(seeds(student, seen)) & set(first)


def test_it_keeps_an_agents_promises():
    for parrot in (Parrot(), AsyncParrot()):
        check_agent(chat_student(parrot), STUDENT, toy_observations(STUDENT))


def test_closing_closes_the_back_end():
    parrot = Parrot()
    chat_student(parrot).close()
    assert parrot.closed
