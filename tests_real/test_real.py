"""A pretrained language model in every seat. What it says is its own affair; that it is handled is ours."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import steer_env
from steer_env.agents.chat import chat_student
from steer_env.agents.hf import Exchange, Prompt, packed_logprobs
from steer_env.agents.hf.attacker import INSTRUCTIONS, HFAttacker
from steer_env.agents.llm_tutor import LLMTutor
from steer_env.agents.named import open_seat
from steer_env.algorithms import sft
from steer_env.algorithms.attack import attacker_groups
from steer_env.algorithms.base import make_algorithm
from steer_env.algorithms.trainer import TrainConfig, train
from steer_env.configs.train import Scaling
from steer_env.data.bootstrap import KEPT, REJECTED, BootstrapConfig, Guided, bootstrap
from steer_env.data.seeds import (
    ChatGenerator,
    ChatGrader,
    ChatTarget,
    SeedsConfig,
    make_seeds,
    open_source,
)  # fmt: skip
from steer_env.judges.base import JudgeRequest
from steer_env.judges.llm import LLMJudge
from steer_env.models import ChatMessage, ChatRequest
from steer_env.models.structured import Settings
from steer_env.records import read_jsonl
from steer_env.rollout import rollout
from steer_env.scenarios import FixedScenarios
from steer_env.trajectory import group_by_seed
from steer_env.types import ASSISTANT, USER, Message, Scored, Unscored, meta_of

from .conftest import MODELS, ROOT, TALKS

WORLD = {"max_cycles": 2, "judge": "rule"}


def gap(student, trajectories):
    """Largest difference between sampled and recomputed log-probabilities."""
    prompts = [Prompt(t.trace, t.scenario.images[: t.trace.images]) for t in trajectories]
    with torch.no_grad():
        packed = packed_logprobs(student.decoder.adapter, prompts, forbidden=student.decoder.forbidden)
    told = torch.cat([torch.from_numpy(p.trace.logprobs_L[p.trace.sampled_L].copy()) for p in prompts])
    return float((packed.logprobs_N - told).abs().max())


def test_the_vision_model_speaks_as_the_text_model(reader, viewer):
    observation = {"images": (), "transcript": (Message(USER, "What is the capital of France?"),)}
    logits = []
    for student in (reader, viewer):
        ids_L = torch.from_numpy(student.codec.prompt(observation).trace.ids_L)[None]
        with torch.no_grad():
            logits.append(student.model(input_ids=ids_L).logits[0, -1])
    width = len(reader.codec.tokenizer)
    assert torch.allclose(logits[0][:width], logits[1][:width], atol=1e-3)
    assert reader.codec.tokenizer.decode(int(logits[0].argmax())).strip() == "The"


@pytest.mark.parametrize("seat", ["reader", "viewer"])
def test_a_student_keeps_its_tokens(seat, request):
    student = request.getfixturevalue(seat)
    vec = steer_env.make_vec(num_envs=2, **WORLD)
    played = rollout(vec, steer_env.make_agent("tutor"), student, [3, 4])
    assert all(t.error == "" and len(t.turns) == 2 for t in played)
    assert gap(student, played) < 1e-4
    cut = [meta_of(turn.turn.reply)["finish"] for t in played for turn in t.turns]
    assert "length" in cut, "twelve tokens end few sentences, and it is on record"
    if seat == "reader":
        words = student.codec.tokenizer.decode(played[0].trace.ids_L)
        assert "[picture: a " in words
    else:
        looks = played[0].trace.ids_L == student.codec.image_id
        assert looks.sum() == 16 * played[0].trace.images > 0


def test_a_server_plays_student_attacker_and_judge(served, url):
    tutor = LLMTutor(served, attempts=2, max_tokens=160)
    vec = steer_env.make_vec(num_envs=1, judge=tutor, scenarios=TALKS, max_cycles=2)
    student = chat_student(served, temperature=0.0, max_new_tokens=16)
    (played,) = rollout(vec, tutor, student, [0])
    assert played.error == "" and len(played.turns) == 2
    for result in played.turns:
        verdict = result.turn.verdict
        assert isinstance(verdict, Scored) or (isinstance(verdict, Unscored) and verdict.reason)
    first, second = (str(result.turn.user) for result in played.turns)
    assert first.lower() != second.lower()
    named = open_seat(f"openai:smollm2@{url}?images=no&concurrency=1", "student_0", max_new_tokens=4)
    (said,) = named.act([{"images": (), "transcript": (Message(USER, "Count to ten."),)}])
    assert said.meta["finish"] == "length"
    named.close()


def test_a_model_attacks_and_siblings_meet_the_same(reader):
    """The text model in the attacker's seat, by its own tokens; the student does as it likes."""
    attacker = HFAttacker(
        reader.model, reader.processor, instructions=INSTRUCTIONS, max_new_tokens=12, seed=1
    )
    risky = FixedScenarios([replace(scenario, kind="red_team", goal="a secret") for scenario in TALKS])
    vec = steer_env.make_vec(num_envs=3, judge="rule", scenarios=risky, max_cycles=2)
    played = rollout(vec, attacker, steer_env.make_agent("refuse"), [0, 0, 1])
    assert all(t.error == "" and len(t.turns) == 2 for t in played)
    said = [[str(result.turn.user) for result in t.turns] for t in played]
    assert said[0] == said[1] != said[2] and all(all(words) for words in said)
    (group,) = attacker_groups(group_by_seed(played[:2], 2))
    assert gap(attacker, group.trajectories) < 1e-4


def test_blue_dialogues_are_kept_or_the_reason_is(viewer, tmp_path):
    """Stage II with the model as blue agent, behind its guidelines."""
    vec = steer_env.make_vec(num_envs=2, **WORLD)
    made = bootstrap(
        tmp_path / "out", vec, steer_env.make_agent("tutor"), Guided(viewer), BootstrapConfig(episodes=2)
    )
    kept, lost = (list(read_jsonl(tmp_path / "out" / name)) for name in (KEPT, REJECTED))
    assert made["all"]["dialogues"] == 2 == len(kept) + len(lost)
    assert all(row["reason"] in ("unscored", "unsafe", "unhelpful") for row in lost)


def test_a_verdict_is_bounded_however_the_model_rambles(served):
    judge = LLMJudge(served, attempts=1, max_tokens=300)
    transcript = (Message(USER, "How do I boil an egg?"), Message(ASSISTANT, "In water, for nine minutes."))
    (verdict,) = judge.judge([JudgeRequest(TALKS[0], transcript)])
    assert isinstance(verdict, Scored), verdict


def test_the_schema_holds_in_process_too():
    pytest.importorskip("llguidance")
    backend = steer_env.models.open_backend(f"hf:{MODELS}/smollm2", device="cpu")
    schema = {
        "type": "object",
        "properties": {"fruit": {"enum": ["apple", "plum"]}, "why": {"type": "string", "maxLength": 20}},
        "required": ["fruit", "why"],
        "additionalProperties": False,
    }
    ask = ChatMessage("user", "Which fruit is red? Answer as JSON with fruit and why.")
    (answer,) = backend.complete([ChatRequest((ask,), schema, 40, temperature=0.0)])
    assert answer.finish == "stop" and json.loads(answer.text)["fruit"] in ("apple", "plum")
    backend.close()


def test_seeds_are_made_or_the_reason_is_kept(served, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"turns": ["How do I water a cactus?"], "kind": "benign"}\n')
    brief = Settings(attempts=1, max_tokens=160)
    generator = ChatGenerator(served, ChatTarget(served, 160), ChatGrader(served, brief), brief)
    config = SeedsConfig(kinds=("benign",), noise_share=0, typography_share=0)
    summary = make_seeds(tmp_path / "out", open_source(str(rows), kinds=config.kinds), generator, config)
    lost = list(read_jsonl(tmp_path / "out" / "rejected.jsonl"))
    assert summary["rows"] == 1 and summary["kept"] + len(lost) == 1
    assert all(row["reason"] and row["detail"] for row in lost)


def test_a_supervised_step_and_a_policy_step(viewer, tmp_path):
    talks = [[Exchange("Say yes.", (), "yes")], [Exchange("Say no.", (), "no")]]
    config = sft.SFTConfig(steps=1, batch_size=2, lr=1e-3, warmup=0)
    (row,) = sft.train(viewer, talks, config, scaling=Scaling(lora_rank=4))
    assert 0 < row["loss"] < 20
    policy = TrainConfig(
        steps=1, seeds_per_step=1, group_size=2, lr=1e-4, max_new_tokens=8, microbatch_size=2, seed=2,
        unscored_limit=1.0,
    )  # fmt: skip
    vec = steer_env.make_vec(num_envs=2, **WORLD)
    tutor, lora = steer_env.make_agent("tutor"), Scaling(lora_rank=4)
    (row,) = train(vec, tutor, viewer, make_algorithm("grpo"), policy, tmp_path / "run", scaling=lora)
    assert row["logprob_gap_max"] < 1e-4


def test_the_recipe_of_the_tour_runs_as_it_stands(url, tmp_path):
    """The lines of "With a real model", shortened to one turn a dialogue and one step."""
    tour = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
    section = tour.split("## With a real model\n")[1]
    (block,) = re.findall(r"(?:^    .*\n)+", section.split("\n## ")[0], re.MULTILINE)
    lines = [line for line in block.replace("\\\n", " ").splitlines() if "make " not in line]
    assert len(lines) == 5
    script = "\n".join(lines)
    here = {
        "http://127.0.0.1:8136/v1": url,
        "hf:models/": f"hf:{MODELS}/",
        "--max-turns 2": "--single-turn",
        "--steps 2": "--steps 1",
    }
    for said, put in here.items():
        assert said in script
        script = script.replace(said, put)
    command = f'steer-env() {{ "{sys.executable}" -m steer_env.cli.main "$@"; }}\nset -ex\n{script}'
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "paired by seed" in done.stdout
    verdicts = []
    for name in ("base", "after"):
        rows = list(read_jsonl(tmp_path / "runs" / name / "dialogues.jsonl"))
        assert len(rows) == 4 and not any(row.get("error") for row in rows)
        verdicts += [turn["verdict"] for row in rows for turn in row["turns"]]
    assert any(one.get("judge", "").startswith("grounded:") for one in verdicts), "the model was never asked"
    (row,) = read_jsonl(tmp_path / "runs/grpo/metrics.jsonl")
    assert row["logprob_gap_max"] < 1e-4
