"""The attacker that does not listen."""

from __future__ import annotations

from collections.abc import Sequence

from steer_env.agents.base import Agent, Observation
from steer_env.types import Utterance


class StaticAttacker(Agent):
    """Replays the seed: says the draft of every turn, whatever the student did."""

    def act(self, observations: Sequence[Observation]) -> list[Utterance]:
        """Return the draft of each observation, tagged with the seed's strategy."""
        return [Utterance(o["draft"], strategy=o.get("strategy", ""), tactic="static") for o in observations]

    def __repr__(self) -> str:
        return "StaticAttacker()"
