"""`--judge` in every command that plays: by name, in the attacker's call, and never its own student."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from kit.backends import ScriptedBackend
from steer_env.judges.prompting import prompt_text
from steer_env.models import base, register_backend
from steer_env.play.evaluate import load_rows
from steer_env.types import Scored


def polite(request):
    """Answer by the schema, or refuse."""
    if request.schema is None:
        return "I will not help with that."
    shapes = request.schema["properties"]
    return json.dumps({name: 8 if shape["type"] == "integer" else shape.get("enum", ["Go on."])[0]
                       for name, shape in shapes.items()})  # fmt: skip


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """`scripted:WEIGHTS` is a back end with these weights; returns those that were opened."""
    monkeypatch.setattr(base, "_OPENERS", dict(base._OPENERS))
    made = []

    def open_scripted(rest, **options):
        made.append(ScriptedBackend(polite, name=f"scripted:{rest}", weights=rest))
        return made[-1]

    register_backend("scripted", open_scripted)
    return made


def meta(run="r"):
    return json.loads((Path(run) / "run.json").read_text())


def verdicts(run="r"):
    return [turn["verdict"] for row in load_rows(run) for turn in row["turns"]]


PLAY = ("evaluate", "refuse", "--episodes", 6, "--format", "csv", "--out", "r")


def test_a_judge_by_name_scores_and_is_on_record(cli, opened) -> None:
    code, _, err = cli(*PLAY, "--judge", "scripted:j")
    assert code == 0, err
    (judge,) = opened
    assert len(judge.requests) == len(verdicts()) > 12
    assert {v["judge"] for v in verdicts()} == {"llm:scripted:j"}
    assert meta()["judge"] == "scripted:j"
    assert {v["prompt_hash"] for v in verdicts()} == {meta()["judge_prompt"]}
    code, _, err = cli(*PLAY, "--resume", "--judge", "scripted:other")
    assert code == 2 and "judge: 'scripted:j' there, 'scripted:other' now" in err
    assert cli(*PLAY, "--resume", "--trust").code == 0  # the judge of the run, without naming it again
    assert opened[-1].name == "scripted:j"


def test_a_rubric_that_changed_is_not_resumed(cli) -> None:
    Path("mine.txt").write_text(prompt_text("judge-v2"))
    name = "scripted:j?prompt=mine.txt"
    assert cli(*PLAY, "--judge", name).code == 0
    assert cli(*PLAY, "--resume", "--trust").code == 0
    Path("mine.txt").write_text(prompt_text("judge-v2").replace("=== input", "Be strict.\n=== input"))
    code, _, err = cli(*PLAY, "--resume", "--trust")
    assert code == 2 and "judge_prompt" in err and "holds another run" in err


@pytest.mark.parametrize("suite", [False, True])
def test_one_tutor_in_both_seats_asks_once_per_state(cli, opened, suite) -> None:
    words = ("--suite", "full", "--episodes", 3, "--no-controls") if suite else ()
    code, _, err = cli(*PLAY, "--attacker", "scripted:t", "--judge", "tutor", *words)
    assert code == 0, err
    (tutor,) = opened  # one model, whatever the number of parts and seats
    asked = {(tuple(m.content for m in r.messages), r.messages[1].images) for r in tutor.requests}
    assert len(tutor.requests) == len(asked)
    folders = [path.parent for path in Path("r").rglob("dialogues.jsonl")]
    rows = [row for folder in folders for row in load_rows(folder)]
    turns = [turn for row in rows for turn in row["turns"]]
    assert len(folders) == (4 if suite else 1)
    assert {turn["verdict"]["judge"] for turn in turns} == {"tutor:scripted:t"}
    assert {turn["verdict"]["prompt_hash"] for turn in turns} <= set(meta()["judge_prompt"].split("+"))
    # A call scored the reply and wrote the next question; seeds of one scenario share their calls.
    assert 0 < len(tutor.requests) <= len(turns)
    users = [[turn["user"] for turn in row["turns"][1:]] for row in rows]
    assert {said[0] for said in users if said} == {"Go on."}
    assert all(said.count("Go on.") == 1 for said in users if said)  # said again, it counts as no question


@pytest.mark.parametrize(
    ("words", "role"),
    [
        (("refuse", "--attacker", "scripted:w", "--judge", "scripted:w"), "attacker"),
        (("scripted:w", "--judge", "scripted:w"), "student"),
        (("scripted:w", "--judge", "ensemble(rule, scripted:w)"), "student"),
        (("scripted:w", "--attacker", "scripted:w", "--judge", "tutor"), "student"),
        (("scripted:w", "--judge", "scripted:w", "--suite", "full"), "student"),
    ],
)
def test_a_judge_is_nobodys_double_unless_asked_for_by_name(cli, words, role) -> None:
    said = ("evaluate", *words, "--episodes", 3, "--format", "csv", "--out", "r")
    code, out, err = cli(*said)
    assert code == 2 and f"has the same weights as the {role} (w)" in err and err.count("\n") == 1
    assert f"--allow-self-judge {role}" in err and not out and not Path("r").exists()
    assert ("judge='tutor' for one model" in err) == (role == "attacker")
    code, _, err = cli(*said, "--allow-self-judge", role)
    assert code == 0, err
    assert meta()["allow_self_judge"] == [role]
    assert cli(*said, "--resume").code == 0
    code, _, err = cli("rescore", "r", "--judge", "scripted:w", "--out", "again")
    assert code == 2 and f"--allow-self-judge {role}" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--judge", "tutor"), "attacker=None is a script; name a model there"),
        (("--attacker", "tutor", "--judge", "tutor"), "attacker='tutor' is a script"),
        (("--judge", "gpt"), "judge='gpt', expected 'rule', a back end"),
        (("--judge", "cached(tutor, v.sqlite)"), "is not known here"),
        (("--allow-self-judge", "judge"), "invalid choice"),
        (("--judge", "scripted:j?prompt=none.txt"), "prompt='none.txt' cannot be read"),
    ],
)
def test_wrong_judges_are_one_clear_line(cli, words, says) -> None:
    code, _, err = cli(*PLAY, *words)
    assert code == 2 and says in err and not Path("r").exists()


def test_reports_need_neither_attacker_nor_judge(cli, opened, monkeypatch) -> None:
    assert cli(*PLAY, "--attacker", "scripted:t", "--judge", "tutor").code == 0

    def gone(rest, **options):
        raise base.BackendError("nobody there")

    register_backend("scripted", gone)
    code, _, err = cli("report", "r")
    assert code == 0, err
    assert cli("rescore", "r", "--judge", "rule").code == 0


def test_own_scenarios_have_a_limit_when_a_model_judges(cli, scenario_file: Path, monkeypatch) -> None:
    file = scenario_file.with_name("many.jsonl")
    file.write_text("".join(f'{{"turns": ["one {i}", "two", "three"]}}\n' for i in range(30)))
    words = ("evaluate", "refuse", "--scenarios", file, "--format", "csv", "--out", "r")
    assert cli(*words, "--judge", "scripted:j").code == 0
    assert not any("unscored" in verdict for verdict in verdicts())
    register_backend("scripted", lambda rest: ScriptedBackend(lambda request: "no idea"))
    code, _, err = cli(*words[:-1], "bad", "--judge", "scripted:j")
    assert code == 2 and "expected at most 5.0%" in err and "x bad_output" in err


def test_play_shows_its_scores(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("No.\n" * 12 + "n\n"))
    code, out, _ = cli("play", "--seed", 1, "--attacker", "scripted:t", "--judge", "tutor")
    assert code == 0 and "> safety 8" in out and "Go on." in out
    code, _, err = cli(
        "play", "--as", "attacker", "--student", "scripted:w", "--judge", "scripted:w", "--seed", 1
    )
    assert code == 2 and "same weights as the student" in err


SMALL = ("--seeds-per-step", 1, "--group-size", 2, "--max-new-tokens", 2, "--num-envs", 2, "--steps", 1)


def test_training_takes_a_judge_that_is_not_its_student(cli, opened, tmp_path) -> None:
    torch = pytest.importorskip("torch")
    from steer_env.models.tiny import TinyConfig, build, save

    torch.set_num_threads(1)
    config = TinyConfig(
        vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
    )
    save(*build(["what is this"], config), tmp_path / "tiny")
    train = ("train", "--student", "tiny", *SMALL)
    code, _, err = cli(*train, "--judge", "hf:tiny?device=cpu", "--out", "own")
    assert code == 2 and "same weights as the student" in err and not Path("own").exists()
    code, _, err = cli(*train, "--attacker", "scripted:t", "--judge", "tutor", "--out", "r")
    assert code == 0, err
    assert meta()["judge"] == "tutor" and "+" in meta()["judge_prompt"] and opened[-1].requests
    code, _, err = cli("train", "--out", "r", "--resume", "--steps", 2, "--judge", "rule")
    assert code == 2 and "judge: 'tutor' there, 'rule' now" in err


def test_the_library_refuses_too(opened) -> None:
    import steer_env
    from steer_env.judges.independence import SelfJudging
    from steer_env.judges.llm import LLMJudge
    from steer_env.models import open_backend
    from steer_env.play.evaluate import evaluate

    student = steer_env.make_agent("scripted:w")
    vec = steer_env.make_vec(num_envs=2, judge=LLMJudge(open_backend("scripted:w")))
    with pytest.raises(SelfJudging, match=r"allow_self_judging=\('student',\)"):
        evaluate(vec, steer_env.make_agent("tutor"), student, range(2), "r")
    assert not Path("r").exists()


def test_environments_by_name_share_one_tutor(opened) -> None:
    import gymnasium

    import steer_env

    name = {"attacker": "scripted:t", "judge": "tutor"}
    for env in (
        steer_env.make_student_env("SteerRedTeam-v0", **name),
        gymnasium.make("steer_env/SteerRedTeam-v0", **name),
    ):
        env.reset(seed=1)
        over, replies = False, 0
        while not over:
            _, _, terminated, truncated, info = env.step("No.")
            over, replies = terminated or truncated, replies + 1
            assert isinstance(info["verdict"], Scored)
        assert len(opened.pop(0).requests) == replies
    assert not opened
    vec = steer_env.make_student_vec("SteerRedTeam-v0", 2, **name)
    vec.reset(seed=1)
    vec.step(["No.", "Never."])
    assert len(opened) == 1 and len(opened[0].requests) == 2
    with pytest.raises(ValueError, match=r"tutor = steer_env\.make_attacker"):
        steer_env.make(judge="tutor")
    with pytest.raises(ValueError, match="'static' is a script"):
        steer_env.make_student_env(attacker="static", judge="tutor")
    # By hand: the same object in both seats.
    tutor = steer_env.make_attacker("SteerRedTeam-v0", "scripted:t")
    assert steer_env.make("SteerRedTeam-v0", judge=tutor).unwrapped.judge is tutor
