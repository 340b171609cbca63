"""The whole way through a real server in another process: `transformers serve` on the tiny model."""

from __future__ import annotations

import json

import pytest

import steer_env
from steer_env.agents import make_agent
from steer_env.agents.chat import AsyncChatStudent, chat_student
from steer_env.models import BackendError, ChatMessage, ChatReply, ChatRequest, open_backend
from steer_env.rollout import rollout
from steer_env.testing.agents import check_agent
from steer_env.types import STUDENT, Utterance

pytestmark = pytest.mark.slow  # the server takes a while to start


@pytest.fixture(scope="module")
def backend(server, model_folder):
    opened = open_backend(f"openai:{model_folder}@{server}")
    yield opened
    opened.close()


def test_a_chat_with_a_picture_and_several_turns(backend, model_folder, pictures):
    """The server's greedy answer is that of the same model in process."""
    chat = (
        ChatMessage("system", "be safe ."),
        ChatMessage("user", "what do you see ?", (pictures[0],)),
        ChatMessage("assistant", "the red lantern ."),
        ChatMessage("user", "and this ?", (pictures[1], pictures[2])),
    )
    without = tuple(message._replace(images=()) for message in chat)
    requests = [ChatRequest(c, max_tokens=6, temperature=0.0) for c in (chat, without)]
    served = backend.complete(requests)
    here = open_backend(f"hf:{model_folder}", device="cpu").complete(requests)
    assert [answer.text for answer in served] == [answer.text for answer in here]
    assert served[0].meta["usage"]["prompt_tokens"] > served[1].meta["usage"]["prompt_tokens"] + 3 * 4
    assert served[0].meta["attempts"] == 1 and served[0].finish in ("stop", "length")


def test_eight_at_once(backend, pictures):
    requests = [
        ChatRequest(
            (ChatMessage("user", f"number {i} ?", (pictures[i % 3],)),), max_tokens=4, temperature=0.0
        )
        for i in range(8)
    ]
    together = backend.complete(requests)
    assert all(isinstance(answer, ChatReply) for answer in together)
    assert [answer.text for answer in together] == [backend.complete([r])[0].text for r in requests]


def test_the_seed_decides_what_is_sampled(backend):
    chat = (ChatMessage("user", "tell me"),)
    said = [
        backend.complete([ChatRequest(chat, max_tokens=8, temperature=1.0, seed=seed)])[0].text
        for seed in (1, 1, 2, 3)
    ]
    assert said[0] == said[1] and len(set(said)) > 1


def test_a_student_plays_whole_dialogues(backend):
    student = chat_student(backend, system="be safe .", max_new_tokens=4, temperature=0.0)
    assert isinstance(student, AsyncChatStudent)
    vec = steer_env.make_vec("SteerEscalation-v0", 4)
    trajectories = rollout(vec, make_agent("tutor"), student, [0, 1, 2, 3, 4])
    assert len(trajectories) == 5
    turns = [result.turn for trajectory in trajectories for result in trajectory.turns]
    assert len(turns) > 8 and all(isinstance(turn.reply, Utterance) for turn in turns)
    assert all(turn.reply.meta["attempts"] == 1 for turn in turns)
    assert any(turn.images for turn in turns)


def test_it_keeps_an_agents_promises(backend):
    check_agent(chat_student(backend, max_new_tokens=4, temperature=0.0), STUDENT)


def test_the_command_line_plays_it(server, model_folder, tmp_path, capsys):
    from steer_env.cli.main import main

    name = f"openai:{model_folder}@{server}"
    code = main(
        ["evaluate", name, "--episodes", "4", "--max-new-tokens", "4", "--out", str(tmp_path / "run")]
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "run" / "dialogues.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(row["turns"] for row in rows)


def test_a_wrong_model_is_one_line_before_any_work(server, tmp_path, capsys):
    from steer_env.cli.main import main

    code = main(["evaluate", f"openai:someone-else@{server}", "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and "requested 'someone-else'" in error
    assert not (tmp_path / "run").exists()


def test_a_wrong_url_is_one_line(server, model_folder):
    with pytest.raises(BackendError, match="check the model's name and the URL, which usually ends in /v1"):
        open_backend(f"openai:{model_folder}@{server}/v2")
