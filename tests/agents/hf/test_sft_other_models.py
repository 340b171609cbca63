"""Supervised fine-tuning on other families: our loop and TRL's trainer give the same loss."""

import pytest
import torch

from steer_env.agents.hf import Exchange, HFStudent
from steer_env.algorithms import sft, trl_sft
from steer_env.algorithms.sft import SFTConfig

from .test_other_models import idefics3, llava, qwen3vl

pytest.importorskip("trl")


@pytest.mark.parametrize("family", ["llava", "idefics3", "qwen3vl"])
def test_the_same_loss_on_other_families(family, tiny, pictures, tmp_path):
    make = {"llava": llava, "idefics3": idefics3, "qwen3vl": lambda: qwen3vl(tiny)}[family]
    dialogues = [
        [Exchange("what do you see ?", (pictures[0],), "a wall"), Exchange("and now ?", (), "the same")],
        [Exchange("what is it ?", (pictures[1],), "a long , long corridor")],
    ]
    config = SFTConfig(steps=1, batch_size=2, warmup=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = HFStudent(*make())
    examples, left_out = sft.encode(student, dialogues)
    assert left_out == 0
    weights = {name: value.clone() for name, value in student.model.state_dict().items()}
    own = sft.train(student, examples, config)
    student.model.load_state_dict(weights)
    theirs = trl_sft.train(student, examples, config, tmp_path, microbatch_size=2)
    assert theirs[0]["loss"] == pytest.approx(own[0]["loss"], abs=1e-5) and own[0]["loss"] > 1
