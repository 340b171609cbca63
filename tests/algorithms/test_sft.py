import doctest

import numpy as np
import pytest
import torch

from steer_env.agents.hf import Exchange
from steer_env.algorithms import sft
from steer_env.algorithms.sft import batches, make_optimizers, train
from steer_env.configs.sft import SFTConfig
from steer_env.configs.train import Scaling
from steer_env.images import Image
from steer_env.types import USER, Message


def solid(colour):
    return Image.from_array(np.full((56, 56, 3), colour, np.uint8))


DARK, LIGHT = solid(20), solid(230)
DIALOGUES = [
    [Exchange("say e", (DARK,), "dark"), Exchange("more", (), "e")],
    [Exchange("say e", (LIGHT,), "light"), Exchange("more", (), "e")],
    [Exchange("hello", (), "e e")],
]


def test_examples_in_docstrings():
    assert doctest.testmod(sft).failed == 0


def test_learns_replies_and_the_picture_decides(make_student):
    student = make_student()
    rows = train(student, DIALOGUES, SFTConfig(steps=120, batch_size=3, lr=1e-2, warmup=5))
    assert rows[-1]["loss"] < 0.05 < 1 < rows[0]["loss"]
    student.temperature, student.max_new_tokens = 0.0, 8
    looks = [{"images": (image,), "transcript": (Message(USER, "say e", 1),)} for image in (DARK, LIGHT)]
    assert student.act(looks) == ["dark", "light"]


def test_deterministic_and_seed_decides(make_student):
    runs = []
    for seed in (0, 0, 1):
        student = make_student()
        rows = train(student, DIALOGUES, SFTConfig(steps=5, batch_size=2, seed=seed))
        runs.append((student.model.state_dict(), [row["loss"] for row in rows]))
    assert runs[0][1] == runs[1][1] != runs[2][1]
    assert all(torch.equal(runs[0][0][k], runs[1][0][k]) for k in runs[0][0])


def test_muon_gets_the_matrices_of_layers_and_nothing_else(make_student):
    model = make_student().model
    adamw, muon = make_optimizers(model, SFTConfig(optimizer="muon", lr=1e-3, muon_lr=2e-2))
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def of(optimizer):
        return {names[id(p)] for group in optimizer.param_groups for p in group["params"]}

    assert of(adamw) | of(muon) == set(names.values())
    assert not of(adamw) & of(muon)
    assert not any("embed" in name or "norm" in name or "bias" in name for name in of(muon))
    assert any("visual" in name for name in of(muon))
    peaks = [group["peak_lr"] for optimizer in (adamw, muon) for group in optimizer.param_groups]
    assert peaks == [1e-3, 2e-2]


def test_muon_learns(make_student):
    rows = train(make_student(), DIALOGUES, SFTConfig(steps=80, batch_size=3, optimizer="muon", lr=1e-2))
    assert rows[-1]["loss"] < 0.2 < rows[0]["loss"]
    with pytest.raises(ValueError, match="optimizer='sgd', expected one of 'adamw', 'muon'"):
        SFTConfig(optimizer="sgd")


def test_user_tokens_carry_no_loss(make_student):
    student = make_student()
    a = [Exchange("say e", (), "e")]
    b = student.codec.dialogue(a)
    user = ~b.trace.sampled_L
    assert student.codec.tokenizer.decode(b.trace.ids_L[~user]) == "e<|im_end|>"
    rows = train(student, [a], SFTConfig(steps=1, batch_size=1))
    assert rows[0]["tokens"] == 2


def test_weights_that_lose_small_updates_are_refused(make_student):
    student = make_student()
    student.model.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"dtype=torch.bfloat16, expected torch.float32"):
        train(student, DIALOGUES, SFTConfig(steps=1))
    student.model.requires_grad_(False)  # frozen weights may be of any type
    student.check_trainable()


def test_every_example_once_per_pass_and_like_lengths_together(make_student):
    codec = make_student().codec
    examples = [
        codec.dialogue([Exchange("a" * n, (), "e")]) for n in np.random.default_rng(0).integers(1, 60, 50)
    ]
    stream = batches(examples, 8, seed=1)
    one_pass = [next(stream) for _ in range(7)]
    assert sorted(id(e) for batch in one_pass for e in batch) == sorted(map(id, examples))
    padding = sum(max(len(e.trace) for e in b) * len(b) for b in one_pass) / sum(
        len(e.trace) for e in examples
    )
    assert padding < 1.2
    assert [id(e) for b in [next(stream) for _ in range(7)] for e in b] != [
        id(e) for b in one_pass for e in b
    ]


def test_progress_and_bad_input(make_student):
    seen = []
    student = make_student()
    train(student, DIALOGUES, SFTConfig(steps=3, batch_size=2), progress=lambda *a: seen.append(a[:2]))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(ValueError, match="dialogues is empty"):
        train(student, [], SFTConfig())
    with pytest.raises(ValueError, match="steps=0"):
        SFTConfig(steps=0)
    for change in (
        {"batch_size": 1.5}, {"lr": float("nan")}, {"lr": 0.0}, {"muon_lr": float("inf")}, {"warmup": -1},
        {"final_lr": 2.0}, {"weight_decay": -0.1}, {"max_grad_norm": float("nan")}, {"microbatch_tokens": 0},
        {"seed": -1},
    ):  # fmt: skip
        ((name, value),) = change.items()
        with pytest.raises(ValueError, match=f"{name}={value}, expected"):
            SFTConfig(**change)
    with pytest.raises(ValueError, match=r"exchanges=\[\]"):
        train(student, [[]], SFTConfig(steps=1))


SHORT = SFTConfig(steps=4, batch_size=3, lr=1e-2, warmup=1)


@pytest.mark.parametrize(
    "scaling",
    [Scaling(lora_rank=2), Scaling(precision="bf16"), Scaling(gradient_checkpointing=True)],
    ids=["lora", "bf16", "checkpointing"],
)
def test_options_for_large_models_leave_an_ordinary_model(make_student, scaling):
    plain = train(make_student(), DIALOGUES, SHORT)
    student = make_student()
    before = {name: p.clone() for name, p in student.model.named_parameters()}
    rows = train(student, DIALOGUES, SHORT, scaling=scaling)
    assert rows[0]["loss"] == pytest.approx(plain[0]["loss"], abs=0.05)
    assert rows[-1]["loss"] < rows[0]["loss"]
    after = dict(student.model.named_parameters())
    assert list(after) == list(before)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in after.values())
    changed = {name for name, p in after.items() if not torch.equal(p, before[name])}
    assert any("q_proj" in name for name in changed)
    assert any("norm" in name or "embed" in name for name in changed) is (scaling.lora_rank == 0)
    assert not student.model.training
    if scaling.gradient_checkpointing:
        assert rows[-1]["loss"] == pytest.approx(plain[-1]["loss"], abs=2e-3)


@pytest.mark.parametrize("scaling", [Scaling(), Scaling(lora_rank=2)], ids=["all", "lora"])
def test_interrupted_and_resumed_ends_with_the_same_weights(make_student, tmp_path, scaling):
    class Stop(Exception):
        pass

    def stop(done, total, row):
        if done == 3:
            raise Stop

    options = {"scaling": scaling, "checkpoint_every": 2}
    whole, again = make_student(), make_student()
    rows = train(whole, DIALOGUES, SHORT, run_dir=tmp_path / "a", **options)
    with pytest.raises(Stop):
        train(make_student(), DIALOGUES, SHORT, run_dir=tmp_path / "b", progress=stop, **options)
    with pytest.raises(FileExistsError, match="resume=True"):
        train(make_student(), DIALOGUES, SHORT, run_dir=tmp_path / "b", **options)
    resumed = train(again, DIALOGUES, SHORT, run_dir=tmp_path / "b", resume=True, **options)
    assert [row["loss"] for row in resumed] == [row["loss"] for row in rows]
    a, b = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_dialogue_weighs_the_same_however_long_its_replies(make_student):
    """The gradient is that of the mean over dialogues of each one's mean loss, over whatever microbatches."""
    losses, gradients = [], []
    for group in ([d] for d in DIALOGUES):
        student = make_student()
        losses.append(train(student, group, SFTConfig(steps=1, batch_size=1))[0]["loss"])
    for tokens in (2048, 1):
        student = make_student()
        config = SFTConfig(steps=1, batch_size=3, per_dialogue=True, microbatch_tokens=tokens)
        batch = [student.codec.dialogue(d) for d in DIALOGUES]
        value, _ = sft._accumulate(student.decoder.adapter, batch, config, Scaling())
        assert value == pytest.approx(np.mean(losses), rel=1e-4)
        gradients.append(student.model.get_input_embeddings().weight.grad.clone())
    assert torch.allclose(*gradients, atol=1e-5)
    by_token, _ = sft._accumulate(make_student().decoder.adapter, batch, SFTConfig(), Scaling())
    lengths = [int(e.trace.sampled_L.sum()) for e in batch]
    assert by_token == pytest.approx(np.average(losses, weights=lengths), rel=1e-4) != value
