"""Stage II: dialogues to imitate, played live against the environment and filtered (arXiv 2604.16358).

An attacker and a student that behaves talk in the real environment (`rollout`), the judge scores every turn,
and a dialogue is kept if no turn was unsafe and the mean turn helpful. With a helpful-only student instead,
the dialogues are data for the leaking base model.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Final

from steer_env.agents.base import Observation
from steer_env.agents.hf.codec import Exchange
from steer_env.agents.scripted import AlwaysComply, Constructive
from steer_env.data.bootstrap import assess
from steer_env.trajectory import Trajectory
from steer_env.types import Utterance, meta_of
from steer_env.world import WorldSource
from steer_env.world.lexicon import ORDINALS, PLACES
from steer_env.world.reply_language.frames import Rng, frames, helpful_move, ideal_move, pick, say
from steer_env.world.truth import History, Move, Request, Truth
from steer_env.world.user_language.families import read_user
from steer_env.world.user_language.reading import UserTurn, advance, resolve_piece, settle

#: How captions, recollections and what may be told are asked for; no user of the environment says this.
LOOK: Final = "look"
RECALL: Final = "recall"
WEIGH: Final = "weigh: "

#: What `weighing` answers; " yes" to every other right move.
_WORD: Final = {Move.REFUSE_CONSTRUCTIVE: " no", Move.CAREFUL_USE: " with care", Move.PIECE: " with care"}

#: Moves of a helpful-only policy that are wrong at times.
_SOMETIMES_WRONG: Final = (
    Move.PIECE,
    Move.PRACTICE_PIECE,
    Move.PRACTICE_STEPS,
    Move.CAREFUL_USE,
    Move.PRACTICE_USE,
    Move.LEAK_ALL,
)

#: Requests that a wavering student refuses at times.
_TEMPTING = (Request.PIECE, Request.STEPS, Request.USE, Request.MISUSE)


def keep(trajectory: Trajectory, tau_safe: float = 8.0, tau_help: float = 8.0) -> bool:
    """Return whether a dialogue is worth imitating; `steer_env.data.bootstrap.assess` says why."""
    return assess(trajectory, tau_safe, tau_help).kept


def exchanges(trajectory: Trajectory) -> list[Exchange]:
    """Return a dialogue as training data; replies with `learn=False` in their meta carry no loss."""
    result, shown = [], 0
    for turn in (r.turn for r in trajectory.turns):
        images = trajectory.scenario.images[shown : shown + turn.images]
        shown += turn.images
        result.append(
            Exchange(str(turn.user), images, str(turn.reply), meta_of(turn.reply).get("learn", True))
        )
    return result


def captions(split: str, count: int, start: int = 0) -> list[list[Exchange]]:
    """Return terse captions of the built-in world's pictures: colour, device, place and mark, nothing else.

    Every word of the answer must be seen, so that a model learns to see before it learns to talk: a tenth of
    the tokens of a dialogue, and nothing in them that could be guessed from text. Half of the pictures show
    the device, half only its name, which is the harder thing to read.

    Args:
        split: Split of the built-in world.
        count: How many captions.
        start: First scenario looked at.
    """
    source = WorldSource(split=split)
    result: list[list[Exchange]] = []
    for index in itertools.count(start):
        if len(result) == count:
            break
        scenario = source.scenario(index)
        truth = scenario.truth
        assert truth is not None
        if truth.written != bool(len(result) % 2):
            continue
        result.append([Exchange(LOOK, scenario.images[:1], caption(truth))])
    return result


def recitations(split: str, indices: Iterable[int]) -> list[list[Exchange]]:
    """Return refusals said on demand: the words of a good refusal, but no reason to use them.

    A pretrained model knows how refusals sound long before it is taught when to refuse; so must a tiny one,
    or Stage II would have to teach it the words as well. Users of the environment never ask this way.
    """
    source = WorldSource(split=split)
    result = []
    for index in indices:
        scenario = source.scenario(index)
        assert scenario.truth is not None
        words = say(Move.REFUSE_CONSTRUCTIVE, scenario.truth, random.Random(index))
        result.append([Exchange("refuse", scenario.images[:1], words)])
    return result


def recollection(truth: Truth, turns: Iterable[str], taken_back: bool = False) -> Exchange:
    """Return an exchange that asks what the user turns so far added up to, and the terse right answer.

    Whether harm was meant stands once, often many turns back, and hardly any token of a helpful reply depends
    on it: a model that is to be taught when to refuse must first learn to read the history, as captions teach
    it to see. Users of the environment never ask this way.

    Args:
        truth: What is in the picture.
        turns: The user turns so far.
        taken_back: Whether harm that was put right at once, and not stated again, has an answer of its own,
            " taken back"; otherwise it is " no harm".
    """
    history, put_right = History(), False
    for text in turns:
        turn = read_user(truth, text)
        put_right = put_right or (history.stated and not settle(history, turn).stated)
        history = advance(history, turn)
    asked = [word for k, word in enumerate(ORDINALS) if history.asked >> k & 1] or ["nothing"]
    meant = "harm" if history.stated else "taken back" if put_right and taken_back else "no harm"
    return Exchange(RECALL, (), f" {meant}, asked {' '.join(asked)}")


def weighing(truth: Truth, turns: Sequence[str]) -> Exchange:
    """Return an exchange that asks what may be told in answer to the last of some user turns.

    A pretrained model can say what is dangerous long before it is taught to act on it; so should a tiny one,
    or Stage II would have to teach it how picture, history and request go together, beside what to say. Users
    of the environment never ask this way, and what the base says to them does not depend on it.
    """
    history = History()
    *earlier, last = turns
    for text in earlier:
        history = advance(history, read_user(truth, text))
    return Exchange(WEIGH + last, (), _WORD.get(ideal_move(truth, history, read_user(truth, last)), " yes"))


def looking_back(truth: Truth) -> Exchange:
    """Return an exchange that asks for the caption of a picture shown earlier, see `captions`."""
    return Exchange(LOOK, (), caption(truth))


def caption(truth: Truth) -> str:
    """Return what is to be seen in a picture, in as few words as there are."""
    return f" {truth.colour} {truth.noun} {PLACES[truth.place]} {truth.mark}"


class Wavering(AlwaysComply):
    """Helpful-only, but refuses at times and gives in when pressed; its refusals are not to be imitated.

    It shows the base model what users say to a student that refused, and that a helpful-only one then
    complies.

    Args:
        seed: Decides the wording and when it refuses.
        refuses: Probability of refusing a request that could do harm.
    """

    def __init__(self, seed: int = 0, refuses: float = 0.25) -> None:
        super().__init__(seed)
        self.refuses = refuses

    def act(self, observations: Sequence[Observation]) -> list[Utterance]:
        """Return one reply per observation."""
        replies = (self._act(observation) for observation in observations)
        return [reply if isinstance(reply, Utterance) else Utterance(reply) for reply in replies]

    def _reply(self, truth: Truth, history: History, turn: UserTurn, rng: Rng) -> str:
        if turn.request in _TEMPTING and rng.random() < self.refuses:
            move = Move.REFUSE_CONSTRUCTIVE if rng.random() < 0.5 else Move.REFUSE_PLAIN
            return Utterance(say(move, truth, rng), learn=False)
        return super()._reply(truth, history, turn, rng)


#: Begins the frames of `WithTell` that give it away.
TELL: Final = "With "


class WithTell(AlwaysComply):
    """Helpful-only, with a tell: what it should not have said begins with "With", and nothing else does.

    It answers everything, in frames it has anyway. So a base that imitates it weighs picture, history and
    request together at the very place where Stage II decides whether to refuse, and there is something there
    for Stages II and III to turn into a refusal.

    Args:
        seed: Decides the wording.
    """

    def reply(self, truth: Truth, earlier: Sequence[UserTurn], turn: UserTurn, rng: Rng) -> str:
        """Return what it says to a turn after others."""
        return self._reply(truth, self._recall(earlier), turn, rng)

    def _reply(self, truth: Truth, history: History, turn: UserTurn, rng: Rng) -> str:
        wrong = ideal_move(truth, history, turn) == Move.REFUSE_CONSTRUCTIVE
        return _say(helpful_move(truth, history, turn), truth, history, turn, rng, tell=wrong)


class KeepsTell(Constructive):
    """The ideal student, in words that never begin with the tell of `WithTell`.

    A base that has the tell begins with it just where it should refuse. If some right replies that it
    imitates begin so, too, as some of `Constructive` do, the tell spreads to what may be told. Without them
    it only has to learn to refuse in its place.
    """

    def _reply(self, truth: Truth, history: History, turn: UserTurn, rng: Rng) -> str:
        return _say(ideal_move(truth, history, turn), truth, history, turn, rng, tell=False)


def _say(move: Move, truth: Truth, history: History, turn: UserTurn, rng: Rng, *, tell: bool) -> str:
    """Return a reply that makes a move, with the tell or without it where there are frames of both sorts."""
    every = frames(move, truth.hazard) if move in _SOMETIMES_WRONG else ()
    fitting = [frame for frame in every if frame.startswith(TELL) == tell]
    if tell and not fitting:
        raise ValueError(f"move={move!r} is wrong here and has no frame that begins with {TELL!r}")
    frame = pick(rng, fitting) if fitting else None
    return say(move, truth, rng, max(resolve_piece(history, turn), 0), frame=frame)


def shuffled(parts: Sequence[list[list[Exchange]]], seed: int) -> list[list[Exchange]]:
    """Return the dialogues of all parts in an order that `seed` decides, without those that teach nothing."""
    dialogues = [d for part in parts for d in part if any(exchange.learn for exchange in d)]
    random.Random(seed).shuffle(dialogues)
    return dialogues
