"""`steer-env data`."""

from __future__ import annotations

from pathlib import Path


def test_build(cli, tmp_path: Path) -> None:
    words = ("data", "build", "--out", "steer", "--sft", 12, "--rl", 6, "--bench", 15)
    code, out, err = cli(*words)
    assert code == 0
    assert "STEER-sft: 12 dialogues" in out and "STEER-bench: 15 dialogues" in out
    assert "sft/steer_sft.jsonl: 12/12 (" in err and "/s)" in err
    assert (tmp_path / "steer/README.md").read_text().startswith("---\nlicense: apache-2.0")
    again = cli(*words)
    assert again.code == 0 and again.out == out and again.err == ""
    code, _, err = cli(*words[:-1], 16)
    assert code == 2 and "bench: 15 there, 16 now" in err


def test_progress_lines_tell_rate_and_remaining_time(capsys, monkeypatch) -> None:
    from steer_env.cli import progress

    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Bars() as bars:
        bars.update("rows", 41, 100)  # resumed: forty were there
        now[0] += 20
        bars.update("rows", 60, 100)
        now[0] += 1
        bars.update("rows", 61, 100)
        bars.update("rows", 100, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == "rows: 60/100 (1/s, 40 s left)"
    assert lines[-1] == "rows: 100/100 (3/s)"


def test_audit(cli, tmp_path: Path) -> None:
    import json

    cli("data", "build", "--out", "steer", "--sft", 60, "--rl", 12, "--bench", 60)
    sft = tmp_path / "steer/sft"
    words = ("data", "audit", "steer/sft", "steer/bench", "--json", "out/audit.json", "--plots", "plots")
    code, out, _ = cli(*words)
    assert code == 0 and "verdict: passed" in out and "Overlap of bench (60 dialogues) with sft (60)" in out
    assert json.loads((tmp_path / "out/audit.json").read_text())["passed"] is True
    assert len(list((tmp_path / "plots").iterdir())) == 4
    # A copy of one training row in the bench, under another name and group.
    row = json.loads((sft / "steer_sft.jsonl").read_text().splitlines()[0])
    row["question_id"], row["steer_env"]["group"] = "copy", "another"
    with (tmp_path / "steer/bench/steer_spa.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    code, out, _ = cli(*words)
    assert code == 1 and "verdict: leak (exact text" in out
    assert json.loads((tmp_path / "out/audit.json").read_text())["passed"] is False
    code, out, _ = cli(*words, "--limit", 0.05, "--leakage", "out/leakage.jsonl")
    assert code == 0 and "verdict: passed" in out
    leaked = [json.loads(line) for line in (tmp_path / "out/leakage.jsonl").read_text().splitlines()]
    assert len(leaked) == 61 and [row["id"] for row in leaked if row["bin"] == "copy"] == ["copy"]
    code, _, err = cli("data", "audit", "steer/sft", "nowhere")
    assert code == 2 and "'nowhere' is no JSON-lines file" in err


def test_train_refuses_scenarios_whose_licence_forbids_it(cli, tmp_path: Path) -> None:
    line = '{"turns": ["Hello there."], "provenance": "photos: 1", "licence": "CC-BY-NC-4.0"}\n'
    (tmp_path / "own.jsonl").write_text(line)
    words = ("train", "--scenarios", "own.jsonl", "--student", "nobody", "--out", "run")
    code, _, err = cli(*words)
    assert code == 2 and "1 scenario of photos: non-commercial" in err and not (tmp_path / "run").exists()
    for name in ("non-commercial", "photos"):
        _, _, err = cli(*words, "--allow-licence", name)
        assert "student='nobody' is no folder and no known name" in err  # past the gate


def test_audit_of_scenario_files(cli, tmp_path: Path) -> None:
    from steer_env.scenario_files import save_scenarios
    from steer_env.world import WorldSource

    train, bench = ([WorldSource(split=split).scenario(i) for i in range(45)] for split in ("sft", "bench"))
    save_scenarios(train, tmp_path / "a.jsonl")
    save_scenarios(bench, tmp_path / "b.jsonl")
    save_scenarios([*bench, train[4]], tmp_path / "c.jsonl")
    assert cli("data", "audit", "a.jsonl", "b.jsonl").code == 0
    code, out, _ = cli("data", "audit", "a.jsonl", "c.jsonl")
    assert code == 1 and "groups" in out
