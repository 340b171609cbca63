"""Many dialogues in one process, batched by seat and never in lock-step.

`VectorDialogueEnv` is what rollouts use: ask which dialogues wait for a seat, answer any of them in any
order, get finished dialogues back whole. A judge behind a server may take its time: the slot waits for the
verdict, the others go on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from pettingzoo import AECEnv

from steer_env.env import DialogueEnv
from steer_env.forking import fork
from steer_env.judges.base import AsyncJudge, judge_batch, read_verdict
from steer_env.scenarios import Scenario
from steer_env.types import ATTACKER, STUDENT, Turn, TurnResult, Verdict

#: What a slot waits for while its reply is with an asynchronous judge.
_JUDGE = "the judge"


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A dialogue that has just ended, whole: nothing of its final turn is lost.

    Attributes:
        id: The slot it ran in.
        scenario: What it was about.
        seed: Its reset seed, None if unseeded.
        turns: All turns with emitted rewards and infos.
        stop: "seed_end" (terminated), "max_cycles" or "failed" (truncated).
        observation: The student's final observation.
        error: Why it failed, "" otherwise.
    """

    id: int
    scenario: Scenario
    seed: int | None
    turns: tuple[TurnResult, ...]
    stop: str
    observation: dict[str, Any]
    error: str = ""


@dataclass(slots=True)
class Slot:
    """A place of a vector environment and the dialogue in it."""

    env: AECEnv[str, Any, Any]
    core: DialogueEnv
    seed: int | None = None
    waiting: str = ""  # the seat it waits for, or the judge, "" when idle or finished
    carried: float = 0.0  # student reward emitted between replies, added to the next turn
    results: list[TurnResult] | None = None
    reply: str = ""  # what the judge is at
    verdict: Future[Verdict] | None = None


class VectorDialogueEnv:
    """N dialogues in one process.

    Args:
        factories: One callable per slot, each returning a (wrapped) AEC dialogue environment.

    Example:
        vec = steer_env.make_vec("SteerEscalation-v0", num_envs=64)
        vec.reset(seed=0)
        while vec.running:
            ids, observations = vec.pending("attacker_0")
            vec.submit("attacker_0", ids, attacker.act(observations))
            ids, observations = vec.pending("student_0")
            finished = vec.submit("student_0", ids, student.act(observations))
    """

    def __init__(self, factories: Sequence[Callable[[], AECEnv[str, Any, Any]]]) -> None:
        if not factories:
            raise ValueError("factories=[], expected at least one environment")
        self._slots: list[Slot] = []
        for factory in factories:
            env = factory()
            core = getattr(env, "unwrapped", None)
            if not isinstance(core, DialogueEnv):
                raise TypeError(
                    f"a factory returned {env!r}, expected an AEC environment around a DialogueEnv"
                )
            self._slots.append(Slot(env, core))

    @property
    def num_envs(self) -> int:
        """Number of slots."""
        return len(self._slots)

    @property
    def envs(self) -> tuple[AECEnv[str, Any, Any], ...]:
        """The slots' environments."""
        return tuple(slot.env for slot in self._slots)

    @property
    def running(self) -> int:
        """Number of dialogues that wait for a seat or for their judge."""
        return sum(slot.waiting != "" for slot in self._slots)

    def wrap(self, wrapper: Callable[[Any], Any]) -> VectorDialogueEnv:
        """Wrap every slot's environment and return self. Reset before going on."""
        for slot in self._slots:
            slot.env = wrapper(slot.env)
            slot.waiting, slot.verdict = "", None
        return self

    def reset(
        self,
        seed: int | None = None,
        *,
        seeds: Iterable[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Start dialogues: one per slot with `seed + slot`, or one per element of `seeds`; all get `options`.

        Slots beyond `seeds` stay idle. Equal seeds give equal scenarios, which is how a GRPO group is made.

        Raises:
            ValueError: If there are more seeds than slots.
        """
        if seeds is None:
            seeds = [None if seed is None else seed + i for i in range(len(self._slots))]
        chosen = list(seeds)
        if len(chosen) > len(self._slots):
            raise ValueError(
                f"{len(chosen)} seeds for {len(self._slots)} slots; raise num_envs or start() more later"
            )
        for slot in self._slots:
            slot.waiting, slot.verdict = "", None
        for i, value in enumerate(chosen):
            self.start(i, value, options)

    def start(self, id: int, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start a new dialogue in one slot, whatever the others do."""
        slot = self._slots[id]
        slot.verdict = None  # a verdict on the dialogue before comes too late
        seed = None if seed is None else int(seed)  # Gymnasium takes no NumPy integers
        slot.env.reset(seed=seed, options=options)
        slot.seed, slot.carried, slot.results = seed, 0.0, []
        slot.waiting = ATTACKER

    def pending(self, agent: str) -> tuple[list[int], list[dict[str, Any]]]:
        """Return the slots that wait for `agent`, in order, and what it observes there."""
        ids = [i for i, slot in enumerate(self._slots) if slot.waiting == agent]
        return ids, [self._slots[i].env.observe(agent) for i in ids]

    def horizon(self, id: int) -> int:
        """Return how many cycles the dialogue in a slot has if no seat fails."""
        return self._slots[id].core.horizon

    def snapshot(self, id: int) -> object:
        """Return an exact copy of a slot's dialogue, for `restore`.

        Raises:
            ValueError: If no dialogue runs there, or its judge is at work.
            TypeError: If its environment cannot be forked.
        """
        slot = self._slots[id]
        if slot.waiting not in (ATTACKER, STUDENT):
            state = slot.waiting or "nobody (finished or idle)"
            raise ValueError(
                f"slot {id} waits for {state}, expected a running dialogue that waits for a seat"
            )
        return _forked(slot)

    def restore(self, id: int, snapshot: object) -> None:
        """Go on in a slot from a snapshot, whatever it played before; a snapshot can be used many times.

        Raises:
            TypeError: If it is not a snapshot.
        """
        if not isinstance(snapshot, Slot):
            raise TypeError(f"snapshot={snapshot!r}, expected what snapshot() returned")
        self._slots[id] = _forked(snapshot)

    def replay(self, id: int, scenario: Scenario, seed: int, turns: Sequence[Turn], user: str) -> None:
        """Put a slot where a recorded dialogue was when the student had to answer `user`.

        Finished turns keep their verdicts: no judge is asked again.
        """
        self.start(id, seed, {"scenario": scenario})
        for turn in turns:
            self.replay_turn(id, turn.user, turn.reply, turn.verdict)
        self._step(id, ATTACKER, user)

    def replay_turn(self, id: int, user: str, reply: str, verdict: Verdict | None) -> list[Finished]:
        """Play a turn whose reply and verdict are known; returns the dialogue if that ended it."""
        self._step(id, ATTACKER, user)
        if verdict is not None:
            self._slots[id].core.offer_verdict(reply, verdict)
        done = self._step(id, STUDENT, reply)
        return [] if done is None else [done]

    def submit(
        self, agent: str, ids: Sequence[int], utterances: Sequence[str], *, wait: bool = True
    ) -> list[Finished]:
        """Speak for `agent` in some slots; replies are judged in one batch per judge.

        Args:
            agent: The seat.
            ids: Slots that wait for it.
            utterances: One per slot.
            wait: If False, replies with an `AsyncJudge` are only handed to it; those slots wait for their
                verdicts (see `judging`) until `collect`.

        Returns:
            The dialogues this ended, in the order of `ids`.

        Raises:
            ValueError: If the numbers differ, or a slot does not wait for `agent`.
            InvalidUtterance: If an utterance is not a string, too long, or not valid Unicode.

        Nothing has changed in any slot when one of these is raised.
        """
        check_one_each(utterances, len(ids), f"utterances for {len(ids)} dialogues of {agent}")
        self._check_waiting(agent, ids)
        for i, utterance in zip(ids, utterances, strict=True):
            self._slots[i].core.check(utterance, agent)
        if agent == STUDENT:
            if not wait:
                ids, utterances = self._hand_over(ids, utterances)
            self._judge(ids, utterances)
        return self._step_all(agent, ids, utterances)

    def check(self, agent: str, id: int, utterance: str) -> None:
        """Raise `InvalidUtterance` if `submit` would refuse this utterance in this slot."""
        self._slots[id].core.check(utterance, agent)

    def judging(self) -> dict[int, Future[Verdict]]:
        """Return the slots whose reply is with their judge, and what to wait for."""
        return {i: slot.verdict for i, slot in enumerate(self._slots) if slot.verdict is not None}

    def collect(self, ids: Sequence[int]) -> list[Finished]:
        """Go on in slots whose verdict has arrived; blocks for those that have none yet.

        Returns:
            The dialogues this ended, in the order of `ids`.

        Raises:
            ValueError: If a slot waits for no verdict.
            TypeError: If a judge gave anything but `Scored` or `Unscored`.
        """
        self._check_waiting(_JUDGE, ids)
        for i in ids:
            slot = self._slots[i]
            assert slot.verdict is not None and slot.core.judge is not None
            slot.core.offer_verdict(slot.reply, read_verdict(slot.core.judge, slot.verdict))
            slot.verdict, slot.waiting = None, STUDENT
        return self._step_all(STUDENT, ids, [self._slots[i].reply for i in ids])

    def fail(self, id: int, reason: str) -> Finished:
        """End the dialogue of a slot as failed: an agent has no utterance. Its finished turns are kept.

        Raises:
            ValueError: If no dialogue runs there.
        """
        slot = self._slots[id]
        if not slot.waiting:
            raise ValueError(f"slot {id} is idle or finished, expected a running dialogue; start() one first")
        slot.core.fail()
        return self._finish(id, reason)

    def _step_all(self, agent: str, ids: Sequence[int], utterances: Sequence[str]) -> list[Finished]:
        finished = []
        for i, utterance in zip(ids, utterances, strict=True):
            done = self._step(i, agent, utterance)
            if done is not None:
                finished.append(done)
        return finished

    def last_result(self, id: int) -> TurnResult:
        """Return the last finished turn of a slot with its emitted reward and info, also after the end."""
        results = self._slots[id].results
        if not results:
            raise ValueError(f"slot {id} has no finished turn yet; submit the student's reply first")
        return results[-1]

    def _check_waiting(self, agent: str, ids: Sequence[int]) -> None:
        if len(set(ids)) != len(ids):
            raise ValueError(f"ids={list(ids)!r}, expected each slot at most once")
        for i in ids:
            if not 0 <= i < len(self._slots):
                raise ValueError(f"slot {i} does not exist, expected 0..{len(self._slots) - 1}")
            if self._slots[i].waiting != agent:
                state = self._slots[i].waiting or "nobody (finished or idle)"
                raise ValueError(f"slot {i} waits for {state}, not for {agent}; submit what pending() listed")

    def _hand_over(self, ids: Sequence[int], replies: Sequence[str]) -> tuple[list[int], list[str]]:
        """Give replies to their judges where these take one at a time; returns the others."""
        left = []
        for i, reply in zip(ids, replies, strict=True):
            slot = self._slots[i]
            if isinstance(slot.core.judge, AsyncJudge):
                slot.verdict = slot.core.judge.submit(slot.core.judge_request(reply))
                slot.reply, slot.waiting = reply, _JUDGE
            else:
                left.append((i, reply))
        return [i for i, _ in left], [reply for _, reply in left]

    def _judge(self, ids: Sequence[int], replies: Sequence[str]) -> None:
        by_judge: dict[int, list[tuple[DialogueEnv, str]]] = {}
        for i, reply in zip(ids, replies, strict=True):
            core = self._slots[i].core
            if core.judge is not None:
                by_judge.setdefault(id(core.judge), []).append((core, reply))
        for pairs in by_judge.values():
            judge = pairs[0][0].judge
            assert judge is not None
            verdicts = judge_batch(judge, [core.judge_request(reply) for core, reply in pairs])
            for (core, reply), verdict in zip(pairs, verdicts, strict=True):
                core.offer_verdict(reply, verdict)

    def _step(self, id: int, agent: str, utterance: str) -> Finished | None:
        slot = self._slots[id]
        env, core = slot.env, slot.core
        env.step(utterance)
        reward = _number(env.rewards[STUDENT], core)
        if agent == ATTACKER:
            slot.carried += reward
            slot.waiting = STUDENT
            return None
        assert slot.results is not None
        # The info dict is fresh every turn, so it can be kept without copying.
        slot.results.append(TurnResult(core.last_turn, reward + slot.carried, core.infos[STUDENT]))
        slot.carried = 0.0
        if not core.stop:
            slot.waiting = ATTACKER
            return None
        return self._finish(id)

    def _finish(self, id: int, error: str = "") -> Finished:
        slot = self._slots[id]
        slot.waiting, slot.verdict = "", None
        assert slot.core.scenario is not None and slot.results is not None
        observation = slot.env.observe(STUDENT)
        assert observation is not None
        turns = tuple(slot.results)
        return Finished(id, slot.core.scenario, slot.seed, turns, slot.core.stop, observation, error)

    def close(self) -> None:
        """Close every environment."""
        for slot in self._slots:
            slot.env.close()


def _number(reward: Any, core: DialogueEnv) -> float:
    """Return a reward as a number.

    Raises:
        ValueError: If it is none, or infinite; NaN is that of a turn without a verdict.
    """
    try:
        value = float(reward)
    except (TypeError, ValueError):
        value = math.inf
    if math.isinf(value):
        assert core.scenario is not None
        where = f"turn {len(core.turns)} of scenario {core.scenario.id!r}"
        raise ValueError(
            f"rewards[{STUDENT!r}]={reward!r} in {where}, expected a finite number, or NaN for a turn "
            "without a verdict; correct the wrapper that emits it"
        )
    return value


def check_one_each(texts: Sequence[str], expected: int, what: str) -> None:
    """Raise ValueError unless there are as many texts as expected; `what` is told."""
    # A lone string is a sequence too: of letters.
    if isinstance(texts, str) or not hasattr(texts, "__len__"):
        raise ValueError(f"{texts!r} as {what}, expected a list of one string each, in order")
    if len(texts) != expected:
        raise ValueError(
            f"{len(texts)} {what}; expected one each, in order (an agent's act() answers every observation)"
        )


def _forked(slot: Slot) -> Slot:
    """Return an exact copy of a slot with its running dialogue."""
    env = fork(slot.env)
    results = [
        TurnResult(r.turn, r.reward, copy.deepcopy(r.info, {id(r.turn.verdict): r.turn.verdict}))
        for r in slot.results or ()
    ]
    return replace(slot, env=env, core=env.unwrapped, results=results, verdict=None)
