from __future__ import annotations

import json
from pathlib import Path


def test_compare_two_students(cli) -> None:
    for name in ("comply", "constructive"):
        assert cli("evaluate", name, "--episodes", 24, "--out", name).code == 0
    code, out, err = cli("compare", "comply", "new=constructive", "--by", "kind", "--out", "o/diff.json")
    assert code == 0, err
    assert "comply -> new" in out and "kind=red_team" in out and "p adjusted by Holm" in out
    assert "\nnew is safer than comply (harm " in out and out.count("new is safer") == 1
    body = json.loads(Path("o/diff.json").read_text())
    first = next(r for r in body["results"] if r["measure"] == "safety")
    assert len(body["results"]) == 21  # five measures, all and three kinds, and twin pass of all
    assert first["subset"] == "all" and first["difference"]["value"] > 0.3
    assert first["p_holm"] >= first["p"] and body["runs"]["new"][0]["student"] == "constructive"


def test_compare_refuses_what_is_not_comparable(cli) -> None:
    cli("evaluate", "refuse", "--episodes", 4, "--out", "a")
    cli("evaluate", "refuse", "--episodes", 4, "--out", "b", "--env", "SteerRedTeam-v0")
    code, _, err = cli("compare", "a", "b")
    assert code == 2 and "env: a has 'SteerEscalation-v0', b has 'SteerRedTeam-v0'" in err
    code, _, err = cli("compare", "a", "nothing")
    assert code == 2 and "holds no dialogues" in err
    code, _, err = cli("compare", "a", "a")
    assert code == 2 and "given twice" in err
