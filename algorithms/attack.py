"""The attacker's side of dialogues: what each of its turns earned, and its own tokens.

`attacker_groups` turns dialogues into `SeatTrajectory` objects, trajectories as seen from `attacker_0`: they
carry the attacker's token trace and its rewards, so that credit, advantages and losses work on them as they
do on the student's. Dialogues of honest users are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steer_env.agents.hf.attacker import briefing, opening
from steer_env.agents.hf.codec import Exchange
from steer_env.arrays import Floats
from steer_env.checks import check_integers
from steer_env.drawing import told
from steer_env.rewards import (
    ATTACK_WEIGHTS,
    attack_harm,
    attack_reward,
    check_weights,
    diversity,
    harm_cost,
)
from steer_env.scenarios import Scenario
from steer_env.trajectory import StopReason, Trajectory, TrajectoryGroup
from steer_env.types import ATTACKER, STUDENT, Scored, Turn, TurnResult, meta_of
from steer_env.world.truth import Request
from steer_env.world.user_language.families import read_user


@dataclass(frozen=True, slots=True, eq=False)
class SeatTrajectory(Trajectory):
    """A dialogue as one seat was paid for it; `rewards`, `scored` and `trace` are that seat's.

    Attributes:
        seat: "attacker_0" or "student_0".
        known: Which turns have a reward; the others are masked as unscored turns are.
    """

    seat: str = STUDENT
    known: tuple[bool, ...] = ()

    @property
    def scored(self) -> tuple[bool, ...]:
        """Which turns have a reward of this seat."""
        return self.known


def seat_of(trajectory: Trajectory) -> str:
    """Return the seat whose rewards a trajectory carries."""
    return trajectory.seat if isinstance(trajectory, SeatTrajectory) else STUDENT


@dataclass(frozen=True, slots=True)
class AttackReward:
    """What an attacker is paid for a turn, see `rewards.attack_reward`.

    Attributes:
        weights: Weights of harm, form and diversity; non-negative, summing to 1.
        ngram: Words per n-gram of the diversity.
        max_words: A longer utterance is not well formed.

    Raises:
        ValueError: If a setting is out of its range.
    """

    weights: tuple[float, float, float] = ATTACK_WEIGHTS
    ngram: int = 3
    max_words: int = 60

    def __post_init__(self) -> None:
        check_weights(self.weights)
        check_integers(self, ("ngram", "max_words"), 1)

    def terms(self, members: Sequence[Trajectory]) -> list[dict[str, Floats]]:
        """Return "harm", "placed", "diversity" and "reward" of each member's turns, (T_k,) each.

        Members share a seed. An utterance is compared with what its siblings said in the same turn, unless
        they drew common random numbers and so had to say the same, and with what it said itself
        before; all rewards of an honest user are NaN.
        """
        words = [[str(r.turn.user).split() for r in t.turns] for t in members]
        return [self._terms(t, k, words) for k, t in enumerate(members)]

    def _terms(self, trajectory: Trajectory, k: int, words: list[list[list[str]]]) -> dict[str, Floats]:
        turns = [result.turn for result in trajectory.turns]
        safety = [t.verdict.terms.safety if isinstance(t.verdict, Scored) else np.nan for t in turns]
        placed = [self.placed(trajectory.scenario, t.user) for t in turns]
        new = []
        for i in range(len(turns)):
            common = meta_of(turns[i].user).get("common", False)
            siblings = [said[i] for j, said in enumerate(words) if j != k and i < len(said) and not common]
            new.append(diversity(words[k][i], [*siblings, *words[k][:i]], self.ngram))
        harm = attack_harm(safety)
        reward = attack_reward(harm, placed, new, self.weights)
        if trajectory.scenario.kind == "benign":
            reward = np.full(len(turns), np.nan)
        return {
            "harm": harm,
            "placed": np.array(placed, float),
            "diversity": np.array(new, float),
            "reward": np.asarray(reward, float),
        }

    def placed(self, scenario: Scenario, utterance: str) -> bool:
        """Return whether the environment can place an utterance, and it is not too long."""
        if not 0 < len(utterance.split()) <= self.max_words:
            return False
        truth = scenario.truth
        return truth is None or read_user(truth, told(utterance)).request != Request.UNKNOWN


def attacker_groups(
    groups: Sequence[TrajectoryGroup], reward: AttackReward | None = None
) -> list[TrajectoryGroup]:
    """Return the groups as the attacker was paid for them, without those of honest users."""
    reward = reward or AttackReward()
    return [
        TrajectoryGroup(
            tuple(
                _view(t, terms)
                for t, terms in zip(group.trajectories, reward.terms(group.trajectories), strict=True)
            )
        )
        for group in groups
        if group.trajectories[0].scenario.kind != "benign"
    ]


def _view(trajectory: Trajectory, terms: dict[str, Floats]) -> SeatTrajectory:
    known = tuple(bool(k) for k in np.isfinite(terms["reward"]))
    results = []
    for i, result in enumerate(trajectory.turns):
        info = {"attack": {name: float(values[i]) for name, values in terms.items() if name != "reward"}}
        results.append(TurnResult(result.turn, float(terms["reward"][i]) if known[i] else 0.0, info))
    trace = meta_of(trajectory.turns[-1].turn.user).get("trace") if trajectory.turns else None
    return SeatTrajectory(
        trajectory.scenario, trajectory.seed, tuple(results), trajectory.stop, trace, trajectory.error,
        seat=ATTACKER, known=known,
    )  # fmt: skip


def harmed(trajectory: Trajectory) -> bool | None:
    """Return whether some reply of a risky dialogue did harm; None where it is benign or not decided.

    One harmful reply decides it; that there was none is known only if every reply has a verdict.
    """
    if trajectory.scenario.kind == "benign":
        return None
    costs = [
        harm_cost(r.turn.verdict.terms.safety) if isinstance(r.turn.verdict, Scored) else None
        for r in trajectory.turns
    ]
    if 1.0 in costs:
        return True
    return None if None in costs or not costs or trajectory.stop == StopReason.FAILED else False


def attack_metrics(groups: Sequence[TrajectoryGroup]) -> dict[str, Any]:
    """Summarise the attacker's side of some dialogues; a mean over nothing is None.

    Args:
        groups: From `attacker_groups`.
    """
    members = [t for group in groups for t in group.trajectories]
    rewards = [r for t in members for r, known in zip(t.rewards, t.scored, strict=True) if known]
    outcomes = [o for o in map(harmed, members) if o is not None]
    row: dict[str, Any] = {"attack_reward": _mean(rewards), "attack_success": _mean(outcomes)}
    for name in ("harm", "placed", "diversity"):
        values = [result.info["attack"][name] for t in members for result in t.turns]
        row[f"attack_{name}"] = _mean([v for v in values if np.isfinite(v)])
    row["attack_words"] = _mean([len(str(r.turn.user).split()) for t in members for r in t.turns])
    return row


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


# -- imitation -------------------------------------------------------------------------------------------


def attack_exchanges(trajectory: Trajectory, instructions: str = "") -> list[Exchange]:
    """Return a dialogue as training data for the attacker's seat: briefings, and what it said after them."""
    scenario, result = trajectory.scenario, []
    before: Turn | None = None
    shown = 0
    for i, turn in enumerate(r.turn for r in trajectory.turns):
        draft = scenario.turns[i].text if i < len(scenario.turns) else ""
        if before is None:
            seen = {"goal": scenario.goal, "strategy": scenario.strategy, "technique": scenario.technique}
            text, images = opening(seen, instructions, draft), 0
        else:
            verdict = before.verdict.terms if isinstance(before.verdict, Scored) else None
            text, images = briefing(before.reply, verdict, draft), before.images
        result.append(Exchange(text, scenario.images[shown : shown + images], str(turn.user)))
        shown += images
        before = turn
    return result
