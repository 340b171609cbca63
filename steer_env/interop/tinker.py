"""The student's seat as an environment of tinker-cookbook: its renderers' prompts out, token ids back in.

    builder = SteerEnvGroupBuilder(renderer, seed=3, size=8)
    group = await do_group_rollout(builder, policy)
    data = turn_data(group, "own_turn")

A step's reward is its part of the declared return, so that the cookbook's own advantages are those of the
whole return ("trajectory"); `turn_data` takes the place of its `assemble_training_data` and gives each turn's
tokens that turn's advantage. Turns without a verdict are masked as the cookbook masks what it cannot parse.
The attacker plays inside. Needs the extra `tinker`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import chz
import tinker
import torch
from tinker import TensorData
from tinker_cookbook.image_processing_utils import get_image_processor
from tinker_cookbook.renderers import Message, Renderer, get_renderer, get_text_content
from tinker_cookbook.rl.data_processing import trajectory_to_data
from tinker_cookbook.rl.types import (
    PARSE_ERROR_MASKED_METRIC_KEY,
    Action,
    ActionExtra,
    Env,
    EnvGroupBuilder,
    RLDataset,
    RLDatasetBuilder,
    StepResult,
    Trajectory,
    TrajectoryGroup,
)
from tinker_cookbook.tokenizer_utils import get_tokenizer

from steer_env.agents.base import Observation
from steer_env.arrays import Floats
from steer_env.interop import messages
from steer_env.interop.credit import OWN, advantages
from steer_env.registration import make_student_env
from steer_env.types import Utterance

_ID = "SteerEscalation-v0"


class SteerEnv(Env):
    """One dialogue.

    Args:
        renderer: Makes the prompts; one that shows pictures where the dialogues have any.
        seed: Of the dialogue.
        env_id: Environment id.
        **options: Of `make_student_env`, such as `attacker` and `judge`.
    """

    def __init__(self, renderer: Renderer, seed: int, env_id: str = _ID, **options: Any) -> None:
        self.renderer, self.seed = renderer, seed
        self.env = make_student_env(env_id, **options)

    async def initial_observation(self) -> tuple[tinker.ModelInput, list[str] | list[int]]:
        """Start the dialogue."""
        seen, _ = await asyncio.to_thread(self.env.reset, seed=self.seed)
        return self._prompt(seen), self.renderer.get_stop_sequences()

    async def step(self, action: Action, *, extra: ActionExtra | None = None) -> StepResult:
        """Reply. The metrics say `scored`, and where it is, `own`: what the turn earned by itself.

        Raises:
            ValueError: At the end of a dialogue in which no turn has a verdict; that is never a zero.
        """
        message, _ = self.renderer.parse_response(action)
        said = Utterance(get_text_content(message), finish=(extra or {}).get("stop_reason", "stop"))
        seen, reward, ended, cut, info = await asyncio.to_thread(self.env.step, said)
        done, scored = ended or cut, bool(info["scored"])
        if done and not info.get("return_defined", True):
            raise ValueError(f"seed={self.seed}: no turn has a verdict, expected one at least")
        metrics: dict[str, float | int] = {"scored": int(scored)}
        if scored:
            metrics["own"] = float(info.get("turn_reward", reward))
        else:
            metrics[PARSE_ERROR_MASKED_METRIC_KEY] = 1.0
        return StepResult(
            reward=float(reward),
            episode_done=done,
            next_observation=tinker.ModelInput.empty() if done else self._prompt(seen),
            next_stop_condition=self.renderer.get_stop_sequences(),
            metrics=metrics,
        )

    def _prompt(self, seen: Observation) -> tinker.ModelInput:
        return self.renderer.build_generation_prompt([_rendered(one) for one in messages(seen)])


def _rendered(message: dict[str, Any]) -> Message:
    """Return a message of `messages` as renderers take it."""
    content = message["content"]
    if not isinstance(content, str):
        content = [
            part if part["type"] == "text" else {"type": "image", "image": part["image_url"]["url"]}
            for part in content
        ]
    return Message(role=message["role"], content=content)


@dataclass(frozen=True)
class SteerEnvGroupBuilder(EnvGroupBuilder):
    """Builds `size` dialogues of one seed; arguments as of `SteerEnv`."""

    renderer: Renderer
    seed: int
    size: int = 8
    env_id: str = _ID
    options: dict[str, Any] = field(default_factory=dict)

    async def make_envs(self) -> Sequence[Env]:
        """Make them."""
        return [SteerEnv(self.renderer, self.seed, self.env_id, **self.options) for _ in range(self.size)]

    def logging_tags(self) -> list[str]:
        """Return the id, under which metrics are logged."""
        return [self.env_id]


@dataclass(frozen=True)
class _Dataset(RLDataset):
    """Batches of groups, seeds in order."""

    builders: Sequence[EnvGroupBuilder]
    batch_size: int

    def get_batch(self, index: int) -> Sequence[EnvGroupBuilder]:
        return self.builders[index * self.batch_size : (index + 1) * self.batch_size]

    def __len__(self) -> int:
        return len(self.builders) // self.batch_size


@chz.chz
class SteerDatasetBuilder(RLDatasetBuilder):
    """The `dataset_builder` of `tinker_cookbook.rl.train.Config`: groups of the seeds from `seed` on."""

    model_name: str
    renderer_name: str
    groups: int = 1000
    batch_size: int = 16
    group_size: int = 8
    seed: int = 0
    env_id: str = _ID
    options: dict[str, Any] = chz.field(default_factory=dict)

    async def __call__(self) -> tuple[RLDataset, None]:
        """Return the training set; evaluate with `steer-env evaluate`."""
        renderer = get_renderer(
            self.renderer_name, get_tokenizer(self.model_name), get_image_processor(self.model_name)
        )
        builders = [
            SteerEnvGroupBuilder(renderer, self.seed + i, self.group_size, self.env_id, self.options)
            for i in range(self.groups)
        ]
        return _Dataset(builders, self.batch_size), None


def turn_data(group: TrajectoryGroup, credit: str = "own_turn", discount: float = 0.0) -> list[tinker.Datum]:
    """Return the training data of a group, each turn's tokens with that turn's advantage.

    Args:
        group: Of one builder.
        credit: One of `steer_env.interop.credit.CREDITS`.
        discount: Of "discounted".
    """
    earned = [
        [step.metrics.get("own", math.nan) if credit in OWN else step.reward for step in one.transitions]
        for one in group.trajectories_G
    ]
    found = advantages(earned, credit, discount=discount)
    return [
        datum
        for one, own_T in zip(group.trajectories_G, found, strict=True)
        for datum in _with_advantages(one, own_T)
    ]


def _with_advantages(played: Trajectory, advantages_T: Floats) -> list[tinker.Datum]:
    """Return the data of a dialogue; the cookbook knows one advantage, so the turns' are put in its place."""
    steps = played.transitions
    # Masked tokens look like prompt ones: without the metrics, the mask says where all sampled ones are.
    data: list[tinker.Datum] = trajectory_to_data(
        replace(played, transitions=[replace(step, metrics={}) for step in steps]), 1.0
    )
    lengths = torch.tensor([len(step.ac.tokens) for step in steps])
    kept = torch.tensor([float(PARSE_ERROR_MASKED_METRIC_KEY not in step.metrics) for step in steps])
    mask = torch.repeat_interleave(kept, lengths)
    values = torch.repeat_interleave(torch.as_tensor(advantages_T, dtype=torch.float32) * kept, lengths)
    place = 0
    for datum in data:
        at = datum.loss_fn_inputs["mask"].to_torch() > 0
        count = int(at.sum())
        for name, given in (("mask", mask), ("advantages", values)):
            whole = torch.zeros(len(at))
            whole[at] = given[place : place + count]
            datum.loss_fn_inputs[name] = TensorData.from_torch(whole)
        place += count
    return data
