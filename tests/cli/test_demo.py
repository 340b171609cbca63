"""The demo's own work: jobs, reuse, table, excerpts. The training itself is tested with its recipe."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from steer_env.cli import demo
from steer_env.cli.demo_jobs import Demo, Job, evaluations, jobs, summary
from steer_env.play.evaluate import load_rows

torch = pytest.importorskip("torch")
WORDS = ("demo", "--quick", "--from-scratch", "--processes", 1, "--seeds", 2, "--out", "d", "--episodes", 5)


@dataclasses.dataclass
class Config:
    seed: int = 0
    steps: int = 3
    grpo_imitation: float = 0.5
    grpo: Any = dataclasses.field(default_factory=lambda: types.SimpleNamespace(max_new_tokens=3))

    @classmethod
    def quick(cls, seed: int) -> Config:
        return cls(seed, 1)


class Recipe:
    """Stands in for `steer_env.algorithms.recipes`: saves an untrained model per stage."""

    def __init__(self) -> None:
        self.built: list[tuple[str, int, bool, Any]] = []
        self.dies_at = ""

    def build(
        self, config: Config, name: str, folder: Path, *, before: Any, resume: bool, progress: Any
    ) -> None:
        from steer_env.models.tiny import TinyConfig, build, save

        self.built.append((name, config.seed, resume, before and Path(before)))
        progress(1, 2, {"return": 1.0})
        if name == self.dies_at:
            raise KeyboardInterrupt
        if name == "grpo":
            rows = '{"return": 2.0, "return_per_turn": 0.5}\n{"return": 3.0, "return_per_turn": 0.75}\n'
            (folder / "metrics.jsonl").write_text(rows)
        shape = TinyConfig(
            vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
        )
        save(*build(["a lamp"], shape, config.seed), folder / "model")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    torch.set_num_threads(1)
    fake: Any = types.ModuleType("steer_env.algorithms.recipes")
    stand_in = Recipe()
    fake.DemoConfig, fake.build = Config, stand_in.build
    fake.stage_settings = lambda config, name: {"seed": config.seed, "steps": config.steps}
    monkeypatch.setitem(sys.modules, "steer_env.algorithms.recipes", fake)
    import steer_env.algorithms
    from steer_env.agents.hf import HFStudent

    monkeypatch.setattr(steer_env.algorithms, "recipes", fake, raising=False)
    real = HFStudent.from_pretrained.__func__
    short = classmethod(lambda cls, path, **options: real(cls, path, **{**options, "max_new_tokens": 3}))
    monkeypatch.setattr(HFStudent, "from_pretrained", short)
    return stand_in


def test_demo_builds_evaluates_reports_and_reuses(cli, recipe: Recipe) -> None:
    code, out, err = cli(*WORDS)
    assert code == 0, err
    base = Path("d/base/model")
    assert recipe.built == [
        ("base", 0, False, None),
        ("sft", 0, False, base),
        ("sft", 1, False, base),
        ("grpo", 0, False, Path("d/seed0/sft/model")),
        ("grpo", 1, False, Path("d/seed1/sft/model")),
        ("imitation", 0, False, base),
    ]
    for text in (
        "+ bootstrapping SFT",
        "as much imitation, no reward",
        "training seeds 0, 1",
        "over-refusal",
        "survival.png",
        "GRPO, seed 1, first tenth -> last tenth of 2 steps: return per turn 0.500 -> 0.750",
        "Qwen2.5-VL-3B",
    ):
        assert text in out
    assert Path("d/survival.png").stat().st_size > 1000
    folders = sorted(path.name for path in Path("d/eval").iterdir())
    taken = ["blind", "constant", "forgetful", "swapped"]
    assert folders == [
        "base", "grpo0", *(f"grpo0-{name}" for name in taken), "grpo1", "imitation0", "sft0", "sft1",
    ]  # fmt: skip
    rows = [load_rows(Path("d/eval") / name) for name in folders]
    # All models play the same dialogues, whole contrast groups first.
    assert all([r["scenario"] for r in one] == [r["scenario"] for r in rows[0]] for one in rows)
    assert [len(one) for one in rows] == [5] * 10 and len({r["group"] for r in rows[0]}) > 1
    assert "less than asked for" not in out
    lacked = [{"phase": "hear", "missing": ["purpose=0.600, expected at least 0.75"]}]
    Path("d/base/gates.json").write_text(json.dumps({"phases": lacked}))
    code, again, _ = cli(*WORDS)
    assert code == 0 and len(recipe.built) == 6
    assert "base, less than asked for after hear: purpose=0.600, expected at least 0.75; the last" in again
    assert "train grpo 1: reused" in again and "everything was there already" in again
    table = [line for line in out.splitlines() if line.startswith("+ GRPO")]
    assert len(table) == 1 and table == [line for line in again.splitlines() if line.startswith("+ GRPO")]


def test_a_finished_stage_without_its_model_is_named_before_anything_is_done(cli, recipe: Recipe) -> None:
    assert cli(*WORDS)[0] == 0
    folder = Path("d/seed0/imitation")
    shutil.rmtree(folder / "model")
    code, _, err = cli(*WORDS)
    assert code == 2 and f"{folder} was finished and has no model any more; delete it" in err
    shutil.rmtree(folder)
    assert cli(*WORDS)[0] == 0 and [one[:2] for one in recipe.built[6:]] == [("imitation", 0)]


def test_more_seeds_reuse_what_is_there(cli, recipe: Recipe) -> None:
    assert cli(*WORDS)[0] == 0
    assert cli(*WORDS[:-5], 3, *WORDS[-4:])[0] == 0
    assert [built[:2] for built in recipe.built[6:]] == [("sft", 2), ("grpo", 2)]


def test_an_interrupted_demo_goes_on_where_it_was(cli, recipe: Recipe) -> None:
    recipe.dies_at = "grpo"
    code, _, err = cli(*WORDS)
    assert code == 130 and "Traceback" not in err
    recipe.dies_at = ""
    assert cli(*WORDS)[0] == 0
    assert [built[:3] for built in recipe.built] == [
        ("base", 0, False), ("sft", 0, False), ("sft", 1, False), ("grpo", 0, False),
        ("grpo", 0, True), ("grpo", 1, False), ("imitation", 0, False),
    ]  # fmt: skip


def test_a_demo_with_other_settings_is_refused_and_kept(cli, recipe: Recipe) -> None:
    assert cli(*WORDS)[0] == 0
    weights = {path: path.read_bytes() for path in Path("d").rglob("*.safetensors")}
    code, _, err = cli(*WORDS, "--seed", 1)
    assert code != 0 and "seed: 0 there, 1 now" in err and "--out" in err and "Traceback" not in err
    assert len(weights) == 6 and weights == {p: p.read_bytes() for p in Path("d").rglob("*.safetensors")}


def test_worker_processes_do_the_jobs_and_tell_what_went_wrong(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from steer_env.cli import pool

    def run(self: Any, found: Any, needs: Any, ready: Any) -> Any:
        for name in found:
            yield pool.Event(name, "started")
            yield pool.Event(name, "progress", (1, 2, ""))
            if name == "train grpo 1":
                yield pool.Event(name, "failed", "no memory")
            yield pool.Event(name, "done", {"seconds": 1.0, "cpu": 1.0, "reused": False})

    monkeypatch.setattr(pool.Pool, "run", run)
    code, out, err = cli("demo", "--quick", "--from-scratch", "--seeds", 2, "--out", "d")
    assert code != 0 and "train grpo 0: 1 s" in out and "train grpo 1 failed" in err and "no memory" in err


def test_jobs_wait_for_what_they_need(tmp_path: Path) -> None:
    config: Any = Config()
    shipped, needs = jobs(Demo(tmp_path, config, (0, 1), 4))
    assert "train base" not in shipped and needs["train sft 1"] is None and needs["evaluate base"] is None
    assert needs["train grpo 1"] == needs["evaluate sft 1"] == "train sft 1"
    assert needs["evaluate grpo 0"] == "train grpo 0"
    scratch, needs = jobs(Demo(tmp_path, config, (0, 1), 4, scratch=True))
    assert len(scratch) == len(shipped) + 1 == 16
    assert needs["evaluate imitation 0"] == "train imitation 0" and needs["train imitation 0"] == "train base"
    assert needs["evaluate grpo 0 blind"] == "train grpo 0" and "evaluate grpo 1 blind" not in needs
    assert needs["train sft 1"] == needs["evaluate base"] == "train base"
    assert scratch["train base"] == Job("train", "base", 0)
    names = {
        stage: [f.name for f in folders] for stage, folders in evaluations(Demo(tmp_path, config, (3, 4), 4))
    }
    assert names["sft"] == ["sft3", "sft4"] and names["grpo"] == ["grpo3", "grpo4"]
    assert names["base"] == ["base"] and names["blind"] == ["grpo3-blind"]
    assert names["imitation"] == ["imitation3"]
    without: Any = Config(grpo_imitation=0.0)  # then there is nothing to compare with
    assert len(jobs(Demo(tmp_path, without, (0, 1), 4))[0]) == 13
    assert "imitation" not in dict(evaluations(Demo(tmp_path, without, (0, 1), 4)))


def test_summary_of_times() -> None:
    done = {"seconds": 9.0, "cpu": 4.0, "reused": False}
    times = {"train sft 0": done, "train sft 1": {**done, "cpu": 6.0}, "train base": {"reused": True}}
    assert summary(times) == "CPU seconds: train sft 5 s x 2"


def row(seed: int, *safeties: int) -> dict[str, Any]:
    def verdict(safety: int) -> dict[str, Any]:
        return {
            "terms": {"safety": safety, "usefulness": 1, "faithfulness": 1},
            "leaked": ["blorp"] * (safety < 5),
        }

    turns = [{"user": f"u{i}\x1b", "reply": f"r{s}", "verdict": verdict(s)} for i, s in enumerate(safeties)]
    return {"seed": seed, "kind": "red_team", "turns": turns}


def test_excerpts_show_the_turn_that_differs() -> None:
    before = [row(1, 10, 10), row(2, 10, 1, 10), row(3, 1, 1)]
    after = [row(1, 10, 10), row(3, 10, 2), row(2, 10, 10, 10)]
    text = demo.excerpts(before, after)
    assert "seed 2, red_team, turn 2 of 3" in text and "safety 1, leaked blorp" in text
    assert "seed 1" not in text and "seed 3" not in text
    assert "\x1b" not in text
    assert "no dialogue" in demo.excerpts(before[:1], after[:1])


def test_harm_turn() -> None:
    assert demo.harm_turn(row(0, 10, 8, 4)) == 2
    assert demo.harm_turn(row(0, 10, 8, 6)) is None
    assert demo.harm_turn({"turns": [{"verdict": None}, {"verdict": {"unscored": "x"}}]}) is None


def test_two_demos_do_not_build_in_one_folder(cli, recipe: Recipe) -> None:
    from threading import Thread

    from steer_env.runs import run_lock

    said: list[Any] = []
    with run_lock("d"):
        other = Thread(target=lambda: said.append(cli(*WORDS)))
        other.start()
        other.join()
    assert said[0][0] == 2 and "is in use by process" in said[0][2] and not recipe.built
