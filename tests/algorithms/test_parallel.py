"""Two processes (gloo, CPU) end where one ends: metrics, gradients and weights, to 1e-5.

The launches use the files of `examples/accelerate` as they are, with another number of processes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kit import parallel_cases
from kit.training import LetterJudge
from steer_env.algorithms.checkpoints import checkpoints
from steer_env.algorithms.parallel import Parallel, launched
from steer_env.cli.main import main
from steer_env.judges import names
from steer_env.models.tiny import TinyConfig, build, save

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "examples" / "accelerate"
CASES = Path(parallel_cases.__file__)

#: The rule judge leaves an untrained model's replies unscored, so that nothing would be learnt.
_TRAIN = """
import sys, torch
sys.path.insert(0, {tests!r})
from kit.training import LetterJudge
from steer_env.cli.main import main
from steer_env.judges import names
names.open_judge = lambda name: LetterJudge()
torch.set_num_threads(1)
sys.exit(main(sys.argv[1:]))
"""
_WORDS = [
    "--seeds-per-step",
    "3",
    "--group-size",
    "2",
    "--max-new-tokens",
    "6",
    "--minibatch-size",
    "5",
    "--microbatch-size",
    "2",
    "--lr",
    "1e-4",
    "--checkpoint-every",
    "1",
    "--seed",
    "5",
]


def launch(config, *words, check=True):
    """Run a script in two processes with a config file of the examples."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / config]
    done = subprocess.run(
        [str(word) for word in (*command, "--num_processes", 2, *words)],
        capture_output=True, text=True, timeout=300, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    shape = TinyConfig(
        vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
    )
    save(*build(["what is this"], shape), folder / "model")
    (folder / "train.py").write_text(_TRAIN.format(tests=str(ROOT / "tests")))
    return folder


@pytest.fixture(scope="module")
def alone(home):
    """Train in this process; returns the run folder."""

    def train(name, *words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(names, "open_judge", lambda judge: LetterJudge())
            assert main([str(w) for w in ("train", "--out", home / name, *words)]) == 0
        return home / name

    return train


@pytest.fixture(scope="module")
def one(home, alone):
    """Three steps in one process."""
    return alone("one", "--student", home / "model", "--steps", 3, *_WORDS)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    return folder, launch("ddp_8gpu.yaml", CASES, folder, check=False)


def rows_of(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


def check_rows(rows, expected):
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        # A gap between two computations is itself rounding.
        missing = {name for name in row if row[name] is None}
        assert missing == {name for name in other if other[name] is None}
        assert {n: v for n, v in row.items() if n not in missing} == pytest.approx(
            {n: v for n, v in other.items() if n not in missing}, abs=1e-5, rel=1e-5
        )


def check_checkpoint(folder, expected):
    """Same files, weights, and optimiser: its first moment is a mean of the gradients so far."""
    assert {p.name for p in folder.iterdir()} == {p.name for p in expected.iterdir()}
    check_weights(folder, expected)
    ours, theirs = (torch.load(f / "training_state.pt", weights_only=True) for f in (folder, expected))
    moments, others = (state["optimizer"]["state"] for state in (ours, theirs))
    assert moments.keys() == others.keys()
    largest = max(values["exp_avg"].abs().max() for values in others.values())
    for number, values in moments.items():
        assert values["step"] == others[number]["step"]
        for name in ("exp_avg", "exp_avg_sq"):
            assert torch.allclose(values[name], others[number][name], rtol=1e-4, atol=1e-5 * largest)
    assert ours["optimizer"]["param_groups"] == theirs["optimizer"]["param_groups"]


def check_weights(folder, expected):
    """Same weights, also where averaged ones or those of the best step are kept."""
    files = sorted(p.relative_to(expected) for p in expected.rglob("*.safetensors"))
    assert files and files == sorted(p.relative_to(folder) for p in folder.rglob("*.safetensors"))
    for file in files:
        ours, theirs = load_file(folder / file), load_file(expected / file)
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[n], theirs[n], rtol=0, atol=1e-5) for n in ours)


def test_replicas_end_like_one_process_and_one_process_goes_on_with_their_run(home, one, alone):
    done = launch(
        "ddp_8gpu.yaml", home / "train.py", "train", "--student", home / "model", "--out", home / "two",
        "--steps", 2, *_WORDS,
    )  # fmt: skip
    assert done.stdout.count("metrics go to") == 1 and done.stdout.count("mean return") == 1
    check_rows(rows_of(home / "two"), rows_of(one)[:2])
    check_checkpoint(checkpoints(home / "two")[-1], checkpoints(one)[0])
    alone("two", "--resume", "--steps", 3)
    check_rows(rows_of(home / "two"), rows_of(one))
    check_checkpoint(checkpoints(home / "two")[-1], checkpoints(one)[-1])
    before, after = (load_file(f / "model.safetensors") for f in (home / "model", one / "model"))
    assert max((before[name] - after[name]).abs().max() for name in before) > 1e-4  # they did learn


@pytest.mark.parametrize("case", ["grpo", "ppo", "lora", "reinforce"])
def test_every_kind_of_state_is_that_of_one_process(case, cases, tmp_path):
    folder, done = cases
    expected, learnt = parallel_cases.run(case, tmp_path / "run")
    for rank in (0, 1):  # what is not summed is computed everywhere, with the same outcome
        file = folder / f"{case}-{rank}.json"
        assert file.exists(), done.stderr
        told = json.loads(file.read_text())
        assert told["learnt"] == learnt == 12
        timeless = [
            [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]
            for rows in (told["rows"], json.loads(json.dumps(expected)))
        ]
        check_rows(*timeless)
    check_checkpoint(checkpoints(folder / case)[-1], checkpoints(tmp_path / "run")[-1])
    check_weights(folder / case, tmp_path / "run")


def test_an_error_in_one_process_stops_all_with_one_line(cases):
    _, done = cases
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "error: " in line]
    assert lines == ["steer-env train: error: disk=0, expected some"]


def test_one_process_is_the_default_and_launchers_are_told_apart(monkeypatch):
    assert type(launched()) is Parallel
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert type(launched()) is Parallel
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match=r"mixed_precision='bf16' .* expected 'no': --precision decides"):
        launched()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    for name in ("FSDP", "DEEPSPEED"):
        monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
        with pytest.raises(ValueError, match=f"distributed_type={name} .* replicas only; use TRL"):
            launched()
        monkeypatch.delenv(f"ACCELERATE_USE_{name}")
    assert type(launched()) is Parallel


def test_shares_come_together_in_the_order_of_one_process():
    first, second = Parallel(), Parallel()
    first.size = second.size = 2
    second.rank = 1
    assert (first.share("abcde"), second.share("abcde")) == (list("ace"), list("bd"))


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml"), key=str), ids=lambda p: p.stem)
def test_accelerate_reads_every_config(config):
    from accelerate.commands.config.config_args import load_config_from_file

    read = load_config_from_file(str(config))
    assert read.mixed_precision == "no"
    processes = 1 if "1gpu" in config.name else 8
    assert read.num_processes == processes
