"""Self-play: student and attacker train against each other, generation by generation.

*Alternating*: in each generation the attacker practises against the newest student and a league of past ones,
then the student trains against the newest attacker and a league of past and fixed ones. *Simultaneous*: the
student trains against a league whose newest member is the attacker itself, which learns from the same
dialogues after every step; past students do not play then.

The run folder, from which `resume` goes on with bitwise the same result on the same machine's CPU:

    selfplay.json                      settings
    start/model                        the student before generation 0
    generation_000/attacker            practice: metrics.jsonl, attacker.pt (alternating)
    generation_000/student             training: config.json, metrics.jsonl, checkpoints
    generation_000/model               the student after it
    generation_000/state.pt            attacker, memories, counts, baselines after it
    generations.jsonl                  a row per generation
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch

from steer_env.agents.base import Acts, Agent, as_agent
from steer_env.agents.hf.student import HFStudent, sampling
from steer_env.algorithms.base import Algorithm
from steer_env.algorithms.checkpoints import drop_rows_from, save_state
from steer_env.algorithms.league import League
from steer_env.algorithms.learners import Learner, derive, practise
from steer_env.algorithms.trainer import train
from steer_env.configs.train import SelfPlayConfig
from steer_env.files import replacing_folder
from steer_env.records import JsonlWriter, Row, read_jsonl
from steer_env.runs import RunFolder, locked
from steer_env.types import ATTACKER, STUDENT
from steer_env.vector import VectorDialogueEnv

GENERATIONS: Final = "generations.jsonl"
#: Called with what is being trained, its finished steps, all of them, and the step's metrics.
SeatProgress = Callable[[str, int, int, Row], None]
#: Called after a generation with its number; what it returns joins the generation's row.
Measure = Callable[[int], Row]


@locked("run_dir")
def self_play(
    env: VectorDialogueEnv,
    student: HFStudent,
    attacker: Learner,
    algorithm: Algorithm,
    config: SelfPlayConfig,
    run_dir: str | Path,
    *,
    attack_env: VectorDialogueEnv | None = None,
    fixed: Mapping[str, Acts] | None = None,
    measure: Measure | None = None,
    resume: bool = False,
    progress: SeatProgress | None = None,
) -> list[Row]:
    """Train `student` and `attacker` in place against each other.

    Args:
        env: A vector environment; its wrappers emit the student's reward, verdicts pay the attacker. Benign
            dialogues belong in it: without them a student learns to refuse everything.
        student: The student, as it is before generation 0 (also when resuming).
        attacker: The attacker, likewise.
        algorithm: The student's. Its KL reference is the student at the start of each generation.
        config: Settings.
        run_dir: Gets what the module's docstring lists.
        attack_env: Where the attacker practises, `env` by default; benign dialogues teach it nothing and are
            better left out.
        fixed: Attackers that stay in the league, such as a tutor; one with a memory goes on learning, and its
            memory is part of the checkpoints.
        measure: Called after every generation.
        resume: Go on with the run in `run_dir`.
        progress: Called after every step.

    Returns:
        One row per generation: last metrics of both seats, who played, and what `measure` returned.

    Raises:
        RunExists: If `run_dir` holds a run and `resume` is False, or one with other settings.
        ValueError: If a fixed attacker has a generation's name.
    """
    envs = env, attack_env or env
    opponents = {name: as_agent(agent) for name, agent in (fixed or {}).items()}
    run = _Run(envs, student, attacker, algorithm, config, Path(run_dir), opponents, progress)
    done = run.open(resume)
    for generation in range(done, config.generations):
        row = run.play(generation)
        row |= measure(generation) if measure is not None else {}
        run.close(generation, row)
    return list(read_jsonl(run.folder / GENERATIONS))


def student_of(run_dir: str | Path, generation: int) -> Path:
    """Return the model folder of the student after a generation; -1 is the one before all."""
    folder = Path(run_dir)
    return folder / "start" / "model" if generation < 0 else folder / _name(generation) / "model"


def attacker_of(run_dir: str | Path, generation: int, attacker: Learner) -> Agent:
    """Return the attacker as it was after a generation, frozen; `attacker` is one of its make."""
    state = torch.load(Path(run_dir) / _name(generation) / _STATE, weights_only=True, map_location="cpu")
    return attacker.member(state["attacker"])


def _name(generation: int) -> str:
    return f"generation_{generation:03d}"


_STATE: Final = "state.pt"
_SETTINGS: Final = "selfplay.json"
#: The name of a generation's own opponent in the league.
_LIVE: Final = "newest"


class _Run:
    """A self-play run under way."""

    def __init__(
        self,
        envs: tuple[VectorDialogueEnv, VectorDialogueEnv],
        student: HFStudent,
        attacker: Learner,
        algorithm: Algorithm,
        config: SelfPlayConfig,
        folder: Path,
        fixed: dict[str, Agent],
        progress: SeatProgress | None,
    ) -> None:
        self.env, self.attack_env = envs
        self.student, self.attacker, self.algorithm = student, attacker, algorithm
        self.config, self.folder, self.fixed, self._progress = config, folder, fixed, progress
        self.counts: dict[str, dict[str, list[float]]] = {ATTACKER: {}, STUDENT: {}}
        taken = [name for name in fixed if name == _LIVE or name.startswith("generation_")]
        if taken:
            raise ValueError(f"fixed={taken!r}, expected other names: these are the league's own")

    def open(self, resume: bool) -> int:
        """Prepare the folder and go to where the run broke off; returns how many generations are done."""
        settings = self._settings()
        run = RunFolder(self.folder, _SETTINGS)
        run.check(settings, resume=resume, free={"generations"})
        run.write(settings)
        if not student_of(self.folder, -1).exists():
            _save_whole(self.student, student_of(self.folder, -1))
        done = 0
        while (self.folder / _name(done) / _STATE).exists():
            done += 1
        done = min(done, len(_rows(self.folder)), self.config.generations)
        drop_rows_from(self.folder / GENERATIONS, done)
        if done:
            self._load(done - 1)
        return done

    def _settings(self) -> Row:
        theirs = self.attacker.algorithm
        return (
            asdict(self.config)
            | {"algorithm": self.algorithm.name, "options": self.algorithm.options()}
            | {"attacker_algorithm": theirs.name, "attacker_options": theirs.options()}
            | {"learner": self.attacker.settings(), "fixed": sorted(self.fixed)}
        )

    # -- one generation -----------------------------------------------------------------------------------

    def play(self, generation: int) -> Row:
        """Train both seats once; returns the generation's metrics."""
        folder = self.folder / _name(generation)
        attack_rows: Sequence[Row] = ()
        if self.config.mode == "alternating":
            attack_rows = self._practise(generation, folder / "attacker")
            # The student's opponent stays as it is now, whatever happens to the learner.
            newest: Agent = self.attacker.member(self.attacker.state_dict())
        else:
            newest = self.attacker
        league = self._league(ATTACKER, generation, {_LIVE: newest, **self.fixed})
        settings = replace(self.config.student, seed=derive(self.config.seed, generation, 5))
        rows = train(
            self.env, league, self.student, self.algorithm, settings, folder / "student",
            resume=(folder / "student" / "config.json").exists(), progress=self._tell("student", generation),
        )  # fmt: skip
        self._remember(league, _name(generation))
        pool = {name: round(share, 4) for name, share in league.weights().items()}
        last: Row = {"generation": generation, "attacker_pool": pool}
        for seat, of_seat in (("attacker", attack_rows), ("student", rows)):
            last |= {f"{seat}/{key}": value for key, value in _last(of_seat).items()}
        return last

    def _practise(self, generation: int, folder: Path) -> list[Row]:
        league = self._league(STUDENT, generation, {_LIVE: self.student})
        settings = replace(self.config.attacker, seed=derive(self.config.seed, generation, 4))
        as_trained = {name: getattr(self.config.student, name) for name in ("temperature", "max_new_tokens")}
        with sampling(self.student, **as_trained):
            rows = practise(
                self.attack_env, self.attacker, league, settings, folder,
                resume=(folder / "config.json").exists(), progress=self._tell("attacker", generation),
            )  # fmt: skip
        self._remember(league, "start" if generation == 0 else _name(generation - 1))
        return rows

    def _remember(self, league: League, newest: str) -> None:
        """Keep who beat whom; the newest goes on under the name that it has in the pool."""
        own = {newest if name == _LIVE else name: count for name, count in league.counts.items()}
        self.counts[league.seat] |= own

    def _league(self, seat: str, generation: int, playing: Mapping[str, Agent]) -> League:
        past = range(generation) if seat == ATTACKER else range(-1, generation - 1)
        make = self._past_attacker if seat == ATTACKER else self._past_student
        league = League(
            seat,
            _LIVE,
            playing,
            {"start" if g < 0 else _name(g): partial(make, g) for g in past},
            share=self.config.league_share,
            sampling=self.config.sampling,
            power=self.config.power,
            seed=derive(self.config.seed, generation, 6 if seat == ATTACKER else 7),
        )
        league.inherit(self.counts[seat])
        return league

    def _past_attacker(self, generation: int) -> Agent:
        return attacker_of(self.folder, generation, self.attacker)

    def _past_student(self, generation: int) -> Agent:
        return HFStudent.from_pretrained(
            student_of(self.folder, generation),
            dtype=torch.float32,
            temperature=self.config.student.temperature,
            max_new_tokens=self.config.student.max_new_tokens,
            batch_size=self.student.batch_size,
        )

    def _tell(self, seat: str, generation: int) -> Callable[[int, int, Row], None] | None:
        tell = self._progress
        if tell is None:
            return None
        return lambda done, total, row: tell(f"generation {generation}, {seat}", done, total, row)

    # -- what is kept -------------------------------------------------------------------------------------

    def close(self, generation: int, row: Row) -> None:
        """Write what the next generation starts from; the row comes last and makes it complete."""
        folder = self.folder / _name(generation)
        _save_whole(self.student, folder / "model")
        memories = {name: state for name, a in self.fixed.items() if (state := a.state_dict())}
        state = {
            "attacker": self.attacker.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "fixed": memories,
            "counts": self.counts,
        }
        save_state(state, folder / _STATE)
        with JsonlWriter(self.folder / GENERATIONS) as writer:
            writer.write({"step": generation, **row})

    def _load(self, generation: int) -> None:
        """Put everything into the state after a generation."""
        path = self.folder / _name(generation) / _STATE
        state = torch.load(path, weights_only=True, map_location="cpu")
        self.attacker.load_state_dict(state["attacker"])
        self.algorithm.load_state_dict(state["algorithm"])
        for name, memory in state["fixed"].items():
            self.fixed[name].load_state_dict(memory)
        self.counts = {seat: {n: list(c) for n, c in of.items()} for seat, of in state["counts"].items()}
        saved = HFStudent.from_pretrained(student_of(self.folder, generation), dtype=torch.float32)
        self.student.model.load_state_dict(saved.model.state_dict())
        self.student.weights_changed()


def _save_whole(student: HFStudent, folder: Path) -> None:
    """Save a model so that its folder appears under its name only when it is complete."""
    with replacing_folder(folder) as part:
        student.save(part)


def _rows(folder: Path) -> list[Row]:
    path = folder / GENERATIONS
    return list(read_jsonl(path)) if path.exists() else []


def _last(rows: Sequence[Row]) -> Row:
    """The last quarter of a stage's steps, averaged; what is no number is left out."""
    tail = rows[-max(1, len(rows) // 4) :]
    result: Row = {}
    for key in tail[-1] if tail else ():
        values = [row[key] for row in tail if isinstance(row.get(key), int | float)]
        if values and key != "step":
            result[key] = sum(values) / len(values)
    return result
