"""`steer-env sft`: bootstrapped dialogues in, a model that can be evaluated out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from steer_env.models.tiny import TinyConfig, build, save

    torch.set_num_threads(1)
    shape = TinyConfig(
        vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
    )
    save(*build(["what is this"], shape), tmp_path / "tiny")
    return tmp_path / "tiny"


def losses(run: str) -> list[float]:
    return [json.loads(line)["loss"] for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


SMALL = ("--lr", 1e-3, "--batch-size", 4)


def test_from_bootstrap_to_evaluation(cli, model: Path) -> None:
    assert cli("data", "bootstrap", "--out", "boot", "--episodes", 6).code == 0
    words = ("sft", "--student", model, "--data", "boot", *SMALL)
    code, out, err = cli(*words, "--epochs", 1.5, "--out", "own")
    assert code == 0, err
    assert "6 dialogues, 3 steps" in out  # 1.5 times two batches of four
    code, out, err = cli(*words, "--epochs", 1.5, "--out", "lora", "--precision", "bf16", "--lora-rank", 2)
    assert code == 0, err
    assert len(losses("own")) == len(losses("lora")) == 3
    code, _, err = cli("evaluate", "lora", "--episodes", 2, "--max-new-tokens", 4, "--out", "eval")
    assert code == 0, err
    code, _, err = cli(*words, "--out", "own")
    assert code == 2 and "--resume" in err
    code, out, err = cli("sft", "--out", "own", "--resume")
    assert code == 0 and len(losses("own")) == 3, err
    (Path("boot") / "sft" / "steer_sft.jsonl").write_text(
        "".join((Path("boot") / "sft" / "steer_sft.jsonl").read_text().splitlines(keepends=True)[:5])
    )
    code, _, err = cli("sft", "--out", "own", "--resume")
    assert code == 2 and "data_hash" in err


def test_built_data_trains_and_the_bench_does_not(cli, model: Path) -> None:
    assert cli("data", "build", "--out", "steer", "--sft", 4, "--rl", 2, "--bench", 5).code == 0
    words = ("sft", "--student", model, *SMALL, "--steps", 1)
    code, out, err = cli(*words, "--data", "steer/sft", "--out", "a")
    assert code == 0 and "4 dialogues, 1 step;" in out, err
    code, _, err = cli(*words, "--data", "steer/bench", "--out", "b")
    assert code == 2 and "expected user and assistant in turn" in err and not Path("b").exists()
    row = (Path("steer") / "sft" / "steer_sft.jsonl").read_text().replace("Apache-2.0", "CC-BY-NC-4.0")
    (Path("steer") / "sft" / "steer_sft.jsonl").write_text(row)
    code, _, err = cli(*words, "--data", "steer/sft", "--out", "b")
    assert code == 2 and "4 scenarios of steer-sft: non-commercial" in err and not Path("b").exists()
    code, out, err = cli(*words, "--data", "steer/sft", "--out", "b", "--allow-licence", "steer-sft")
    assert code == 0, err


def test_long_dialogues_are_left_out_and_counted(cli, model: Path) -> None:
    from steer_env.agents.hf import Exchange, HFStudent
    from steer_env.data.training import load_training_dialogues

    cli("data", "bootstrap", "--out", "boot", "--episodes", 6)
    codec = HFStudent.from_pretrained(model).codec
    dialogues = load_training_dialogues("boot")
    lengths = sorted(len(codec.dialogue([Exchange(*t) for t in d.turns()]).trace) for d in dialogues)
    words = ("sft", "--student", model, "--data", "boot", *SMALL, "--steps", 1)
    code, out, err = cli(*words, "--max-length", lengths[3], "--out", "a")
    assert code == 0, err
    left_out = json.loads((Path("a") / "run.json").read_text())["left_out"]
    assert left_out == sum(n > lengths[3] for n in lengths) > 0 and f"left out: {left_out} of 6" in out
    code, _, err = cli(*words, "--max-length", 3, "--out", "b")
    assert code == 2 and "max_length=3 leaves no dialogue" in err


def test_bad_input_is_named(cli, model: Path) -> None:
    for words, says in (
        (("--student", model), "no --data given"),
        (("--data", "boot"), "no --student given"),
        (("--student", "refuse", "--data", "boot"), "student='refuse' is scripted"),
        (("--student", "vllm:tiny", "--data", "boot"), "'vllm:tiny' cannot be fine-tuned, expected a model"),
        (("--student", "openai:m@http://127.0.0.1:9/v1", "--data", "boot"), "cannot be fine-tuned"),
        (("--student", model, "--data", "nowhere"), "data='nowhere' does not exist"),
        (("--student", model, "--data", "x", "--epochs", 0), "epochs=0.0"),
    ):
        code, _, err = cli("sft", *words)
        assert code == 2 and says in err
