"""Our dialogues as an environment of verifiers (and so of prime-rl): `examples/verifiers` is its package.

The trace of the student carries the declared return as its reward, and in `info["turn_rewards"]` what each
reply earned by itself, None where it is unscored. The attacker is the id's own, or with `two_seats` an agent
of the run with a trace of its own. Needs the extra `verifiers`, which cannot stand beside OpenEnv's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import verifiers.v1 as vf

from steer_env.interop import brief, messages
from steer_env.registration import make, make_attacker
from steer_env.types import ATTACKER, STUDENT

#: Of a turn: the student's own reward, None where it is unscored, and the attacker's.
_Earned = tuple[float | None, float]


def _seat() -> vf.AgentConfig:
    """Return an agent that only chats, in a process of its own on this machine."""
    return vf.AgentConfig(harness={"id": "null"}, runtime={"type": "subprocess"})


class SteerTasksetConfig(vf.TasksetConfig):
    """Which seeds are played: `episodes` of them, the first one is `seed`."""

    episodes: int = 1000
    seed: int = 0


class SteerTask(vf.Task[vf.TaskData]):
    """A dialogue; its index is added to the first seed."""


class SteerTaskset(vf.Taskset[SteerTask, SteerTasksetConfig]):
    """Seeds in order."""

    def load(self) -> Iterable[SteerTask]:
        """Yield one task per dialogue."""
        for index in range(self.config.episodes):
            yield SteerTask(vf.TaskData(idx=index, name=f"seed {self.config.seed + index}", prompt=None))


class SteerConfig(vf.EnvConfig):
    """Settings of the environment.

    Attributes:
        student: Agent in the student's seat.
        attacker: Agent in the attacker's seat, where it plays.
        game: Environment id.
        opponent: Name of our attacker, None for the id's own.
        two_seats: Whether `attacker` plays instead of `opponent`.
    """

    student: vf.AgentConfig = _seat()
    attacker: vf.AgentConfig = _seat()
    game: str = "SteerEscalation-v0"
    opponent: str | None = None
    two_seats: bool = False


class SteerEnv(vf.Env[SteerConfig]):
    """Plays a dialogue between two seats."""

    async def run(self, task: vf.Task[vf.TaskData], agents: Any) -> None:
        """Play one dialogue.

        Raises:
            ValueError: If a seat ends the dialogue, or there is no verdict to declare a return from; the
                episode then counts as failed, never as a zero.
        """
        env = make(self.config.game)
        scripted = None if self.config.two_seats else make_attacker(self.config.game, self.config.opponent)
        await asyncio.to_thread(env.reset, seed=self.taskset.config.seed + task.data.idx)
        blank = vf.Task(vf.TaskData(idx=task.data.idx, prompt=None))
        async with agents.student.interaction(blank) as student:
            if scripted is None:
                async with agents.attacker.interaction(blank) as attacker:
                    turns, last = await _play(env, student, attacker)
                attacker.trace.info["turn_rewards"] = [earned for _, earned in turns]
                attacker.trace.record_reward("return", sum(earned for _, earned in turns))
            else:
                turns, last = await _play(env, student, scripted)
        if not last.get("return_defined", True):
            raise ValueError(f"seed of task {task.data.idx}: no turn has a verdict, expected one at least")
        student.trace.info["turn_rewards"] = [own for own, _ in turns]
        student.trace.record_reward("return", float(last["return"]))


async def _play(
    env: Any, student: Any, attacker: Any
) -> tuple[list[tuple[float | None, float]], dict[str, Any]]:
    """Return own reward (None if unscored) and the attacker's, turn by turn, and the last turn's info."""
    turns: list[_Earned] = []
    last: dict[str, Any] = {}
    while not (env.terminations[STUDENT] or env.truncations[STUDENT]):
        seat = env.agent_selection
        seen = env.observe(seat)
        if seat == STUDENT:
            said = await _turn(student, messages(seen, start=-1))
        elif hasattr(attacker, "turn"):
            told = {"role": "user", "content": brief(seen)}
            said = await _turn(attacker, [*messages(seen, ATTACKER, start=-1), told])
        else:
            said = (await asyncio.to_thread(attacker.act, [seen]))[0]
        await asyncio.to_thread(env.step, said)
        if seat == STUDENT:
            last = dict(env.infos[STUDENT])
            turns.append(
                (float(last["turn_reward"]) if last["scored"] else None, float(env.rewards[ATTACKER]))
            )
    return turns, last


async def _turn(seat: Any, new: list[dict[str, Any]]) -> str:
    segment = await seat.turn(new)
    if segment.terminated:
        raise ValueError(f"the {seat.trace.agent.name} ended the dialogue, expected a reply")
    return str(segment.last_reply)


def set_advantages(trace: vf.Trace, advantages: Sequence[float]) -> None:
    """Give the tokens of each sampled turn that turn's advantage, in `MessageNode.advantages`.

    Args:
        trace: With token ids, as the training client makes it.
        advantages: (T,), one per turn; NaN where a turn is unscored, whose tokens get 0.

    Raises:
        ValueError: If there are not as many as turns.
    """
    nodes = [node for node in trace.nodes if node.sampled]
    if len(nodes) != len(advantages):
        raise ValueError(f"{len(advantages)} advantages, expected {len(nodes)}, one per sampled turn")
    for node, value in zip(nodes, advantages, strict=True):
        node.advantages = [0.0 if value != value else float(value)] * sum(node.mask)


__all__ = ["SteerEnv", "SteerTaskset"]
