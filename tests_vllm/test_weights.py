"""New weights reach a running engine, and GRPO trains through it."""

import copy
import json
from pathlib import Path

import peft
import pytest
import torch

import steer_env
from kit.training import OTHER_WEIGHTS, SAME_WEIGHTS, LetterJudge
from steer_env.agents import make_agent
from steer_env.agents.hf import HFStudent
from steer_env.algorithms import TrainConfig, train
from steer_env.algorithms.forward import prepared
from steer_env.cli.main import main
from steer_env.configs.train import Scaling
from steer_env.models.adapters import adapters


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
    assert len(rows) == 2 and all(0 < row["logprob_gap_max"] < SAME_WEIGHTS for row in rows)
    assert all(row["grad_norm"] > 0 for row in rows)
    after = student.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert engine.weights_version == version + 2  # before each step's dialogues


def perturb(model, seed):
    """Change a model's adapters."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.3 * torch.randn_like(weight))


def greedy(student, play):
    """What transformers says with the student's model."""
    plain = HFStudent(student.model, student.processor, temperature=0.0, max_new_tokens=12)
    return play(plain)[0]


@pytest.fixture
def exchanged(adaptable, monkeypatch):
    """The bytes of each exchange, with its name."""
    rpc, sizes = adaptable._llm.collective_rpc, []

    def counted(method, *, args):
        sizes.append((method, sum(file.stat().st_size for file in Path(args[0]).iterdir())))
        return rpc(method, args=args)

    monkeypatch.setattr(adaptable._llm, "collective_rpc", counted)
    return sizes


def test_adapters_alone_reach_the_engine_each_in_the_place_of_the_last(
    adapting, play, gap, exchanged, folder
):
    student, engine = adapting, adapting.sampler.engine
    student.temperature = 0.0
    base = play(student)[0]
    said = []
    with prepared(student, Scaling(lora_rank=4), seed=0):
        for seed in (1, 2):
            perturb(student.model, seed)
            student.temperature = 1.0
            assert gap(student, *play(student)) > OTHER_WEIGHTS  # not told yet
            student.temperature = 0.0
            student.weights_changed()
            said.append(play(student)[0])
            # The vision tower has adapters, too, and keys, values and image features of before are gone.
            assert said[-1] == greedy(student, play)
            assert len(engine._llm.llm_engine.list_loras()) == 1
            student.temperature = 1.0
            # Adapters as large as these magnify rounding: up to 2e-4 was seen, with AVX-512.
            assert gap(student, *play(student)) < 10 * SAME_WEIGHTS
            student.temperature = 0.0
        assert any("visual" in name for name in adapters(student.model)[1])
        assert len({str(replies) for replies in (base, *said)}) == 3
        weights = Path(folder, "model.safetensors").stat().st_size
        print(f"exchanged: {exchanged}; the weights have {weights} bytes")
        assert [method for method, _ in exchanged] == ["exchange_adapters"] * 2
        assert all(size < weights / 10 for _, size in exchanged)
        engine._adapters = None  # the weights they stand beside are what they were
        engine.reset_caches()
        assert play(student)[0] == base
    student.weights_changed()  # the adapters are in the weights now
    assert play(student)[0] == said[-1] and exchanged[-1][0] == "exchange_weights"
    assert not engine._llm.llm_engine.list_loras()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "bias"),
    ],
)
def test_adapters_that_vllm_does_not_take_are_refused(adapting, play, options, why):
    adapting.model.add_adapter(peft.LoraConfig(**{"r": 2, "target_modules": ["q_proj"], **options}))
    with pytest.raises(ValueError, match=rf"vLLM does not take the model's adapters: .*{why}"):
        adapting.check_trainable()
    adapting.sampler.temperature = 0.0
    play(adapting.sampler)  # the engine goes on


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"r": 16}, r'of rank 16 .* takes 8 at most, expected .* engine=\{"lora_rank": 16\}'),
        ({"rank_pattern": {"layers.0.q_proj": 300}}, r'engine=\{"lora_rank": 300\}'),
        ({"r": 600}, "lora_rank=600, expected 1 to 512"),
    ],
)
def test_adapters_of_a_higher_rank_than_there_is_room_for_do_not_travel(adapting, exchanged, options, why):
    adapting.model.add_adapter(peft.LoraConfig(**{"r": 2, "target_modules": ["q_proj"], **options}))
    with pytest.raises(ValueError, match=why):
        adapting.check_trainable()
    assert not exchanged


def test_an_engine_that_died_is_not_called_choosy(adapting, monkeypatch):
    from vllm.v1.engine.exceptions import EngineDeadError

    def dead(method, *, args):
        raise EngineDeadError

    monkeypatch.setattr(adapting.sampler.engine._llm, "collective_rpc", dead)
    adapting.model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(EngineDeadError):
        adapting.check_trainable()


def test_adapters_beside_layers_that_vllm_would_leave_out_are_refused(adapting, play):
    adapting.model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"]))
    layers = adapting.model.model.language_model.layers
    layers.append(copy.deepcopy(layers[0]))  # one more than the engine has
    with pytest.raises(ValueError, match=r"no adapters for '\S*layers.2\S*q_proj' \(1 such layers\)"):
        adapting.check_trainable()
    del layers[-1]
    perturb(adapting.model, 1)
    adapting.check_trainable()
    adapting.temperature = 0.0
    assert play(adapting)[0] == greedy(adapting, play)  # not what was refused


def test_an_engine_without_room_for_adapters_says_so_before_a_run_begins(student, tmp_path):
    env = steer_env.make_vec("SteerEscalation-v0", num_envs=4, max_cycles=2, judge=LetterJudge())
    config, scaling = TrainConfig(steps=1, seeds_per_step=1, group_size=4), Scaling(lora_rank=4)
    with pytest.raises(ValueError, match=r'takes none, expected .* engine=\{"lora_rank": 4\}'):
        train(env, make_agent("tutor"), student, "grpo", config, tmp_path / "run", scaling=scaling)
    assert not list(tmp_path.glob("run/*.json"))


def test_the_command_line_trains_adapters_with_the_engines_samples(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = "max_model_len=512&max_num_seqs=16&enforce_eager=true&kv_cache_memory_bytes=134217728"
    words = f"""train --student vllm:{folder}?{options} --lora-rank 4 --lr 1e-2 --steps 3 --seeds-per-step 2
        --group-size 2 --max-new-tokens 8 --max-cycles 2 --unscored-limit 1 --out run"""
    assert main(words.split()) == 0
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    print(f"largest gap in each step: {[row['logprob_gap_max'] for row in rows]}")
    assert len(rows) == 3 and all(row["logprob_gap_max"] < SAME_WEIGHTS for row in rows)
    assert list(Path("run").glob("checkpoints/*/adapter_model.safetensors"))
    assert Path("run/model/model.safetensors").exists()
