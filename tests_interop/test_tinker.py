"""tinker-cookbook plays our dialogues with its own rollouts and renderers; what is sampled is recorded."""

import asyncio
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tinker_cookbook")

from tinker.types import ImageChunk
from tinker_cookbook.completers import TokenCompleter, TokensWithLogprobs
from tinker_cookbook.rl.data_processing import assemble_training_data, compute_advantages
from tinker_cookbook.rl.rollouts import do_single_rollout
from tinker_cookbook.rl.types import TrajectoryGroup

sys.path.insert(0, str(Path(__file__).parent))
import recorded

import steer_env
from steer_env.interop.credit import CREDITS
from steer_env.interop.tinker import SteerDatasetBuilder, SteerEnv, turn_data

TINY = Path(steer_env.__file__).parent / "models" / "students" / "tiny-sft"
PLAYED = recorded.load()


class Recorded(TokenCompleter):
    """Samples the tokens of a recorded dialogue, turn by turn, and keeps its prompts."""

    def __init__(self, trace):
        self.trace, self.prompts = trace, []

    async def __call__(self, model_input, stop, *, max_tokens=None):
        at = (self.trace.turn_L == len(self.prompts)) & self.trace.sampled_L
        self.prompts.append(model_input)
        return TokensWithLogprobs(self.trace.ids_L[at].tolist(), self.trace.logprobs_L[at].tolist())


@pytest.fixture(scope="module")
def dataset():
    options = {"attacker": "static"}
    builder = SteerDatasetBuilder(
        model_name=str(TINY), renderer_name="qwen3_vl_instruct", groups=6, batch_size=2, group_size=3,
        seed=2, env_id=recorded.ENV, options=options,
    )  # fmt: skip
    found, held_out = asyncio.run(builder())
    assert held_out is None and len(found) == 3
    return found


@pytest.fixture(scope="module")
def rollouts(dataset):
    """The recorded dialogues as the cookbook's rollouts, and the prompts of each."""
    renderer = dataset.get_batch(0)[0].renderer
    found = []
    for played in PLAYED:
        policy = Recorded(played.trace)
        env = SteerEnv(renderer, played.seed, recorded.ENV, attacker="static")
        found.append((asyncio.run(do_single_rollout(policy, env)), policy.prompts))
    return found


def groups(rollouts):
    made = [rollout for rollout, _ in rollouts]
    return [
        TrajectoryGroup(made[i : i + recorded.SIZE], [0.0] * recorded.SIZE, [{}] * recorded.SIZE)
        for i in range(0, len(made), recorded.SIZE)
    ]


def sampled(datum, name):
    """What a datum holds at the tokens that were sampled; prompts have no log-probability."""
    at = datum.loss_fn_inputs["logprobs"].to_numpy() != 0
    return datum.loss_fn_inputs[name].to_numpy()[at]


def test_prompts_are_the_recorded_tokens_with_the_picture_and_rewards_come_turn_by_turn(rollouts):
    for (rollout, prompts), played in zip(rollouts, PLAYED, strict=True):
        assert [s.reward for s in rollout.transitions] == pytest.approx(played.rewards)
        assert [s.episode_done for s in rollout.transitions] == [False] * (len(played.turns) - 1) + [True]
        assert [bool(s.metrics["scored"]) for s in rollout.transitions] == list(played.scored)
        for prompt in prompts:
            assert sum(isinstance(c, ImageChunk) for c in prompt.chunks) == played.trace.images


def test_a_group_can_be_sent_to_another_process(dataset):
    builder = pickle.loads(pickle.dumps(dataset.get_batch(1)[1]))
    envs = asyncio.run(builder.make_envs())
    assert builder.seed == 5 and len(envs) == 3 and builder.logging_tags() == [recorded.ENV]
    prompt, stop = asyncio.run(envs[0].initial_observation())
    assert prompt.length > 0 and stop


def test_the_cookbooks_own_advantages_are_those_of_the_whole_return(rollouts):
    data, _ = assemble_training_data(groups(rollouts), compute_advantages(groups(rollouts)))
    check(data, "trajectory")


def test_tokens_get_the_advantages_that_our_own_loop_gives_them(rollouts):
    equal = []
    for credit in CREDITS:
        data = [datum for group in groups(rollouts) for datum in turn_data(group, credit, recorded.DISCOUNT)]
        check(data, credit)
        equal.append(credit)
    steps = [step for rollout, _ in rollouts for step in rollout.transitions]
    lost = sum(t.scored.count(False) for t in PLAYED)
    of_turns = [datum for group in groups(rollouts) for datum in turn_data(group)]
    kept = sum(int(datum.loss_fn_inputs["mask"].to_numpy().sum()) for datum in of_turns)
    assert kept == sum(int(recorded.loss_mask(t.trace, t.scored).sum()) for t in PLAYED)
    recorded.check_carried(
        "tinker",
        pictures=(
            sum(isinstance(c, ImageChunk) for _, prompts in rollouts for c in prompts[-1].chunks),
            sum(t.trace.images for t in PLAYED),
        ),
        rewards=(len(steps), sum(len(t.turns) for t in PLAYED)),
        unscored=(sum("own" not in step.metrics for step in steps), lost),
        masked=(lost, lost),
        seats=("student",),
        tokens=all(
            [i for step in rollout.transitions for i in step.ac.tokens]
            == t.trace.ids_L[t.trace.sampled_L].tolist()
            for (rollout, _), t in zip(rollouts, PLAYED, strict=True)
        ),
        credits=equal,
    )


def check(data, credit):
    """Compare the sampled tokens' advantages and mask with those of our own loop, dialogue by dialogue."""
    found = {name: np.concatenate([sampled(d, name) for d in data]) for name in ("advantages", "mask")}
    want, mask = [], []
    for values, played in zip(recorded.advantages(PLAYED, credit), PLAYED, strict=True):
        at = played.trace.sampled_L & (played.trace.logprobs_L != 0)
        want.append(values[at])
        mask.append(recorded.loss_mask(played.trace, played.scored)[at])
    np.testing.assert_allclose(found["advantages"], np.concatenate(want), atol=1e-5)
    np.testing.assert_array_equal(found["mask"], np.concatenate(mask))
