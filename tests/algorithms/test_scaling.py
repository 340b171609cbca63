import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from kit.training import SMALL, same, timeless, weights
from steer_env.agents.hf import HFStudent
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.checkpoints import checkpoints
from steer_env.algorithms.forward import adapters_off, autocast, has_adapters, prepare, prepared, save_merged
from steer_env.algorithms.trainer import train
from steer_env.configs.train import Scaling
from steer_env.models.adapters import adapters, base_state
from steer_env.models.tiny import load

LORA = Scaling(lora_rank=2)


@pytest.fixture
def trained(make_vec, make_student, learner, tmp_path):
    """Train two steps with some scaling; returns the student and the rows."""

    def run(scaling=None, name="grpo", **options):
        student = make_student()
        learner.dialogues = 0
        config = dataclasses.replace(SMALL, steps=2)
        folder = tmp_path / f"{name}-{scaling}"
        rows = train(
            make_vec(), learner, student, make_algorithm(name), config, folder, scaling=scaling, **options
        )
        return student, rows, folder

    return run


def test_recomputing_activations_changes_nothing(trained):
    plain, rows, _ = trained()
    frugal, frugal_rows, _ = trained(Scaling(gradient_checkpointing=True))
    assert any(getattr(m, "gradient_checkpointing", False) for m in frugal.model.modules())
    assert not frugal.model.training
    assert same(weights(plain), weights(frugal))
    assert timeless(rows) == timeless(frugal_rows)


def test_dropout_in_attention_is_refused_with_checkpointing(make_vec, make_student, learner, tmp_path):
    student = make_student()
    student.model.config.get_text_config().attention_dropout = 0.1
    with pytest.raises(ValueError, match=r"attention_dropout=0.1, expected 0 with gradient_checkpointing"):
        prepare(student, Scaling(gradient_checkpointing=True), 0)


def test_bf16_runs_forward_in_bfloat16_and_keeps_float32_weights(trained, make_student):
    student, rows, _ = trained(Scaling(precision="bf16"))
    plain, plain_rows, _ = trained()
    assert all(p.dtype == torch.float32 for p in student.model.parameters())
    assert not same(weights(student), weights(plain))
    assert rows[0]["logprob_gap_max"] < 0.05
    assert rows[0]["loss"] == pytest.approx(plain_rows[0]["loss"], abs=0.05)
    seen = []
    layer = student.model.model.language_model.layers[0].mlp.up_proj
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with autocast(Scaling(precision="bf16"), torch.device("cpu")):
        layer(torch.zeros(1, layer.in_features))
    assert seen == [torch.bfloat16]


def test_lora_trains_adapters_only_and_the_reference_is_the_model_without_them(trained, make_student):
    student, rows, _ = trained(LORA)
    names = {n for n, p in student.model.named_parameters() if p.requires_grad}
    assert names and all("lora_" in name for name in names)
    base = weights(make_student())
    now = {name.replace(".base_layer", ""): value for name, value in weights(student).items()}
    assert all(torch.equal(now[name], value) for name, value in base.items())
    assert any(value.abs().sum() > 0 for name, value in now.items() if "lora_B" in name)
    assert rows[0]["kl"] < rows[1]["kl"]
    with adapters_off(student.model):
        assert greedy(student) == greedy(make_student())


def greedy(student):
    """Log-probabilities of the first token of a reply, as plain numbers."""
    ids = torch.arange(10, 20)[None]
    with torch.no_grad():
        return student.model(input_ids=ids).logits[0, -1].tolist()


def test_merged_weights_are_an_ordinary_folder_that_answers_alike(trained, tmp_path):
    student, _, folder = trained(LORA)
    before = weights(student)
    save_merged(student, tmp_path / "merged")
    assert same(before, weights(student))
    merged = HFStudent(*load(tmp_path / "merged"))
    assert not any("lora" in name for name in merged.model.state_dict())
    assert torch.tensor(greedy(merged)) == pytest.approx(torch.tensor(greedy(student)), abs=1e-5)
    saved = checkpoints(folder)[-1]
    assert (saved / "adapter_model.safetensors").exists()
    assert not (saved / "model.safetensors").exists()


def test_an_engine_gets_the_weights_without_the_adapters_and_the_adapters_without_the_weights(
    make_student, trained
):
    student, *_, folder = trained(LORA)
    start = make_student().model.state_dict()
    base = base_state(student.model)
    assert base.keys() == start.keys() and all(torch.equal(base[name], start[name]) for name in start)
    config, state = adapters(student.model)
    file = load_file(checkpoints(folder)[-1] / "adapter_model.safetensors")
    assert config.r == LORA.lora_rank and state.keys() == file.keys()
    assert all(torch.equal(state[name], file[name]) for name in file)


def test_an_engine_gets_one_set_of_adapters(make_student):
    peft = pytest.importorskip("peft")
    model = make_student().model
    with pytest.raises(ValueError, match=r"active adapters are \[\], expected one"):
        adapters(model)
    for name in ("one", "two"):
        model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"]), adapter_name=name)
    model.set_adapter(["one", "two"])
    with pytest.raises(ValueError, match=r"active adapters are \['one', 'two'\], expected one"):
        adapters(model)


@pytest.mark.parametrize("options", [{"bias": "all"}, {"modules_to_save": ["o_proj"]}])
def test_what_learns_beside_adapters_is_not_kept_from_an_engine(make_student, options):
    peft = pytest.importorskip("peft")
    model = make_student().model
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], **options)).base_model
    for handed in (adapters, base_state):
        with pytest.raises(ValueError, match=r"weight '\S*(bias|modules_to_save)\S*' learns beside"):
            handed(model.model)


def test_a_killed_lora_run_resumes_to_the_same_weights(check_resumption, make_vec, learner):
    def run(student, folder, **options):
        learner.dialogues = 0
        algorithm = make_algorithm("ppo")
        return train(make_vec(), learner, student, algorithm, SMALL, folder, scaling=LORA, **options)

    check_resumption(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "precision='fp8', expected one of 'float32', 'bf16'"),
        ({"lora_rank": -1}, "lora_rank=-1, expected an integer of at least 0"),
        ({"lora_alpha": 0.0}, "lora_alpha=0.0, expected a finite number above 0"),
        ({"gradient_checkpointing": 1}, "gradient_checkpointing=1, expected True or False"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Scaling(**options)


@pytest.mark.parametrize("layers", ["nowhere", "q_proj,norm"])
def test_layers_that_cannot_be_adapted_are_refused_and_the_model_stays_as_it_was(make_student, layers):
    student = make_student()
    before = weights(student)
    with pytest.raises(ValueError, match=layers.split(",")[-1].title() if "," in layers else layers):
        prepare(student, Scaling(lora_rank=2, lora_targets=layers), 0)
    assert not has_adapters(student.model) and same(before, weights(student))
    assert all(p.requires_grad for p in student.model.parameters())
    prepare(student, LORA, 0)
    assert all(p.requires_grad is ("lora_" in name) for name, p in student.model.named_parameters())


def test_adapters_that_were_there_before_a_training_are_there_after_it(make_student):
    student = make_student()
    prepare(student, LORA, 0)
    before = weights(student)
    with prepared(student, LORA, 1):
        pass
    assert has_adapters(student.model) and same(before, weights(student))


def test_random_state_is_left_alone(make_student):
    state = torch.get_rng_state()
    prepare(make_student(), LORA, 0)
    assert torch.equal(state, torch.get_rng_state())


def test_adapters_are_opened_from_another_folder_than_they_were_trained_in(
    make_student, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    make_student().save(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    student = HFStudent.from_pretrained("base")
    prepare(student, LORA, 0)
    student.save("adapters")
    assert (tmp_path / "adapters" / "adapter_config.json").is_file()
    monkeypatch.chdir(tmp_path / "elsewhere")
    opened = HFStudent.from_pretrained("../adapters")
    assert any("lora_" in name for name in opened.model.state_dict())
