"""Play many dialogues between an attacker and a student, and keep what happened.

Every dialogue waits for its own agents only. An agent with only `act` answers everything that waits for its
seat in one call; an agent or a judge with `submit` (a server) answers one by one, and a dialogue goes on the
moment its answer arrives. The place of a dialogue that ended is refilled at once, so that dialogues of
different lengths share full batches to the end. No deep learning framework is imported here; token traces
ride along in the student's utterances.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from steer_env.agents.base import Acts, Failed, KeyedObservation, as_agent
from steer_env.env import InvalidUtterance, TooLong
from steer_env.judges.base import DEADLINE, give_up
from steer_env.scenarios import Scenario
from steer_env.seats import Seat
from steer_env.trajectory import StopReason, Trajectory
from steer_env.trials import Trials
from steer_env.types import ATTACKER, STUDENT, Utterance, meta_of
from steer_env.vector import Finished, VectorDialogueEnv

#: Called after every batch of replies with the number of finished dialogues and of all.
Progress = Callable[[int, int], None]
#: Called with (what is being made, units done, units in all).
StageProgress = Callable[[str, int, int], None]
#: Called with each trajectory the moment its dialogue ends.
OnFinished = Callable[[Trajectory], None]
#: A finished dialogue with its place among the seeds.
Placed = tuple[int, Trajectory]
#: What a seed plays: scenario number `seed` modulo their count, or what a function of the seed returns.
BySeed = Sequence[Scenario] | Callable[[int], Scenario]


def rollout(
    env: VectorDialogueEnv,
    attacker: Acts,
    student: Acts,
    seeds: Sequence[int],
    *,
    learn: bool = False,
    scenarios: BySeed | None = None,
    progress: Progress | None = None,
    on_finished: OnFinished | None = None,
    deadline: float = DEADLINE,
) -> list[Trajectory]:
    """Play one dialogue per seed and return them in the order of `seeds`.

    Repeat a seed K times to get the members of a GRPO group. With local agents the result depends on the
    seeds alone; with servers in between it still does, as far as the servers' own answers do, whatever
    arrives first.

    A dialogue whose agent answers `Failed`, or something the environment refuses (such as a text longer than
    `max_length`), ends there with `stop` FAILED and the reason in `error`; the run goes on. What a model
    generated (an `Utterance` with `finish`) is cut at `max_length` and counts as cut. An exception in an
    agent is a bug and ends the run.

    Args:
        env: A vector environment; its slots are refilled until all seeds are played.
        attacker: Speaks for `attacker_0`.
        student: Speaks for `student_0`.
        seeds: Reset seeds, any number.
        learn: Hand the trajectories to `attacker.learn` at the end.
        scenarios: What each seed plays; None lets the environment draw.
        progress: Called with (finished, all).
        on_finished: Called with each trajectory the moment its dialogue ends, so that nothing that ended is
            lost when the run does not.
        deadline: Seconds after which a reply or verdict under way counts as lost: that dialogue fails, that
            turn is unscored. An `act` or `judge` that does not return cannot be ended.

    Raises:
        ValueError: If an agent returns the wrong number of utterances.
        TypeError: If one of them is neither a string nor `Failed`.
    """
    play = _Play(env, attacker, student, seeds, on_finished, scenarios, deadline=deadline)
    finished = dict(play.run(progress))
    trajectories = [finished[place] for place in range(len(seeds))]
    if learn:
        as_agent(attacker).learn(trajectories)
    return trajectories


def rollout_iter(
    env: VectorDialogueEnv,
    attacker: Acts,
    student: Acts,
    seeds: Sequence[int],
    *,
    scenarios: BySeed | None = None,
    progress: Progress | None = None,
    on_finished: OnFinished | None = None,
    deadline: float = DEADLINE,
) -> Iterator[Placed]:
    """Play one dialogue per seed and yield each as it ends, with its place in `seeds`.

    Takes and raises what `rollout` does; nothing is kept in memory. `on_finished` is called before any
    dialogue that ended at the same time is yielded.
    """
    yield from _Play(env, attacker, student, seeds, on_finished, scenarios, deadline=deadline).run(progress)


def rollout_from(
    env: VectorDialogueEnv,
    attacker: Acts,
    student: Acts,
    points: Sequence[tuple[Trajectory, int]],
    k: int,
    *,
    progress: Progress | None = None,
) -> list[list[Trajectory]]:
    """Play recorded dialogues on, from the middle and several times.

    The turns before a point stay as they were, verdicts included, and so does the user's turn that is to be
    answered; the reply and all that follows are played again. The opponent draws the same numbers in all
    continuations of a dialogue, as it does for siblings; a student that samples draws other ones in each.

    Args:
        env: A vector environment with the wrappers the dialogues were played under; it is reset.
        attacker: Speaks for `attacker_0`, best as it was in the dialogues.
        student: Speaks for `student_0`.
        points: Dialogues, each with the index of the first reply to be given again.
        k: Continuations of each point, at least 1.
        progress: Called with (finished, all).

    Returns:
        The continuations of each point, whole dialogues, in order.

    Raises:
        ValueError: If `k` is below 1, or a dialogue has no such turn.
        TypeError: If the environment cannot be forked.
    """
    if k < 1:
        raise ValueError(f"k={k!r}, expected at least one continuation of each point")
    for trajectory, turn in points:
        if not 0 <= turn < len(trajectory.turns):
            raise ValueError(
                f"turn={turn!r} of a dialogue of {len(trajectory.turns)} turns, expected one of them"
            )
    seeds = [trajectory.seed for trajectory, _ in points for _ in range(k)]
    # What stands before the last dot names the group: attackers draw for it, students for the whole name.
    streams = [
        f"{name.replace('.', '.fork')}/{turn}/{i}"
        for name, (_, turn) in zip(_streams([t.seed for t, _ in points]), points, strict=True)
        for i in range(k)
    ]
    reached: dict[int, object] = {}

    def begin(slot: int, place: int) -> None:
        point = place // k
        trajectory, turn = points[point]
        if point not in reached:  # each dialogue is played up to its point once
            said = [result.turn for result in trajectory.turns]
            env.replay(slot, trajectory.scenario, trajectory.seed, said[:turn], said[turn].user)
            reached[point] = env.snapshot(slot)
        env.restore(slot, reached[point])
        if place % k == k - 1:
            del reached[point]

    play = _Play(env, attacker, student, seeds, None, None, begin, streams)
    played = dict(play.run(progress))
    return [[played[point * k + i] for i in range(k)] for point in range(len(points))]


class _Play:
    """One rollout under way."""

    def __init__(
        self,
        env: VectorDialogueEnv,
        attacker: Acts,
        student: Acts,
        seeds: Sequence[int],
        on_finished: OnFinished | None,
        scenarios: BySeed | None,
        begin: Callable[[int, int], None] | None = None,
        streams: Sequence[str] | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        self.env, self.seeds, self.on_finished, self.scenarios = env, seeds, on_finished, scenarios
        self.seats = (Seat(ATTACKER, attacker), Seat(STUDENT, student))
        self.begin = begin
        self.streams = _streams(seeds) if streams is None else streams
        self.playing: dict[int, int] = {}  # slot -> place in `seeds`
        self.started = self.finished = 0
        self.deadline = deadline
        self._since: dict[Future[Any], float] = {}
        self.trials = Trials(env)

    def run(self, progress: Progress | None) -> Iterator[Placed]:
        self.env.reset(seeds=[])
        for slot in range(min(self.env.num_envs, len(self.seeds))):
            self._start(slot)
        while self.playing:
            moved = False
            for seat in self.seats:
                ids, replies = seat.ask(*self._pending(seat))
                if ids:
                    moved = True
                    yield from self._end(self._answer(seat, ids, replies))
            judged = [slot for slot, verdict in self.env.judging().items() if verdict.done()]
            if judged:
                moved = True
                yield from self._end(self.trials.settle(judged, self.env.collect(judged)))
            if not moved:
                self._wait()
            elif progress is not None:
                progress(self.finished, len(self.seeds))

    def _start(self, slot: int) -> None:
        place = self.playing[slot] = self.started
        self.started += 1
        seed = self.seeds[place]
        if self.begin is not None:
            self.begin(slot, place)
        else:
            self.env.start(slot, seed, self._options(seed))

    def _options(self, seed: int) -> dict[str, Any] | None:
        if self.scenarios is None:
            return None
        if callable(self.scenarios):
            return {"scenario": self.scenarios(seed)}
        return {"scenario": self.scenarios[seed % len(self.scenarios)]}

    def _pending(self, seat: Seat) -> tuple[list[int], list[Any]]:
        ids, observations = self.env.pending(seat.name)
        return ids, [
            KeyedObservation(
                seen,
                self.streams[self.playing[i]],
                self.trials.tried(i) if seat.name == ATTACKER else (),
                self.env.horizon(i),
            )
            for i, seen in zip(ids, observations, strict=True)
        ]

    def _answer(self, seat: Seat, ids: list[int], replies: list[Utterance | Failed]) -> Iterable[Finished]:
        """Submit what was said, and end the dialogues that failed."""
        checked = [(i, self._checked(seat, i, reply)) for i, reply in zip(ids, replies, strict=True)]
        said = [(i, reply) for i, reply in checked if isinstance(reply, str)]
        ended: list[Finished] = []
        if seat.name == ATTACKER:
            said, ended = self.trials.open(said)
        slots = [i for i, _ in said]
        ended += self.env.submit(seat.name, slots, [reply for _, reply in said], wait=False)
        if seat.name == STUDENT:
            ended = self.trials.settle([i for i in slots if i not in self.env.judging()], ended)
        for i, reply in checked:
            if isinstance(reply, Failed):
                self.trials.drop(i)
                ended.append(self.env.fail(i, f"{seat.name}: {reply.reason}"))
        return ended

    def _checked(self, seat: Seat, slot: int, reply: Utterance | Failed) -> Utterance | Failed:
        """Return what was said, or `Failed` where the environment would refuse it: one dialogue ends.

        What a model generated, and not a program wrote, is cut instead, as it is at its limit of tokens.
        """
        if isinstance(reply, Failed):
            return reply
        try:
            said = self._fitting(seat, slot, reply)
            if tries := meta_of(said).get("tries"):
                fitting = tuple(self._fitting(seat, slot, text) for text in tries)
                said = Utterance(str(said), **{**meta_of(said), "tries": fitting})
        except InvalidUtterance as error:
            return Failed(f"invalid: {error}")
        return said

    def _fitting(self, seat: Seat, slot: int, text: Utterance) -> Utterance:
        """Return a text that the environment takes: as it is, or what a model generated cut at the limit."""
        try:
            self.env.check(seat.name, slot, text)
        except TooLong as error:
            known = meta_of(text)
            if "finish" not in known:
                raise
            text = Utterance(str(text)[: error.limit], **{**known, "finish": "length"})
            self.env.check(seat.name, slot, text)
        return text

    def _end(self, ended: Iterable[Finished]) -> Iterator[Placed]:
        """Hand over ended dialogues, refill their places, then give them away."""
        done = [(self.playing.pop(dialogue.id), dialogue) for dialogue in ended]
        placed = [(place, _trajectory(dialogue, self.seeds[place])) for place, dialogue in done]
        if self.on_finished is not None:
            for _, trajectory in placed:
                self.on_finished(trajectory)
        for _, dialogue in done:
            if self.started < len(self.seeds):
                self._start(dialogue.id)
        self.finished += len(done)
        yield from placed

    def _wait(self) -> None:
        """Sleep until an agent or a judge answers."""
        open_requests: list[Future[Any]] = [f for seat in self.seats for f in seat.requests.values()]
        open_requests += self.env.judging().values()
        if not open_requests:
            raise RuntimeError(
                f"{len(self.playing)} dialogues run and none waits for a seat or a judge, expected one that "
                "does; pending() of the vector environment must list every running dialogue"
            )
        give_up(open_requests, self._since, self.deadline)


def _streams(seeds: Sequence[int]) -> list[str]:
    """Name each dialogue by its seed and its number among those with the same seed."""
    seen: Counter[int] = Counter()
    names = []
    for seed in seeds:
        names.append(f"{seed}.{seen[seed]}")
        seen[seed] += 1
    return names


def _trajectory(dialogue: Finished, seed: int) -> Trajectory:
    trace = meta_of(dialogue.turns[-1].turn.reply).get("trace") if dialogue.turns else None
    stop = StopReason(dialogue.stop)
    return Trajectory(dialogue.scenario, seed, tuple(dialogue.turns), stop, trace, dialogue.error)
