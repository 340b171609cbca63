"""TRL's trainer and our formulas: the same dialogues, the same loss, the same gradient."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from steer_env.agents.hf import HFStudent, ModelAdapter, packed_logprobs
from steer_env.agents.hf.codec import Prompt
from steer_env.algorithms.advantages import loss_mask
from steer_env.algorithms.losses import clipped_policy_loss, kl_penalty, loss_weights, weighted_sum
from steer_env.images import Image
from steer_env.scenarios import FixedScenarios, Scenario, SeedTurn
from steer_env.vector import VectorDialogueEnv

from .conftest import Learner, LetterJudge, Rewarded

trl = pytest.importorskip("trl")
from steer_env.algorithms.trl_grpo import (  # noqa: E402
    SteerGRPOTrainer,
    check_version,
    turn_advantages,
)

RNG = np.random.default_rng(0)
ONE, TWO, THREE = (Image.from_array(RNG.integers(0, 256, (56, 112, 3), dtype=np.uint8)) for _ in range(3))
#: Pictures in the first and the second turn, in the second only, and none.
SCENARIOS = FixedScenarios(
    [
        Scenario((SeedTurn("say e", images=(0,)), SeedTurn("and that", images=(1,))), images=(ONE, TWO)),
        Scenario((SeedTurn("hello"), SeedTurn("look", images=(0,)), SeedTurn("so")), images=(THREE,)),
        Scenario((SeedTurn("no picture"),)),
    ]
)

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
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def own_loss(student, start, played, per_turn, beta, temperature, low, high):
    """The loss of the same dialogues out of the library's formulas; advantages written out by hand."""
    dialogues = [Prompt(t.trace, t.scenario.images[: t.trace.images]) for t in played]
    forbidden = student.decoder.forbidden
    packed = packed_logprobs(student.decoder.adapter, dialogues, temperature=temperature, forbidden=forbidden)
    masks = [loss_mask(t.trace, t.scored) for t in played]
    advantages = []
    for g in range(0, len(played), 3):
        # Every seed has one length, all turns are scored here.
        rewards = np.array([t.rewards for t in played[g : g + 3]])
        worth = (
            rewards[:, ::-1].cumsum(1)[:, ::-1] if per_turn else rewards.sum(1, keepdims=True) + 0 * rewards
        )
        for t, row in zip(played[g : g + 3], worth - worth.mean(0), strict=True):
            advantages.append(np.append(row, 0.0)[t.trace.turn_L])
    mask_N = packed.gather(masks).bool()
    old_N = packed.gather([t.trace.logprobs_L for t in played])
    weights_N = loss_weights(mask_N, packed.rows_N, "token")
    policy_N, _ = clipped_policy_loss(packed.logprobs_N, old_N, packed.gather(advantages), low, high)
    loss = weighted_sum(policy_N, weights_N)
    if beta:
        with torch.no_grad():
            reference = packed_logprobs(
                ModelAdapter(start, student.codec), dialogues, temperature=temperature, forbidden=forbidden
            )
        loss = loss + beta * weighted_sum(kl_penalty(packed.logprobs_N, reference.logprobs_N), weights_N)
    return loss


@pytest.mark.parametrize(
    ("credit", "beta", "accumulate"),
    [("trajectory", 0.0, 1), ("trajectory", 0.1, 3), ("reward_to_go", 0.0, 3), ("reward_to_go", 0.1, 1)],
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
    # The reference is the policy as it was handed over; now move the policy away, for a KL above 0.
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in student.model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    before = {name: value.clone() for name, value in student.model.state_dict().items()}
    trainer.train()
    assert {len(t.scenario.images) for t in trainer.played} == {0, 1, 2}
    after = student.model.state_dict()
    assert any(not torch.equal(after[name], before[name]) for name in before)
    student.model.load_state_dict(before)
    student.model.zero_grad()
    loss = own_loss(student, start, trainer.played, credit == "reward_to_go", beta, temperature, 0.2, 0.28)
    loss.backward()
    assert loss.item() == pytest.approx(sum(trainer.losses), abs=1e-5)
    assert beta == 0 or trainer.state.log_history[0]["kl"] > 1e-4
    own = gradients(student.model)
    assert own.keys() == trainer.gradients.keys()
    for name, value in own.items():
        torch.testing.assert_close(
            trainer.gradients[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert max(float(g.abs().max()) for g in own.values()) > 1e-3


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

    resumed = make_student()
    again = SteerGRPOTrainer(make_env(unscored_every=5), Learner(), resumed, args, seeds=SEEDS)
    again.args.max_steps = 2
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert all(torch.equal(value, after[name]) for name, value in resumed.model.state_dict().items())


def test_the_same_settings_play_the_same_dialogues(make_student, tmp_path):
    texts = []
    for _ in range(2):
        trainer = Spy(make_env(), Learner(), make_student(), arguments(tmp_path), seeds=SEEDS)
        trainer.train()
        texts.append([str(result.turn.reply) for t in trainer.played for result in t.turns])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 3


def test_turns_are_compared_with_siblings_at_the_same_turn():
    # The third turn is the first member's alone; the undefined member takes no part.
    rows = turn_advantages([np.array([6.0, 3.0, 1.0]), np.array([2.0, 1.0]), np.array([np.nan, np.nan])])
    assert [row.tolist() for row in rows] == [[2.0, 1.0, 0.0], [-2.0, -1.0], [0.0, 0.0]]


@pytest.mark.parametrize("version", ["1.15.0", "1.17.0", "2.0.0"])
def test_another_version_is_refused(version):
    check_version("1.16.0")
    check_version("1.16.9")
    with pytest.raises(
        ImportError, match=rf"trl {version} is installed, expected at least 1\.16 and below 1\.17"
    ):
        check_version(version)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_p": 0.9}, "top_p=0.9, expected 1.0"),
        ({"scale_rewards": "batch"}, "scale_rewards='batch', expected 'group' or 'none'"),
        ({"loss_type": "vespo"}, "loss_type='vespo'"),
    ],
)
def test_settings_without_meaning_are_refused(make_student, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        SteerGRPOTrainer(make_env(), Learner(), make_student(), arguments(tmp_path, **settings))
    with pytest.raises(ValueError, match="credit='turn', expected one of"):
        SteerGRPOTrainer(make_env(), Learner(), make_student(), arguments(tmp_path), credit="turn")


def test_the_example_of_the_documentation_runs(make_student, tmp_path, monkeypatch):
    make_student().save(tmp_path / "runs/demo/sft/model")
    text = (Path(__file__).parents[2] / "docs/trl.md").read_text(encoding="utf-8")
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
