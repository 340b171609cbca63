"""Training from the command line, on a tiny untrained model and on real photographs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from steer_env.algorithms.trainer import TrainConfig
from steer_env.cli.train import note

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from steer_env.models.tiny import TinyConfig, build, save

    torch.set_num_threads(1)
    config = TinyConfig(
        vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
    )
    path = tmp_path_factory.mktemp("models") / "tiny"
    save(*build(["what is this"], config), path)
    return path


SMALL = ("--seeds-per-step", 2, "--group-size", 2, "--max-new-tokens", 4, "--num-envs", 4)


def metrics(run: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def test_photographs_train_evaluate_and_resume(cli, model: Path, scenario_file: Path) -> None:
    first = ("train", "--scenarios", scenario_file, "--unscored-limit", 1, "--out", "run", *SMALL)
    code, out, err = cli(*first, "--student", model, "--steps", 2)
    assert code == 0, err
    assert "no turn was scored" in out
    assert f"next: steer-env evaluate run --scenarios {scenario_file}" in out  # what the numbers are of
    assert [row["unscored"] for row in metrics("run")] == [1.0, 1.0]
    code, _, err = cli(*first, "--student", model, "--steps", 2)
    assert code == 2 and "--resume" in err
    code, _, err = cli("train", "--out", "run", "--resume", "--lr", 1.0)
    assert code == 2 and f"lr: {TrainConfig().lr} there, 1.0 now" in err
    # A default that is said is the default that was not said.
    code, _, err = cli("train", "--out", "run", "--resume", "--steps", 3, "--lr", TrainConfig().lr)
    assert code == 0, err
    assert [row["step"] for row in metrics("run")] == [0, 1, 2]
    code, out, err = cli(
        "evaluate", "run", "--scenarios", scenario_file, "--max-new-tokens", 4, "--out", "eval"
    )
    assert code == 0, err
    assert "7 of 7" in out and "not available (all 3 dialogues" in out


def test_the_next_command_names_the_judge(cli, model: Path) -> None:
    options = ("--student", model, "--steps", 1, "--max-turns", 2, "--out", "run", *SMALL)
    code, out, err = cli("train", *options, "--judge", "cascade(rule, rule)", "--unscored-limit", 1)
    assert code == 0, err
    assert "next: steer-env evaluate run --judge 'cascade(rule, rule)'" in out


def test_a_retrained_model_is_not_resumed(cli, model: Path, scenario_file: Path, tmp_path: Path) -> None:
    from steer_env.models.tiny import TinyConfig, build, save

    mine = tmp_path / "mine"
    shutil.copytree(model, mine)
    words = ("--scenarios", scenario_file, "--max-new-tokens", 2)
    assert cli("evaluate", mine, "--out", "e", *words).code == 0
    shutil.rmtree(mine)
    shutil.copytree(model, mine)  # the same model elsewhere in time
    assert cli("evaluate", mine, "--out", "e", "--resume").code == 0
    shape = TinyConfig(
        vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
    )
    save(*build(["what is this"], shape, 1), mine)
    code, _, err = cli("evaluate", mine, "--out", "e", "--resume")
    assert code == 2 and "model_hash" in err and "holds another run" in err


def test_too_many_unscored_turns_stop_with_a_clear_error(cli, model: Path, scenario_file: Path) -> None:
    words = ("train", "--student", model, "--scenarios", scenario_file, "--out", "run", *SMALL)
    code, _, err = cli(*words, "--steps", 30)
    assert code == 2
    assert "unscored" in err and "no ground truth" in err and "Traceback" not in err


def test_another_algorithm_trains_and_resumes_with_its_options(cli, model: Path) -> None:
    first = ("train", "--student", model, "--out", "run", *SMALL, "--unscored-limit", 1, "--num-envs", 4)
    options = ("--algorithm", "constrained_grpo", "--limit", 0.5, "--scale")
    large = ("--precision", "bf16", "--lora-rank", 2, "--gradient-checkpointing")
    stages = Path("stages.json")
    stages.write_text('[{"options": {"max_turns": 2}, "steps": 1}, {"options": {"max_turns": 3}}]')
    extra = ("--curriculum", stages, "--tracker", "tensorboard")
    code, _, err = cli(*first, *options, *large, *extra, "--steps", 1)
    assert code == 0, err
    config = json.loads(Path("run/config.json").read_text())
    assert config["algorithm"] == "constrained_grpo" and config["limit"] == 0.5 and config["scale"] is True
    assert config["precision"] == "bf16" and config["lora_rank"] == 2
    code, _, err = cli("train", "--out", "run", "--resume", "--limit", 0.1)
    assert code == 2 and "limit: 0.5 there, 0.1 now" in err
    code, _, err = cli("train", "--out", "run", "--resume", "--steps", 2, "--num-envs", 4)
    assert code == 0, err
    rows = metrics("run")
    assert [row["curriculum_stage"] for row in rows] == [0, 1]
    assert rows[0]["multiplier"] == 1.0
    assert list(Path("run/tensorboard").iterdir())
    assert (Path("run/model") / "model.safetensors").exists()  # merged, ready to be evaluated
    assert not (Path("run/model") / "adapter_config.json").exists()


def test_the_learning_tutor_is_taught_and_stays_in_the_checkpoints(cli, model: Path) -> None:
    words = ("train", "--attacker", "learning", "--unscored-limit", 1, "--checkpoint-every", 1, *SMALL)
    states = {}
    for out, steps in (("whole", (3,)), ("parts", (1, 3))):
        for count in steps:
            more = ("--resume",) if count > steps[0] else (*words[1:], "--student", model)
            code, _, err = cli("train", "--out", out, "--steps", count, *more)
            assert code == 0, err
        saved = Path(out) / "checkpoints/step_000003/training_state.pt"
        states[out] = torch.load(saved, weights_only=False)["attacker"]
    assert states["whole"]["steps"] == 3 and states["whole"] == states["parts"]


def test_options_are_listed_and_checked(cli, model: Path) -> None:
    code, out, _ = cli("train", "--algorithm", "dapo", "--help")
    assert code == 0 and "0.28" in out.partition("--clip-high")[2][:300]
    for words, says in (
        (("--algorithm", "grp"), "did you mean 'grpo'"),
        (("--clip-hihg", 1), "--clip-high"),
        (("--limit", 1), "Unrecognized options: --limit"),
        (("--algorithm", "rloo", "--group-size", 1), "group_size=1, expected an integer of at least 2"),
        (("--algorithm", "constrained_grpo", "--alpha", 0.5), "alpha=0.5 is of the TCSR reward"),
        (("--tracker", "mlflow"), "tracker='mlflow'"),
        (("--precision", "fp8"), "invalid choice 'fp8' for argument '--precision'"),
    ):
        code, _, err = cli("train", "--student", model, "--out", "bad", *words)
        assert code == 2 and says in err, err
        assert not Path("bad").exists()


def test_what_stands_in_the_name_is_the_engines_and_what_is_learned_has_the_flags(
    cli, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steer_env.agents.hf import HFStudent
    from steer_env.agents.vllm_student import TrainableVLLMStudent
    from steer_env.models.adapters import active_adapters

    learned, engines = [], []

    class Learner(HFStudent):
        """Samples with transformers; keeps what an engine would have been asked for."""

        @classmethod
        def from_pretrained(cls, path, *, engine, **options):
            engines.append(engine)
            return super().from_pretrained(path, **options)

        def weights_changed(self):
            super().weights_changed()
            learned.append(active_adapters(self.model))

    monkeypatch.setattr(TrainableVLLMStudent, "from_pretrained", Learner.from_pretrained)
    words = ("--steps", 2, "--lora-rank", 2, "--unscored-limit", 1, "--out", "run", *SMALL)
    name = f"vllm:{model}?max_model_len=512&dtype=bfloat16&images=pixels"
    code, _, err = cli("train", "--student", name, "--batch-size", 3, *words)
    assert code == 0, err
    assert engines == [{"max_model_len": 512, "dtype": "bfloat16", "lora_rank": 2}]
    assert learned and all(len(names) == 1 for names in learned)
    code, _, err = cli("train", "--student", f"{name}&device=cuda", "--out", "other")
    assert code == 2 and "device='cuda'" in err


def test_what_is_refused_before_the_first_step_leaves_the_folder_to_the_next_try(cli, model: Path) -> None:
    words = ("train", "--student", model, "--steps", 1, "--unscored-limit", 1, "--out", "run", *SMALL)
    code, _, err = cli(*words, "--lora-rank", 2, "--lora-targets", "nowhere")
    assert code == 2 and "nowhere" in err and not Path("run").exists()
    code, _, err = cli(*words, "--lora-rank", 2)
    assert code == 0, err
    before = Path("run/run.json").read_text()
    code, _, err = cli(*words)
    assert code == 2 and "already holds a run" in err and Path("run/run.json").read_text() == before


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("refuse", "scripted"),
        ("openai:m@http://127.0.0.1:9/v1", "cannot learn"),
        ("inspect:a/b", "cannot learn"),
    ],
)
def test_students_that_cannot_learn_here_are_refused(cli, tmp_path: Path, name: str, why: str) -> None:
    code, _, error = cli("train", "--student", name, "--out", tmp_path / "run")
    assert code == 2 and why in error and not (tmp_path / "run").exists()


def test_progress_note_leaves_out_what_is_undefined() -> None:
    assert note({"return": 1.234, "safety": None, "unscored": 0.5}) == "return 1.23  unscored 0.50"


def test_bad_settings_are_named(cli, model: Path) -> None:
    for words, says in ((("--group-size", 1), "group_size=1"), (("--dtype", "float99"), "dtype='float99'")):
        code, _, err = cli("train", "--student", model, *words)
        assert code == 2 and says in err
