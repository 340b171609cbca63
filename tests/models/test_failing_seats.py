"""Every fault of a server in another process, in every seat: the run goes on, loses nothing, and resumes."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from steer_env.agents.chat import FILTERED
from steer_env.cli.main import main
from steer_env.play.evaluate import load_rows

pytestmark = pytest.mark.slow  # two whole evaluations a cell

KEY = "sk-very-secret-0123456789abcdef"
SEATS = ("student", "tutor", "judge")
#: Fault -> what the reasons begin with. The last three are answers of the model, which a student may give.
FAULTS = {
    "drop": "connection",
    "half": "connection",
    "http_429": "rate_limit",
    "http_500": "server",
    "http_401": "auth",
    "hang": "timeout",
    "truncated": "bad_output",
    "cut_off": "truncated",
    "garbage": "bad_output",
    "filtered": "refused",
}
ANSWERS = ("cut_off", "garbage", "filtered")
CELLS = [(f, s) for f in FAULTS for s in SEATS if not (s == "student" and f in ANSWERS)]
DIALOGUES, WORKS_FOR = 24, 20


@pytest.fixture(scope="module")
def port():
    command = [sys.executable, Path(__file__).parents[1] / "kit/faulty_server.py"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield int(process.stdout.readline())
    process.kill()
    process.wait()


class Tag:
    """One of the process's servers."""

    def __init__(self, port, name):
        self.root = f"http://127.0.0.1:{port}/{name}"

    def breaks(self, fault, after=0):
        body = json.dumps({"fault": fault, "after": after}).encode()
        urllib.request.urlopen(f"{self.root}/break", body).read()

    def asked(self):
        return int(urllib.request.urlopen(f"{self.root}/asked").read())

    def name(self, **options):
        quick = {"retries": 1, "backoff": 0.01, "read_timeout": 20, **options}
        return f"openai:m@{self.root}/v1?" + "&".join(f"{key}={value}" for key, value in quick.items())


def words(seat, name):
    """Return the arguments that put the model into a seat."""
    if seat == "student":
        return [name]
    return (
        ["refuse", "--judge", name] if seat == "judge" else ["refuse", "--attacker", name, "--judge", "tutor"]
    )


@pytest.fixture
def evaluate(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def run(seat, name, *more):
        fixed = [
            "--episodes",
            str(DIALOGUES),
            "--num-envs",
            "2",  # the members of a group are equally long: two at a time, so that some end before the fault
            "--format",
            "csv",
            "--out",
            str(tmp_path / "run"),
        ]
        code = main(["evaluate", *words(seat, name), *fixed, *more])
        return code, capsys.readouterr()

    return run


def unscored(rows):
    return [t["verdict"]["unscored"] for row in rows for t in row["turns"] if "unscored" in t["verdict"]]


@pytest.mark.parametrize(("fault", "seat"), CELLS)
def test_a_server_that_breaks_half_way(fault, seat, port, tmp_path, evaluate):
    server, run = Tag(port, f"{fault}-{seat}"), tmp_path / "run"
    name = server.name(**({"retries": 0, "read_timeout": 0.5} if fault == "hang" else {}))
    probes = 2
    server.breaks(fault, probes + WORKS_FOR)
    code, shown = evaluate(seat, name)
    before, raw = load_rows(run), (run / "dialogues.jsonl").read_bytes()
    if seat == "student":
        # Every dialogue is a row, those that lost their server with the reason.
        assert code == 0 and sorted(row["seed"] for row in before) == list(range(DIALOGUES))
        failed = [row for row in before if row["stop"] == "failed"]
        assert 0 < len(failed) < DIALOGUES
        assert all(row["error"].startswith(f"student_0: {FAULTS[fault]}") for row in failed)
        assert sum(len(row["turns"]) for row in before) == WORKS_FOR and not unscored(before)
    else:
        # The dialogues go on without verdicts, until there are too many of them.
        assert code == 2 and f"x {FAULTS[fault]}" in shown.err.splitlines()[-1], shown.err
        reasons = unscored(before)
        assert reasons and all(reason.startswith(FAULTS[fault]) for reason in reasons)
        assert {row["stop"] for row in before} == {"seed_end"}
    if seat == "tutor":
        after = [t for row in before for t, last in zip(row["turns"][1:], row["turns"], strict=False)
                 if "unscored" in last["verdict"]]  # fmt: skip
        assert after and all(turn["user"] for turn in after)  # the user speaks the seed's draft
    server.breaks(None)
    code, shown = evaluate(seat, name, "--resume")
    assert code == 0, shown.err
    assert (run / "dialogues.jsonl").read_bytes().startswith(raw)
    rows = load_rows(run)
    assert sorted(row["seed"] for row in rows) == list(range(DIALOGUES))
    assert {row["stop"] for row in rows} == {"seed_end"}
    assert len(unscored(rows)) == len(unscored(before))  # what is new has a verdict
    written = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in (*written, *shown, shown.err) if KEY in text]


def test_a_filter_on_every_reply_is_counted_and_stops_nothing(port, tmp_path, evaluate):
    server = Tag(port, "filter-on-all")
    server.breaks("filtered")
    code, shown = evaluate("student", server.name())
    rows = load_rows(tmp_path / "run")
    turns = [turn for row in rows for turn in row["turns"]]
    assert code == 0 and {row["stop"] for row in rows} == {"seed_end"} and not unscored(rows)
    assert {turn["reply"] for turn in turns} == {FILTERED}
    assert {turn["verdict"]["move"] for turn in turns} == {"refuse_plain"}
    said = f"content filter or by the model's refusal field ({len(turns)} of {len(turns)})"
    assert said in " ".join(shown.out.split())


@pytest.mark.parametrize("seat", SEATS)
@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        ("url", "start the server, or check the URL"),
        ("model", "check the model's name and the URL"),
        ("key", "set OPENAI_API_KEY to a valid key"),
        ("hang", "is the server busy? Raise read_timeout"),
    ],
)
def test_what_is_wrong_from_the_start_is_one_line_before_any_work(
    problem, expected, seat, port, tmp_path, evaluate
):
    server = Tag(port, f"wrong-{problem}-{seat}")
    server.breaks({"key": "http_401", "model": "http_404", "hang": "hang"}.get(problem))
    name = server.name(read_timeout=0.3, retries=0)
    if problem == "url":
        name = name.replace(f":{port}/", ":9/")
    code, shown = evaluate(seat, name)
    assert code == 2 and expected in shown.err and shown.err.count("\n") == 1 and not shown.out
    assert not (tmp_path / "run").exists() and KEY not in shown.err
