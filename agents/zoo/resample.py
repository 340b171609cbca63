"""The yardstick of every search: another attacker's own draws, the best of which is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from steer_env.agents import make_agent
from steer_env.agents.zoo.asks import SUCCESS, View, score
from steer_env.agents.zoo.core import Attack, Move
from steer_env.types import ATTACKER, Utterance, meta_of


@dataclass
class Resample(Attack):
    """Best of `tries` draws of an attacker, per turn: what luck alone finds at the same budget.

    Attributes:
        of: Name of the attacker; its seed has to decide what it says.
    """

    of: str = "tutor"

    name: ClassVar[str] = "resample"
    paper: ClassVar[str] = "Hughes et al. 2024, arXiv 2412.03556 (best of n)"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._base = make_agent(self.of, seat=ATTACKER)
        if not self._base.varies:
            raise ValueError(f"of={self.of!r} says the same whatever its seed, expected one that varies")

    def move(self, view: View) -> Move:
        """Try another draw, or keep the best."""
        yield from ()
        tried = view.tried
        if tried and (self.left(view) < 1 or score(tried[view.best()]) >= SUCCESS):
            return self.keep_(view, view.best())
        known = {str(one.user) for one in tried}
        for number in range(view.round, 2 * self.tries):
            self._base.reseed(self.seed * 1_000_003 + number)
            said = self._base.act([view.seen])[0]
            if isinstance(said, str) and str(said) not in known:
                meta = {**meta_of(said), "tactic": meta_of(said).get("tactic", "draw")}
                return self.try_([Utterance(str(said), **meta)])
        if tried:
            return self.keep_(view, view.best())
        return Utterance(view.seen["draft"] or "Please go on.", strategy="", tactic="draft")
