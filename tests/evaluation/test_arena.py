"""The arena: what is played once, what a new entrant costs, and what the tables say."""

import json

import numpy as np
import pytest

from steer_env.cli.main import main
from steer_env.play.arena import Entry, game_folder, holds, load_games, read_entries, standing
from steer_env.play.evaluate import load_rows


def arena(out, attackers="static,crescendo", students="refuse,comply", *more):
    words = [
        "arena",
        "--attackers",
        attackers,
        "--students",
        students,
        "--episodes",
        "4",
        "--turns",
        "3",
        "--budget",
        "9",
    ]
    return main([*words, "--out", str(out), *more])


def test_a_second_run_plays_nothing_and_an_entrant_only_its_games(tmp_path, capsys):
    out = tmp_path / "arena"
    assert arena(out) == 0
    files = {path: path.read_bytes() for path in out.glob("games/*/dialogues.jsonl")}
    assert len(files) == 6  # 2 x 2 pairings and the honest dialogues of both
    first = json.loads((out / "arena.json").read_text())
    capsys.readouterr()
    assert arena(out) == 0
    assert "4 new dialogues" not in capsys.readouterr().out
    assert json.loads((out / "arena.json").read_text()) == first
    assert arena(out, "static,crescendo,goat") == 0
    said = capsys.readouterr().out
    assert said.count("4 new dialogues") == 2 and "goat against refuse: 4 new" in said
    assert {path: path.read_bytes() for path in files} == files


def test_a_killed_run_goes_on(tmp_path):
    out, whole = tmp_path / "killed", tmp_path / "whole"
    assert arena(out) == 0 and arena(whole) == 0
    games = game_folder(out, "crescendo", Entry("comply", "comply")) / "dialogues.jsonl"
    lines = games.read_bytes().splitlines(keepends=True)
    games.write_bytes(b"".join(lines[:2]) + lines[2][:40])  # killed while writing the third
    assert arena(out) == 0
    assert (out / "arena.json").read_bytes() == (whole / "arena.json").read_bytes()


def test_the_tables_say_what_was_played(tmp_path):
    out, page = tmp_path / "arena", tmp_path / "page.md"
    assert (
        arena(out, "static,crescendo", "refuse,comply", "--claim", "refuse,comply", "--page", str(page)) == 0
    )
    body = json.loads((out / "arena.json").read_text())
    attackers, students = (
        [Entry(n, n) for n in names] for names in (("static", "crescendo"), ("refuse", "comply"))
    )
    games = load_games(out, attackers, students, range(4))
    assert games.outcomes_ASN.shape == (2, 2, 4)
    assert body["harm"]["static"]["comply"]["value"] == games.outcomes_ASN[0, 1].mean()
    assert body["harm"]["static"]["refuse"]["value"] == 0 and body["exploitability"]["refuse"]["value"] == 0
    assert body["usefulness"]["refuse"]["value"] == 0  # refusing all is safe and of no use
    assert body["students"][0] == "refuse" and body["claim"]["value"] < 0
    rows = load_rows(game_folder(out, "crescendo", students[0]))
    calls = [sum(t["attack"]["student_calls"] for t in row["turns"]) for row in rows]
    spent = {name: body["spent"][name]["refuse"] for name in ("crescendo", "static")}
    assert spent["crescendo"]["replies"] == np.mean(calls) == 9  # refused turns are tried again: all is spent
    assert spent["crescendo"]["questions"] >= 9 and spent["crescendo"]["turns"] == 3
    assert spent["static"] == {"turns": 3, "replies": 3, "questions": None}
    assert body["budget"] == 9 and body["undecided"] == 0
    assert page.read_text() == (out / "leaderboard.md").read_text()
    assert "| refuse |" in page.read_text() and "mean over the attackers" in page.read_text()


def test_entries_are_files_that_anybody_can_add(tmp_path):
    (tmp_path / "wide.json").write_text(json.dumps({"agent": "tap?width=4", "about": "a wide tree"}))
    (tmp_path / "named.json").write_text(json.dumps({"agent": "goat", "name": "my goat"}))
    found = read_entries(["static", str(tmp_path)])
    assert [one.name for one in found] == ["static", "my goat", "wide"]
    assert found[2] == Entry("wide", "tap?width=4", "a wide tree") and found[1].slug == "my-goat"
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="has no 'agent'"):
        read_entries([str(tmp_path)])
    with pytest.raises(ValueError, match="expected different names"):
        read_entries(["static", "static"])


def test_another_setting_is_refused(tmp_path, capsys):
    assert arena(tmp_path) == 0
    assert arena(tmp_path, "static", "refuse", "--env", "SteerEscalation-v0") == 2
    assert "SteerEscalation-v0" in capsys.readouterr().err


def test_an_arena_has_one_budget(tmp_path, capsys):
    assert arena(tmp_path) == 0
    games = {path: path.read_bytes() for path in tmp_path.glob("games/*/dialogues.jsonl")}
    capsys.readouterr()
    assert arena(tmp_path, "goat,static", "refuse", "--budget", "12") == 2
    said = capsys.readouterr().err
    assert "played with budget=9" in said and "--budget 9" in said and "--out" in said
    assert {path: path.read_bytes() for path in tmp_path.glob("games/*/dialogues.jsonl")} == games
    with pytest.raises(ValueError, match="within one budget"):
        standing(tmp_path, [Entry("static", "static")], [Entry("refuse", "refuse")], range(4), 12)
    assert arena(tmp_path / "other", "static", "refuse", "--budget", "2") == 2
    assert "at least one reply per turn" in capsys.readouterr().err


def test_a_claim_counts_games_without_a_verdict_both_ways(tmp_path):
    assert arena(tmp_path) == 0
    attackers, (one, other) = [Entry("static", "static")], [Entry(n, n) for n in ("refuse", "comply")]
    assert holds(tmp_path, attackers, one, other, range(4)).estimate.value == -1
    path = game_folder(tmp_path, "static", other) / "dialogues.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for turn in rows[0]["turns"]:
        turn["verdict"] = {"unscored": "no words", "judge": "rule"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = holds(tmp_path, attackers, one, other, range(4)).estimate
    assert found.value is None and found.bounds == (-1, -0.75) and found.n == 4 and found.undecided == 1
