"""verl's agent loop and estimators, on recorded dialogues: a server says what was sampled then."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("verl")

import torch
from omegaconf import OmegaConf
from transformers import AutoProcessor
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, _agent_loop_registry
from verl.protocol import DataProto
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.workers.rollout.replica import TokenOutput

sys.path.insert(0, str(Path(__file__).parent))
import recorded

import steer_env.interop.verl as ours
from steer_env.types import Unscored

TINY = Path(ours.__file__).parents[1] / "models" / "students" / "tiny-sft"
PLAYED = recorded.load()


class Server:
    """Says the recorded reply to the recorded prompt, and keeps the pictures it was shown."""

    def __init__(self, played):
        self.trace, self.pictures = played.trace, []

    async def generate(self, request_id, *, prompt_ids, sampling_params, image_data=None, **_):
        trace, start = self.trace, len(prompt_ids)
        assert prompt_ids == trace.ids_L[:start].tolist() and sampling_params["max_tokens"] == 10
        self.pictures.append(image_data)
        stop = start + int(np.argmin(np.append(trace.sampled_L[start:], False)))
        return TokenOutput(
            token_ids=trace.ids_L[start:stop].tolist(), log_probs=trace.logprobs_L[start:stop].tolist()
        )


def config(credit):
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"rollout": {"prompt_length": 256, "response_length": 512}},
            "algorithm": {
                "adv_estimator": f"steer_{credit}",
                "gamma": recorded.DISCOUNT,
                "norm_adv_by_std_in_grpo": False,
            },
        }
    )


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(TINY)


def play(played, processor, credit):
    server = Server(played)

    async def run():
        loop = ours.SteerAgentLoop(
            DictConfigWrap(config(credit)), server, processor.tokenizer, processor, dict,
            DictConfigWrap(OmegaConf.create({})), env_id=recorded.ENV, attacker="static", max_new_tokens=10,
        )  # fmt: skip
        return await loop.run({"temperature": 1.0}, raw_prompt=[], extra_info={"seed": played.seed})

    return asyncio.run(run()), server.pictures


def batch(outputs):
    fields = [output.as_dict() for output in outputs]

    def padded(name):
        return torch.nn.utils.rnn.pad_sequence([field[name] for field in fields], batch_first=True)

    tensors = {"token_level_rewards": padded("rm_scores"), "response_mask": padded("response_mask")}
    return DataProto.from_dict(tensors, {"uid": np.array([str(t.seed) for t in PLAYED], dtype=object)})


def test_the_loop_is_registered_and_the_server_gets_the_very_tokens_with_pictures(processor):
    assert _agent_loop_registry["steer"]["_target_"] == "steer_env.interop.verl.SteerAgentLoop"
    played = PLAYED[1]
    output, pictures = play(played, processor, "own_turn")
    assert output.prompt_ids + output.response_ids == played.trace.ids_L.tolist()
    assert all(len(shown) == played.trace.images == 1 for shown in pictures)
    assert len(output.multi_modal_data["images"]) == 1 and output.num_turns == 2 * len(played.turns)
    assert output.extra_fields["turn_scores"][0] is None  # the first reply has no verdict
    assert output.response_logprobs == pytest.approx(
        played.trace.logprobs_L[len(output.prompt_ids) :].tolist()
    )
    whole, _ = play(played, processor, "trajectory")
    assert whole.as_dict()["rm_scores"].sum().item() == pytest.approx(played.total)


def test_tokens_get_the_advantages_that_our_own_loop_gives_them(processor):
    equal = []
    for credit in ours.CREDITS:
        outputs = [ours.output_of(played, credit) for played in PLAYED]
        algorithm = config(credit).algorithm
        found = compute_advantage(batch(outputs), algorithm.adv_estimator, gamma=0.5, config=algorithm)
        for row, (played, output) in enumerate(zip(PLAYED, outputs, strict=True)):
            want = recorded.advantages(PLAYED, credit)[row][len(output.prompt_ids) :]
            np.testing.assert_allclose(found.batch["advantages"][row, : len(want)], want, atol=1e-5)
            assert (
                output.response_mask
                == recorded.loss_mask(played.trace, played.scored)[len(output.prompt_ids) :]
                .astype(int)
                .tolist()
            )
        equal.append(credit)
    outputs = [play(played, processor, "trajectory")[0] for played in PLAYED]
    lost = [t.scored.count(False) for t in PLAYED]
    scores = [o.extra_fields["turn_scores"] for o in outputs]
    masked = 0
    for output, t in zip(outputs, PLAYED, strict=True):
        mask, turn = np.array(output.response_mask), t.trace.turn_L[len(output.prompt_ids) :]
        masked += sum(not mask[turn == n].any() for n, ok in enumerate(t.scored) if not ok)
    recorded.check_carried(
        "verl",
        pictures=(
            sum(len(o.multi_modal_data.get("images", ())) for o in outputs),
            sum(t.trace.images for t in PLAYED),
        ),
        rewards=(sum(map(len, scores)), sum(len(t.turns) for t in PLAYED)),
        unscored=(sum(s.count(None) for s in scores), sum(lost)),
        masked=(masked, sum(lost)),
        seats=("student",),
        tokens=all(
            o.prompt_ids + o.response_ids == t.trace.ids_L.tolist()
            for o, t in zip(outputs, PLAYED, strict=True)
        ),
        credits=equal,
    )


def test_a_dialogue_without_a_verdict_or_a_seed_is_refused(processor):
    silent = tuple(
        replace(r, turn=replace(r.turn, verdict=Unscored("none")), info={}) for r in PLAYED[0].turns
    )
    with pytest.raises(ValueError, match="no turn has a verdict"):
        ours.output_of(replace(PLAYED[0], turns=silent))
    loop = object.__new__(ours.SteerAgentLoop)
    with pytest.raises(ValueError, match="no seed"):
        asyncio.run(loop.run({}, raw_prompt=[]))


@pytest.mark.parametrize("gpus", [1, 8, 64])
def test_the_examples_are_settings_that_verl_has(gpus):
    import verl.trainer.config
    from hydra import compose, initialize_config_dir

    lines = (Path(__file__).parents[1] / "examples" / "verl" / f"{gpus}gpu.args").read_text().split()
    with initialize_config_dir(str(Path(verl.trainer.config.__file__).parent), version_base=None):
        made = compose("ppo_trainer", overrides=lines)
    assert made.trainer.n_gpus_per_node * made.trainer.nnodes == gpus and made.trainer.use_v1
    assert made.algorithm.adv_estimator.removeprefix("steer_") in ours.CREDITS
