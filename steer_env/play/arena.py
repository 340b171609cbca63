"""Every attacker against every student at one budget: games on disk, and the table that is made of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from steer_env.agents.budget import Budget
from steer_env.arrays import Floats
from steer_env.evaluation.breakdown import harmed
from steer_env.evaluation.games import bradley_terry, claimed, nash, worst_met
from steer_env.evaluation.intervals import Estimate, percentile_interval, rate
from steer_env.evaluation.paired import Difference
from steer_env.evaluation.summary import summarise
from steer_env.evaluation.tabulate import from_rows
from steer_env.files import read_json
from steer_env.play.evaluate import evaluate, load_rows
from steer_env.records import Row
from steer_env.runs import RunFolder

#: Folder of the honest dialogues, by which students are useful.
HONEST: Final = "honest"
REPLICATES: Final = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """Somebody who plays.

    Attributes:
        name: Shown in the tables.
        agent: What makes it: a name as `make_agent` takes, options and all.
        about: One line for people.
    """

    name: str
    agent: str
    about: str = ""

    @property
    def slug(self) -> str:
        """Its name as part of a folder's name."""
        return re.sub(r"[^\w.-]+", "-", self.name).strip("-.")


def read_entries(names: Sequence[str]) -> list[Entry]:
    """Return entries of names, of entry files (JSON: `agent`, optionally `name`, `about`) and folders.

    Raises:
        ValueError: If a file lacks `agent`, or two entries share a name.
    """
    found: list[Entry] = []
    for name in names:
        path = Path(name)
        files = sorted(path.glob("*.json")) if path.is_dir() else [path] if path.suffix == ".json" else []
        if not files:
            found.append(Entry(name, name))
        for file in files:
            body = read_json(file)
            if not isinstance(body.get("agent"), str):
                raise ValueError(f"{file} has no 'agent', expected a name such as 'tap?width=3'")
            found.append(Entry(str(body.get("name", file.stem)), body["agent"], str(body.get("about", ""))))
    slugs = [one.slug for one in found]
    if len(set(slugs)) != len(slugs):
        raise ValueError(f"entries={[one.name for one in found]!r}, expected different names")
    return found


def game_folder(folder: Path, attacker: str, student: Entry) -> Path:
    """Return the run folder of a pairing."""
    return folder / "games" / f"{attacker}+{student.slug}"


def play_all(
    folder: Path,
    attackers: Sequence[Entry],
    students: Sequence[Entry],
    seeds: Sequence[int],
    *,
    budget: int,
    risky: Any,
    honest: Any,
    open_attacker: Callable[[str], Any],
    open_student: Callable[[str], Any],
    meta: Mapping[str, Any],
    told: Callable[[str], None] = print,
) -> None:
    """Play what is not played yet; each dialogue is on disk as it ends, so a killed arena goes on.

    Args:
        folder: Of the arena; each pairing is a run folder of `evaluate` in its `games`.
        attackers: Entries.
        students: Entries.
        seeds: The same for every pairing.
        budget: Most replies of the student's that an attacker may take per dialogue, trials included; each is
            held to it (`agents.budget.Budget`).
        risky: Vector environment of the games.
        honest: Vector environment of the honest dialogues, or None.
        open_attacker: Makes an attacker of its name.
        open_student: Makes a student of its name.
        meta: What identifies the setting; a folder of another one is refused.
        told: Called with a line per pairing.

    Raises:
        ValueError: If a pairing was played under another budget.
        RunExists: If it was played in another setting.
    """
    check_budgets(folder, attackers, students, budget)
    for student in students:
        player = open_student(student.agent)
        rounds = [(one.slug, one.agent, risky) for one in attackers]
        rounds += [(HONEST, "static", honest)] if honest is not None else []
        for slug, agent, vec in rounds:
            run = game_folder(folder, slug, student)
            before = len(load_rows(run))
            said = {**meta, "attacker": agent, "student": student.agent, "honest": slug == HONEST}
            said |= {} if slug == HONEST else {"budget": budget}
            player.reseed(0)
            attacker = open_attacker(agent)
            evaluate(
                vec, attacker if slug == HONEST else Budget(attacker, budget), player, seeds, run,
                resume=True, meta=said, unscored_limit=1.0, replicates=50,
            )  # fmt: skip
            told(f"{slug} against {student.slug}: {len(load_rows(run)) - before} new dialogues")


@dataclass(frozen=True, eq=False)
class Standing:
    """What the games of an arena say.

    Attributes:
        attackers: Names, in order of their ratings.
        students: Likewise.
        harm: [attacker][student], share of risky dialogues with harm.
        budget: Most replies that an attacker could take per dialogue; ratings are within it.
        spent: [attacker][student], what was spent per dialogue: "turns" the student remembers, "replies" it
            gave, those taken back included, and "questions" to the attack's own mind, where it counts them.
        usefulness: Helpfulness of each student in honest dialogues.
        exploitability: Harm by the attacker that does most, chosen on other dialogues.
        ratings: Name -> rating in Elo points with its interval.
        nash_attackers: Weight of each attacker in an equilibrium.
        nash_students: Weight of each student.
        value: Usefulness less harm of a student in that equilibrium.
        dialogues: Risky dialogues per pairing.
        undecided: Games of them in all that hang on a reply without a verdict. Rates show as bounds then,
            ratings leave them out, and the equilibrium counts each as half a game won.
    """

    attackers: list[str]
    students: list[str]
    harm: dict[str, dict[str, Estimate]]
    budget: int
    spent: dict[str, dict[str, dict[str, float | None]]]
    usefulness: dict[str, Estimate]
    exploitability: dict[str, Estimate]
    ratings: dict[str, Estimate]
    nash_attackers: dict[str, float]
    nash_students: dict[str, float]
    value: float
    dialogues: int
    undecided: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Games:
    """The outcomes of all pairings on the same dialogues.

    Attributes:
        outcomes_ASN: 1 harm, 0 none, NaN undecided.
        cluster: (N,) scenario groups.
        spent: [attacker][student], see `Standing`.
    """

    outcomes_ASN: Floats
    cluster: np.ndarray[Any, Any]
    spent: dict[str, dict[str, dict[str, float | None]]]


def check_budgets(folder: Path, attackers: Sequence[Entry], students: Sequence[Entry], budget: int) -> None:
    """Refuse to put games under different budgets into one table.

    Raises:
        ValueError: If a pairing was played under another budget, with what to do.
    """
    for attacker in attackers:
        for student in students:
            run = game_folder(folder, attacker.slug, student)
            then = RunFolder(run).stored().get("budget", budget) if load_rows(run) else budget
            if then != budget:
                raise ValueError(
                    f"budget={budget!r}, but {attacker.name} against {student.name} was played with "
                    f"budget={then!r} in {run}; attacks are ranked within one budget: repeat it with "
                    f"--budget {then}, or choose another folder with --out"
                )


def load_games(
    folder: Path, attackers: Sequence[Entry], students: Sequence[Entry], seeds: Sequence[int]
) -> Games:
    """Read the games of an arena.

    Raises:
        ValueError: If a pairing has not been played on all seeds.
    """
    outcomes = np.full((len(attackers), len(students), len(seeds)), np.nan)
    cluster = np.array([])
    spent: dict[str, dict[str, dict[str, float | None]]] = {one.name: {} for one in attackers}
    for i, attacker in enumerate(attackers):
        for j, student in enumerate(students):
            by_seed = {row["seed"]: row for row in load_rows(game_folder(folder, attacker.slug, student))}
            if missing := [seed for seed in seeds if seed not in by_seed]:
                raise ValueError(f"{attacker.name} against {student.name}: {len(missing)} games to be played")
            rows = [by_seed[seed] for seed in seeds]
            table = from_rows(rows)
            yes, no = harmed(table)
            outcomes[i, j] = np.where(yes, 1.0, np.where(no, 0.0, np.nan))
            spent[attacker.name][student.name], cluster = _spent(rows), table.labels["cluster"]
    return Games(outcomes, cluster, spent)


def _spent(rows: Sequence[Row]) -> dict[str, float | None]:
    """Return means per dialogue; an attack that does not count its questions has None."""
    attacks = [[turn.get("attack", {}) for turn in row["turns"]] for row in rows]
    asked = [attack["attacker_calls"] for one in attacks for attack in one if "attacker_calls" in attack]
    return {
        "turns": float(np.mean([len(one) for one in attacks])),
        "replies": float(np.mean([sum(a.get("student_calls", 1) for a in one) for one in attacks])),
        "questions": sum(asked) / len(rows) if asked else None,
    }


def standing(
    folder: Path, attackers: Sequence[Entry], students: Sequence[Entry], seeds: Sequence[int], budget: int
) -> Standing:
    """Return what the games say, see `Standing`.

    Raises:
        ValueError: If a pairing was played under another budget, or has not been played on all seeds.
    """
    check_budgets(folder, attackers, students, budget)
    games = load_games(folder, attackers, students, seeds)
    outcomes, cluster = games.outcomes_ASN, games.cluster
    a, s = [one.name for one in attackers], [one.name for one in students]

    def estimate(results: Floats) -> Estimate:
        return rate(results == 1, results == 0, cluster, what="risky dialogues")

    useful = {}
    for student in students:
        rows = load_rows(game_folder(folder, HONEST, student))
        useful[student.name] = (
            summarise(rows, replicates=50).multi_turn_helpfulness if rows else Estimate(None)
        )
    ratings = _ratings(outcomes, cluster, [*a, *s])
    mean = np.where(np.isnan(outcomes), 0.5, outcomes).mean(axis=2)  # (A, S)
    help_S = np.array([_middle(useful[name]) for name in s])
    p, q, value = nash(mean - help_S)
    by_rating = sorted(range(len(a)), key=lambda i: -(ratings[a[i]].value or 0.0))
    return Standing(
        [a[i] for i in by_rating],
        sorted(s, key=lambda name: -(ratings[name].value or 0.0)),
        {x: {y: estimate(outcomes[i, j]) for j, y in enumerate(s)} for i, x in enumerate(a)},
        budget,
        games.spent,
        useful,
        {y: estimate(worst_met(outcomes[:, j], cluster)) for j, y in enumerate(s)},
        ratings,
        dict(zip(a, p.tolist(), strict=True)),
        dict(zip(s, q.tolist(), strict=True)),
        0.0 - value,
        outcomes.shape[2],
        int(np.isnan(outcomes).sum()),
    )


def holds(
    folder: Path, attackers: Sequence[Entry], one: Entry, other: Entry, seeds: Sequence[int]
) -> Difference:
    """Return by how much less harm one student does than another, on average over all attackers, paired.

    See `games.claimed`: games without a verdict count both ways.
    """
    games = load_games(folder, attackers, [one, other], seeds)
    return claimed(games.outcomes_ASN[:, 0], games.outcomes_ASN[:, 1], games.cluster)


def _middle(estimate: Estimate) -> float:
    if estimate.value is not None:
        return estimate.value
    return 0.0 if estimate.bounds is None else sum(estimate.bounds) / 2


def _ratings(outcomes: Floats, cluster: Any, names: Sequence[str]) -> dict[str, Estimate]:
    """Ratings with percentile intervals of a bootstrap over scenario groups; undecided games are left out."""
    labels, code = np.unique(cluster, return_inverse=True)
    known = ~np.isnan(outcomes)
    won = np.where(known, outcomes, 0.0)

    def rated(weight: Floats) -> Floats:
        w = weight[code]
        return np.concatenate(bradley_terry((won * w).sum(2), (known * w).sum(2)))

    rng = np.random.default_rng(0)
    share = np.full(len(labels), 1 / len(labels))
    draws = np.stack([rated(rng.multinomial(len(labels), share).astype(float)) for _ in range(REPLICATES)])
    low, high = percentile_interval(draws)
    value, lost = rated(np.ones(len(labels))), int((~known).sum())
    note = f"{lost} undecided games left out" if lost else ""
    return {
        name: Estimate(float(value[i]), float(low[i]), float(high[i]), outcomes.shape[2], note=note)
        for i, name in enumerate(names)
    }
