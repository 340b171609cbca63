"""Models by name in either seat, from Python and from the command line."""

from __future__ import annotations

import sys
import types

import pytest

import steer_env
from kit import servers
from steer_env.agents import make_agent
from steer_env.agents.chat import AsyncChatStudent
from steer_env.agents.hf import HFStudent
from steer_env.cli.common import model_hash, open_student
from steer_env.cli.main import main
from steer_env.models import BackendError, is_backend, open_backend, register_backend
from steer_env.models.base import _OPENERS


@pytest.fixture
def server():
    with servers.serving(servers.echo) as running:
        yield running


@pytest.fixture
def absent():
    """A server that is not there any more."""
    with servers.serving(servers.echo) as running:
        url = running.url
    return f"openai:m@{url}"


@pytest.fixture
def other_modules(monkeypatch):
    """Stand-ins for the modules that open the tutor and vLLM: they tell what they were opened with."""

    def opened(*args, **options):
        return types.SimpleNamespace(args=args, **options)

    student = types.SimpleNamespace(from_pretrained=opened)
    stand_ins = {
        "llm_tutor": types.SimpleNamespace(LLMTutor=opened),
        "vllm_student": types.SimpleNamespace(VLLMStudent=student),
    }
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, f"steer_env.agents.{name}", module)


def test_students_by_name(server, model_folder, other_modules):
    chat = make_agent(f"openai:m@{server.url}", temperature=0.2, system="be safe", retries=1)
    assert isinstance(chat, AsyncChatStudent)
    assert (chat.temperature, chat.system, chat.backend.options.retries) == (0.2, "be safe", 1)
    chat.close()
    student = make_agent(f"hf:{model_folder}", temperature=0.0)
    assert isinstance(student, HFStudent)
    assert student.weights == open_backend(f"hf:{model_folder}", device="cpu").weights
    engine = make_agent("vllm:some/model", temperature=0.5)
    assert (engine.args, engine.temperature, engine.engine) == (("some/model",), 0.5, {})


def test_options_stand_in_the_name_and_keyword_arguments_go_first(server, model_folder, other_modules):
    chat = make_agent(f"openai:m@{server.url}?retries=1&temperature=0.2&system=be+safe", temperature=0.3)
    assert (chat.temperature, chat.system, chat.backend.options.retries) == (0.3, "be safe", 1)
    assert chat.backend.name == f"openai:m@{server.url}"
    chat.close()
    tutor = make_agent(f"openai:m@{server.url}?retries=1&attempts=2", seat="attacker_0", memory=True)
    assert (tutor.attempts, tutor.memory, tutor.backend.options.retries) == (2, True, 1)
    tutor.backend.close()
    student = make_agent(f"hf:{model_folder}?dtype=bfloat16&batch_size=3&temperature=0")
    assert str(student.model.dtype) == "torch.bfloat16" and (student.batch_size, student.temperature) == (
        3,
        0,
    )
    backend = open_backend(f"hf:{model_folder}?device=cpu&batch_size=2")
    assert backend.batch_size == 2 and backend.name == f"hf:{model_folder}"
    engine = make_agent("vllm:some/model?max_model_len=2048&dtype=float32&enforce_eager=yes&max_new_tokens=9")
    assert engine.engine == {"max_model_len": 2048, "enforce_eager": True}
    assert (engine.dtype, engine.max_new_tokens) == ("float32", 9)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("hf:MODEL?colour=red", {}, r"colour is no option of hf:\.\.\., expected one of device, dtype"),
        ("hf:MODEL", {"images": "words"}, "images='words', expected one of 'pixels', 'caption', 'no'"),
        ("hf:MODEL?dtype=float99", {}, "dtype='float99', expected one of torch's"),
        ("vllm:MODEL", {"device": "cuda"}, "device='cuda' is no option of vllm:.*CUDA_VISIBLE_DEVICES"),
        ("vllm:MODEL", {"batch_size": 4}, r"batch_size=4 is no option of vllm:.*\?max_num_seqs=64"),
        ("openai:m@http://h/v1", {"batch_size": 4}, "batch_size is no option of an OpenAI-compatible server"),
    ],
)
def test_options_a_model_does_not_have_are_named(name, options, says, model_folder, other_modules):
    with pytest.raises(ValueError, match=says):
        make_agent(name.replace("MODEL", str(model_folder)), **options)
    if name.startswith("hf:") and not options:
        with pytest.raises(ValueError, match=says):
            open_backend(name.replace("MODEL", str(model_folder)))


def test_attackers_by_name_are_tutors(server, other_modules):
    tutor = steer_env.make_attacker("SteerEscalation-v0", f"openai:m@{server.url}")
    assert tutor.backend.name == f"openai:m@{server.url}"
    tutor.backend.close()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"name='nobody', expected one of static, .*openai:MODEL@URL"):
        make_agent("nobody")
    with pytest.raises(ValueError, match=r"backend='ollama:x', expected one of hf:\.\.\., "):
        open_backend("ollama:x")
    assert not is_backend("openai:") and not is_backend("openai")


def test_a_server_that_is_not_there_stops_everything_before_it_starts(absent):
    with pytest.raises(BackendError, match="start the server, or check the URL"):
        make_agent(absent, backoff=0)
    with pytest.raises(BackendError, match="start the server"):
        steer_env.make_attacker("SteerEscalation-v0", absent)


def test_a_back_end_of_ones_own(monkeypatch):
    class Mine:
        name, weights = "mine:x", "x"

        def __init__(self, rest, **options):
            self.rest, self.options, self.checked = rest, options, False

        def complete(self, requests):
            return []

        def check(self):
            self.checked = True

        def close(self):
            pass

    monkeypatch.setattr(sys.modules["steer_env.models.base"], "_OPENERS", dict(_OPENERS))
    register_backend("mine", Mine)
    student = make_agent("mine:here", seed=3, colour="red")
    assert student.seed == 3 and student.backend.options == {"colour": "red"} and student.backend.checked


# -- the command line -------------------------------------------------------------------------------------


def test_open_student_leaves_out_what_was_not_given(server):
    student = open_student(f"openai:m@{server.url}", temperature=0.0, max_new_tokens=None, device=None)
    assert (student.temperature, student.max_new_tokens) == (0.0, 256)
    student.close()
    with pytest.raises(ValueError, match="device is no option of an OpenAI-compatible server"):
        open_student(f"openai:m@{server.url}", device="cpu")
    assert model_hash(f"openai:m@{server.url}") == ""


def run(capsys, *words):
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, capsys.readouterr()


def test_the_command_line_leaves_an_engine_what_is_its_own(other_modules, model_folder):
    student = open_student(f"vllm:{model_folder}", device=None, dtype=None, batch_size=None, temperature=0.0)
    assert (student.args, student.temperature) == ((str(model_folder),), 0.0)
    assert not hasattr(student, "device") and not hasattr(student, "batch_size")
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES"):
        open_student(f"vllm:{model_folder}", device="cpu")
    named = model_hash(f"hf:{model_folder}?dtype=float32")
    assert named == model_hash(f"vllm:{model_folder}?max_model_len=64") == model_hash(str(model_folder)) != ""
    student = open_student(f"hf:{model_folder}?device=cpu&batch_size=2", temperature=0.0, device=None)
    assert student.batch_size == 2


def test_evaluate_and_play(server, tmp_path, monkeypatch, capsys):
    name = f"openai:m@{server.url}"
    code, shown = run(capsys, "evaluate", name, "--episodes", 4, "--out", tmp_path / "run")
    assert code == 0, shown.err
    assert len((tmp_path / "run" / "dialogues.jsonl").read_text().splitlines()) == 4
    lines = iter(["what is it?", "and why?"])

    def type_in(*_):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None  # Ctrl-D

    monkeypatch.setattr("builtins.input", type_in)
    code, shown = run(capsys, "play", "--as", "attacker", "--student", name, "--seed", 1)
    assert code == 0 and "what is it?|" in shown.out


def test_play_says_why_there_is_no_reply(monkeypatch, capsys):
    def first_only(handler, body, number):
        servers.echo(handler, body, number) if number < 2 else handler.send(401, "{}")

    monkeypatch.setattr("builtins.input", lambda *_: "hello")
    with servers.serving(first_only) as server:
        code, shown = run(capsys, "play", "--as", "attacker", "--student", f"openai:m@{server.url}")
    assert code == 2 and "no reply from the student: auth: HTTP 401" in shown.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "refuse", "--attacker", "nobody"), "'nobody', expected one of static, tutor, learning"),
        (("train", "--student", "openai:m@http://h/v1", "--out", "r"), "behind a server and cannot learn"),
        (("evaluate", "openai:m"), "expected openai:MODEL@URL"),
    ],
)
def test_wrong_names_are_one_clear_line(words, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    code, shown = run(capsys, *words)
    assert code == 2 and message in shown.err
    assert not list(tmp_path.iterdir())
