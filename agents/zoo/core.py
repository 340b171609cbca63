"""What the published attacks have in common: plan, propose, score, keep or take back.

An attack is a small strategy (`Attack.move`) over a mind that puts things into words (`Mind`). It tries user
turns in forks of the dialogue (`agents.base.attempt`), reads how the student answered, and keeps one. So
there are two histories: the student's holds what was kept, the attack's all that was tried.

An attack keeps no state of a dialogue: which branch an attempt belongs to, what was planned and what it cost
stand in the meta of its own utterances.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from steer_env.agents.base import Observation, Seeded, attempt, keep
from steer_env.agents.tutor import StrategyMemory, is_honest
from steer_env.agents.zoo.asks import Answer, Ask, Mind, View, refused, score
from steer_env.agents.zoo.scripted import ScriptedMind
from steer_env.checks import integer
from steer_env.scenarios import STRATEGIES
from steer_env.types import Utterance, meta_of

#: A move under way: yields questions, is sent their answers, returns what is said.
Move = Generator[list[Ask], list[Answer], Utterance]


@dataclass
class Attack(Seeded, StrategyMemory):
    """A published attack in the attacker's seat; subclasses write `move`.

    Honest users (`kind="benign"`) say their seed. Every utterance carries `attack` in its meta: the name, and
    of this turn the questions to the mind (`attacker_calls`), the replies it took (`student_calls`), the
    forks among them, what was pruned before it was asked, and the attempts that were taken back.

    Attributes:
        model: Who puts it into words: "" for the script of the built-in world, a chat back end or its name.
        tries: Most replies it may take per turn, the kept one included.
        seed: Decides draws and wording.
        memory: Whether `learn` changes which strategies it prefers.
    """

    model: Any = ""
    tries: int = 6
    seed: int = 0
    memory: bool = False
    _counts: dict[str, list[float]] = field(init=False, repr=False)
    _mind: Mind = field(init=False, repr=False)

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    #: Instructions to a model.
    how: ClassVar[str] = ""

    def __post_init__(self) -> None:
        integer("tries", self.tries, 1)
        self._counts = {s: [0.0, 0.0] for s in STRATEGIES}
        if self.model:
            from steer_env.agents.zoo.model import ModelMind

            self._mind = ModelMind(self.model, self.seed)
        else:
            self._mind = ScriptedMind()

    @abstractmethod
    def move(self, view: View) -> Move:
        """Yield questions to the mind, and return what is said: `try_`, `keep_` or `say`."""

    def act(self, observations: Sequence[Observation]) -> list[Utterance]:
        """Return the next user turn of each dialogue, or what to try; the questions of all go out at once."""
        said: list[Utterance] = [Utterance()] * len(observations)
        moves: dict[int, Move] = {}
        asks: dict[int, list[Ask]] = {}
        for i, seen in enumerate(observations):
            view = View(seen, self.seed)
            moves[i] = self._honest(view) if is_honest(seen) else self.move(view)
        answers: dict[int, list[Answer]] = {}
        spent = dict.fromkeys(moves, 0)
        while moves:
            for i, move in list(moves.items()):
                try:
                    asks[i] = move.send(answers[i]) if i in answers else next(move)
                    spent[i] += len(asks[i])
                except StopIteration as done:
                    said[i] = self._counted(View(observations[i], self.seed), done.value, spent[i])
                    del moves[i]
            flat = iter(self._mind.answer([ask for i in moves for ask in asks[i]], self._counts))
            answers = {i: [next(flat) for _ in asks[i]] for i in moves}
        return said

    # -- what a move returns ------------------------------------------------------------------------------

    def try_(self, candidates: Sequence[Utterance]) -> Utterance:
        """Return that candidates are tried, as many as the budget allows."""
        return attempt(list(candidates)[: self.tries])

    def keep_(self, view: View, index: int, **meta: Any) -> Utterance:
        """Return that the dialogue goes on from an attempt."""
        return keep(view.tried, index, **meta)

    def say(self, answer: Answer, **meta: Any) -> Utterance:
        """Return an answer as an utterance."""
        more = {"fallback": answer.error} if answer.error else {}
        tactic = meta.pop("tactic", self.name)
        return Utterance(answer.text, strategy=answer.strategy, tactic=tactic, **more, **meta)

    def left(self, view: View) -> int:
        """Return how many replies may still be taken at this turn."""
        allowed = getattr(view.seen, "replies", None)
        return min(self.tries, self.tries if allowed is None else allowed) - len(view.tried)

    # -- budget -------------------------------------------------------------------------------------------

    def _counted(self, view: View, said: Utterance, calls: int) -> Utterance:
        meta = dict(said.meta)
        if "tries" in meta:
            meta["tries"] = tuple(
                Utterance(str(one), **{**meta_of(one), "calls": calls}) for one in meta["tries"]
            )
            return Utterance(str(said), **{**meta, "calls": calls})
        by_round = {one.round: meta_of(one.user).get("calls", 0) for one in view.tried}
        kept = meta.get("keep")
        body = {
            "name": self.name,
            "attacker_calls": calls + sum(by_round.values()),
            "student_calls": len(view.tried) + (kept is None),
            "forks": len(view.tried),
            "pruned": sum({one.round: meta_of(one.user).get("pruned", 0) for one in view.tried}.values()),
            "taken_back": [
                {"user": str(one.user), "reply": str(one.reply), "score": score(one), "refused": refused(one)}
                for i, one in enumerate(view.tried)
                if i != kept
            ],
        }
        return Utterance(str(said), **{**meta, "attack": body})

    def _honest(self, view: View) -> Move:
        yield from ()
        return Utterance(view.seen["draft"] or "Please go on.", strategy="", tactic="honest")
