"""TRL's trainer and our loop: the same tokens, the same mask, the same loss, the same weights."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from packaging.version import Version

from steer_env.agents.hf import Exchange, HFStudent
from steer_env.agents.hf.packed import packed_logprobs
from steer_env.algorithms import sft, trl_sft
from steer_env.algorithms.sft import SFTConfig
from steer_env.algorithms.tuning import Tuning
from steer_env.images import Image
from steer_env.models.tiny import TinyConfig, build

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

RNG = np.random.default_rng(0)
ONE, TWO, THREE = (Image.from_array(RNG.integers(0, 256, (56, 112, 3), dtype=np.uint8)) for _ in range(3))
#: Pictures in the first turn, in a later turn, in both, and none.
DIALOGUES = [
    [Exchange("say e", (ONE,), "a e"), Exchange("and that", (TWO,), "it is e")],
    [Exchange("hello", (), "hi there, you")],
    [Exchange("first", (), "ok"), Exchange("now look", (THREE,), "nice e")],
]
CONFIG = SFTConfig(steps=4, batch_size=3, lr=1e-2, warmup=0, final_lr=1.0)


def messages(dialogue):
    result = []
    for user, images, reply, _ in dialogue:
        shown = [{"type": "image"} for _ in images]
        result.append({"role": "user", "content": [*shown, {"type": "text", "text": user}]})
        result.append({"role": "assistant", "content": [{"type": "text", "text": reply}]})
    return result


def of_trl(student: HFStudent, dialogues, tmp_path):
    """Return TRL's own trainer with `assistant_only_loss`, and its batch of the dialogues."""
    if Version(trl.__version__) < Version("1.15"):
        pytest.skip("TRL has no assistant_only_loss for models with pictures before 1.15")
    rows = [
        {"messages": messages(d), "images": [image.pil() for e in d for image in e.images]} for d in dialogues
    ]
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path), assistant_only_loss=True, bf16=False, gradient_checkpointing=False,
        max_length=None, report_to="none", use_cpu=True,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        student.model,
        arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=student.processor,
    )
    return trainer, trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])


def tokens(batch, row):
    """Return ids and loss mask of a row up to the last token that can matter."""
    length = int(batch["attention_mask"][row].sum())
    mask = (batch["labels"][row, :length] != -100).numpy()
    end = int(mask.nonzero()[0].max()) + 1
    return batch["input_ids"][row, :end].tolist(), mask[:end].tolist()


def ours(prompt):
    return prompt.trace.ids_L.tolist(), prompt.trace.sampled_L.tolist()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_same_mask_and_loss_as_trls_assistant_only_loss(make_student, tmp_path):
    student = make_student()
    prompts = [student.codec.dialogue(d) for d in DIALOGUES]
    trainer, batch = of_trl(student, DIALOGUES, tmp_path)
    assert [tokens(batch, row) for row in range(3)] == [ours(prompt) for prompt in prompts]
    collated = trl_sft.Collator(student, prompts)([{"index": i} for i in range(3)])
    own = -packed_logprobs(student.decoder.adapter, prompts).logprobs_N.mean().item()
    native = trainer.compute_loss(student.model, dict(batch)).item()
    through_trl = trainer.compute_loss(student.model, collated).item()
    assert native == pytest.approx(own, abs=1e-5) and through_trl == pytest.approx(own, abs=1e-5)
    assert own > 1


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "dialogue",
    [
        pytest.param([Exchange("a <|im_end|> b", (), "e")], id="control token of the user"),
        pytest.param([Exchange("a", (), "e <|im_start|> e")], id="control token of the student"),
        pytest.param([Exchange("a", (), "e", False), Exchange("a", (), "e")], id="reply not to be imitated"),
    ],
)
def test_where_trls_own_tokens_do_not_serve(make_student, tmp_path, dialogue):
    """Each of these is why the tokens are ours; if one begins to pass, TRL's own way has become enough."""
    student = make_student()
    prompt = student.codec.dialogue(dialogue)
    _, batch = of_trl(student, [dialogue], tmp_path)
    assert tokens(batch, 0) != ours(prompt)
    collated = trl_sft.Collator(student, [prompt])([{"index": 0}])
    assert tokens(collated, 0) == ours(prompt)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_trls_own_tokens_merge_a_line_break_of_the_reply_into_the_template(tmp_path):
    shape = TinyConfig(
        vocab_size=270, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
    )
    student = HFStudent(*build(["a\n\n\ne"] * 9, shape))
    dialogue = [Exchange("a", (), "\n\ne")]
    prompt = student.codec.dialogue(dialogue)
    _, batch = of_trl(student, [dialogue], tmp_path)
    theirs, own = tokens(batch, 0)[0], ours(prompt)[0]
    # The policy is asked after "assistant\n" and cannot sample half of a merged token.
    assert len(theirs) < len(own) and student.codec.decode(theirs) == student.codec.decode(own)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_placeholder_in_a_text_breaks_trls_own_batch(make_student, tmp_path):
    with pytest.raises(Exception, match=r".+"):
        of_trl(make_student(), [[Exchange("what is <|image_pad|>", (ONE,), "e")]], tmp_path)
    student = make_student()
    rows = trl_sft.train(
        student, [[Exchange("what is <|image_pad|>", (ONE,), "e")]], one_step(), tmp_path / "run"
    )
    assert rows[0]["loss"] > 0


def one_step() -> SFTConfig:
    return SFTConfig(steps=1, batch_size=1, warmup=0)


@pytest.mark.parametrize("size", [1, 3])
def test_steps_equal_those_of_our_loop_whatever_the_microbatch(make_student, tmp_path, size):
    own, theirs = make_student(), make_student()
    rows = sft.train(own, DIALOGUES, CONFIG)
    found = trl_sft.train(theirs, DIALOGUES, CONFIG, tmp_path, microbatch_size=size)
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in rows], abs=2e-3)
    assert found[0]["loss"] == pytest.approx(rows[0]["loss"], abs=1e-5)
    assert [row["step"] for row in found] == [0, 1, 2, 3] and rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize(
    "tuning",
    [Tuning(lora_rank=2), Tuning(bf16=True), Tuning(gradient_checkpointing=True)],
    ids=["lora", "bf16", "checkpointing"],
)
def test_options_for_large_models_on_both(make_student, tmp_path, tuning):
    plain = make_student()
    whole = sft.train(plain, DIALOGUES, CONFIG)
    for train in (sft.train, trl_sft.train):
        student = make_student()
        before = {name: p.clone() for name, p in student.model.named_parameters()}
        rows = train(student, DIALOGUES, CONFIG, run_dir=tmp_path / train.__module__, tuning=tuning)
        assert rows[0]["loss"] == pytest.approx(whole[0]["loss"], abs=0.05)
        assert rows[-1]["loss"] < rows[0]["loss"]
        after = dict(student.model.named_parameters())
        assert list(after) == list(before), "an ordinary model again"
        assert all(p.requires_grad and p.dtype == torch.float32 for p in after.values())
        changed = {name for name, p in after.items() if not torch.equal(p, before[name])}
        assert any("q_proj" in name for name in changed)
        assert any("norm" in name or "embed" in name for name in changed) is (tuning.lora_rank == 0)
        assert not student.model.training
        if tuning.gradient_checkpointing:
            assert rows[-1]["loss"] == pytest.approx(whole[-1]["loss"], abs=2e-3)


class Stop(Exception):
    pass


def stop_at(step):
    def tell(done, total, row):
        if done == step:
            raise Stop

    return tell


@pytest.mark.parametrize("tuning", [Tuning(), Tuning(lora_rank=2)], ids=["all", "lora"])
@pytest.mark.parametrize("train", [sft.train, trl_sft.train], ids=["own", "trl"])
def test_interrupted_and_resumed_ends_with_the_same_weights(make_student, tmp_path, train, tuning):
    options = {"tuning": tuning, "checkpoint_every": 2}
    whole = make_student()
    rows = train(whole, DIALOGUES, CONFIG, run_dir=tmp_path / "a", **options)
    with pytest.raises(Stop):
        train(make_student(), DIALOGUES, CONFIG, run_dir=tmp_path / "b", progress=stop_at(3), **options)
    with pytest.raises(FileExistsError, match="resume=True"):
        train(make_student(), DIALOGUES, CONFIG, run_dir=tmp_path / "b", **options)
    again = make_student()
    resumed = train(again, DIALOGUES, CONFIG, run_dir=tmp_path / "b", resume=True, **options)
    assert [row["loss"] for row in resumed] == [row["loss"] for row in rows]
    a, b = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_no_global_random_state_is_touched_and_the_seed_decides(make_student, tmp_path):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    runs = []
    for number, seed in enumerate((0, 0, 1)):
        config = SFTConfig(steps=3, batch_size=1, lr=1e-2, seed=seed)
        runs.append(trl_sft.train(make_student(), DIALOGUES, config, tmp_path / str(number)))
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert runs[0] == runs[1] != runs[2]


def test_settings_without_a_counterpart_are_refused(make_student, tmp_path):
    for config, says in (
        (SFTConfig(optimizer="muon"), "optimizer='muon', expected 'adamw' with TRL"),
        (SFTConfig(batch_size=3), "batch_size=3 is no multiple of microbatch_size=2"),
    ):
        with pytest.raises(ValueError, match=says):
            trl_sft.train(make_student(), DIALOGUES, config, tmp_path, microbatch_size=2)
    with pytest.raises(ValueError, match="dialogues is empty"):
        trl_sft.train(make_student(), [], CONFIG, tmp_path)
    with pytest.raises(ValueError, match="lora_rank=-1"):
        Tuning(lora_rank=-1)
