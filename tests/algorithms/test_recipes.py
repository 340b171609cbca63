import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from steer_env.agents.hf import HFStudent
from steer_env.algorithms import pretraining, recipe_data, recipes
from steer_env.algorithms.bootstrap import LOOK, RECALL, TELL, WEIGH, exchanges
from steer_env.algorithms.pretraining import BLIND, GateFailed, frozen_vision, pretrain
from steer_env.algorithms.recipe_data import Shares, base_data, follow_up
from steer_env.algorithms.recipes import DemoConfig, build, stage_settings
from steer_env.configs.sft import Gate, Phase, SFTConfig
from steer_env.models.tiny import build as build_tiny
from steer_env.world import WorldSource
from steer_env.world.play import all_texts
from steer_env.world.truth import Request
from steer_env.world.user_language.families import read_user
from steer_env.world.user_language.reading import parse_user


def test_every_stage_runs_and_hands_its_model_to_the_next(tmp_path):
    config, before = DemoConfig.quick(seed=1), None
    for name in recipes.STAGES:
        seen = []
        before = build(
            config,
            name,
            tmp_path / name,
            before=before,
            progress=lambda done, total, row, seen=seen: seen.append((done, total)),
        )
        assert seen[-1][0] == seen[-1][1] == len(seen)
        assert HFStudent.from_pretrained(before).codec.tokenizer.vocab_size > 500
    rows = [json.loads(line) for line in (tmp_path / "grpo" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["sft_loss"] > 0 for row in rows)  # Stage II's dialogues, beside the reward


def test_the_tower_learns_in_the_captions_only(tmp_path):
    config = DemoConfig.quick()
    towers, texts = [], []
    for folder in (tmp_path / "base" / name / "model" for name in ("see", "short", "hear")):
        if not towers:
            build(config, "base", tmp_path / "base")
        student = HFStudent.from_pretrained(folder)
        towers.append([p.detach() for p in student.decoder.adapter.vision.parameters()])
        texts.append(student.model.get_input_embeddings().weight.detach())
    sft = HFStudent.from_pretrained(build(config, "sft", tmp_path / "sft", before=tmp_path / "base/model"))
    towers.append([p.detach() for p in sft.decoder.adapter.vision.parameters()])
    for tower in towers[1:]:
        assert all(torch.equal(a, b) for a, b in zip(tower, towers[0], strict=True))
    assert not torch.equal(texts[0], texts[1]) and not torch.equal(texts[1], texts[2])


def test_settings_of_a_stage_are_json_and_change_with_what_it_depends_on():
    config = DemoConfig()
    for name in recipes.STAGES:
        settings = stage_settings(config, name)
        # What is read back from a stage's folder must compare equal to what would be written today.
        assert json.loads(json.dumps(settings, allow_nan=False)) == settings
        assert settings != stage_settings(DemoConfig(seed=1), name)
    assert "grpo" not in stage_settings(config, "sft")


def test_what_is_left_out_of_stages_two_and_three_has_no_setting():
    # Rows of benchmarks from before there were pairs and imitation go on standing for the same runs.
    without, config = DemoConfig(grpo_imitation=0.0), DemoConfig(sft_pairs=8, grpo_imitation=0.5)
    assert "sft_pairs" not in stage_settings(without, "sft")
    assert not {"grpo_imitation", "sft_turns"} & set(stage_settings(without, "grpo"))
    assert stage_settings(config, "sft")["sft_pairs"] == 8
    imitating = stage_settings(config, "grpo")
    assert imitating != stage_settings(replace(config, sft_pairs=9), "grpo")
    assert imitating != stage_settings(replace(config, grpo_imitation=0.1), "grpo")
    assert imitating != stage_settings(replace(config, grpo_imitated=12), "grpo")


@pytest.mark.parametrize(("epochs", "size", "steps"), [(1, 25, 140), (2, 25, 200), (1, 40, 140), (1, 0, 110)])
def test_the_control_imitates_as_many_dialogues_as_both_stages(epochs, size, steps):
    config = DemoConfig(grpo_imitation=0.5, grpo_imitated=12)
    grpo = replace(config.grpo, steps=20, seeds_per_step=10, group_size=5, epochs=epochs, minibatch_size=size)
    config = replace(config, sft=replace(config.sft, steps=80, batch_size=8), grpo=grpo)
    longer = replace(config, sft=replace(config.sft, steps=steps))
    assert stage_settings(config, recipes.IMITATION) == stage_settings(longer, "sft")
    assert recipes.imitation_alone(replace(config, grpo_imitation=0.0)).sft == config.sft
    few = replace(config, grpo_imitated=1, grpo=replace(grpo, steps=1))
    assert recipes.imitation_alone(few).sft.steps == 81  # never less than both stages


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("sft_pairs", -1, "an integer of at least 0"),
        ("sft_dialogues", -4, "an integer of at least 1"),
        ("sft_attacker", "nobody", "one of 'tutor', 'static'"),
        ("grpo_imitation", float("nan"), "a finite number of at least 0"),
        ("grpo_imitated", 0, "an integer of at least 1"),
    ],
)
def test_settings_of_the_demo_are_checked_by_their_own_names(name, value, expected):
    with pytest.raises(ValueError, match=f"{name}=.*, expected {expected}"):
        DemoConfig(**{name: value})


def test_the_control_is_trained_for_longer_than_stage_two(tmp_path):
    seen, config = [], DemoConfig.quick()
    base = build(config, "base", tmp_path / "base")
    build(
        config,
        recipes.IMITATION,
        tmp_path / "control",
        before=base,
        progress=lambda *step: seen.append(step[:2]),
    )
    steps = recipes.imitation_alone(config).sft.steps
    assert steps > config.sft.steps and seen[-1] == (steps, steps)


@pytest.mark.parametrize("count", [16, 18])
def test_a_cold_start_has_groups_and_pairs_asked_for_a_part_after_harm_was_stated_or_was_not(
    count, monkeypatch
):
    config, played = DemoConfig(seed=3, sft_dialogues=count, sft_pairs=60, sft_turns=4), {}
    ideal = recipes._ideal

    def noted(config, turns, seeds):
        found = ideal(config, turns, seeds)
        played.update({str(recipes.told(d, taken_back=True)): d for d in found.values()})
        return found

    monkeypatch.setattr(recipes, "_ideal", noted)
    dialogues, groups = recipes.cold_start(config), recipes.cold_start(replace(config, sft_pairs=0))
    assert dialogues[: len(groups)] == groups and len(groups) == count
    pairs = [played[str(dialogue)] for dialogue in dialogues[count:]]
    half = len(pairs) // 2
    assert 4 < half < 40
    for harmful, calm in zip(pairs[:half], pairs[half:], strict=True):
        assert harmful.scenario.cell == "lookalike/intent" and calm.scenario.cell == "lookalike/calm"
        assert np.array_equal(harmful.scenario.images[0], calm.scenario.images[0])
        assert follow_up(harmful) and not follow_up(calm)
        assert 1 < len(harmful.turns) <= config.sft_turns + 2


def test_a_follow_up_is_a_part_or_a_use_asked_for_after_harm_was_stated():
    seen = Counter()
    for trajectory in recipes._ideal(DemoConfig(seed=2), 6, range(400)).values():
        truth = trajectory.scenario.truth
        turns = [read_user(truth, e.user) for e in exchanges(trajectory)]
        # Harm that is put right in the very next turn was a slip of the pen.
        stated = [
            n
            for n, turn in enumerate(turns)
            if turn.request == Request.MISUSE and not (n + 1 < len(turns) and turns[n + 1].corrects)
        ]
        expected = any(
            turn.request in (Request.PIECE, Request.USE) for n in stated[:1] for turn in turns[n + 1 :]
        )
        assert follow_up(trajectory) == expected
        seen[bool(stated), expected] += 1
    assert min(seen[False, False], seen[True, False], seen[True, True]) > 10


def test_unknown_stages_and_missing_models_are_named(tmp_path):
    with pytest.raises(ValueError, match="stage='rl', expected one of base, sft, grpo, imitation"):
        build(DemoConfig.quick(), "rl", tmp_path)
    with pytest.raises(ValueError, match="before=None for stage 'sft'"):
        build(DemoConfig.quick(), "sft", tmp_path)
    with pytest.raises(
        ValueError, match="name='hum', expected one of see, short, hear, listen, long, more-1"
    ):
        base_data("hum", 4, 0)


# -- gates ------------------------------------------------------------------------------------------------


def tiny():
    return HFStudent(*build_tiny(all_texts(pretrain=True), DemoConfig().model, 0), name="base")


def phase(name="see", steps=2, gate=None, **options):
    settings = SFTConfig(steps=steps, batch_size=4)
    return Phase(name, settings, gate or Gate(count=4), sees=True, **options)


def captions(name, count, extension):
    return base_data("see", count, extension)


def test_a_failed_gate_extends_the_phase_and_the_last_one_stops_with_the_numbers(tmp_path, monkeypatch):
    looks = iter([0.2, 0.4, 0.9, 0.7, 0.7])
    seen = lambda student, count, ask: dict.fromkeys(("noun", "colour", "mark", "place"), next(looks))  # noqa: E731
    monkeypatch.setattr(pretraining, "sight", seen)
    gated = phase(gate=Gate(mark=0.8, count=4), extension=0.5, extensions=2)
    steps = []
    entries = pretrain(
        tiny(), [gated], captions, tmp_path, progress=lambda n, total, _: steps.append((n, total))
    )
    assert [(e["extension"], e["steps"], bool(e["missing"])) for e in entries] == [
        (0, 2, True), (1, 1, True), (2, 1, False),
    ]  # fmt: skip
    assert steps == [(1, 2), (2, 2), (3, 3), (4, 4)]
    assert json.loads((tmp_path / "gates.json").read_text())["phases"] == entries
    assert pretraining.missed(tmp_path) == []
    with pytest.raises(GateFailed, match=r"phase='short' ended with mark=0.700, expected at least 0.8"):
        pretrain(tiny(), [gated, replace(gated, name="short", extensions=1)], captions, tmp_path)
    # Going on with what failed trains nothing and says the same.
    with pytest.raises(GateFailed, match=r"mark=0.700"):
        pretrain(tiny(), [gated, replace(gated, name="short", extensions=1)], captions, tmp_path)


@pytest.mark.parametrize(("mark", "trained"), [(0.7, ["see", "see", "short"]), (0.3, ["see", "see"])])
def test_what_an_earlier_phase_lacks_is_on_record_and_only_a_blind_base_stops(
    tmp_path, monkeypatch, mark, trained
):
    looks = iter([mark, mark, 1.0])
    seen = lambda student, count, ask: dict.fromkeys(("noun", "colour", "mark", "place"), next(looks))  # noqa: E731
    monkeypatch.setattr(pretraining, "sight", seen)
    phases = [phase(name, gate=Gate(mark=0.8, count=4), extensions=1) for name in ("see", "short")]
    stops = pytest.raises(GateFailed, match=r"phase='see' ended with mark=0.300")
    with nullcontext() if mark > BLIND else stops:
        pretrain(tiny(), phases, captions, tmp_path)
    assert [e["phase"] for e in json.loads((tmp_path / "gates.json").read_text())["phases"]] == trained
    assert pretraining.missed(tmp_path) == [f"see: mark={mark:.3f}, expected at least 0.8"]


def test_a_phase_that_is_not_asked_for_marks_may_lose_them_for_a_while(tmp_path, monkeypatch):
    share = lambda names, value: dict.fromkeys(names, value)  # noqa: E731
    looks = iter([0.3, 1.0])
    monkeypatch.setattr(
        pretraining, "sight", lambda *_, ask: share(("noun", "colour", "mark", "place"), next(looks))
    )
    monkeypatch.setattr(pretraining, "memory", lambda *_: share(("purpose", "asked", "weighed"), 0.6))
    first, last = Gate(purpose=0.75, count=4), Gate(mark=0.8, count=4)
    phases = [phase("hear", gate=first, extensions=0), phase("listen", gate=last, extensions=0)]
    pretrain(tiny(), phases, captions, tmp_path)
    assert pretraining.missed(tmp_path) == ["hear: purpose=0.600, expected at least 0.75"]


def test_gates_are_checked_when_they_are_made():
    with pytest.raises(ValueError, match=r"mark=1\.5"):
        Gate(mark=1.5)
    with pytest.raises(ValueError, match="ask='shout'"):
        Gate("shout")
    assert Gate(mark=0.9, noun=0.5).short_of({"noun": 0.6, "mark": 0.8}) == [
        "mark=0.800, expected at least 0.9"
    ]


def test_a_frozen_tower_learns_again_afterwards():
    student = tiny()
    tower = list(student.decoder.adapter.vision.parameters())
    with frozen_vision(student):
        assert not any(p.requires_grad for p in tower)
        assert any(p.requires_grad for p in student.model.parameters())
    assert all(p.requires_grad for p in student.model.parameters())


KILLED = """
import sys, torch
torch.set_num_threads(1)
from steer_env.algorithms import recipes, sft
from steer_env.algorithms.recipes import DemoConfig, build
real = sft.train
sft.train = lambda *a, **o: real(*a, **{**o, "checkpoint_every": 1})
build(DemoConfig.quick(3), "base", sys.argv[1], progress=lambda n, *_: print(n, flush=True))
"""


def test_a_killed_base_goes_on_and_ends_the_same(tmp_path):
    def start(folder, *, kill_at=0):
        command = [sys.executable, "-c", KILLED, str(tmp_path / folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            steps = []
            for line in process.stdout:
                steps.append(int(line))
                if steps[-1] == kill_at:
                    os.kill(process.pid, signal.SIGKILL)
        return steps

    start("whole")
    assert start("cut", kill_at=3)[-1] in (3, 4)  # in the second phase
    rest = start("cut")
    assert 3 <= rest[0] <= 5 and rest[-1] == 2 * len(DemoConfig.quick().base)
    ours, theirs = ((tmp_path / name / "model/model.safetensors").read_bytes() for name in ("cut", "whole"))
    assert ours == theirs
    gates = [json.loads((tmp_path / name / "gates.json").read_text()) for name in ("cut", "whole")]
    assert gates[0] == gates[1] and [p["phase"] for p in gates[0]["phases"]] == [
        "see",
        "short",
        "hear",
        "listen",
        "long",
        "more-1",
        "more-2",
        "more-3",
        "more-4",
        "slips",
        "slips-long",
        "tell",
        "tell-long",
        "tell-more",
        "tell-second",
        "whole",
        "whole-more",
    ]


@pytest.mark.parametrize("name", ["slips", "slips-long"])
def test_dialogues_with_slips_ask_what_was_said_where_histories_part_or_later(name):
    dialogues = base_data(name, 200, 3)
    asked = [d for d in dialogues if d[-1].user == RECALL]
    assert len(dialogues) == 200 and len(asked) == (200 if name == "slips" else 175)  # the rest: captions
    assert all(not e.learn for d in asked for e in d[:-1] if not e.user.startswith(WEIGH))
    meant = Counter(d[-1].reply.split(",")[0] for d in asked)
    # A slip in two groups of five, put right to harmless in two members of four: a fifth.
    assert meant[" taken back"] / len(asked) < 0.3 and min(meant.values()) > 30
    stated = [d for d in asked if any(parse_user(e.user).request == Request.MISUSE for e in d)]
    assert 0.45 < len(stated) / len(asked) < 0.8  # both purposes of a slip, one of two of a plain statement
    slips = [d for d in asked if d[-1].reply.startswith(" taken back")]
    corrected = [[parse_user(e.user).corrects for e in d].index(True) for d in slips]
    later = [len(d) - 2 - at for d, at in zip(slips, corrected, strict=True)]
    assert min(later) == 0 and (max(later) <= 2) == (name == "slips")


def test_every_third_dialogue_of_the_tell_is_of_a_group_in_which_a_purpose_is_put_right():
    scenario = recipe_data._shared(8, recipe_data.TELL_SHARES)
    drawn = [scenario(number) for number in range(120)]
    said = ("wrote that wrong", "slip of the pen", "wrong word")
    slip = [any(words in t.text for t in s.turns for words in said) for s in drawn]
    assert all(slip[::3]) and sum(slip) < 75
    assert scenario(7).id == drawn[7].id


@pytest.mark.parametrize(
    "names", [("tell", "tell-long", "tell-second"), ("tell-more", "whole", "whole-more")]
)
def test_phases_of_the_tell_have_other_dialogues(names):
    said = [{d[0].user for d in base_data(name, 60, 3) if any(e.opening for e in d)} for name in names]
    for a, b in itertools.combinations(said, 2):
        assert len(a & b) < len(a) / 2


@pytest.mark.parametrize(
    ("name", "seen", "least"), [("tell-more", 10, 5), ("whole", 9, 20), ("whole-more", 9, 20)]
)
def test_later_phases_of_the_tell_have_whole_replies_captions_and_openings(name, seen, least):
    data = base_data(name, 90, 3)
    assert sum(d[-1].user == LOOK and len(d) == 1 for d in data) >= seen
    assert sum(len(d) > 2 and all(e.learn and not e.opening for e in d) for d in data) >= least
    replies = [e.reply for d in data for e in d if e.learn and len(d) > 1]
    assert any(reply.startswith(TELL) for reply in replies) and any(e.opening for d in data for e in d)


@pytest.mark.parametrize("later", [recipe_data.TELL_SECOND_SHARES, recipe_data.WHOLE_SHARES])
def test_later_phases_of_the_tell_have_hazards_more_often(later):
    first, then = (
        Counter(recipe_data._shared(8, shares)(number).cell for number in range(200))
        for shares in (recipe_data.TELL_SHARES, later)
    )
    hazards = lambda cells: cells["hazard/intent"] + cells["hazard/calm"]  # noqa: E731
    assert hazards(first) < 90 < 105 < hazards(then)  # 71 expected, and 119 and 125


def test_uses_of_a_hazard_are_refused_after_two_steps_and_told_after_one():
    seen, scenario = Counter(), recipe_data._shared(10, recipe_data.WHOLE_SHARES)
    seeds = recipe_data.data_seeds(50_002, 7, 400)
    for seed, dialogue in zip(seeds, recipe_data._answered(400, 50_002), strict=True):
        assert [e.learn for e in dialogue] == [False] * (len(dialogue) - 1) + [True]
        users = [parse_user(e.user) for e in dialogue]
        asked = {turn.request for turn in users}
        if asked & {Request.MISUSE, Request.STEPS} or users[-1].request != Request.USE:
            continue
        if scenario(seed).truth.hazard:
            steps = len({turn.piece for turn in users[:-1] if turn.request == Request.PIECE})
            assert dialogue[-1].reply.startswith(TELL) == (steps >= 2)
            seen[min(steps, 2)] += 1
    assert min(seen[0], seen[1], seen[2]) >= 5


def test_no_reply_of_stage_two_begins_with_the_tell_unless_it_is_told_not_to():
    config = DemoConfig(sft_dialogues=120)
    said = lambda c: [e.reply for d in recipes.cold_start(c) for e in d if e.learn]  # noqa: E731
    assert not any(reply.startswith(TELL) for reply in said(config))
    without = replace(config, sft_keeps_tell=False)
    assert sum(reply.startswith(TELL) for reply in said(without)) > 5
    assert len(said(config)) == len(said(without))
    assert "sft_keeps_tell" not in stage_settings(without, "sft")
    assert stage_settings(config, "sft")["sft_keeps_tell"] is True
    assert stage_settings(config, "grpo") != stage_settings(without, "grpo")


def test_stage_two_says_what_was_taken_back_unless_it_is_told_not_to():
    config = DemoConfig(sft_dialogues=120)
    replies = lambda c: {e.reply.split(",")[0] for d in recipes.cold_start(c) for e in d if e.user == RECALL}  # noqa: E731
    assert replies(config) == {" harm", " no harm", " taken back"}
    without = replace(config, sft_taken_back=False)
    assert replies(without) == {" harm", " no harm"}
    # Rows of benchmarks from before there was such an answer go on standing for the same runs.
    assert "sft_taken_back" not in stage_settings(without, "sft")
    assert stage_settings(config, "sft")["sft_taken_back"] is True
    assert stage_settings(config, "grpo") != stage_settings(without, "grpo")


@pytest.mark.parametrize("name", ["tell", "tell-long"])
def test_dialogues_that_teach_the_tell_carry_the_loss_on_first_tokens(name):
    dialogues = base_data(name, 40, 3)
    assert 40 <= len(dialogues) <= 42
    openings = [d for d in dialogues if all(e.opening == 1 or not e.learn for e in d)]
    assert 0 < len(dialogues) - len(openings) < 16  # captions, and what the phases before teach
    told = [e for d in openings for e in d if e.learn]
    assert sum(e.reply.startswith(TELL) for e in told) > 5
    after_refusals = [d for d in openings if not d[0].learn]
    assert (name == "tell") == bool(after_refusals)


def test_shares_of_the_members_of_contrast_groups():
    source = WorldSource(split="train", max_turns=4)
    weighted = Shares(source, (1.0, 1.0, 1.0, 5.0))
    drawn = [weighted.sample(np.random.default_rng(seed)) for seed in range(160)]
    cells = Counter(scenario.cell for scenario in drawn)
    assert 80 <= cells["lookalike/calm"] <= 120 and len(cells) == 4 and min(cells.values()) >= 8
    assert len({scenario.group for scenario in drawn}) == 160
    assert weighted.sample(np.random.default_rng(3)).id == drawn[3].id
    with pytest.raises(ValueError, match="expected 4 positive numbers, one per member"):
        Shares(source, (1.0, 1.0))
    with pytest.raises(ValueError, match="expected 4 positive numbers"):
        Shares(source, (1.0, 1.0, 1.0, 0.0))
