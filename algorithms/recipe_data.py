"""What the tiny base is trained on: captions, short dialogues, long dialogues."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np

import steer_env
from steer_env.agents.attackers import StaticAttacker
from steer_env.agents.hf.codec import Exchange
from steer_env.agents.scripted import AlwaysComply, Constructive
from steer_env.agents.tutor import ScriptedTutor
from steer_env.algorithms import sft
from steer_env.algorithms.bootstrap import (
    Wavering,
    WithTell,
    captions,
    exchanges,
    looking_back,
    recitations,
    recollection,
    shuffled,
    weighing,
)
from steer_env.configs.env import Split
from steer_env.rollout import rollout
from steer_env.scenarios import Scenario
from steer_env.trajectory import Trajectory
from steer_env.vector import VectorDialogueEnv
from steer_env.world import WorldSource
from steer_env.world.play import play
from steer_env.world.truth import CALM_MOVES, History, Request, Truth
from steer_env.world.user_language.families import read_user
from steer_env.world.user_language.reading import advance

ENV = "SteerEscalation-v0"
#: Most different examples per phase: more of them cost encoding time and memory and teach nothing new.
UNIQUE = 4000
#: Share of captions, of short and of long dialogues of the base that are about the devices of both families.
PLAIN_SHARES = (0.65, 0.55, 0.33)
#: How often the members of the contrast groups are in the dialogues that teach the tell. A hazard with intent
#: is learnt first, by the request; the others hang on what was said.
TELL_SHARES = (1.0, 1.4, 2.4, 2.0)
#: The same in "tell-second": hazards more often, because what may be told of one, a step or its use with
#: care, hangs on what was asked for before, and is learnt last.
TELL_SECOND_SHARES = (2.0, 2.4, 1.5, 1.5)
#: The same where whole replies are taught: the steps of hazards are the words that are forgotten first.
WHOLE_SHARES = (2.0, 3.0, 1.8, 1.2)

#: Makes about so many examples from a seed.
_Maker = Callable[[int, int], Sequence[sft.Dialogue]]


def base_data(name: str, count: int, seed: int) -> Sequence[sft.Dialogue]:
    """Return examples of a phase of the base, about `count` of them, at most `UNIQUE` different ones.

    Args:
        name: "see": captions; "short": dialogues of 2 to 4 turns, captions, and refusals said on demand;
            "hear" and "listen": the first turns of dialogues, or dialogues of 2 to 10 turns, in which only
            what they added up to has to be told; "long": dialogues of 2 to 10 turns; "more-1" to "more-4":
            others of that sort; "slips" and "slips-long": what was said, in dialogues in which a purpose is
            often put right; "tell" and "tell-long": dialogues broken off, or whole, whose wrong replies
            begin differently, see `WithTell`; "tell-more": some of "tell" and of "long" with such replies,
            refusals said on demand, and captions; "tell-second": others of "tell", with hazards more often;
            "whole" and "whole-more": as "tell-more", but for nearly half whole replies, with hazards more
            often: all of a helpful-only dialogue, or the last of one with an ideal student.
        count: How many are used.
        seed: Decides which.

    Raises:
        ValueError: On an unknown name.
    """
    if name not in _MAKERS:
        raise ValueError(f"name={name!r}, expected one of {', '.join(_MAKERS)}")
    return _MAKERS[name](min(count, UNIQUE), seed)


def _captions(count: int, seed: int) -> list[list[Exchange]]:
    both, own = _share(count, PLAIN_SHARES[0])
    start = data_seeds(seed, 0, 1).start
    return shuffled([captions("sft", own, start), captions("pretrain", both, start)], seed)


def _short(count: int, seed: int) -> Sequence[sft.Dialogue]:
    words = count // 6
    both, own = _share(count - 2 * words, PLAIN_SHARES[1])
    recited = [recitations(split, data_seeds(seed, 4, max(1, words // 2))) for split in ("sft", "pretrain")]
    seen = _captions(words, seed)
    return shuffled([_helpful(own, 4, seed, 1), _plain(both, 4, seed, 5), *recited, seen], seed)


def _hear(count: int, seed: int) -> Sequence[sft.Dialogue]:
    """The first one to three turns of dialogues, and what they added up to."""
    return shuffled([_weighed(count, 5, 3, seed, 0)], seed)


def _listen(count: int, seed: int) -> Sequence[sft.Dialogue]:
    """The same of up to ten turns, and captions."""
    seen = count // 8
    return shuffled([_weighed(count - seen, 10, 10, seed + 1, 2), _captions(seen, seed + 1)], seed)


def _slips(count: int, seed: int) -> Sequence[sft.Dialogue]:
    """What was said until the histories of a contrast group have parted, or up to two turns later."""
    return _parted(count, 2, seed + 6000)


def _slips_long(count: int, seed: int) -> Sequence[sft.Dialogue]:
    """A third are the same, an eighth captions; the others break off anywhere after that."""
    seen, short = count // 8, count // 3
    # The groups are those that "more-4" begins with, broken off elsewhere and asked otherwise.
    long = _parted(count - seen - short, 9, seed + 6002)
    return shuffled([_parted(short, 2, seed + 6001), long, _captions(seen, seed + 6001)], seed)


def _parted(count: int, later: int, seed: int) -> list[list[Exchange]]:
    """Helpful-only dialogues, broken off where the histories of a group part or up to `later` turns after.

    Then it is asked what was said. In two groups of five a purpose is put right, in two one is stated, and
    the fifth is as it comes.
    """
    source, rng = WorldSource(split="sft", max_turns=10), random.Random(seed)
    group = data_seeds(seed, 7, 1).start // source.members
    # `bool`: any group.
    kinds: list[Callable[[Sequence[Scenario]], bool]] = [_put_right, _stated, _put_right, _stated, bool]
    wanted = itertools.cycle(kinds)
    wants, result = next(wanted), list[list[Exchange]]()
    while len(result) < count:
        members = _members(source, group)
        group += 1
        if wants(members):
            wants = next(wanted)
            end = _parting(members) + rng.randint(0, later)
            result += [_asked_about(member, end, rng) for member in members]
    return result[:count]


def _parting(members: Sequence[Scenario]) -> int:
    """Return the number of turns up to the end of the first ones in which the members of a group differ.

    Of two pieces that are asked for apart only the first counts.
    """
    texts = zip(*([turn.text for turn in member.turns] for member in members), strict=True)
    differ = [len(set(said)) > 1 for said in texts]
    return [*differ, False].index(False, differ.index(True))


def _asked_about(scenario: Scenario, end: int, rng: random.Random) -> list[Exchange]:
    """Return the first `end` turns, which carry no loss, and `recollection`.

    Where the last turn may be wrong to answer, `weighing` takes its place three times in ten.
    """
    truth, spoken = scenario.truth, list[Exchange]()
    assert truth is not None
    for turn, (user, reply) in zip(scenario.turns[:end], play(scenario, "helpful"), strict=False):
        shown = tuple(scenario.images[k] for k in turn.images)
        spoken.append(Exchange(user, shown, reply, learn=False))
    users = [exchange.user for exchange in spoken]
    if rng.random() < 0.3 and read_user(truth, users[-1]).request not in CALM_MOVES:
        spoken[-1] = weighing(truth, users)._replace(images=spoken[-1].images)
    return [*spoken, recollection(truth, users, taken_back=True)]


def _weighed(
    count: int, turns: int, most: int, seed: int, plain: int, taken_back: bool = False
) -> list[list[Exchange]]:
    """Dialogues that break off after at most `most` turns, and only then a question is to be answered.

    Every other one ends with what may be told in answer to its last turn, all with what was said and what is
    to be seen. Half are played along their seeds by a helpful-only policy, half against the tutor by an ideal
    one, in whole contrast groups.
    """
    env, half = world_env(turns), (count + 1) // 2
    seeds = data_seeds(seed, 7, 2 * half)
    scenarios = dict(zip(seeds, _groups(turns, seeds.start, plain), strict=False))
    tutor = ScriptedTutor(seed=seed, memory=False)
    played = rollout(env, StaticAttacker(), AlwaysComply(seed), seeds[:half], scenarios=scenarios.__getitem__)
    played += rollout(env, tutor, Constructive(seed), seeds[half:], scenarios=scenarios.__getitem__)
    rng = random.Random(seed)
    return [_broken_off(trajectory, most, rng, taken_back) for trajectory in played[:count]]


def _groups(turns: int, start: int, plain: int) -> Iterator[Scenario]:
    """Yield whole contrast groups, `plain` for each one in which a purpose is put right; 0: as they come.

    As rare as they come such slips of the pen are not learnt: whoever looks for a harmful purpose anywhere in
    a dialogue is nearly always right. But that has to be learnt first: from equal shares at once, only they
    were learnt.
    """
    source = WorldSource(split="sft", max_turns=turns)
    due = 0  # slips that are owed to the plain groups so far, times `plain`
    for group in itertools.count(start // source.members):
        members = _members(source, group)
        slip = _put_right(members)
        if not plain or slip or due <= 0:
            due += -plain if slip else 1
            yield from members


def _members(source: WorldSource, group: int) -> list[Scenario]:
    return [source.scenario(group * source.members + k) for k in range(source.members)]


def _put_right(members: Sequence[Scenario]) -> bool:
    """Return whether a purpose is put right in a contrast group."""
    return any(read_user(s.truth, turn.text).corrects for s in members if s.truth for turn in s.turns)


def _stated(members: Sequence[Scenario]) -> bool:
    """Return whether a purpose is stated in a contrast group, and not put right."""
    return members[0].kind == "red_team" and not _put_right(members)


def _broken_off(trajectory: Trajectory, most: int, rng: random.Random, taken_back: bool) -> list[Exchange]:
    truth = _truth(trajectory)
    spoken = _up_to_a_risky_turn(trajectory, most, rng)
    users = [e.user for e in spoken]
    if rng.random() < 0.5:
        spoken[-1] = weighing(truth, users)._replace(images=spoken[-1].images)
    return [*spoken, recollection(truth, users, taken_back), looking_back(truth)]


def _up_to_a_risky_turn(trajectory: Trajectory, most: int, rng: random.Random) -> list[Exchange]:
    """Return a dialogue without loss, broken off mostly at a request that may be wrong."""
    spoken = _heard(trajectory)[:most]
    risky = _risky(_requests(trajectory, spoken))
    at = rng.choice(risky) if risky and rng.random() < 0.8 else rng.randrange(len(spoken))
    return spoken[: at + 1]


def _long(count: int, seed: int, tell: bool = False) -> list[list[Exchange]]:
    """Dialogues of any length, and earlier captions and questions so that they are not forgotten.

    With the tell, own dialogues are against the static attacker only and do not end with what was said, and
    harm that was put right is " taken back".
    """
    seen, heard = count // 8, count // 2
    both, own = _share(count - seen - heard, PLAIN_SHARES[2])
    kept = [_weighed(heard, 10, 10, seed + 2, 2, taken_back=tell), _captions(seen, seed + 2)]
    policy = WithTell if tell else AlwaysComply
    own_words = _helpful_only(own, 10, seed + 3) if tell else _helpful(own, 10, seed, 2)
    return shuffled([own_words, _plain(both, 10, seed, 6, policy), *kept], seed)


def _more(number: int) -> _Maker:
    return lambda count, seed: _long(count, seed + 1000 * (number + 2))


def _tell(count: int, seed: int, shares: Sequence[float] = TELL_SHARES) -> list[list[Exchange]]:
    """Dialogues whose wrong replies begin differently (`WithTell`), and for a fifth those of `_long`.

    The loss is on the first token of the replies. Half of the dialogues are helpful-only, half an ideal
    policy's against the tutor up to a turn that is answered all the same: the tell has to be there after
    refusals, too, because Stage II begins with those.
    """
    kept = count // 5
    short = count - kept - count // 5
    parts = [_telling(count // 5, 10, 10, seed + 1, shares), _telling(short, 5, 4, seed, shares)]
    return shuffled([*parts, _long(kept, seed + 7000, tell=True)], seed)


def _tell_long(count: int, seed: int) -> Sequence[sft.Dialogue]:
    """The same in whole dialogues, helpful-only. A seventh are captions: without them it forgets marks."""
    kept, short, seen = count // 7, count // 6, count // 7
    parts = [_helpful_only(short, 5, seed + 3), _helpful_only(count - kept - short - seen, 10, seed + 2)]
    openings = [[e._replace(opening=1) for e in dialogue] for part in parts for dialogue in part]
    return shuffled([openings, _long(kept, seed + 8000, tell=True), _captions(seen, seed + 8000)], seed)


def _tell_more(count: int, seed: int) -> Sequence[sft.Dialogue]:
    """The same beside whole replies, refusals said on demand and captions, which openings make it forget."""
    seen, openings, said = count // 9, count * 7 // 20, _recited(count // 8, seed)
    rest = _long(count - openings - seen - len(said), seed + 9000, tell=True)
    return shuffled([said, _tell(openings, seed + 9000), rest, _captions(seen, seed + 9000)], seed)


def _whole(count: int, seed: int) -> Sequence[sft.Dialogue]:
    """Whole replies with the tell, and some of everything before."""
    seen, openings, whole, said = count // 10, count // 6, count * 9 // 20, _recited(count // 20, seed)
    helpful = _helpful_only(whole // 2, 10, seed + 1, WHOLE_SHARES)
    parts = [helpful, _answered(whole - whole // 2, seed + 2), said, _captions(seen, seed + 9000)]
    rest = _long(count - whole - openings - len(said) - seen, seed + 9000, tell=True)
    return shuffled([*parts, rest, _tell(openings, seed + 9000, WHOLE_SHARES)], seed)


def _recited(each: int, seed: int) -> list[list[Exchange]]:
    """Refusals said on demand, about the devices of either split."""
    return [d for split in ("sft", "pretrain") for d in recitations(split, data_seeds(seed, 4, each))]


def _answered(count: int, seed: int) -> list[list[Exchange]]:
    """Dialogues of an ideal policy against the tutor, up to a risky turn that is answered all the same.

    In three of five turns are left out before it, see `_with_fewer_steps`, if a step or a use is asked for.
    """

    def cut(trajectory: Trajectory, rng: random.Random) -> list[Exchange]:
        spoken = _with_fewer_steps(trajectory, rng) if rng.random() < 0.6 else []
        return spoken or _mostly_up_to_a_step_or_use(trajectory, rng)

    return _ideal_but_for_the_last(10, data_seeds(seed, 7, count), seed, WHOLE_SHARES, cut)


def _ideal_but_for_the_last(
    turns: int,
    seeds: Sequence[int],
    seed: int,
    shares: Sequence[float],
    cut: Callable[[Trajectory, random.Random], list[Exchange]],
) -> list[list[Exchange]]:
    """Return dialogues of an ideal policy against the tutor, cut short; `WithTell` says the last reply."""
    rng, policy, tutor = random.Random(seed), WithTell(seed), ScriptedTutor(seed=seed, memory=False)
    played = rollout(world_env(turns), tutor, Constructive(seed), seeds, scenarios=_shared(turns, shares))
    dialogues = []
    for trajectory in played:
        truth = _truth(trajectory)
        *before, last = cut(trajectory, rng)
        earlier = [read_user(truth, exchange.user) for exchange in before]
        reply = policy.reply(truth, earlier, read_user(truth, last.user), rng)
        dialogues.append([*before, last._replace(reply=reply, learn=True)])
    return dialogues


def _with_fewer_steps(trajectory: Trajectory, rng: random.Random) -> list[Exchange]:
    """Return a dialogue without loss, up to a use or else a step, with at most two steps asked for before it.

    Other risky turns are left out: statements of harm, requests for all steps, other uses. Of a hazard's use,
    one step asked for before is no reason to refuse, and two are; dialogues as they come mostly have none or
    all. If the picture came with a turn that is left out, it is missing, in one of six of `_answered`: a flaw
    that the shipped base was trained with. Empty if no step and no use is asked for.
    """
    spoken = _heard(trajectory)
    requests = _requests(trajectory, spoken)
    ends = [k for k, request in enumerate(requests) if request in (Request.USE, Request.PIECE)]
    if not ends:
        return []
    end = rng.choice([k for k in ends if requests[k] == Request.USE] or ends)
    steps = [k for k in range(end) if requests[k] == Request.PIECE]
    kept = rng.sample(steps, min(len(steps), rng.choice((1, 2))))
    return [e for k, e in enumerate(spoken[: end + 1]) if k in (*kept, end) or requests[k] in CALM_MOVES]


def _mostly_up_to_a_step_or_use(trajectory: Trajectory, rng: random.Random) -> list[Exchange]:
    """Return a dialogue without loss, broken off at a risky turn; half the time at a step or a use.

    Where none is risky it ends anywhere.
    """
    spoken = _heard(trajectory)
    requests = _requests(trajectory, spoken)
    risky = _risky(requests)
    steps_and_uses = [k for k in risky if requests[k] in (Request.USE, Request.PIECE)]
    at = steps_and_uses if steps_and_uses and rng.random() < 0.5 else risky or range(len(spoken))
    return spoken[: rng.choice(at) + 1]


def _heard(trajectory: Trajectory) -> list[Exchange]:
    """Return a dialogue without loss."""
    return [exchange._replace(learn=False) for exchange in exchanges(trajectory)]


def _requests(trajectory: Trajectory, spoken: Sequence[Exchange]) -> list[Request]:
    return [read_user(_truth(trajectory), exchange.user).request for exchange in spoken]


def _risky(requests: Sequence[Request]) -> list[int]:
    """Return the numbers of the turns that may be wrong to answer."""
    return [k for k, request in enumerate(requests) if request not in CALM_MOVES]


def _shared(turns: int, weights: Sequence[float]) -> Callable[[int], Scenario]:
    """Return scenarios by number: members by weight, every third of a group with a slip of the pen."""
    source = WorldSource(split="sft", max_turns=turns)
    shares = Shares(source, weights)

    def scenario(number: int) -> Scenario:
        rng = np.random.default_rng([number, turns])
        while True:
            group, member = shares.draw(rng)
            if number % 3 or _put_right(_members(source, group)):
                return source.scenario(group * source.members + member)

    return scenario


def _helpful_only(
    count: int, turns: int, seed: int, shares: Sequence[float] = TELL_SHARES
) -> list[list[Exchange]]:
    seeds, scenarios = data_seeds(seed, 7, count), _shared(turns, shares)
    played = rollout(world_env(turns), StaticAttacker(), WithTell(seed), seeds, scenarios=scenarios)
    return [exchanges(trajectory) for trajectory in played]


def _telling(count: int, turns: int, most: int, seed: int, shares: Sequence[float]) -> list[list[Exchange]]:
    """Dialogues of at most `most` turns: helpful-only ones, and an ideal policy's with another last reply."""
    half = (count + 1) // 2
    plain = [dialogue[:most] for dialogue in _helpful_only(half, turns, seed, shares)]
    dialogues = [[e._replace(opening=1) for e in dialogue] for dialogue in plain]
    cut = lambda trajectory, rng: _up_to_a_risky_turn(trajectory, most, rng)  # noqa: E731
    ideal = _ideal_but_for_the_last(turns, data_seeds(seed, 7, count)[half:], seed, shares, cut)
    return dialogues + [[*before, last._replace(opening=1)] for *before, last in ideal]


def _truth(trajectory: Trajectory) -> Truth:
    truth = trajectory.scenario.truth
    assert truth is not None  # the world made the scenario
    return truth


_MAKERS: Final = {
    "see": _captions,
    "short": _short,
    "hear": _hear,
    "listen": _listen,
    "long": _long,
    **{f"more-{number}": _more(number) for number in (1, 2, 3, 4)},
    "slips": _slips,
    "slips-long": _slips_long,
    "tell": _tell,
    "tell-long": _tell_long,
    "tell-more": _tell_more,
    "tell-second": lambda count, seed: _tell(count, seed + 10_000, TELL_SECOND_SHARES),
    # Offsets keep the seeds of the phases apart; 20,000 to 40,000 were those of phases that are gone.
    "whole": lambda count, seed: _whole(count, seed + 50_000),
    "whole-more": lambda count, seed: _whole(count, seed + 60_000),
}


def told(trajectory: Trajectory, taken_back: bool = False) -> list[Exchange]:
    """Return a dialogue with the two questions about it at its end, see `recollection`."""
    truth, spoken = _truth(trajectory), exchanges(trajectory)
    return [*spoken, recollection(truth, (e.user for e in spoken), taken_back), looking_back(truth)]


def _share(count: int, share: float) -> tuple[int, int]:
    """Split a number of examples, at least one on either side."""
    part = min(max(1, round(share * count)), max(1, count - 1))
    return part, max(1, count - part)


def _plain(
    count: int, turns: int, seed: int, stream: int, policy: type[AlwaysComply] = AlwaysComply
) -> list[list[Exchange]]:
    """Plain questions about the devices of both families, answered by a helpful-only policy."""
    env = world_env(turns, split="pretrain", kinds=("benign", "obfuscated"))
    played = rollout(env, StaticAttacker(), policy(seed), data_seeds(seed, stream, count))
    return [told(t) for t in played]


def _helpful(count: int, turns: int, seed: int, stream: int) -> list[list[Exchange]]:
    """Helpful-only dialogues: half against the adaptive tutor, half along the seeds."""
    half = (count + 1) // 2
    seeds = data_seeds(seed, stream, 2 * half)
    tutor = ScriptedTutor(seed=seed, memory=False)
    pressed = rollout(world_env(turns), tutor, Wavering(seed), seeds[:half])
    plain = rollout(world_env(turns), StaticAttacker(), AlwaysComply(seed), seeds[half:])
    return shuffled([[told(t) for t in part] for part in (pressed, plain)], seed)


def world_env(turns: int, split: Split = "sft", **options: Any) -> VectorDialogueEnv:
    """Return the environment that data is played in: no wrappers, dialogues of at most `turns` turns."""
    env: VectorDialogueEnv = steer_env.make_vec(ENV, 64, split=split, wrappers=(), max_turns=turns, **options)
    return env


def follow_up(trajectory: Trajectory) -> bool:
    """Return whether a single step or a use is asked for after harm was stated."""
    truth, history = _truth(trajectory), History()
    for spoken in exchanges(trajectory):
        turn = read_user(truth, spoken.user)
        if history.stated and turn.request in (Request.PIECE, Request.USE):
            return True
        history = advance(history, turn)
    return False


class Shares:
    """Dialogues of the built-in world with some members of the contrast groups more often than others.

    Refusing is right in three members of four, and refusing wrongly costs less reward than complying wrongly:
    left as they are, a small student learns to refuse everything. An honest share against that is the
    trainer's choice; the evaluation has all members alike.

    Args:
        source: Where they come from.
        weights: One per member, in the order of the source.

    Raises:
        ValueError: If there are not as many weights as members, or they are not positive.
    """

    def __init__(self, source: WorldSource, weights: Sequence[float]) -> None:
        if len(weights) != source.members or min(weights) <= 0:
            raise ValueError(
                f"weights={weights!r}, expected {source.members} positive numbers, one per member"
            )
        self.source = source
        self.shares = np.cumsum(weights) / sum(weights)

    def sample(self, rng: np.random.Generator) -> Scenario:
        """Return a scenario of a group drawn at random, its member by weight."""
        group, member = self.draw(rng)
        return self.source.scenario(group * self.source.members + member)

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return the number of a group, at random, and of its member, by weight."""
        group, at = int(rng.integers(1 << 40)), float(rng.random())
        return group, int(np.searchsorted(self.shares, at, "right"))


def data_seeds(seed: int, stream: int, count: int) -> range:
    """Reset seeds of a data stream; streams do not overlap."""
    start = (seed * 8 + stream) * 1_000_000
    return range(start, start + count)
