"""Another attacker within a budget of replies, so that attacks are compared at equal cost."""

from __future__ import annotations

from collections.abc import Sequence

from steer_env.agents.base import (
    Acts,
    AgentWrapper,
    Failed,
    KeyedObservation,
    Observation,
    as_agent,
    keep,
    stream_of,
    tried_of,
    turns_of,
)
from steer_env.checks import integer
from steer_env.types import USER, Utterance, meta_of


class Budget(AgentWrapper):
    """Another attacker that may take so many replies of the student's per dialogue, trials included.

    What is left is shared evenly among the turns to come; what a turn leaves over goes to the later ones. The
    attacker finds its share in `observation.replies`. One that does not look is held to it: candidates beyond
    it are not tried, and when none is left the last attempt is what was said. Every turn says in its meta's
    `attack` how many replies it took.

    It needs rollouts, which say how many turns a dialogue has; a dialogue of more turns than `replies` takes
    one per turn.

    Args:
        agent: The attacker.
        replies: Most replies per dialogue.
    """

    def __init__(self, agent: Acts, replies: int) -> None:
        # Not AgentWrapper's: what comes back has to pass through `act`, so nothing is submitted one by one.
        self.agent = as_agent(agent)
        self.replies = integer("replies", replies, 1)

    def seen(self, observation: Observation) -> KeyedObservation:
        """Return the observation with its share of the budget."""
        said = [meta_of(m.content) for m in observation["transcript"] if m.role == USER]
        left = self.replies - sum(meta.get("attack", {}).get("student_calls", 1) for meta in said)
        turns = turns_of(observation)
        to_come = 1 if turns is None else max(1, turns - len(said))
        share = max(1, left // to_come)
        return KeyedObservation(observation, stream_of(observation), tried_of(observation), turns, share)

    def act(self, observations: Sequence[Observation]) -> Sequence[Utterance | Failed]:
        """Return the agent's utterances, held to the budget."""
        seen = [self.seen(o) for o in observations]
        return [self._held(o, said) for o, said in zip(seen, self.agent.act(seen), strict=True)]

    def _held(self, seen: KeyedObservation, said: Utterance | Failed) -> Utterance | Failed:
        if isinstance(said, Failed):
            return said
        meta, tried = meta_of(said), seen.tried
        room = (seen.replies or 1) - len(tried)
        if "tries" in meta and room > 0:
            return Utterance(str(said), **{**meta, "tries": tuple(meta["tries"])[:room]})
        if "keep" not in meta and room <= 0:
            said = keep(tried, len(tried) - 1)
            meta = meta_of(said)
        taken = len(tried) + ("keep" not in meta)
        if taken == 1 and "attack" not in meta:
            return said
        return Utterance(str(said), **{**meta, "attack": {**meta.get("attack", {}), "student_calls": taken}})
