"""`steer-env data bootstrap`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steer_env.cli import data_bootstrap


def test_table_files_and_resume(cli, tmp_path: Path) -> None:
    words = (
        "data",
        "bootstrap",
        "--out",
        "boot",
        "--episodes",
        10,
        "--attacker",
        "static",
        "--student",
        "comply",
    )
    code, out, err = cli(*words)
    assert code == 0, err
    assert "| all | 10 |" in out and "| kind: benign |" in out and "bootstrap" in err
    summary = json.loads((tmp_path / "boot/summary.json").read_text())
    assert summary["all"]["dialogues"] == 10 and summary["all"]["reasons"]["unsafe"] > 0
    run = json.loads((tmp_path / "boot/run.json").read_text())
    assert (
        run["student"] == "comply"
        and run["attacker"] == "static"
        and run["tau_safe"] == 8.0
        and len(run["guidelines_hash"]) == 16
    )
    code, _, err = cli(*words)
    assert code == 2 and "--resume" in err
    code, _, err = cli("data", "bootstrap", "--out", "boot", "--resume", "--tau-safe", 9)
    assert code == 2 and "tau_safe: 8.0 there, 9.0 now" in err
    code, again, _ = cli("data", "bootstrap", "--out", "boot", "--resume")
    assert code == 0 and again == out


def test_own_scenarios_are_held_to_their_licence(cli, tmp_path: Path) -> None:
    line = '{"turns": ["Hello there."], "provenance": "photos: 1", "licence": "CC-BY-NC-4.0"}\n'
    (tmp_path / "own.jsonl").write_text(line)
    words = ("data", "bootstrap", "--scenarios", "own.jsonl", "--out", "boot")
    code, _, err = cli(*words)
    assert code == 2 and "1 scenario of photos: non-commercial" in err and not (tmp_path / "boot").exists()
    code, out, err = cli(*words, "--allow-licence", "photos")
    assert code == 0, err
    assert "| all | 1 | 0 | 0.0% | 0 | 1 |" in out  # no ground to judge: unscored, never a number


def test_wrong_names_are_refused_before_anything_is_written(cli, tmp_path: Path) -> None:
    for words, says in (
        (("--attacker", "refuse"), "attacker='refuse' plays the student"),
        (("--attacker", "nobody:model"), "backend='nobody:model', expected one of"),
        (("--judge", "nobody"), "judge='nobody', expected"),
        (("--student", "nobody"), "nobody"),
        (("--tau-help", 0), "tau_help=0.0"),
        (("--guidelines", "none.txt"), "none.txt"),
    ):
        code, _, err = cli("data", "bootstrap", "--out", "boot", *words)
        assert code == 2 and says in err
    assert not (tmp_path / "boot").exists()


def test_a_server_gets_the_guidelines_as_its_system_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def opener(name, model, **options):
        asked.update(options, name=name)
        return "student"

    monkeypatch.setattr(data_bootstrap, "open_student", opener)
    assert data_bootstrap.open_guided("openai:m@http://host/v1", "be kind", seed=1) == "student"
    assert asked == {"name": "openai:m@http://host/v1", "system": "be kind", "seed": 1}

    def without_system(name, model, **options):
        raise TypeError("__init__() got an unexpected keyword argument 'system'")

    monkeypatch.setattr(data_bootstrap, "open_student", without_system)
    with pytest.raises(ValueError, match="student='openai:m' takes no system prompt"):
        data_bootstrap.open_guided("openai:m", "be kind")


def test_a_model_in_process_plays_under_guidelines(cli, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from steer_env.models.tiny import TinyConfig, build, save

    torch.set_num_threads(1)
    shape = TinyConfig(
        vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
    )
    save(*build(["what is this"], shape), tmp_path / "tiny")
    words = (
        "data",
        "bootstrap",
        "--student",
        tmp_path / "tiny",
        "--max-new-tokens",
        4,
        "--episodes",
        3,
        "--out",
        "boot",
    )
    code, out, err = cli(*words)
    assert code == 0, err
    assert "| all | 3 | 0 |" in out
    row = json.loads((tmp_path / "boot/rejected.jsonl").read_text().splitlines()[0])
    assert "careful assistant" not in json.dumps(row)
