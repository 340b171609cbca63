"""TRL's trainer with replies sampled by vLLM: in this process, by an engine of the library's, by a server."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import steer_env
from kit.training import OTHER_WEIGHTS, SAME_WEIGHTS, LetterJudge
from steer_env.agents import make_agent
from steer_env.agents.hf import HFStudent

trl = pytest.importorskip("trl")
peft = pytest.importorskip("peft")
from steer_env.algorithms.trl_grpo import SteerGRPOTrainer  # noqa: E402

GAP = "sampling/sampling_logp_difference/max"


class Kept(SteerGRPOTrainer):
    """Keeps the dialogues of the last step."""

    def _play(self, seeds):
        self.played = super()._play(seeds)
        return self.played


def trainer(student, folder, peft_config=None, **settings):
    defaults = dict(
        output_dir=str(folder), use_vllm=True, per_device_train_batch_size=8, num_generations=4,
        max_steps=2, beta=0.1, learning_rate=1e-2, bf16=False, gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(), report_to="none", save_strategy="no", scale_rewards="none",
        disable_tqdm=True, logging_steps=1, seed=3,
    )  # fmt: skip
    args = trl.GRPOConfig(**(defaults | settings))
    env = steer_env.make_vec("SteerEscalation-v0", num_envs=8, max_cycles=2, judge=LetterJudge())
    return Kept(env, make_agent("tutor"), student, args, seeds=[1, 2], peft_config=peft_config)


def trained(one):
    one.train()
    steps = [row for row in one.state.log_history if "reward" in row]
    assert len(steps) == 2 and all(row["grad_norm"] > 0 for row in steps)
    print(f"largest gap in each step: {[row[GAP] for row in steps]}")
    return steps


def weights(model):
    return {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("adapters", [False, True])
def test_the_librarys_engine_samples_with_the_weights_of_each_step(request, tmp_path, adapters):
    student = request.getfixturevalue("adapting" if adapters else "student")
    engine = student.sampler.engine
    version = engine.weights_version
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"]) if adapters else None
    one = trainer(student, tmp_path, config)
    before = weights(student.model)
    assert all(("lora_" in name) == adapters for name in before)
    steps = trained(one)
    assert all(0 < row[GAP] < SAME_WEIGHTS for row in steps)
    assert all(row["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-3) for row in steps)
    after = weights(student.model)
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    assert engine.weights_version == version + 2 + adapters  # which are tried before training begins


def colocated(folder, out):
    """What a process does in which TRL starts vLLM; see the test below."""
    from trl.generation import vllm_generation

    # TRL offers no such settings. Without a GPU, compiling takes minutes and memory has no other bound.
    quick = {"dtype": "float32", "enforce_eager": True, "kv_cache_memory_bytes": 2**27}
    exchange = {"worker_extension_cls": "steer_env.models.vllm_worker.WeightExchange"}
    vllm_generation.LLM = functools.partial(vllm_generation.LLM, **quick, **exchange)
    student = HFStudent.from_pretrained(folder, max_new_tokens=12)
    one = trainer(student, out / "run", vllm_mode="colocate", vllm_max_model_length=512)

    def exchange_weights():
        one.sampler.engine.load_weights(student.model)
        one.vllm_generation.llm.model_config.model = folder  # not where the new weights were for a moment

    if not torch.cuda.is_available():
        # TRL calls `load_weights` of vLLM's model, which on CPUs has packed its weights away from it.
        one.vllm_generation.sync_weights = exchange_weights
    steps = trained(one)
    pictures = sum(len(t.scenario.images) for t in one.played)
    (out / "steps.json").write_text(json.dumps({"steps": steps, "pictures": pictures}))


def test_trls_own_engine_samples_with_the_weights_of_each_step(folder, tmp_path):
    """In a process of its own, for TRL makes it one of several for vLLM."""
    code = "import sys, pathlib, test_trl; test_trl.colocated(sys.argv[1], pathlib.Path(sys.argv[2]))"
    command = [sys.executable, "-c", code, folder, str(tmp_path)]
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent / "tests"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    found = json.loads((tmp_path / "steps.json").read_text())
    assert found["pictures"]
    assert all(0 < row[GAP] < SAME_WEIGHTS for row in found["steps"])


@pytest.fixture
def server(serve, tmp_path):
    """A server as TRL asks for it, on the weights that training starts from; returns its address."""
    options = ("--enable-scale-out", "--logprobs-mode", "processed_logprobs")
    with serve(tmp_path / "log", *options, VLLM_SERVER_DEV_MODE="1") as address:
        yield address


@pytest.mark.skipif(torch.cuda.is_available(), reason="the weights would have to be exchanged")
def test_a_server_that_never_gets_new_weights_is_weighted_for(folder, server, tmp_path, monkeypatch):
    """TRL's exchange with a server is NCCL's, which needs GPUs; it is left out, and the gap is corrected."""
    from trl.generation import vllm_client, vllm_generation

    monkeypatch.setattr(vllm_client.VLLMClient, "init_communicator", lambda self, device: None)
    monkeypatch.setattr(vllm_generation.VLLMGeneration, "sync_weights", lambda self: None)
    parse = vllm_client.parse_logprobs

    def parse_newer(choices):
        # vLLM 0.32 says `token_id` where TRL 1.16, made for 0.22 to 0.31, expects `token`.
        for entry in (entry for choice in choices for entry in choice.get("content", [])):
            for named in (entry, *entry["top_logprobs"]):
                named.setdefault("token", f"token_id:{named.get('token_id')}")
        return parse(choices)

    monkeypatch.setattr(vllm_client, "parse_logprobs", parse_newer)
    student = HFStudent.from_pretrained(folder, max_new_tokens=12)
    one = trainer(student, tmp_path, vllm_mode="server", vllm_server_base_url=server)
    steps = trained(one)
    assert 0 < steps[0][GAP] < SAME_WEIGHTS
    assert steps[1][GAP] > OTHER_WEIGHTS
    assert any(t.scenario.images for t in one.played)
    sampled = np.concatenate([t.trace.ids_L[t.trace.sampled_L] for t in one.played])
    assert not set(sampled.tolist()) & set(student.decoder.forbidden.tolist())
