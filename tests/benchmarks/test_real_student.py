"""`benchmarks/real_student` runs through with a tiny model, stops at its limit, and goes on."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from benchmarks.real_student import __main__ as real
from benchmarks.real_student import stages
from benchmarks.real_student.words import Words, learn_words
from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.pretraining import GateFailed, frozen_vision
from steer_env.configs.sft import Gate, SFTConfig
from steer_env.models.tiny import TinyConfig, build, save
from steer_env.world.play import all_texts

QUICK = SFTConfig(steps=1, batch_size=2)


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setattr(real, "SEE", replace(QUICK, optimizer="muon"))
    monkeypatch.setattr(real, "SEEN", Gate(count=2))
    base = tuple(
        replace(phase, settings=QUICK, gate=Gate(count=2), extensions=0) for phase in real.CONFIG.base
    )
    grpo = replace(real.CONFIG.grpo, steps=1, seeds_per_step=1, group_size=2, max_new_tokens=4)
    made = replace(real.CONFIG, base=base, sft=QUICK, sft_dialogues=8, grpo=grpo, grpo_turns=2)
    monkeypatch.setattr(real, "MORE", made)
    monkeypatch.setattr(
        stages, "LORA", replace(stages.LORA, lora_rank=2, lora_targets="layers.1.mlp.up_proj")
    )
    return made


@pytest.fixture
def model(tmp_path):
    save(*build(all_texts(pretrain=True), TinyConfig(vocab_size=600)), tmp_path / "tiny")
    return tmp_path / "tiny"


def weights(folder, vision):
    student = HFStudent.from_pretrained(folder)
    seeing = {id(p) for p in student.decoder.adapter.vision.parameters()}
    return [p.detach().clone() for p in student.model.parameters() if (id(p) in seeing) == vision]


def _changed(a, b):
    """Names of the weights in which two folders differ."""
    one, other = (dict(HFStudent.from_pretrained(folder).model.named_parameters()) for folder in (a, b))
    return {name for name, weight in one.items() if not torch.equal(weight, other[name])}


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_it_stops_at_its_limit_and_goes_on_to_the_end(config, model, tmp_path, monkeypatch):
    evaluated = []
    monkeypatch.setattr(real, "_evaluate", lambda name, *_: evaluated.append(name))
    out, results = tmp_path / "out", tmp_path / "results"
    first = real.run(model, out, results, config, hours=1e-9, episodes=2)
    assert first["ended"] == "1e-09 core hours are spent" and not evaluated
    done = real.run(model, out, results, config, hours=1, episodes=2)
    assert done["ended"] == "finished" and evaluated == ["sft", "base", "sft", "grpo"]
    assert set(done["core_seconds"]) >= {"see", "base", "sft", "more", "grpo"}
    assert sum(done["core_seconds"].values()) > sum(first["core_seconds"].values()) > 0
    assert [entry["phase"] for entry in done["seen"]] == ["tower", "short"]
    assert "| tower, 1 steps |" in real.table(done)
    # First the tower alone learns, then everything but the tower.
    seen = list(torch.load(out / "see" / "words.pt")["weights"].values())
    assert same(seen, weights(out / "base" / "model", True)) and not same(seen, weights(model, True))
    for stage in ("base", "sft", "more", "grpo"):
        assert same(seen, weights(out / stage / "model", True))
    assert not same(weights(model, False), weights(out / "base" / "model", False))
    changed = [_changed(out / a / "model", out / b / "model") for a, b in (("sft", "more"), ("base", "sft"))]
    assert len(changed[0]) == 1 and "layers.1.mlp.up_proj" in changed[0].pop()  # adapters, merged
    assert len(changed[1]) > 1


def test_stage_three_ends_with_its_seconds_and_goes_on(config, model, tmp_path):
    settings = replace(config, grpo=replace(config.grpo, steps=5))
    steps = []

    def progress(done, total, row):
        steps.append(done)

    stages.tutored(model, tmp_path / "grpo", settings, 0.0, progress)
    assert steps == [1] and (tmp_path / "grpo" / "model" / "model.safetensors").exists()
    stages.tutored(model, tmp_path / "grpo", settings, 0.0, progress)
    assert steps == [1, 2]


def test_dialogues_are_shown_side_by_side(tmp_path):
    turn = {"user": "Which mark?", "reply": "A round dot.", "verdict": {"rationale": "right answer"}}
    for name in ("base", "sft"):
        folder = tmp_path / "eval" / name
        folder.mkdir(parents=True)
        rows = [{"seed": seed, "group": "g", "cell": f"cell {seed}", "turns": [turn]} for seed in (1, 0)]
        (folder / "dialogues.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = real._dialogues(tmp_path)
    assert [at for at in ("## base", "## sft", "## grpo") if at in text] == ["## base", "## sft"]
    assert text.index("cell 0") < text.index("cell 1") and "*right answer*" in text


def test_a_gate_that_is_missed_is_the_result(config, model, tmp_path, monkeypatch):
    monkeypatch.setattr(real, "SEEN", Gate(noun=1.0, mark=1.0, count=8))
    result = real.run(model, tmp_path / "out", tmp_path / "results", config, hours=1, episodes=2)
    assert result["ended"].startswith("the tower ended with noun=") and len(result["seen"]) == 1


def test_the_tower_learns_on_where_it_was_stopped_and_no_longer_than_it_has_to(model, tmp_path):
    def learn(folder, gate, stop=None):
        student = HFStudent.from_pretrained(model)
        for parameter in student.model.parameters():
            parameter.requires_grad_(False)
        done = []

        def progress():
            done.append(1)
            if len(done) == stop:
                raise KeyboardInterrupt

        with frozen_vision(student, False), suppress(KeyboardInterrupt, GateFailed):
            learn_words(student, settings, gate, folder, progress)
        return len(done), [p.detach() for p in student.decoder.adapter.vision.parameters()]

    settings = SFTConfig(steps=30, batch_size=2, optimizer="muon")
    blind = Gate(noun=1.0, count=4)
    whole = learn(tmp_path / "whole", blind)
    assert learn(tmp_path / "parts", blind, stop=27)[0] == 27
    rest = learn(tmp_path / "parts", blind)
    assert (whole[0], rest[0]) == (30, 5) and same(whole[1], rest[1])
    assert learn(tmp_path / "enough", Gate(count=4))[0] == 25


def test_words_stand_in_their_placeholders(model):
    student = HFStudent.from_pretrained(model)
    replies = [" blue drum in the middle a round dot", " green kite on the left a zigzag mark"]
    words = Words(student, replies, slots=2)
    embedding = student.model.get_input_embeddings().weight
    encode = student.codec.tokenizer.encode
    for reply, rows in zip(replies, words.targets(replies), strict=True):
        colour, noun, _, _, place, _, _, mark = reply.split()
        for thing, word in enumerate((colour, noun, place, mark)):
            last = embedding[encode(f" {word}", add_special_tokens=False)[-1]]
            assert torch.equal(words.rows_VH[rows[2 * thing + 1]], last)


def test_rates_that_hang_on_unscored_turns_are_shown_as_bounds():
    bounds = {"value": None, "bounds": [0.25, 0.5], "low": 0.125, "high": 0.75, "n": 4}
    assert real._cell(bounds) == "25.0..50.0 [12.5, 75.0]"
    assert real._cell({"value": None, "bounds": None, "low": None, "high": None}) == "-"


def test_the_table_shows_controls_under_their_run():
    estimate = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}
    row = dict.fromkeys(real.MEASURES, estimate)
    result = {"student": "m", "core_seconds": {"see": 1800.0}, "ended": "finished", "seen": []}
    lines = real.table({**result, "runs": {"sft": {"itself": row, "blind": row}}}).splitlines()
    assert lines[0] == "m: 0.50 core hours; ended: finished"
    assert lines[-2].startswith("| sft | 4 | 50.0 [25.0, 75.0] |") and lines[-1].startswith(
        "| sft, blind | 4 |"
    )
