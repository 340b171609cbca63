"""User turns that an attacker tries in forks of a dialogue before it says one.

An attempt is a whole exchange: the student answers, the judge scores, and then the dialogue is put back to
where it was. So the student's history holds what was kept and nothing else, while the attacker sees all it
tried (`agents.base.Attempt`): the two histories of Crescendo and of the search attacks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from steer_env.agents.base import Attempt
from steer_env.types import ATTACKER, Utterance, meta_of
from steer_env.vector import Finished, VectorDialogueEnv


@dataclass(slots=True)
class _Trial:
    """What is tried at one turn of a slot: where the dialogue stood, what is under way and what came out."""

    base: object
    waiting: list[Utterance] = field(default_factory=list)
    tried: list[Attempt] = field(default_factory=list)
    rounds: int = 0


class Trials:
    """The attempts of all slots of a vector environment.

    Args:
        env: The environment; its slots are snapshotted and restored.
    """

    def __init__(self, env: VectorDialogueEnv) -> None:
        self._env = env
        self._of: dict[int, _Trial] = {}

    def tried(self, slot: int) -> tuple[Attempt, ...]:
        """Return what was tried at the turn a slot is at."""
        trial = self._of.get(slot)
        return () if trial is None else tuple(trial.tried)

    def drop(self, slot: int) -> None:
        """Forget a slot: its turn is over, or its dialogue."""
        self._of.pop(slot, None)

    def open(
        self, said: Sequence[tuple[int, Utterance]]
    ) -> tuple[list[tuple[int, Utterance]], list[Finished]]:
        """Take an attacker's answers: those to be said now, and dialogues that ended with an attempt kept.

        Raises:
            ValueError: If an attempt is kept that was never made.
        """
        left: list[tuple[int, Utterance]] = []
        ended: list[Finished] = []
        for slot, utterance in said:
            meta = meta_of(utterance)
            if "keep" in meta:
                ended += self._keep(slot, utterance, int(meta["keep"]))
            elif "tries" in meta:
                left.append((slot, self._begin(slot, list(meta["tries"]))))
            else:
                self.drop(slot)
                left.append((slot, utterance))
        return left, ended

    def settle(self, slots: Collection[int], ended: Sequence[Finished]) -> list[Finished]:
        """Take down the attempts whose reply has its verdict and put those dialogues back.

        Args:
            slots: Where a reply has just been judged.
            ended: The dialogues that ended with it.

        Returns:
            Those of them that were no attempts.
        """
        trying = [slot for slot in slots if slot in self._of]
        for slot in trying:
            trial, turn = self._of[slot], self._env.last_result(slot).turn
            trial.tried.append(Attempt(turn.user, turn.reply, turn.verdict, trial.rounds - 1))
            self._env.restore(slot, trial.base)
            if trial.waiting:
                self._env.submit(ATTACKER, [slot], [trial.waiting.pop(0)])
        return [one for one in ended if one.id not in trying]

    def _begin(self, slot: int, candidates: list[Utterance]) -> Utterance:
        trial = self._of.setdefault(slot, _Trial(None))
        if trial.base is None:
            trial.base = self._env.snapshot(slot)
        trial.rounds += 1
        first, *trial.waiting = candidates
        return first

    def _keep(self, slot: int, utterance: Utterance, index: int) -> list[Finished]:
        """Say an attempt: the reply and the verdict are those it got."""
        tried = self.tried(slot)
        self.drop(slot)
        if not 0 <= index < len(tried):
            raise ValueError(f"keep={index!r} of {len(tried)} attempts, expected one of them")
        known = tried[index]
        return self._env.replay_turn(slot, utterance, known.reply, known.verdict)
