"""`steer-env data seeds`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import steer_env
from steer_env.models import BackendError, ChatReply, base


class Echo:
    """A model that writes a fixed dialogue, replies and grades."""

    opened = 0

    def __init__(self, rest: str, **options: object) -> None:
        self.name, self.weights, self.closed = f"echo:{rest}", rest, False
        type(self).opened += 1

    def check(self) -> None:
        if self.name == "echo:down":
            raise BackendError("echo:down does not answer")

    def complete(self, requests):
        return [ChatReply(json.dumps(self._answer(request))) for request in requests]

    def _answer(self, request):
        title = request.schema["title"] if request.schema else ""
        if title == "Findings":
            return {"objects": [], "visible_text": [], "dual_use": [], "risk_detail": "none"}
        if title == "Rewrite":
            return {"goal": request.messages[-1].content.split("\n")[1][:60], "persona": "p", "opening": "o"}
        if title == "GradeAnswer":
            return {"reason": "r", "grade": 4}
        asked = request.messages[-1].content.replace("\n", " ")[40:120]
        turns = [{"text": f"Turn {i} about {asked!r}?", "goal": "g", "risk": i} for i in (1, 2)]
        return {"goal": "g", "turns": turns}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Echo]]:
    monkeypatch.setitem(base._OPENERS, "echo", Echo)
    Echo.opened = 0
    yield Echo


def test_world(cli, tmp_path: Path) -> None:
    words = ("data", "seeds", "--out", "seeds", "--count", 30)
    code, out, err = cli(*words)
    assert code == 0 and "rows: 30/30 (" in err
    assert "benign: 10 of 10 rows kept (100.0%)" in out and "strategy: " in out and "grade: " in out
    summary = json.loads((tmp_path / "seeds/summary.json").read_text())
    assert summary["rows"] == 30 and set(summary["kinds"]) == {"benign", "obfuscated", "red_team"}
    code, _, err = cli(*words)
    assert code == 2 and "continue it with --resume" in err
    again = cli(*words, "--resume")
    assert (again.code, again.out) == (0, out)
    # What it wrote is what other commands read, with the ground truth the rule judge needs.
    assert cli("scenarios", "validate", "seeds/red_team.jsonl").code == 0
    code, out, _ = cli("evaluate", "comply", "--scenarios", "seeds/red_team.jsonl", "--out", "run")
    assert code == 0 and re.search(r" 0 *\n.* of [1-9]\d* *\n", out)  # unscored turns


def test_a_kind_alone_and_no_seed_at_all(cli) -> None:
    words = ("data", "seeds", "--count", 6, "--kinds", "red_team")
    code, out, _ = cli(*words, "--out", "some", "--noise-share", 1, "--typography-share", 0)
    assert code == 0 and "red_team: 4 of 6" in out and "pictures with noise: 4 (100.0%)" in out
    assert "rejected, simulation: resisted: 2" in out  # over the lookalike there is nothing to give away
    code, out, _ = cli(*words, "--out", "none", "--target", "constructive")
    assert code == 1 and "rejected, simulation: resisted: 6" in out


def test_models_by_name(cli, echo: type[Echo], tmp_path: Path) -> None:
    rows = [{"turns": [f"Question {i}?"], "kind": "obfuscated", "id": str(i)} for i in range(4)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["data", "seeds", "--source", "own.jsonl", "--generator", "echo:a", "--target", "echo:a"]
    code, out, _ = cli(*words, "--judge", "echo:b", "--out", "seeds")
    assert code == 0 and "red_team: 2 of 2" in out and "grade: 4 2" in out
    assert echo.opened == 2  # the generator and the target are one model, opened once
    run = json.loads((tmp_path / "seeds/run.json").read_text())["generator"]
    assert run["judge"]["name"] == "echo:b" and run["target"]["weights"] == "a"
    code, _, err = cli(*words, "--judge", "echo:a", "--out", "own")
    assert code == 2 and "has the same weights as the student" in err and not (tmp_path / "own").exists()
    code, _, err = cli(*words, "--judge", "echo:down", "--out", "down")
    assert code == 2 and "echo:down does not answer" in err and not (tmp_path / "down").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--source", "nowhere.jsonl"), "is neither world, nor an existing scenario file"),
        (("--kinds", "benign,nice"), "kinds=['benign', 'nice'], expected at least one of"),
        (("--noise-share", 2), "noise_share=2.0, expected a finite number of at least 0 and at most 1"),
        (("--mean-turns", 1), "mean=1.0, expected a number between 2 and 10"),
        (("--generator", "gpt"), "generator: backend='gpt', expected one of"),
        (("--judge", "wise"), "judge: backend='wise', expected one of"),
        (("--target", "nobody"), "student='nobody' is no folder and no known name"),
        (("--count", 0), "count=0, expected an integer of at least 1"),
        (("--source", "own.jsonl"), "generator='rule' takes risky requests of the built-in world apart"),
        (("--source", "own.jsonl", "--generator", "echo:a"), "judge='rule' has no ground truth"),
        (
            ("--source", "own.jsonl", "--generator", "echo:a", "--judge", "echo:b"),
            "target='fixed' plays the built-in world only",
        ),
    ],
)
def test_wrong_values_are_refused_before_work(
    cli, echo: type[Echo], tmp_path: Path, words: tuple, said: str
) -> None:
    (tmp_path / "own.jsonl").write_text('{"turns": ["What is it?"]}\n')
    if words[1] == "nowhere.jsonl":
        words = (*words, "--kinds", "benign")
    code, _, err = cli("data", "seeds", "--out", "seeds", *words)
    assert code == 2 and said in err
    assert not (tmp_path / "seeds").exists() and echo.opened == 0


def test_licences_hold(cli, tmp_path: Path) -> None:
    line = '{"turns": ["What is it?"], "provenance": "photos: 1", "licence": "CC-BY-NC-4.0"}\n'
    (tmp_path / "own.jsonl").write_text(line)
    words = ("data", "seeds", "--out", "seeds", "--source", "own.jsonl", "--kinds", "benign")
    code, _, err = cli(*words)
    assert code == 2 and "1 scenario of photos: non-commercial" in err and not (tmp_path / "seeds").exists()
    assert cli(*words, "--allow-licence", "photos").code == 0
    (seed,) = steer_env.load_scenarios(tmp_path / "seeds/benign.jsonl")
    assert seed.licence == "CC-BY-NC-4.0"  # so that the trainer's gate holds for seeds as well
