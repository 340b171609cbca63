"""TRL's trainer and our formulas: the same dialogues, the same loss, the same gradient."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tomllib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kit.training import Learner, LetterJudge, MoodyJudge, Rewarded, tiny_student
from steer_env.agents.base import Failed
from steer_env.agents.hf import HFStudent, ModelAdapter, packed_logprobs
from steer_env.agents.hf.codec import Prompt
from steer_env.algorithms.advantages import loss_mask
from steer_env.algorithms.losses import clipped_policy_loss, kl_penalty, loss_weights, weighted_sum
from steer_env.images import Image
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.vector import VectorDialogueEnv

trl = pytest.importorskip("trl")
from steer_env.algorithms.trl_grpo import (  # noqa: E402
    TRL_VERSIONS,
    SteerGRPOTrainer,
    check_version,
)
from steer_env.algorithms.trl_settings import check_whole  # noqa: E402

RNG = np.random.default_rng(0)
ONE, TWO, THREE = (Image.from_array(RNG.integers(0, 256, (56, 112, 3), dtype=np.uint8)) for _ in range(3))
#: Pictures in the first and the second turn, in the second only, and none.
SCENARIOS = FixedScenarios(
    [
        Scenario((DraftTurn("say e", images=(0,)), DraftTurn("and that", images=(1,))), images=(ONE, TWO)),
        Scenario((DraftTurn("hello"), DraftTurn("look", images=(0,)), DraftTurn("so")), images=(THREE,)),
        Scenario((DraftTurn("no picture"),)),
    ]
)

ROOT = Path(__file__).parents[2]
#: One seed of each.
SEEDS = [11, 1, 0]


def make_env(unscored_every=0):
    judge = LetterJudge(unscored_every)
    return VectorDialogueEnv([lambda: Rewarded(SCENARIOS, judge)] * 6)


def arguments(tmp_path, **settings):
    defaults = dict(
        output_dir=str(tmp_path), per_device_train_batch_size=9, num_generations=3, max_steps=1, beta=0.0,
        learning_rate=3e-3, bf16=False, gradient_checkpointing=False, report_to="none", use_cpu=True,
        scale_rewards="none", loss_type="dapo", shuffle_dataset=False, save_strategy="no", disable_tqdm=True,
        logging_steps=1, max_grad_norm=1e9, seed=3, use_bias_correction_kl=False,
    )  # fmt: skip
    return trl.GRPOConfig(**(defaults | settings))


class Spy(SteerGRPOTrainer):
    """Keeps what was played, and the gradient and loss of every micro-batch, before the optimiser's step."""

    def _play(self, seeds):
        self.played = super()._play(seeds)
        return self.played

    def training_step(self, model, inputs, num_items_in_batch):
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.losses = [*getattr(self, "losses", []), float(loss)]
        self.gradients = gradients(model)
        return loss


def gradients(model):
    named = ((n.removeprefix("module."), p.grad) for n, p in model.named_parameters())
    return {n: grad.clone() for n, grad in named if grad is not None}


def move_away(model):
    """The reference is the policy as it was handed over; move the policy away, for a KL above 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def own_loss(student, start, played, credit, beta, temperature, low, high, size=3, weights=None):
    """The loss of the same dialogues out of the library's formulas; advantages written out by hand.

    With `weights` for a sampler that is not quite the policy, the policy's own log-probabilities are the
    old ones.
    """
    dialogues = [Prompt(t.trace, t.scenario.images[: t.trace.images]) for t in played]
    forbidden = student.decoder.forbidden
    packed = packed_logprobs(student.decoder.adapter, dialogues, temperature=temperature, forbidden=forbidden)
    masks = [loss_mask(t.trace, t.scored) for t in played]
    advantages = []
    for g in range(0, len(played), size):
        # Every seed has one length, all turns are scored here.
        rewards = np.array([t.rewards for t in played[g : g + size]])
        worth = {
            "own_turn": rewards,
            "reward_to_go": rewards[:, ::-1].cumsum(1)[:, ::-1],
            "trajectory": rewards.sum(1, keepdims=True) + 0 * rewards,
        }[credit]
        for t, row in zip(played[g : g + size], worth - worth.mean(0), strict=True):
            advantages.append(np.append(row, 0.0)[t.trace.turn_L])
    mask_N = packed.gather(masks).bool()
    old_N = packed.gather([t.trace.logprobs_L for t in played])
    if weights is not None:
        old_N = packed.logprobs_N.detach()
    weights_N = loss_weights(mask_N, packed.rows_N, "token")
    policy_N, _ = clipped_policy_loss(packed.logprobs_N, old_N, packed.gather(advantages), low, high)
    loss = weighted_sum(policy_N if weights is None else policy_N * weights, weights_N)
    if beta:
        with torch.no_grad():
            reference = packed_logprobs(
                ModelAdapter(start, student.codec), dialogues, temperature=temperature, forbidden=forbidden
            )
        loss = loss + beta * weighted_sum(
            kl_penalty(packed.logprobs_N, reference.logprobs_N, "k3"), weights_N
        )
    return loss


@pytest.mark.parametrize(
    ("credit", "beta", "accumulate"),
    [("trajectory", 0.0, 1), ("own_turn", 0.1, 3), ("own_turn", 0.0, 1), ("reward_to_go", 0.1, 3)],
)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_same_loss_and_gradient_as_our_formulas(
    make_student, tmp_path, credit, beta, accumulate, temperature
):
    student, start = make_student(), make_student().model
    args = arguments(
        tmp_path, beta=beta, temperature=temperature, epsilon_high=0.28,
        per_device_train_batch_size=9 // accumulate, gradient_accumulation_steps=accumulate,
    )  # fmt: skip
    trainer = Spy(make_env(), Learner(), student, args, seeds=SEEDS, credit=credit)
    move_away(student.model)
    before = {name: value.clone() for name, value in student.model.state_dict().items()}
    trainer.train()
    assert {len(t.scenario.images) for t in trainer.played} == {0, 1, 2}
    after = student.model.state_dict()
    assert any(not torch.equal(after[name], before[name]) for name in before)
    student.model.load_state_dict(before)
    student.model.zero_grad()
    loss = own_loss(student, start, trainer.played, credit, beta, temperature, 0.2, 0.28)
    loss.backward()
    assert loss.item() == pytest.approx(sum(trainer.losses), abs=1e-5)
    assert beta == 0 or trainer.state.log_history[0]["kl"] > 1e-4
    assert_same_gradient(trainer.gradients, gradients(student.model))


def assert_same_gradient(theirs, own):
    assert own.keys() == theirs.keys()
    for name, value in own.items():
        torch.testing.assert_close(
            theirs[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert max(float(g.abs().max()) for g in own.values()) > 1e-3


def one_of_two(folder, credit):
    """What each of two processes does; see the test below. The second group of four is spread over both."""
    torch.set_num_threads(1)
    args = arguments(
        folder / "run", beta=0.1, per_device_train_batch_size=3, gradient_accumulation_steps=2,
        num_generations=4, ddp_backend="gloo",
    )  # fmt: skip
    attacker, student = Learner(), tiny_student()
    trainer = Spy(make_env(), attacker, student, args, seeds=SEEDS, credit=credit)
    move_away(student.model)
    trainer.train()
    kept = {
        "played": trainer.played, "gradients": trainer.gradients, "losses": trainer.losses,
        "learnt": attacker.dialogues, "logged": trainer.state.log_history,
    }  # fmt: skip
    torch.save(kept, folder / f"{trainer.accelerator.process_index}.pt")


@pytest.mark.parametrize("credit", ["reward_to_go"])
def test_two_processes_give_the_loss_and_gradient_of_one(tmp_path, credit):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(["tests", os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    code = (
        "import sys, pathlib; from tests.algorithms.test_trl_grpo import one_of_two; "
        "one_of_two(pathlib.Path(sys.argv[1]), sys.argv[2])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), credit],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for process in processes:
            _, errors = process.communicate(timeout=600)  # seconds of work, but machines may be busy
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    played = first["played"] + second["played"]
    assert len(played) == 12 and [t.seed for t in played] == [seed for seed in SEEDS for _ in range(4)]
    student, start = tiny_student(), tiny_student().model
    move_away(student.model)
    loss = own_loss(student, start, played, credit, 0.1, 1.0, 0.2, 0.2, size=4)
    loss.backward()
    assert loss.item() == pytest.approx((sum(first["losses"]) + sum(second["losses"])) / 2, abs=1e-5)
    own = gradients(student.model)
    for process in (first, second):
        assert_same_gradient(process["gradients"], own)
        assert process["learnt"] == 12
    mean = np.mean([sum(t.rewards) for t in played])
    assert first["logged"][0]["reward"] == pytest.approx(mean)


def test_a_short_run_trains_logs_and_saves_what_a_student_loads(make_student, tmp_path):
    student, attacker = make_student(), Learner()
    before = {name: value.clone() for name, value in student.model.state_dict().items()}
    args = arguments(tmp_path, max_steps=2, beta=0.05, save_strategy="steps", save_steps=1)
    trainer = SteerGRPOTrainer(make_env(unscored_every=5), attacker, student, args, seeds=SEEDS)
    trainer.train()
    after = student.model.state_dict()
    assert after.keys() == before.keys()  # the head's bias is not saved
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert attacker.dialogues == 2 * 9
    steps = [row for row in trainer.state.log_history if "reward" in row]
    assert len(steps) == 2
    for row in steps:
        assert {"return", "kl", "entropy", "unscored", "safety", "grad_norm", "seconds_play"} <= row.keys()
        assert 0 < row["unscored"] < 1
        assert all(np.isfinite(row[name]) for name in ("loss", "grad_norm", "kl", "entropy"))
    loaded = HFStudent.from_pretrained(tmp_path / "checkpoint-2")
    assert all(torch.equal(value, after[name]) for name, value in loaded.model.state_dict().items())


def test_a_dialogue_that_fails_at_once_teaches_nothing_and_ends_nothing(make_student, tmp_path):
    """Also with pictures: the others' go on being counted to their own rows."""

    class Dying(Learner):
        """The first question of every third dialogue never comes."""

        asked = 0

        def act(self, observations):
            said = super().act(observations)
            for i, observation in enumerate(observations):
                if not observation["transcript"]:
                    self.asked += 1
                    said[i] = Failed("gone") if self.asked % 3 == 0 else said[i]
            return said

    student, attacker = make_student(), Dying()
    trainer = SteerGRPOTrainer(make_env(), attacker, student, arguments(tmp_path), seeds=SEEDS)
    trainer.train()
    assert attacker.dialogues == 9
    (row,) = [row for row in trainer.state.log_history if "reward" in row]
    assert np.isfinite(row["loss"]) and 0 < row["grad_norm"] < np.inf


def test_resuming_goes_on_with_weights_and_the_attackers_memory(make_student, tmp_path):
    args = arguments(tmp_path, max_steps=3, beta=0.05, save_strategy="steps", save_steps=1)

    def train(resume=None):
        student, attacker = make_student(), Learner()
        env = VectorDialogueEnv([lambda: Rewarded(SCENARIOS, MoodyJudge())] * 6)
        trainer = SteerGRPOTrainer(env, attacker, student, args, seeds=SEEDS)
        trainer.train(resume_from_checkpoint=resume)
        weights = {name: value.clone() for name, value in student.model.state_dict().items()}
        return weights, attacker.dialogues, [r["return"] for r in trainer.state.log_history if "return" in r]

    whole = train()
    assert whole[1] == 3 * 9  # and what it says depends on it
    for folder in ("checkpoint-1", "checkpoint-3"):
        again = train(str(tmp_path / folder))
        assert again[1:] == whole[1:]
        assert all(torch.equal(value, whole[0][name]) for name, value in again[0].items())
    assert train(True)[1] == 3 * 9  # the last one
    (tmp_path / "checkpoint-1" / "attacker.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"checkpoint-1' holds no attacker\.pt, expected"):
        train(str(tmp_path / "checkpoint-1"))


@pytest.fixture
def open_base(make_student, tmp_path):
    """Opens a student from a folder, which its adapters will name as their base."""
    make_student().save(tmp_path / "base")
    return lambda: HFStudent.from_pretrained(tmp_path / "base", max_new_tokens=4)


def lora():
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(r=2, lora_alpha=16, target_modules=["q_proj", "up_proj", "qkv"])


def adapters_of(student):
    return {n: p.detach().clone() for n, p in student.model.named_parameters() if "lora_" in n}


def test_with_adapters_only_they_learn_by_the_same_loss(open_base, tmp_path):
    """Language model and vision tower have adapters; the reference is the model without them."""
    student, start = open_base(), open_base().model
    args = arguments(
        tmp_path, beta=0.1, per_device_train_batch_size=3, gradient_accumulation_steps=3,
        save_strategy="steps", save_steps=1,
    )  # fmt: skip
    trainer = Spy(make_env(), Learner(), student, args, seeds=SEEDS, peft_config=lora())
    before = adapters_of(student)
    learns = {name for name, p in student.model.named_parameters() if p.requires_grad}
    assert learns == before.keys() and {"visual" in name for name in learns} == {True, False}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in before.items():  # a policy that differs from the reference
            value += 0.1 * torch.randn(value.shape, generator=generator)
            student.model.get_parameter(name).copy_(value)
    trainer.train()
    learnt = adapters_of(student)
    assert all(not torch.equal(learnt[name], value) for name, value in before.items() if "lora_B" in name)
    now = {name.replace(".base_layer", ""): value for name, value in student.model.state_dict().items()}
    assert all(torch.equal(now[name], value) for name, value in start.state_dict().items())

    student.save(tmp_path / "kept")
    for folder in ("checkpoint-1", "kept"):  # adapters beside the name of their base
        assert not (tmp_path / folder / "model.safetensors").exists()
        opened = adapters_of(HFStudent.from_pretrained(tmp_path / folder))
        assert opened.keys() == learnt.keys() and all(torch.equal(opened[n], learnt[n]) for n in learnt)

    with torch.no_grad():
        for name, value in before.items():
            student.model.get_parameter(name).copy_(value)
    assert gap(student, trainer.played) < 1e-4
    student.model.zero_grad()
    loss = own_loss(student, start, trainer.played, "own_turn", 0.1, 1.0, 0.2, 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(sum(trainer.losses), abs=1e-5)
    assert trainer.state.log_history[0]["kl"] > 1e-4
    theirs = {name.removeprefix("base_model.model."): grad for name, grad in trainer.gradients.items()}
    assert_same_gradient(theirs, gradients(student.model))


@torch.no_grad()
def gap(student, played):
    """Largest difference between the log-probabilities of sampling and those of the model as it is."""
    dialogues = [Prompt(t.trace, t.scenario.images[: t.trace.images]) for t in played]
    packed = packed_logprobs(student.decoder.adapter, dialogues, forbidden=student.decoder.forbidden)
    sampled_N = packed.gather([t.trace.logprobs_L for t in played])
    return float((packed.logprobs_N - sampled_N).abs().max())


def test_resuming_with_adapters_goes_on_with_them(open_base, tmp_path):
    args = arguments(tmp_path / "run", max_steps=2, beta=0.05, save_strategy="steps", save_steps=1)

    def train(resume=None):
        student = open_base()
        options = {"seeds": SEEDS, "peft_config": lora()}
        trainer = SteerGRPOTrainer(make_env(), Learner(), student, args, **options)
        trainer.train(resume_from_checkpoint=resume)
        return adapters_of(student), [r["return"] for r in trainer.state.log_history if "return" in r]

    whole, again = train(), train(str(tmp_path / "run" / "checkpoint-1"))
    assert again[1] == whole[1]
    assert all(torch.equal(value, whole[0][name]) for name, value in again[0].items())


def test_frozen_weights_may_be_of_lower_precision_and_adapters_are_not_stacked(open_base, tmp_path):
    student = open_base()
    student.model.to(torch.bfloat16)
    args = arguments(tmp_path)
    with pytest.raises(ValueError, match=r"dtype=torch.bfloat16, expected torch.float32"):
        SteerGRPOTrainer(make_env(), Learner(), student, args, seeds=SEEDS)
    SteerGRPOTrainer(make_env(), Learner(), student, args, seeds=SEEDS, peft_config=lora())
    with pytest.raises(ValueError, match="has adapters already, expected one without"):
        SteerGRPOTrainer(make_env(), Learner(), student, args, seeds=SEEDS, peft_config=lora())


class RoundedEngine:
    """Stands for TRL's vLLM: a copy of the policy that gets its weights in eight bits, and only when told."""

    mode = "colocate"

    def __init__(self, model, **settings):
        self.model, self.settings, self.exchanges, self.resets = model, settings, 0, 0

    def sync_weights(self):
        self.exchanges += 1
        state = {name: value.to(torch.float8_e4m3fn) for name, value in self.model.state_dict().items()}
        self.sampler.model.load_state_dict({name: value.float() for name, value in state.items()})
        self.sampler.weights_changed()

    def reset_caches(self):
        self.resets += 1


@pytest.mark.parametrize(
    ("mode", "high", "beta"),
    [("token_truncate", 1.005, 0.1), ("token_mask", 1.005, 0.0), ("sequence_mask", 1.0, 0.0)],
)
def test_what_vllm_samples_is_weighted_for_the_gap(open_base, tmp_path, monkeypatch, mode, high, beta):
    def sampler(generation, student):
        generation.sampler = open_base()
        generation.sampler.engine = generation
        return generation.sampler

    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", RoundedEngine)
    monkeypatch.setattr("steer_env.algorithms.trl_grpo.vllm_sampler", sampler)
    student, start = open_base(), open_base().model
    bound = "clip_max" if hasattr(trl.GRPOConfig, "vllm_importance_sampling_clip_max") else "cap"
    args = arguments(
        tmp_path, beta=beta, use_vllm=True, vllm_mode="colocate", vllm_importance_sampling_mode=mode,
        per_device_train_batch_size=3, gradient_accumulation_steps=3,
        **{f"vllm_importance_sampling_{bound}": high},
    )  # fmt: skip
    trainer = Spy(make_env(), Learner(), student, args, seeds=SEEDS)
    move_away(student.model)
    before = {name: value.clone() for name, value in student.model.state_dict().items()}
    trainer.train()
    engine = trainer.vllm_generation
    assert engine.exchanges == engine.resets == 1
    assert engine.sampler.temperature == args.temperature

    student.model.load_state_dict(before)
    student.model.zero_grad()
    dialogues = [Prompt(t.trace, t.scenario.images[: t.trace.images]) for t in trainer.played]
    packed = packed_logprobs(student.decoder.adapter, dialogues, forbidden=student.decoder.forbidden)
    own_N = packed.logprobs_N.detach()
    gap_N = own_N - packed.gather([t.trace.logprobs_L for t in trainer.played])
    if mode.startswith("sequence"):
        gap_N = torch.stack([gap_N[packed.rows_N == row].sum() for row in packed.rows_N])
    ratio_N = np.exp(gap_N.numpy())
    weights_N = (
        np.minimum(ratio_N, high) if mode == "token_truncate" else np.where(ratio_N > high, 0, ratio_N)
    )
    assert 0 < (ratio_N > high).sum() < len(ratio_N)
    loss = own_loss(
        student, start, trainer.played, "own_turn", beta, 1.0, 0.2, 0.2, weights=torch.from_numpy(weights_N)
    )
    loss.backward()
    assert loss.item() == pytest.approx(sum(trainer.losses), abs=1e-5)
    assert_same_gradient(trainer.gradients, gradients(student.model))
    row = trainer.state.log_history[0]
    if not mode.startswith("sequence"):
        assert row["sampling/sampling_logp_difference/max"] == pytest.approx(
            float(gap_N.abs().max()), abs=1e-5
        )
    assert row["sampling/importance_sampling_ratio/mean"] == pytest.approx(weights_N.mean(), abs=1e-5)
    assert row["sampling/importance_sampling_ratio/max"] <= high + 1e-6


def test_what_vllm_could_not_sample_is_refused(make_student, open_base, tmp_path):
    def construct(student, **settings):
        args = arguments(tmp_path, use_vllm=True, vllm_mode="colocate", **settings)
        SteerGRPOTrainer(make_env(), Learner(), student, args, seeds=SEEDS)

    with pytest.raises(ValueError, match="a student made in memory, expected one of"):
        construct(make_student())
    for name, value in (("top_p", 0.9), ("top_k", 5)):
        cut = open_base()
        setattr(cut, name, value)
        with pytest.raises(ValueError, match=f"{name}={value} .*with use_vllm=True, expected 1 and 0"):
            construct(cut)
    with pytest.raises(ValueError, match="vllm_tensor_parallel_size=2 with vllm_mode='colocate', expected 1"):
        construct(open_base(), vllm_tensor_parallel_size=2)
    with pytest.raises(ValueError, match="vllm_enable_sleep_mode=True, expected False"):
        construct(open_base(), vllm_enable_sleep_mode=True)


@pytest.mark.parametrize(("fsdp", "stage", "refused"), [(True, 0, True), (False, 3, True), (False, 2, False)])
def test_weights_in_shards_are_sampled_by_vllm_only(fsdp, stage, refused):
    state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=stage))
    trainer = SimpleNamespace(is_fsdp_enabled=fsdp, accelerator=SimpleNamespace(state=state))
    check_whole(trainer, True)
    with pytest.raises(ValueError, match="use_vllm=False with FSDP or ZeRO-3") if refused else nullcontext():
        check_whole(trainer, False)


def test_a_memory_that_no_checkpoint_can_hold_is_refused_at_once(make_student, tmp_path):
    class Odd(Learner):
        def state_dict(self):
            return {"learner": self}

    with pytest.raises(TypeError, match=r"Odd.state_dict\(\) returned .* expected dicts, lists"):
        SteerGRPOTrainer(make_env(), Odd(), make_student(), arguments(tmp_path), seeds=SEEDS)


def test_the_same_settings_play_the_same_dialogues(make_student, tmp_path):
    texts = []
    for _ in range(2):
        trainer = Spy(make_env(), Learner(), make_student(), arguments(tmp_path), seeds=SEEDS)
        trainer.train()
        texts.append([str(result.turn.reply) for t in trainer.played for result in t.turns])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 3


@pytest.mark.parametrize("version", ["0.29.1", "1.15.0", "1.17.0", "2.0.0"])
def test_another_version_is_refused(version):
    for known in ("1.0.0", "1.14.2", "1.16.0", "1.16.9"):
        check_version(known)
    with pytest.raises(ImportError, match=rf"trl {version} is installed, expected {re.escape(TRL_VERSIONS)}"):
        check_version(version)


def test_the_package_asks_for_the_same_versions_as_the_import():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"trl{TRL_VERSIONS}" in project["optional-dependencies"]["trl"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_p": 0.9}, "top_p=0.9, expected 1.0"),
        ({"scale_rewards": "batch"}, "scale_rewards='batch', expected 'group' or 'none'"),
        ({"loss_type": "vespo"}, "loss_type='vespo'"),
        ({"mask_truncated_completions": True}, "mask_truncated_completions=True, expected False"),
        ({"generation_kwargs": {"top_p": 0.1}}, "generation_kwargs={'top_p': 0.1}, expected None"),
    ],
)
def test_settings_without_meaning_are_refused(make_student, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        SteerGRPOTrainer(make_env(), Learner(), make_student(), arguments(tmp_path, **settings))
    with pytest.raises(ValueError, match="credit='turn', expected one of"):
        SteerGRPOTrainer(make_env(), Learner(), make_student(), arguments(tmp_path), credit="turn")


def test_the_example_of_the_documentation_runs(make_student, tmp_path, monkeypatch):
    make_student().save(tmp_path / "tiny-sft")  # a folder of that name goes before the shipped student
    text = (ROOT / "docs/trl.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    for shown, smaller in (("=50", "=1"), ("=48", "=2"), ("=24", "=6")):
        assert shown in example
        example = example.replace(shown, smaller)
    monkeypatch.chdir(tmp_path)
    example = example.replace(
        'GRPOConfig("runs/trl", ', 'GRPOConfig("runs/trl", use_cpu=True, report_to="none", '
    )
    names = {}
    exec(compile(example, "docs/trl.md", "exec"), names)
    assert HFStudent.from_pretrained(tmp_path / "runs/trl/checkpoint-1").model is not names["student"].model
