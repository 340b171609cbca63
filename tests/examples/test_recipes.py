"""The recipes of `examples/qwen2.5-vl-*`: files and commands are read, numbers are the paper's."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from steer_env.cli import data_bootstrap, evaluate, sft, train
from steer_env.cli.command import read

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = ("3b", "7b")
COMMANDS = {
    "data bootstrap": data_bootstrap.COMMAND,
    "evaluate": evaluate.COMMAND,
    "sft": sft.COMMAND,
    "train": train.COMMAND,
}


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("memory")


def config(command, size, name):
    return read(COMMANDS[command], ["--config", str(EXAMPLES / f"qwen2.5-vl-{size}" / name)], command)


@pytest.mark.parametrize("size", SIZES)
def test_the_authors_settings_are_the_published_ones(size):
    made = config("train", size, f"authors-{size}.yaml")
    assert made.student == f"hf:Qwen/Qwen2.5-VL-{size.upper()}-Instruct"
    assert made.algorithm == "grpo_paper" and made.options.beta == 0.1 and made.env.alpha == 0.3
    loop = made.loop
    assert (loop.lr, loop.group_size, loop.minibatch_size, loop.epochs) == (1e-5, 5, 2, 1)
    assert abs(loop.seeds_per_step * loop.group_size - 64) < loop.group_size
    tuned = config("sft", size, f"sft-authors-{size}.yaml")
    settings = tuned.settings
    assert (settings.lr, settings.batch_size, settings.weight_decay) == (1e-5, 16, 0.01)
    assert tuned.epochs == 2 and tuned.max_length == 32768
    assert made.scaling.precision == tuned.scaling.precision == "bf16"


@pytest.mark.parametrize("size", SIZES)
def test_the_commands_of_a_recipe_are_understood(size, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parent)
    text = (EXAMPLES / f"qwen2.5-vl-{size}/README.md").read_text(encoding="utf-8")
    seen = set()
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for _, *words in map(shlex.split, block.splitlines()):
            length = 2 if words[0] == "data" else 1
            command = " ".join(words[:length])
            read(COMMANDS[command], words[length:], command)
            seen.add(command)
    assert seen == set(COMMANDS)
    assert config("train", size, "lora.yaml").scaling.lora_rank == 16


def test_the_numbers_in_a_recipe_are_computed(capsys, memory):
    memory.main()
    printed = capsys.readouterr().out.splitlines()
    for size in SIZES:
        text = (EXAMPLES / f"qwen2.5-vl-{size}/README.md").read_text(encoding="utf-8")
        for line in printed:
            if line.lstrip("| ").startswith(size.upper()):
                assert line in text


def test_memory_of_a_model_worked_by_hand(memory):
    shape = memory.Shape(weights=1000, layers=2, hidden=8, mlp=16, kv_width=4, vocabulary=10, adapters=50)
    step = {"cached_tokens": 5, "pass_tokens": 3, "reply_tokens": 2, "reference": True}
    whole = memory.memory(shape, lora=False, **step)
    assert whole == {
        "weights": 4000, "gradients": 4000, "moments": 8000, "reference": 4000,
        "kv cache": 2 * 2 * 2 * 4 * 5, "activations": 4 * 3 * 8 * 2 + 110 * 3 * 8 + 12 * 2 * 10,
        "copies": 2 * 1000,
    }  # fmt: skip
    cut = memory.memory(shape, lora=False, gpus=4, **step)
    assert (cut["weights"], cut["moments"], cut["kv cache"]) == (1000, 2000, 160)
    one = 8 * 8 * 2 + 8 * 4 * 2 + 8 * 16 * 3  # queries and output, keys and values, the MLP
    assert cut["copies"] == 2 * (one + 10 * 8)
    lora = memory.memory(shape, lora=True, **step)
    assert (lora["weights"], lora["gradients"], lora["moments"], lora["reference"]) == (4200, 200, 400, 0)
    assert lora["copies"] == cut["copies"]
    assert memory.memory(shape, lora=True, weight_bytes=2, **step)["copies"] == 0
    assert memory.operations(shape, prompt_tokens=6, reply_tokens=4, reference=True) == 12 * 1000 * 10


@pytest.mark.parametrize(("size", "column"), [("3B", 0), ("7B", 1)])
def test_the_table_of_one_gpu_is_the_computed_one(memory, size, column):
    """Its cells, in GB, are rounded to whole ones from the sums of what `memory` returns."""
    text = (EXAMPLES / "accelerate" / "one_1gpu.yaml").read_text(encoding="utf-8")
    step = {"cached_tokens": 40 * 2000, "pass_tokens": 2048, "reply_tokens": 1024, "reference": True}
    parts = memory.memory(memory.SHAPES[size], lora=True, **step)
    computed = {
        "KV cache": parts["kv cache"],
        "activations": parts["activations"],
        "autocast's copies": parts["copies"],
        "sum": sum(parts.values()),
    }
    for name, value in computed.items():
        row = re.search(rf"^#   {name}.*?  +([\d.]+)  +([\d.]+)", text, re.MULTILINE)
        assert row is not None and float(row[1 + column]) == pytest.approx(value / 1e9, abs=0.06), name
