"""Named suites: which dialogues are played, so that every measure of the report can be had.

A part of a suite plays *whole* scenario groups, the harmless and the risky dialogues of the same device,
because over-refusal on benign twins and J need both; and it may play each dialogue in several attempts,
because attack success within k attempts needs them. Suite "full" is single- and multi-turn, in- and
out-of-distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast, overload

import numpy as np

from steer_env.configs.env import EnvConfig
from steer_env.ids import spec
from steer_env.registration import make_source
from steer_env.scenarios import Scenario

#: A benign dialogue is a twin of a risky one if it shares at least this share of its turns, word for word.
TWIN_SHARE = 0.5


@dataclass(frozen=True)
class Part:
    """One part of a suite.

    Attributes:
        name: Its name, also the `suite` of its rows and its folder.
        env: Environment id.
        split: Of the built-in world.
    """

    name: str
    env: str
    split: str

    @property
    def distribution(self) -> str:
        """Return "in" or "ood"."""
        return distribution_of(self.split)

    @property
    def single(self) -> bool:
        """Whether its dialogues have one turn."""
        return bool(spec(self.env).world.get("single_turn"))


PARTS: Mapping[str, Part] = {
    part.name: part
    for part in (
        Part("bench", "SteerEscalation-v0", "bench"),
        Part("bench-single", "SteerSingleTurn-v0", "bench"),
        Part("ood", "SteerEscalation-v0", "ood"),
        Part("ood-single", "SteerSingleTurn-v0", "ood"),
    )
}
#: Name of a suite -> its parts.
SUITES: Mapping[str, tuple[str, ...]] = {**{name: (name,) for name in PARTS}, "full": tuple(PARTS)}


def distribution_of(split: str) -> str:
    """Return the distribution a split of the built-in world belongs to: "ood" or "in"."""
    return "ood" if split == "ood" else "in"


def suite_parts(name: str) -> tuple[Part, ...]:
    """Return the parts of a suite.

    Raises:
        ValueError: If there is no such suite, or the world has no such split.
    """
    from steer_env.world.source import SPLITS

    if name not in SUITES:
        raise ValueError(f"suite={name!r}, expected one of {', '.join(SUITES)}")
    parts = tuple(PARTS[part] for part in SUITES[name])
    missing = sorted({part.split for part in parts} - set(SPLITS))
    if missing:
        raise ValueError(
            f"suite={name!r} needs split {', '.join(missing)}, but the built-in world has "
            f"{', '.join(SPLITS)}; choose suite bench or bench-single"
        )
    return parts


class WholeGroups(Sequence[Scenario]):
    """The dialogues of whole scenario groups, all members of each in turn, made when asked for.

    Args:
        env: Environment id; it decides kinds and length.
        split: Of the built-in world.
        groups: How many groups.
        seed: Decides which. Fewer groups with the same seed are the first ones of more.
    """

    def __init__(self, env: str, split: str, groups: int, seed: int = 0) -> None:
        if groups < 1:
            raise ValueError(f"groups={groups!r}, expected a positive number of scenario groups")
        self._source = cast(Any, make_source(EnvConfig(env, cast(Any, split))))
        self._members = self._source.members
        rng = np.random.default_rng([seed, 11])
        drawn = dict.fromkeys(int(g) for g in rng.integers((1 << 48) // self._members, size=groups))
        while len(drawn) < groups:  # a group drawn twice counts once
            drawn[int(rng.integers((1 << 48) // self._members))] = None
        self._groups = tuple(drawn)
        self._scenario = lru_cache(maxsize=256)(self._make)

    def __len__(self) -> int:
        return len(self._groups) * self._members

    @overload
    def __getitem__(self, index: int) -> Scenario: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Scenario]: ...
    def __getitem__(self, index: int | slice) -> Scenario | Sequence[Scenario]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"index={index}, expected one below {len(self)}")
        return self._scenario(index % len(self))

    def _make(self, index: int) -> Scenario:
        group, member = divmod(index, self._members)
        made: Scenario = self._source.scenario(self._groups[group] * self._members + member)
        return made

    def siblings(self, index: int) -> Iterator[Scenario]:
        """Yield all dialogues of the group that dialogue `index` is in."""
        first = index % len(self) // self._members * self._members
        return (self[first + member] for member in range(self._members))

    def labels(self, index: int) -> dict[str, Any]:
        """Return what a row says of dialogue `index` in its suite: whether it is a benign twin."""
        one = self[index % len(self)]
        return {"twin": is_twin(one, self.siblings(index))} if one.kind == "benign" else {}


def is_twin(one: Scenario, siblings: Iterator[Scenario] | Sequence[Scenario]) -> bool:
    """Say whether a benign dialogue has the words of a risky one of its group.

    What makes it harmless is then the picture or the purpose alone, not how it is asked.
    """
    texts = [turn.text for turn in one.turns]
    for other in siblings:
        if other.kind != "benign":
            theirs = {turn.text for turn in other.turns}
            if sum(text in theirs for text in texts) >= TWIN_SHARE * len(texts):
                return True
    return False


def groups_for(env: str, split: str, episodes: int) -> int:
    """Return how many whole groups hold at least this many dialogues."""
    source = cast(Any, make_source(EnvConfig(env, cast(Any, split))))
    return -(-episodes // source.members)
