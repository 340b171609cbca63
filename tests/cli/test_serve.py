"""The page of `steer-env serve` through its HTTP layer: seats, labels, and who may come in."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("python_multipart", reason="needs the extra serve")
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

import steer_env
from steer_env.agents import make_agent
from steer_env.cli.serve import Serve, house_of, is_loopback, token_of
from steer_env.configs.env import EnvConfig
from steer_env.evaluation.labelling import calibrate, load_labels
from steer_env.play.evaluate import load_rows
from steer_env.play.recorded import load_run, pictures_of, scenes_of
from steer_env.scenario_files import load_scenarios
from steer_env.serve.app import make_app
from steer_env.serve.guard import Guard
from steer_env.serve.seats import Seat, Store
from steer_env.types import ATTACKER, STUDENT

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEER_ENV_TOKEN", raising=False)


def opened(*runs: str, **options: Any) -> TestClient:
    from steer_env.cli.command import HELD

    with HELD:  # the next one opens the folder anew
        house = house_of(Serve(runs=runs, env=EnvConfig(env="SteerRedTeam-v0"), **options))
    client = TestClient(make_app(house), base_url="http://localhost:8137")
    client.house = house  # type: ignore[attr-defined]
    return client


def begin(client: TestClient, seat: str, **form: str) -> str:
    answer = client.post("/play", data={"seat": seat, **form}, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def say(client: TestClient, page: str, text: str, **more: Any) -> Any:
    return client.post(page, data={"text": text, **more.pop("data", {})}, **more)


def png(size: tuple[int, int] = (20, 10), colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    PILImage.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_student_sees_neither_goal_nor_verdict_and_what_it_said_is_a_run() -> None:
    client = opened()
    page = begin(client, "student")
    seat = next(iter(client.house.seats.values()))  # type: ignore[attr-defined]
    scenario = seat.scenario
    assert scenario.goal
    for number in range(len(scenario)):
        text = client.get(page).text
        assert scenario.goal not in text and "verdict" not in text and "safety" not in text
        assert all(f">{name}<" not in text for name in ("goal", "kind", "strategy"))
        assert len(re.findall(r'src="/picture/\w{64}"', text)) == sum(
            len(t.images) for t in scenario.turns[: number + 1]
        )
        assert say(client, page, f"I will not help with that {number}.").status_code == 200
    ended = client.get(page).text
    assert "has ended" in ended and scenario.goal in ended and "verdict" in ended
    (row,) = load_rows("runs/serve/student")
    assert row["scenario"] == scenario.id and row["turns"][0]["reply"] == "I will not help with that 0."
    run = load_run("runs/serve/student")
    assert scenes_of(run.meta)(row).id == scenario.id
    assert [i.digest for i in pictures_of(run.meta)(row)] == row["images"]
    again = opened()
    begin(again, "student")
    (other,) = again.house.seats.values()  # type: ignore[attr-defined]
    assert other.seed == seat.seed + 1  # nothing is played twice, also by the next process


def test_an_attack_of_ones_own_becomes_a_scenario_file_and_a_run() -> None:
    client = opened()
    page = begin(
        client, "own", goal="a fictional glimmer", kind="red_team", strategy="roleplay", category="toys"
    )
    assert (
        say(client, page, "What is this?", files=[("pictures", ("a.png", png(), "image/png"))]).status_code
        == 200
    )
    two = [("pictures", (f"{c}.png", png(colour=c), "image/png")) for c in ("blue", "green")]
    assert say(client, page, f"And these? {MARKUP}", files=two).status_code == 200
    shown = client.get(page).text
    assert MARKUP not in shown and "&lt;script&gt;" in shown and shown.count('src="/picture/') == 3
    assert "a fictional glimmer" in shown and "verdict" in shown  # this is the attacker's seat
    source = re.findall(r'src="(/picture/\w+)"', shown)[0]
    picture = client.get(source)
    assert picture.headers["content-type"] == "image/png"
    assert np.asarray(PILImage.open(io.BytesIO(picture.content)))[0, 0].tolist() == [255, 0, 0]
    say(client, page, "", data={"finish": "1"})
    say(client, page, "", data={"finish": "1"})  # pressed twice: kept once
    (scenario,) = load_scenarios("runs/serve/attacks/scenarios.jsonl")
    assert [t.text for t in scenario.turns] == ["What is this?", f"And these? {MARKUP}"]
    assert [t.images for t in scenario.turns] == [(0,), (1, 2)] and scenario.goal == "a fictional glimmer"
    assert (scenario.kind, scenario.strategy, scenario.category) == ("red_team", "roleplay", "toys")
    (row,) = load_rows("runs/serve/attacks")
    assert row["seed"] == 0 and row["scenario"] == scenario.id and len(row["turns"]) == 2
    run = load_run("runs/serve/attacks")
    assert [i.digest for i in pictures_of(run.meta)(row)] == [i.digest for i in scenario.images]


def test_an_attack_on_a_scenario_of_the_world_keeps_its_truth_so_that_the_rule_judge_scores_it() -> None:
    for number in range(2):
        client = opened(student="comply", seed=7)
        page = begin(client, "attacker")
        (seat,) = client.house.seats.values()  # type: ignore[attr-defined]
        assert seat.seed == 7 + number
        assert seat.scenario.goal in client.get(page).text.replace("&#39;", "'")
        for turn in range(len(seat.scenario)):
            draft = seat.draft()[0]
            say(client, page, draft if turn else "Hello, what do you see?")
        assert "has ended" in client.get(page).text
        row = load_rows("runs/serve/attacks")[number]
        assert row["turns"][0]["user"] == "Hello, what do you see?"
        assert any("terms" in turn["verdict"] for turn in row["turns"])
    scenarios = load_scenarios("runs/serve/attacks/scenarios.jsonl")
    assert len({s.id for s in scenarios}) == 2 and all(s.truth is not None for s in scenarios)


def test_what_the_page_kept_is_taken_by_the_other_commands(cli: Any) -> None:
    client = opened()
    page = begin(client, "own", goal="a fictional glimmer", kind="red_team")
    say(client, page, "What is this?", files=[("pictures", ("a.png", png(), "image/png"))])
    say(client, page, "", data={"finish": "1"})
    attacks = "runs/serve/attacks"
    assert cli("scenarios", "validate", f"{attacks}/scenarios.jsonl").code == 0
    code, _, err = cli("evaluate", "refuse", "--scenarios", f"{attacks}/scenarios.jsonl", "--out", "e")
    assert code == 0 and len(load_rows("e")) == 1, err
    assert cli("report", attacks, "--out", "r", "--format", "csv").code == 0


def test_what_is_no_picture_or_too_much_is_refused_and_nothing_is_said() -> None:
    client = opened()
    page = begin(client, "own", goal="g", kind="red_team")
    bomb = io.BytesIO()
    PILImage.new("1", (20_000, 20_000)).save(bomb, "PNG")
    for data in (b"no picture", b"<svg onload=alert(1)>", bomb.getvalue(), png()[:40]):
        answer = say(client, page, "Look.", files=[("pictures", ("a.png", data, "image/png"))])
        assert answer.status_code == 400 and 'role="alert"' in answer.text and "Look." in answer.text
    assert say(client, page, "x" * 5000).status_code == 400
    assert "said user" not in client.get(page).text
    student = begin(client, "student")
    answer = say(client, student, "Look.", files=[("pictures", ("a.png", png(), "image/png"))])
    assert answer.status_code == 400 and "brings its own" in answer.text
    assert client.post("/play", data={"seat": "own", "goal": "g", "kind": "evil"}).status_code == 400
    assert client.get("/play/nothing").status_code == 404 and client.get("/picture/abc").status_code == 404


def test_labels_of_two_people_are_blind_agree_and_calibrate(cli: Any) -> None:
    assert cli("evaluate", "random", "--episodes", 8, "--out", "r", "--format", "csv").code == 0
    client = opened("mine=r", count=3)
    sheet = client.house.sheets["mine"]  # type: ignore[attr-defined]
    assert "Your name" in client.get("/label/mine").text and client.get("/label/other").status_code == 404
    for who in ("ann", "bob"):
        for at, (row, number) in enumerate(sheet.turns):
            text = client.get("/label/mine", params={"annotator": who}).text
            assert f'name="seed" value="{row["seed"]}"' in text and f"(turn {number})" in text
            form = text.split('<form class="card" method="post">')[0]
            assert "safety" not in form and "rationale" not in form
            if who == "bob":
                assert "ann" not in form.replace("cannot", "")  # not what the other said
            terms = row["turns"][number - 1]["verdict"].get("terms")
            harm = bool(terms) and terms["safety"] <= 5
            vote = harm if who == "ann" or at else not harm
            data = {"annotator": who, "seed": row["seed"], "turn": number, "label": int(vote)}
            assert client.post("/label/mine", data=data).status_code == 200
    text = client.get("/label/mine", params={"annotator": "bob"}).text
    assert "All turns are labelled" in text and "alpha" in text and "<td>ann</td>" in text
    start = client.get("/").text
    assert f"{len(sheet.turns)} turns, {len(sheet.turns)} labelled by somebody" in start
    labels = load_labels("runs/serve/labels/mine.csv")
    assert labels.draw == sheet.draw and len(labels.votes) == len(sheet.turns)
    result = calibrate(load_rows("r"), labels)
    assert result.ties == 1 and result.alpha.available and result.labelled == len(sheet.turns)
    again = opened("mine=r", count=3)
    assert again.house.sheets["mine"].done("ann") == len(sheet.turns)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="another draw"):
        opened("mine=r", count=4)
    bad = {"annotator": "ann", "seed": 10**6, "turn": 1, "label": 1}
    assert client.post("/label/mine", data=bad).status_code == 400
    assert client.post("/label/mine", data={**bad, "seed": "x"}).status_code == 400


def test_one_is_no_plural_and_agreement_on_one_turn_says_that_it_needs_more(cli: Any) -> None:
    assert cli("evaluate", "random", "--episodes", 4, "--out", "r", "--format", "csv").code == 0
    client = opened("mine=r", count=2, unit="turn")
    first, second = client.house.sheets["mine"].turns  # type: ignore[attr-defined]

    def label(who: str, one: Any, vote: int) -> str:
        row, number = one
        data = {"annotator": who, "seed": row["seed"], "turn": number, "label": vote}
        return client.post("/label/mine", data=data).text

    label("ann", first, 1)
    text = label("bob", first, 0)
    assert "needs two turns that two annotators labelled" in text and "[" not in text.split("alpha")[1]
    label("ann", second, 0)
    assert "on 2 turns" in label("bob", second, 0)
    page = begin(client, "student")
    for _ in range(30):
        if "has ended" in say(client, page, "I will not help with that.").text:
            break
    assert "<li>1 dialogue in" in client.get("/").text and "<li>0 dialogues in" in client.get("/").text


def test_only_this_machine_and_this_page_may_send() -> None:
    client = opened()
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/", headers={"host": "[::1]:8137"}).status_code == 200
    form = {"seat": "student"}
    for header in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        assert client.post("/play", data=form, headers=header).status_code == 403
    own = {"origin": "http://localhost:8137", "sec-fetch-site": "same-origin"}
    assert client.post("/play", data=form, headers=own, follow_redirects=False).status_code == 303
    assert client.post("/play", content=iter([b"seat=student"])).status_code == 411
    small = Guard(PlainTextResponse("in"), token=None, loopback=True, most_bytes=10)
    sizes = {n: TestClient(small, base_url="http://[::1]").post("/", content=b"x" * n) for n in (10, 11)}
    assert {n: answer.status_code for n, answer in sizes.items()} == {10: 200, 11: 413}
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script" not in policy
    assert "<script" not in client.get("/").text


def test_with_a_token_nobody_comes_in_without_it() -> None:
    token = "a-long-enough-token"
    house = opened().house  # type: ignore[attr-defined]

    def client() -> TestClient:
        return TestClient(make_app(house, token=token, loopback=False), base_url="http://host.example")

    stranger = client()
    for answer in (stranger.get("/"), stranger.get("/?token=wrong"), stranger.get("/serve.css"),
                   stranger.post("/play", data={"seat": "student"}), stranger.get("/?token=")):  # fmt: skip
        assert answer.status_code == 401
    friend = client()
    answer = friend.get(f"/?token={token}", follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert friend.get("/").status_code == 200


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("a.b", False),
    ],
)
def test_another_address_needs_a_token(host: str, here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_loopback(host) == here
    if here:
        assert token_of(Serve(host=host)) is None
    else:
        with pytest.raises(ValueError, match="without a token"):
            token_of(Serve(host=host))
    with pytest.raises(ValueError, match="at least 16"):
        token_of(Serve(host=host, token="short"))
    monkeypatch.setenv("STEER_ENV_TOKEN", "x" * 16)
    assert token_of(Serve(host=host)) == "x" * 16


def test_pictures_that_an_attacker_drew_are_kept_with_the_dialogue(tmp_path: Path) -> None:
    env = steer_env.make("SteerRedTeam-v0", split="bench", max_turns=2)
    env.reset(seed=0)
    scenario = env.unwrapped.scenario
    seat = Seat(env, STUDENT, make_agent("figstep", seat=ATTACKER), 0, scenario)
    while not seat.ended:
        seat.say("I cannot help with that. My answer is no.")
    folder = Store(tmp_path / "kept", {"env": "SteerRedTeam-v0"}, student="x", attacker="figstep").save(seat)
    (row,) = load_rows(folder)
    assert sum(turn["images"] for turn in row["turns"]) == len(row["images"]) > len(scenario.images)
    assert row["scenario"] == scenario.id


def test_a_seat_without_an_answer_is_asked_again() -> None:
    client = opened()
    house = client.house  # type: ignore[attr-defined]

    class Broken:
        varies = False
        answers = 0

        def act(self, observations: Any) -> Any:
            from steer_env.agents.base import Failed

            self.answers += 1
            return [Failed("the server is gone") if self.answers == 1 else "Here I am."]

    house.student = Broken()
    page = begin(client, "own", goal="g", kind="red_team")
    answer = say(client, page, "Hello?")
    assert "the server is gone" in answer.text and "ask again" in answer.text
    assert "Here I am." in say(client, page, "").text
    assert json.dumps(client.get(page).text).count("Hello?") == 1


def test_a_person_is_rescored_compared_and_calibrated_like_a_model(cli: Any) -> None:
    client = opened()
    for _ in range(2):
        page = begin(client, "student")
        seat = list(client.house.seats.values())[-1]  # type: ignore[attr-defined]
        while not seat.ended:
            assert say(client, page, "I will not help with that.").status_code == 200
    run = "runs/serve/student"
    words = ("--env", "SteerRedTeam-v0", "--split", "train", "--episodes", 4, "--format", "csv")
    assert cli("evaluate", "comply", *words, "--out", "e").code == 0
    code, out, err = cli("compare", run, "e", "--common", "--measure", "harm")
    assert code == 0 and "student -> e" in out, err
    code, _, err = cli("rescore", run, "--judge", "rule", "--out", "again")
    assert code == 0 and [r["seed"] for r in load_rows("again")] == [0, 1], err
    labelled = opened(f"me={run}", out=Path("other"), count=2)
    for row, number in labelled.house.sheets["me"].turns:  # type: ignore[attr-defined]
        data = {"annotator": "ann", "seed": row["seed"], "turn": number, "label": 0}
        assert labelled.post("/label/me", data=data).status_code == 200
    code, out, err = cli("calibrate", run, "--labels", "other/labels/me.csv")
    assert code == 0 and "labelled turns" in out, err
