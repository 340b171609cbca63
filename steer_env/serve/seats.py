"""A dialogue with a person in one of its seats, and where it is kept when it has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from steer_env.agents.base import Agent, Failed, KeyedObservation
from steer_env.env import DialogueEnv
from steer_env.images import Image
from steer_env.models import BackendError
from steer_env.play.evaluate import DIALOGUES, load_rows, members_of, prepare
from steer_env.records import JsonlWriter, Row, dialogue_row
from steer_env.scenario_files import scenario_row
from steer_env.scenarios import DraftTurn, Scenario, content_id
from steer_env.spaces import MAX_IMAGES
from steer_env.types import ATTACKER, STUDENT, Message, TurnResult, with_images

#: Most turns of an attack of a person's own.
MAX_TURNS = 30
#: File of the attacks, which `evaluate`, `train` and `sft` take as `--scenarios`.
SCENARIOS = "scenarios.jsonl"
#: Id of an attack that is not finished.
_OPEN = "open"


def open_attack(*, kind: str, goal: str, strategy: str = "", category: str = "") -> Scenario:
    """Return the scenario of an attack whose turns and pictures a person makes up as it goes."""
    turns = tuple(DraftTurn("") for _ in range(MAX_TURNS))
    return Scenario(turns, kind=kind, goal=goal, strategy=strategy, category=category, id=_OPEN)


@dataclass(eq=False)
class Seat:
    """A person in one seat of a running dialogue.

    Attributes:
        env: The environment; it is reset.
        human: The person's seat.
        other: Plays the other one.
        seed: Names the dialogue.
        scenario: What it is about.
        results: Finished turns.
        error: Why the other seat has no utterance, "" if it has.
    """

    env: Any
    human: str
    other: Agent
    seed: int
    scenario: Scenario
    results: list[TurnResult] = field(default_factory=list)
    error: str = ""

    def __post_init__(self) -> None:
        self.env.reset(seed=self.seed, options={"scenario": self.scenario})
        self.own = self.scenario.id == _OPEN
        self.ended = False
        self._play_other()

    @property
    def core(self) -> DialogueEnv:
        """The environment without its wrappers."""
        core: DialogueEnv = self.env.unwrapped
        return core

    @property
    def waits(self) -> bool:
        """Whether it is the person's turn."""
        return not self.ended and self.env.agent_selection == self.human

    def messages(self) -> list[tuple[Message, tuple[Image, ...]]]:
        """Return what was said, each with its pictures; both seats see the same."""
        assert self.core.scenario is not None
        return with_images(self.core.transcript, self.core.scenario.images)

    def draft(self) -> tuple[str, tuple[Image, ...]]:
        """Return what the attacker is given for the next turn: the draft and the pictures shown with it."""
        scenario = self.core.scenario
        assert scenario is not None
        if self.human != ATTACKER or not self.waits:
            return "", ()
        turn = scenario.turns[self.core.cycle]
        return turn.text, tuple(scenario.images[i] for i in turn.images)

    def say(self, text: str, images: Sequence[Image] = ()) -> None:
        """Speak for the person, then let the other seat speak; without text the other seat is asked again.

        Raises:
            InvalidUtterance: If the text cannot be said; nothing has changed then.
            ValueError: If there are too many pictures, or pictures that this dialogue has no place for.
        """
        if self.ended:
            return
        if self.waits:
            if images and not (self.own and self.human == ATTACKER):
                raise ValueError("pictures, expected none: this dialogue brings its own")
            if len(images) > MAX_IMAGES:
                raise ValueError(f"{len(images)} pictures, expected at most {MAX_IMAGES} with one turn")
            self.core.check(text, self.human)
            if images:
                self._show(tuple(images))
            self._step(text)
        self._play_other()

    def finish(self) -> None:
        """End an attack of the person's own after the turns it has."""
        self.ended = self.ended or bool(self.own and self.results)

    def _show(self, images: tuple[Image, ...]) -> None:
        scenario, cycle = self.core.scenario, self.core.cycle
        assert scenario is not None
        first = len(scenario.images)
        turns = list(scenario.turns)
        turns[cycle] = replace(turns[cycle], images=tuple(range(first, first + len(images))))
        self.core.scenario = replace(scenario, turns=tuple(turns), images=(*scenario.images, *images))

    def _play_other(self) -> None:
        self.error = ""
        if self.ended or self.waits:
            return
        seat = self.env.agent_selection
        try:
            said = self.other.act([KeyedObservation(self.env.observe(seat), f"{self.seed}.0")])[0]
        except BackendError as error:
            said = Failed(str(error))
        if isinstance(said, Failed):
            self.error = said.reason
            return
        self._step(said)

    def _step(self, text: str) -> None:
        seat = self.env.agent_selection
        self.env.step(text)
        if seat == STUDENT:
            reward = float(self.env.rewards[STUDENT])
            self.results.append(TurnResult(self.core.last_turn, reward, self.core.infos[STUDENT]))
            self.ended = bool(self.core.stop)

    def attack(self, number: int) -> Scenario:
        """Return the scenario that says what the person said, with the pictures it came with."""
        scenario = self.core.scenario
        assert scenario is not None
        said = [result.turn for result in self.results]
        turns = tuple(
            DraftTurn(str(turn.user), old.images, old.risk, old.goal)
            for turn, old in zip(said, scenario.turns, strict=False)
        )
        shown = sum(len(turn.images) for turn in turns)
        # A contrast group is of fixed dialogues; what a person said belongs to none.
        made = replace(
            scenario, turns=turns, images=scenario.images[:shown], cell="", cells=0,
            truth=scenario.truth if shown == len(scenario.images) else None, provenance="human attack", id="",
        )  # fmt: skip
        return replace(made, id=f"{content_id(made)}-{number}")


class Store:
    """Finished dialogues in two run folders: `student`, and `attacks` with the attacks as a scenario file.

    Args:
        folder: Holds both; nobody else may write there.
        meta: What both say of themselves in `run.json`.
        student: Name of who is attacked.
        attacker: Name of who attacks the person.

    Raises:
        RunExists: If the folder holds dialogues of another setting.
    """

    def __init__(self, folder: Path, meta: Mapping[str, Any], *, student: str, attacker: str | None) -> None:
        self.folders = {STUDENT: folder / "student", ATTACKER: folder / "attacks"}
        self.file = self.folders[ATTACKER] / SCENARIOS
        attacks = {"scenarios": str(self.file), "split": None, "attacker": "human", "student": student}
        self.metas = {
            STUDENT: {**meta, "student": "human", "attacker": attacker},
            ATTACKER: {**meta, **attacks},
        }
        for seat, own in self.folders.items():
            own.mkdir(parents=True, exist_ok=True)
            prepare(own, self.metas[seat], resume=True)

    def rows(self, seat: str) -> list[Row]:
        """Return what was played in a seat."""
        return load_rows(self.folders[seat])

    def next_seed(self, seat: str, first: int = 0) -> int:
        """Return the seed of the next dialogue: none is played twice into the same folder."""
        rows = self.rows(seat)
        if seat == ATTACKER:  # whose rows are numbered by the lines of the scenario file
            return first + len(rows)
        return max((int(row["seed"]) + 1 for row in rows), default=first)

    def save(self, seat: Seat) -> Path:
        """Keep a dialogue that has ended, and of an attack its scenario."""
        folder = self.folders[seat.human]
        scenario, seed = seat.core.scenario or seat.scenario, seat.seed  # as an attacker drew on it
        if seat.human == ATTACKER:  # seed s of the folder is line s of its scenario file
            seed = len(self.rows(ATTACKER))
            scenario = seat.attack(seed)
            with JsonlWriter(self.file) as file:
                file.write(scenario_row(scenario, self.file.with_name(f"{self.file.stem}.images")))
                file.sync()
        with JsonlWriter(folder / DIALOGUES) as writer:
            writer.write(dialogue_row(scenario, seed, seat.results, seat.core.stop or "seed_end"))
            writer.sync()
        return folder


def scenario_of(source: Any, seed: int) -> Scenario:
    """Return the scenario that `evaluate` plays for a seed."""
    import numpy as np

    if members_of(source):
        made: Scenario = source.scenario(seed)
        return made
    if hasattr(source, "__len__"):
        return source[seed % len(source)]
    drawn: Scenario = source.sample(np.random.default_rng(seed))
    return drawn
