"""New weights reach a running engine, and GRPO trains through it."""

import json
from pathlib import Path

import pytest
import torch

import steer_env
from steer_env.agents import make_agent
from steer_env.agents.hf import HFStudent
from steer_env.algorithms import TrainConfig, train
from steer_env.algorithms.forward import prepared
from steer_env.cli.main import main
from steer_env.configs.train import Scaling
from steer_env.types import Scored, Terms


class LetterJudge:
    """Likes lower-case letters: something that random weights can be rewarded for."""

    name = "letters"

    def judge(self, requests):
        replies = [request.transcript[-1].content for request in requests]
        shares = [sum("a" <= letter <= "z" for letter in reply) / max(1, len(reply)) for reply in replies]
        return [Scored(Terms(1 + round(9 * share), 5, 5), judge=self.name) for share in shares]


def test_new_weights_change_what_the_engine_says_to_what_the_model_says(student, engine, play):
    student.temperature = 0.0
    before, version = play(student)[0], engine.weights_version
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in student.model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    assert play(student)[0] == before  # not told yet
    student.weights_changed()
    after = play(student)[0]
    plain = HFStudent(student.model, student.processor, temperature=0.0, max_new_tokens=12)
    # The vision tower, the tied language head and the caches are new, too.
    assert after == play(plain)[0] and all(a[0] != b[0] for a, b in zip(after, before, strict=True))
    assert engine.weights_version == version + 1  # once for several batches


def test_a_model_that_is_not_transformers_is_refused(engine):
    with pytest.raises(TypeError, match="expected a transformers model"):
        engine.load_weights(torch.nn.Linear(1, 1))


def test_two_grpo_steps_with_the_engines_samples(student, engine, tmp_path):
    env = steer_env.make_vec("SteerEscalation-v0", num_envs=8, max_cycles=2, judge=LetterJudge())
    before = {name: weight.clone() for name, weight in student.model.state_dict().items()}
    version = engine.weights_version
    config = TrainConfig(steps=2, seeds_per_step=2, group_size=4, lr=1e-3, max_new_tokens=12)
    rows = train(env, make_agent("tutor"), student, "grpo", config, tmp_path)
    print(f"largest gap in each step: {[row['logprob_gap_max'] for row in rows]}")
    assert len(rows) == 2 and all(0 < row["logprob_gap_max"] < 1e-4 for row in rows)
    assert all(row["grad_norm"] > 0 for row in rows)
    after = student.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert engine.weights_version == version + 2  # before each step's dialogues


def test_adapters_reach_the_engine_and_stay_adapters(student, engine, play):
    scaling = Scaling(lora_rank=4)
    with prepared(student, scaling, seed=0):
        torch.manual_seed(0)
        with torch.no_grad():
            for name, weight in student.model.named_parameters():
                if "lora_B" in name:
                    weight.add_(0.3 * torch.randn_like(weight))
        student.temperature = 0.0
        before = play(student)[0]
        student.weights_changed()
        after = play(student)[0]
        plain = HFStudent(student.model, student.processor, temperature=0.0, max_new_tokens=12)
        assert after == play(plain)[0] and after != before
        assert any("lora_A" in name for name in student.model.state_dict())


def test_the_command_line_trains_adapters_with_the_engines_samples(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = "max_model_len=512&max_num_seqs=16&enforce_eager=true&kv_cache_memory_bytes=134217728"
    words = f"""train --student vllm:{folder}?{options} --lora-rank 4 --lr 1e-2 --steps 3 --seeds-per-step 2
        --group-size 2 --max-new-tokens 8 --max-cycles 2 --unscored-limit 1 --out run"""
    assert main(words.split()) == 0
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    print(f"largest gap in each step: {[row['logprob_gap_max'] for row in rows]}")
    assert len(rows) == 3 and all(row["logprob_gap_max"] < 1e-4 for row in rows)
    assert list(Path("run").glob("checkpoints/*/adapter_model.safetensors"))
    assert Path("run/model/model.safetensors").exists()
