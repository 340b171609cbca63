"""What is sent, how, and by which options; against a well-behaved server of the test's own."""

from __future__ import annotations

import base64
import copy
import gc
import io
import json
import multiprocessing
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image as PILImage

from kit import servers
from steer_env.agents.base import Failed
from steer_env.agents.chat import FILTERED, chat_student
from steer_env.images import Image
from steer_env.models import AsyncChatBackend, ChatMessage, ChatReply, ChatRequest, open_backend
from steer_env.models.openai import OpenAIBackend, open_openai
from steer_env.models.thought import UNFINISHED
from steer_env.testing.play import global_random_untouched
from steer_env.types import USER, Message
from steer_env.world.draw import Recipe, make_image
from steer_env.world.truth import Truth

answer, echo, serving, slowly = servers.answer, servers.echo, servers.serving, servers.slowly


@pytest.fixture
def server():
    with serving(echo) as running:
        yield running


def ask(text="hi", *images, **options):
    return ChatRequest((ChatMessage("user", text, images),), **options)


def test_what_is_sent(server, pictures):
    backend = OpenAIBackend("m", server.url)
    chat = (
        ChatMessage("system", "be safe"),
        ChatMessage("user", "look \ud800", (pictures[0], pictures[2])),
        ChatMessage("assistant", "no"),
        ChatMessage("user", "why?"),
    )
    backend.complete([ChatRequest(chat, max_tokens=7, temperature=0.3, seed=5)])
    (sent,) = server.requests
    assert {k: sent[k] for k in ("model", "max_tokens", "temperature", "seed")} == {
        "model": "m", "max_tokens": 7, "temperature": 0.3, "seed": 5,
    }  # fmt: skip
    assert "response_format" not in sent
    assert [m["role"] for m in sent["messages"]] == ["system", "user", "assistant", "user"]
    assert sent["messages"][3]["content"] == "why?"
    first, second, words = sent["messages"][1]["content"]
    assert words == {"type": "text", "text": "look ?"}
    for part, picture in ((first, pictures[0]), (second, pictures[2])):
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        shown = np.asarray(PILImage.open(io.BytesIO(base64.b64decode(data))))
        assert (shown == np.asarray(picture)).all()
    backend.close()


def test_without_a_seed_none_is_sent(server):
    backend = OpenAIBackend("m", server.url, max_tokens_name="max_completion_tokens", extra_body={"top_k": 5})
    backend.complete([ask(max_tokens=9)])
    (sent,) = server.requests
    assert "seed" not in sent and "max_tokens" not in sent
    assert sent["max_completion_tokens"] == 9 and sent["top_k"] == 5
    backend.close()


def test_answers_come_in_order_over_few_connections(server):
    backend = OpenAIBackend("m", server.url, concurrency=4)
    assert isinstance(backend, AsyncChatBackend)
    for _ in range(3):
        replies = backend.complete([ask(f"{i}", seed=i) for i in range(20)])
        assert [reply.text for reply in replies] == [f"{i}|0|{i}" for i in range(20)]
    assert len(server.requests) == 60 and len(server.connections) <= 4
    assert backend.complete([]) == []
    backend.close()


def test_no_more_requests_at_once_than_asked():
    under_way, most, lock = 0, 0, threading.Lock()

    def behave(handler, body, number):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.03)
        with lock:
            under_way -= 1
        echo(handler, body, number)

    with serving(behave) as server:
        backend = OpenAIBackend("m", server.url, concurrency=3)
        backend.complete([ask(str(i)) for i in range(12)])
        backend.close()
    assert most == 3


def test_each_reply_is_there_as_soon_as_it_comes():
    def behave(handler, body, number):
        (slowly(0.5, echo) if body["messages"][-1]["content"] == "slow" else echo)(handler, body, number)

    with serving(behave) as server:
        backend = OpenAIBackend("m", server.url)
        slow, quick = backend.submit(ask("slow")), backend.submit(ask("quick"))
        assert quick.result(timeout=5).text.startswith("quick") and not slow.done()
        assert slow.result(timeout=5).meta["seconds"] >= 0.5
        backend.close()


def test_what_a_server_tells_rides_along():
    body = json.loads(answer("hello", "length"))
    body["choices"][0] |= {"token_ids": [3, 4], "logprobs": {"content": []}}
    body |= {"prompt_token_ids": [1, 2], "usage": {"prompt_tokens": 2}}
    with serving(lambda handler, _, number: handler.send(200, json.dumps(body))) as server:
        backend = OpenAIBackend("m", server.url)
        (reply,) = backend.complete([ask()])
        backend.close()
    assert reply.finish == "length" and reply.meta["token_ids"] == [3, 4]
    assert reply.meta["prompt_token_ids"] == [1, 2] and reply.meta["usage"] == {"prompt_tokens": 2}
    assert reply.meta["logprobs"] == {"content": []} and reply.meta["attempts"] == 1


def test_what_a_model_thought_rides_along_and_is_no_part_of_the_reply():
    body = answer("Hello.", reasoning_content="They greet me.")
    tagged = answer("<think>They greet me.</think>Hello.")
    cut = answer("<think>They greet", "length")
    bodies = [body, tagged, cut]
    with serving(lambda handler, _, number: handler.send(200, bodies[number])) as server:
        student = chat_student(OpenAIBackend("m", server.url))
        seen = {"images": (), "transcript": (Message(USER, "hi"),)}
        first, second, third = (student.act([seen])[0] for _ in bodies)
        student.close()
    assert first == second == "Hello."
    assert first.meta["thought"] == second.meta["thought"] == "They greet me."
    assert third == Failed(UNFINISHED)


WORDS = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}]
THOUGHT = {"type": "thinking", "thinking": "Hm."}


@pytest.mark.parametrize(
    ("message", "finish", "said", "ended"),
    [
        ({"content": WORDS}, "stop", "Hello.", "stop"),
        ({"content": [THOUGHT, *WORDS]}, "stop", "Hello.", "stop"),
        ({"content": [{"type": "refusal", "refusal": "I will not."}]}, "stop", "I will not.", "filtered"),
        ({"content": None, "refusal": "I will not."}, "stop", "I will not.", "filtered"),
        ({"content": "Half a"}, "content_filter", "Half a", "filtered"),
        ({"content": None}, "content_filter", FILTERED, "filtered"),
        ({"content": []}, "content_filter", FILTERED, "filtered"),
        ({"content": "Half a"}, "length", "Half a", "length"),
    ],
)
def test_where_servers_put_their_words(message, finish, said, ended):
    body = json.loads(answer("", finish))
    body["choices"][0]["message"] = {"role": "assistant", **message}
    with serving(lambda handler, _, number: handler.send(200, json.dumps(body))) as server:
        student = chat_student(OpenAIBackend("m", server.url))
        (reply,) = student.act([{"images": (), "transcript": (Message(USER, "hi"),)}])
        student.close()
    assert reply == said and reply.meta["finish"] == ended
    assert reply.meta.get("thought") == ("Hm." if "Hm." in str(message) else None)


@pytest.mark.parametrize("view", ["no", "caption"])
def test_models_that_read_text_only_get_no_pixels(server, view):
    world = make_image(Recipe(Truth("kettle", "blue", 1, hazard=True), "1"))
    other = Image.from_array(np.zeros((9, 9, 3), np.uint8))
    backend = open_backend(f"openai:m@{server.url}?images={view}")
    known, unknown = backend.complete([ask("look", world), ask("look", other)])
    told = "[picture: a blue kettle in the middle with a zigzag mark]\nlook"
    sent = [body["messages"][0]["content"] for body in server.requests[1:]]
    assert set(sent) == ({told} if view == "caption" else {"look"}) and known.text
    if view == "caption":
        assert unknown.kind == "bad_request" and "has no ground truth" in unknown.reason
    backend.close()


# -- JSON schema ------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"safety": {"type": "integer"}}, "additionalProperties": False}


def refuse_schema(handler, body, number):
    if "response_format" in body:
        handler.send(400, json.dumps({"error": {"message": "response_format is not supported"}}))
    else:
        handler.say("{}")


@pytest.mark.parametrize(
    ("mode", "sent", "outcome"),
    [("auto", [True, False, False], "{}"), ("on", [True, True], None), ("off", [False, False], "{}")],
)
def test_schema_falls_back_to_free_text_if_it_may(mode, sent, outcome):
    with serving(refuse_schema) as server:
        backend = OpenAIBackend("m", server.url, json_schema=mode)
        results = [backend.complete([ask(schema=SCHEMA)])[0] for _ in range(2)]
        backend.close()
        assert ["response_format" in body for body in server.requests] == sent
    assert [r.text if isinstance(r, ChatReply) else None for r in results] == [outcome] * 2


def test_schema_on_the_wire(server):
    backend = OpenAIBackend("m", server.url)
    backend.complete([ask(schema=SCHEMA), ask(schema={"type": "object"})])
    strict, loose = (body["response_format"]["json_schema"] for body in server.requests)
    if "strict" not in strict:  # both are under way at once
        strict, loose = loose, strict
    assert strict == {"name": "answer", "schema": SCHEMA, "strict": True}
    assert loose == {"name": "answer", "schema": {"type": "object"}}
    backend.close()


# -- names and options ------------------------------------------------------------------------------------


def test_options_may_stand_in_the_name(server):
    backend = open_backend(
        f"openai:org/m@v1@{server.url}?retries=7&read_timeout=2.5&image_check=no", backoff=0
    )
    assert (backend.model, backend.url) == ("org/m@v1", server.url)
    assert backend.name == f"openai:org/m@v1@{server.url}" and backend.weights == "org/m@v1"
    options = backend.options
    assert (options.retries, options.read_timeout, options.backoff, options.image_check) == (7, 2.5, 0, False)
    assert len(server.requests) == 1  # it was checked
    backend.close()


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("m", "expected openai:MODEL@URL"),
        ("m@localhost:8000/v1", "expected openai:MODEL@URL"),
        ("m@http:///v1", "url='http:///v1', expected http://HOST"),
        ("m@http://h/v1?retries=many", "retries='many'"),
        ("m@http://h/v1?retries=-1", "retries='-1'"),
        ("m@http://h/v1?retires=1", "retires is no option"),
        ("m@http://h/v1?json_schema=maybe", "json_schema='maybe'"),
    ],
)
def test_bad_names_are_refused(rest, message):
    with pytest.raises(ValueError) as caught:
        open_openai(rest)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_password_in_the_url_is_refused_without_showing_it():
    with pytest.raises(ValueError) as caught:
        open_openai("m@http://me:hunter2@h/v1")
    assert "hunter2" not in str(caught.value)


def test_the_same_folder_behind_a_server_is_the_same_model(model_folder):
    served = OpenAIBackend(str(model_folder), "http://h/v1")
    assert served.weights == open_backend(f"hf:{model_folder}", device="cpu").weights


# -- threads, copies, forks, ends -------------------------------------------------------------------------


def test_copies_open_connections_of_their_own(server):
    backend = OpenAIBackend("m", server.url, retries=1)
    backend.complete([ask()])
    twin = copy.deepcopy(backend)
    backend.close()
    assert twin.complete([ask("still there")])[0].text.startswith("still there")
    assert twin.options == backend.options
    twin.close()


def test_no_thread_is_left_when_nobody_holds_it(server):
    before = threading.active_count()
    backend = OpenAIBackend("m", server.url)
    backend.complete([ask()])
    name = f"steer-env {backend.name}"
    assert name in [thread.name for thread in threading.enumerate()]
    del backend
    gc.collect()
    assert name not in [thread.name for thread in threading.enumerate()]
    assert threading.active_count() <= before + 1  # the server's own


def _in_a_child(backend, pipe):
    pipe.send(backend.complete([ask("from the child")])[0].text)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking with threads is what is tested
def test_a_forked_child_can_ask_too(server):
    backend = OpenAIBackend("m", server.url)
    backend.complete([ask()])
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_in_a_child, args=(backend, there))
    child.start()
    assert here.poll(20) and here.recv().startswith("from the child")
    child.join(20)
    assert child.exitcode == 0
    assert backend.complete([ask("and the parent")])[0].text.startswith("and the parent")
    backend.close()


def test_a_script_ends_cleanly_without_closing(server):
    script = (
        "from steer_env.models import *\n"
        f"backend = open_backend('openai:m@{server.url}')\n"
        "print(backend.complete([ChatRequest((ChatMessage('user', 'hi'),))])[0].text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi|0|None\n", "")


def test_global_random_state_is_left_alone(server):
    backend = OpenAIBackend("m", server.url)
    with global_random_untouched("OpenAIBackend.complete"):
        backend.complete([ask()])
    backend.close()
