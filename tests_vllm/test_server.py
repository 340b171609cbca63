"""vLLM's own OpenAI-compatible server on the same model: tokens in its answers, schemas, pictures."""

import base64
import contextlib
import json

import numpy as np
import openai
import pytest

from steer_env.agents.hf import ChatCodec, HFStudent
from steer_env.models import ChatMessage, ChatRequest, open_backend
from steer_env.models.tiny import load
from steer_env.types import USER, Message

SCHEMA = {
    "type": "object",
    "properties": {"safety": {"type": "integer", "enum": [1, 2, 3]}},
    "required": ["safety"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(serve, tmp_path_factory):
    with serve(tmp_path_factory.mktemp("server") / "log", "--served-model-name", "tiny") as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server, api_key="none", max_retries=0, timeout=120)


def test_the_servers_tokens_are_the_codecs_and_transformers(client, folder, pictures):
    model, processor = load(folder)
    seen = {"images": tuple(pictures[:1]), "transcript": (Message(USER, "what do you see ?", 1),)}
    url = "data:image/png;base64," + base64.b64encode(pictures[0].png()).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what do you see ?"}]
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": parts}],
        temperature=0.0,
        max_tokens=12,
        extra_body={"return_token_ids": True},
    )
    prompt = ChatCodec(processor).prompt(seen)
    assert answer.prompt_token_ids == prompt.trace.ids_L.tolist()
    (reply,) = HFStudent(model, processor, temperature=0.0, max_new_tokens=12).act([seen])
    trace = reply.meta["trace"]
    np.testing.assert_array_equal(answer.choices[0].token_ids, trace.ids_L[trace.sampled_L])


def test_the_server_keeps_to_a_schema(client):
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "system", "content": "you judge"}, {"role": "user", "content": "a reply"}],
        max_tokens=100,
        seed=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "verdict", "schema": SCHEMA, "strict": True},
        },
    )
    assert json.loads(answer.choices[0].message.content)["safety"] in (1, 2, 3)


def test_our_back_end_talks_to_it(server, pictures):
    with contextlib.closing(open_backend(f"openai:tiny@{server}")) as backend:
        backend.check()  # pictures reach the model
        asked = (ChatMessage("system", "you judge"), ChatMessage("user", "look", tuple(pictures[:1])))
        (reply,) = backend.complete([ChatRequest(asked, schema=SCHEMA, max_tokens=100, seed=0)])
        assert json.loads(reply.text)["safety"] in (1, 2, 3)


def test_an_unknown_model_is_refused(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "hi"}])
