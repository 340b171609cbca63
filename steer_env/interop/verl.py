"""Our dialogues as an agent loop of verl 0.9, with credit per turn: token ids in, token ids out.

    actor_rollout_ref.model.external_lib=steer_env.interop.verl
    actor_rollout_ref.rollout.agent.default_agent_loop=steer
    algorithm.adv_estimator=steer_own_turn

A row of the data set says its `seed`; rows of one prompt are a group. The dialogue is one sequence: what the
server sampled is never decoded and encoded again, pictures go along wherever they are shown, tokens of turns
without a verdict are outside the mask. `rm_scores` holds a turn's reward at the turn's last token; a turn
without a verdict has its own there too, or -0.0, which keeps its place in the order of turns and adds
nothing. With the estimators "steer_own_turn" and "steer_discounted" (of `algorithm.gamma`) these are the
turns' own rewards, else the increments of the declared return.

Made for verl's V1 trainer, the default; the old one knows a single reward at the end. The attacker is not
trained here. Needs the extra `verl`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput, register
from verl.trainer.ppo.core_algos import register_adv_est

from steer_env.agents.hf.codec import Prompt
from steer_env.agents.hf.decoder import Sample
from steer_env.agents.hf.student import TokenStudent
from steer_env.algorithms.advantages import loss_mask
from steer_env.algorithms.credit import reward_ledger
from steer_env.arrays import Floats
from steer_env.interop.credit import CREDITS, OWN, advantages
from steer_env.registration import make_attacker, make_vec
from steer_env.rollout import rollout
from steer_env.trajectory import StopReason, Trajectory

_PREFIX: Final = "steer_"


class _Output(AgentLoopOutput):
    """An output whose rewards stand at the ends of turns."""

    token_rewards: list[float]

    def as_dict(self) -> dict[str, Any]:
        result = super().as_dict()
        result["rm_scores"] = torch.tensor(result.pop("token_rewards"), dtype=torch.float32)
        return result


class _Student(TokenStudent):
    """Has a server of verl's sample the replies."""

    def __init__(self, loop: SteerAgentLoop, sampling: dict[str, Any], running: Any) -> None:
        super().__init__(loop.processor or loop.tokenizer, max_new_tokens=loop.max_new_tokens)
        self.name = self.weights = "verl"
        self._loop, self._sampling, self._running = loop, sampling, running
        self._request = uuid4().hex  # one a dialogue: its turns go to one server, which has it cached
        self.seconds = 0.0

    def _overflow(self, prompt: Prompt, new: int) -> str | None:
        config = self._loop.rollout_config
        most = config.prompt_length + config.response_length
        need = len(prompt.trace) + new
        return f"{need} tokens, expected at most {most}" if need > most else None

    def _sample(self, prompts: Sequence[Prompt], most: int) -> list[Sample]:
        return [self._one(prompt, most) for prompt in prompts]

    def _one(self, prompt: Prompt, most: int) -> Sample:
        begun = time.perf_counter()
        asked = self._loop.server_manager.generate(
            request_id=self._request,
            prompt_ids=prompt.trace.ids_L.tolist(),
            sampling_params={**self._sampling, "max_tokens": most},
            image_data=[image.pil() for image in prompt.images] or None,
        )
        said = asyncio.run_coroutine_threadsafe(asked, self._running).result()
        self.seconds += time.perf_counter() - begun
        return Sample(list(said.token_ids), list(said.log_probs or [0.0] * len(said.token_ids)))


@register("steer")
class SteerAgentLoop(AgentLoopBase):
    """Plays one dialogue.

    Args:
        *args: Of verl's.
        env_id: Environment id.
        attacker: Our attacker's name, None for the id's own.
        judge: A judge's name.
        max_new_tokens: Longest reply.
        **kwargs: Of verl's.
    """

    def __init__(
        self,
        *args: Any,
        env_id: str = "SteerEscalation-v0",
        attacker: str | None = None,
        judge: Any = "rule",
        max_new_tokens: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.env_id, self.attacker, self.judge = env_id, attacker, judge
        self.max_new_tokens = max_new_tokens

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Play the dialogue of a row, of its `seed` or that in `extra_info`.

        Raises:
            ValueError: If the row has no seed, or there is no verdict to declare a return from.
            RuntimeError: If the dialogue failed; verl drops its group.
        """
        seed = kwargs.get("seed", (kwargs.get("extra_info") or {}).get("seed"))
        if seed is None:
            raise ValueError("the row has no seed, expected a column seed or extra_info with seed")
        student = _Student(self, sampling_params, asyncio.get_running_loop())
        env = make_vec(self.env_id, 1, judge=self.judge)
        attacker = make_attacker(self.env_id, self.attacker)
        (played,) = await asyncio.to_thread(rollout, env, attacker, student, [int(seed)])
        if played.stop == StopReason.FAILED:
            raise RuntimeError(f"the dialogue of seed {seed} failed: {played.error}")
        credit = str(self.config.algorithm.adv_estimator).removeprefix(_PREFIX)
        return output_of(played, credit, student.seconds)


def output_of(played: Trajectory, credit: str = "trajectory", seconds: float = 0.0) -> AgentLoopOutput:
    """Return a dialogue as verl takes it, its prompt cut before the first sampled token.

    Args:
        played: With its tokens.
        credit: Decides which rewards stand at the turns' ends, see above.
        seconds: Spent in sampling.

    Raises:
        ValueError: If no turn has a verdict.
    """
    ledger, trace = reward_ledger(played), played.trace
    if trace is None or np.isnan(ledger.total):
        raise ValueError(f"seed={played.seed}: no turn has a verdict, expected one at least")
    at_L = np.flatnonzero(trace.sampled_L)
    cut = int(at_L[0])
    values_T = ledger.own_T if credit in OWN else ledger.shares_T
    rewards_L = np.zeros(len(trace), np.float32)
    for turn, value in enumerate(values_T):
        end = int(np.flatnonzero(trace.turn_L == turn)[-1])
        rewards_L[end] = value if np.isfinite(value) and value else -0.0
    own = [None if np.isnan(x) else float(x) for x in ledger.own_T]
    images = [image.pil() for image in played.scenario.images[: trace.images]]
    return _Output(
        prompt_ids=trace.ids_L[:cut].tolist(),
        response_ids=trace.ids_L[cut:].tolist(),
        response_mask=loss_mask(trace, played.scored)[cut:].astype(int).tolist(),
        response_logprobs=trace.logprobs_L[cut:].tolist(),
        multi_modal_data={"images": images} if images else {},
        reward_score=float(ledger.total),
        num_turns=2 * len(played.turns),
        metrics={"generate_sequences": seconds},
        extra_fields={"turn_scores": own, "tool_rewards": []},
        token_rewards=rewards_L[cut:].tolist(),
    )


def _ends(rewards_L: Floats, mask_L: Floats) -> NDArray[np.intp]:
    """Return the places of the turns' last tokens: where the mask stops, or a reward (or -0.0) stands."""
    stops = (mask_L > 0) & ~(np.append(mask_L[1:], 0) > 0)
    return np.flatnonzero(stops | (rewards_L != 0) | np.signbit(rewards_L))


def turn_advantages(
    credit: str, rewards_BL: Tensor, mask_BL: Tensor, index: Sequence[Any], config: Any = None
) -> tuple[Tensor, Tensor]:
    """Return the advantage of every token of the mask, twice, as verl's estimators do; (B, L).

    Divided by the group's standard deviation if `config.norm_adv_by_std_in_grpo`, verl's default; the
    paper's is without.

    Args:
        credit: One of `CREDITS`.
        rewards_BL: Rewards at the ends of turns.
        mask_BL: Which tokens are in the loss.
        index: Group of each row.
        config: verl's `algorithm`.
    """
    options = {} if config is None else config  # verl's own class has `get` as well
    scale = bool(options.get("norm_adv_by_std_in_grpo", False))
    rewards, mask = rewards_BL.double().cpu().numpy(), mask_BL.double().cpu().numpy()
    result = np.zeros_like(rewards)
    for group in dict.fromkeys(index):
        rows = [row for row, own in enumerate(index) if own == group]
        ends = [_ends(rewards[row], mask[row]) for row in rows]
        earned = [
            np.where((mask[row][end] > 0) | (credit not in OWN), rewards[row][end], np.nan)
            for row, end in zip(rows, ends, strict=True)
        ]
        found_KT = advantages(earned, credit, discount=float(options.get("gamma", 0.0)), scale=scale)
        for row, end, found_T in zip(rows, ends, found_KT, strict=True):
            for value, start, stop in zip(found_T, [-1, *end[:-1]], end, strict=True):
                result[row, start + 1 : stop + 1] = value
    result_BL = torch.from_numpy(result * (mask > 0)).to(rewards_BL)
    return result_BL, result_BL


def _estimator(credit: str) -> Callable[..., tuple[Tensor, Tensor]]:
    def estimate(
        token_level_rewards: Tensor, response_mask: Tensor, index: Sequence[Any], config: Any = None, **_: Any
    ) -> tuple[Tensor, Tensor]:
        return turn_advantages(credit, token_level_rewards, response_mask, index, config)

    return estimate


for _name in CREDITS:
    register_adv_est(f"{_PREFIX}{_name}")(_estimator(_name))
