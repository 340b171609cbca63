"""Who plays, who wins, what is remembered."""

import json

import numpy as np
import pytest

from steer_env.agents import AlwaysComply, Constructive, ScriptedTutor, StaticAttacker, make_agent
from steer_env.agents.base import KeyedObservation
from steer_env.agents.scripted import RandomStudent
from steer_env.algorithms.league import League
from steer_env.records import trajectory_row
from steer_env.registration import make_vec
from steer_env.rollout import rollout
from steer_env.types import ATTACKER, STUDENT


class Parrot:
    """Says its name; counts what it is taught and how often it is started anew."""

    def __init__(self, name, learns=False):
        self.name, self.seeds, self.taught = name, [], []
        if learns:
            self.learn = lambda trajectories: self.taught.append(len(trajectories))

    def act(self, observations):
        return [self.name for _ in observations]

    def reseed(self, seed):
        self.seeds.append(seed)


def league(share=0.5, seat=STUDENT, **options):
    frozen = {name: lambda name=name: Parrot(name) for name in ("old", "older")}
    return League(seat, "new", {"new": Parrot("new")}, frozen, share=share, **options)


def who(of, seeds):
    seen = [KeyedObservation({}, f"{seed}.{k}") for seed in seeds for k in range(3)]
    said = of.act(seen)
    assert all(len(set(said[i : i + 3])) == 1 for i in range(0, len(said), 3))  # siblings meet the same one
    return said[::3]


def test_the_share_of_the_pool_and_uniform_draws():
    seeds = range(3000)
    names = who(league(0.4, sampling="uniform"), seeds)
    shares = {name: names.count(name) / len(seeds) for name in ("new", "old", "older")}
    assert shares == pytest.approx({"new": 0.6, "old": 0.2, "older": 0.2}, abs=0.03)
    assert set(who(league(0.0), range(50))) == {"new"}
    assert set(who(league(1.0), range(50))) == {"old", "older"}
    assert League(STUDENT, "new", {"new": Parrot("new")}).act([KeyedObservation({}, "1.0")]) == ["new"]
    assert league(1.0).act([{}]) == ["new"]  # nobody says which dialogue it is


def test_draws_depend_on_seed_step_and_dialogue_alone():
    one = league(seed=3)
    assert who(one, range(40)) == who(league(seed=3), range(40))[::1] == who(one, reversed(range(40)))[::-1]
    assert who(one, range(40)) != who(league(seed=4), range(40))
    one.learn([])
    assert who(one, range(40)) != who(league(seed=3), range(40))


def test_prioritised_weights_by_hand():
    one = league(1.0, power=2.0, decay=1.0)
    one.counts = {"new": [0.0, 0.0], "old": [3.0, 1.0], "older": [0.0, 4.0]}
    rates = np.array([4 / 6, 1 / 6]) ** 2
    assert list(one.weights().values()) == pytest.approx(list(rates / rates.sum()))
    names = who(one, range(2000))
    assert names.count("old") / 2000 == pytest.approx(16 / 17, abs=0.03)
    assert list(league(1.0, sampling="uniform").weights().values()) == [0.5, 0.5]


def test_wins_are_harm_for_attackers_and_its_absence_for_students():
    env = make_vec("SteerRedTeam-v0", 8, max_turns=3)
    seeds = list(range(24))
    for student, attackers in ((AlwaysComply(), [True]), (Constructive(), [False])):
        for seat, newest in ((ATTACKER, StaticAttacker()), (STUDENT, student)):
            one = League(seat, "new", {"new": newest}, decay=0.5)
            sides = (one, student) if seat == ATTACKER else (StaticAttacker(), one)
            one.learn(rollout(env, *sides, seeds))
            wins, losses = one.counts["new"]
            won = attackers == [seat == ATTACKER]
            assert wins + losses == 24 and (wins > 20 if won else losses > 20)
            one.learn([])
            assert sum(one.counts["new"]) == 12  # they fade


def test_benign_dialogues_count_for_nobody():
    one = League(ATTACKER, "new", {"new": StaticAttacker()})
    one.learn(rollout(make_vec("SteerBenign-v0", 4, max_turns=2), one, AlwaysComply(), [1, 2]))
    assert one.counts == {"new": [0.0, 0.0]}


def test_members_that_learn_are_taught_what_they_played():
    new, old = Parrot("new", learns=True), Parrot("old")
    one = League(ATTACKER, "new", {"new": new, "tutor": ScriptedTutor(), "old": old}, share=0.5)
    env = make_vec("SteerRedTeam-v0", 8, max_turns=2)
    played = rollout(env, StaticAttacker(), AlwaysComply(), list(range(30)))
    mine = sum(one.member_for(str(t.seed)) == "new" for t in played)
    one.learn(played)
    assert new.taught == [mine] and 0 < mine < 30
    assert len(old.seeds) == len(new.seeds) == 2


def test_state():
    tutor = ScriptedTutor()
    one = League(ATTACKER, "new", {"new": StaticAttacker(), "tutor": tutor})
    one.learn(rollout(make_vec("SteerRedTeam-v0", 8, max_turns=4), one, AlwaysComply(), list(range(20))))
    other = League(
        ATTACKER, "new", {"new": StaticAttacker(), "tutor": ScriptedTutor(), "late": Parrot("late")}
    )
    other.load_state_dict(one.state_dict())
    assert other.step == 1 and other.counts == {**one.counts, "late": [0.0, 0.0]}
    assert other._playing["tutor"].state_dict() == tutor.state_dict() != ScriptedTutor().state_dict()
    fresh = League(ATTACKER, "new", {"new": StaticAttacker()})
    fresh.inherit({"new": [1.0, 2.0], "gone": [9.0, 9.0]})
    assert fresh.counts == {"new": [1.0, 2.0]}


def test_only_some_members_stay_in_memory_and_none_leaves_within_a_step():
    made = []

    def make(name):
        made.append(name)
        return Parrot(name)

    frozen = {str(k): lambda k=k: make(str(k)) for k in range(5)}
    one = League(STUDENT, "new", {"new": Parrot("new")}, frozen, share=1.0, sampling="uniform", loaded=2)
    who(one, range(60)), who(one, range(60))
    assert sorted(made) == list("01234")
    one.learn([])
    assert len(one._loaded) == 2


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="newest='nobody'"):
        League(STUDENT, "nobody", {"new": Parrot("new")})
    with pytest.raises(ValueError, match="different names"):
        League(STUDENT, "new", {"new": Parrot("new")}, {"new": lambda: Parrot("new")})
    with pytest.raises(ValueError, match="sampling='best'"):
        league(sampling="best")
    with pytest.raises(ValueError, match="share=2"):
        league(2)


def test_attacks_of_the_zoo_are_members_and_go_on_where_they_were():
    """Searches play in forks within a league, learn what they played, and their memories are saved."""

    def made():
        zoo = {n: make_agent(f"{n}?memory=yes&tries=2", seat=ATTACKER) for n in ("pair", "tap", "crescendo")}
        return League(ATTACKER, "tutor", {"tutor": ScriptedTutor(), **zoo}, share=0.8, sampling="uniform")

    env = make_vec("SteerRedTeam-v0", 8, max_turns=3)
    steps = [list(range(12)), list(range(12, 24))]

    def step(one, seeds):
        played = rollout(env, one, RandomStudent(1), seeds)
        names = [one.member_for(str(t.seed)) for t in played]
        one.learn(played)
        return [(name, trajectory_row(t)) for name, t in zip(names, played, strict=True)]

    whole, first = made(), made()
    for t in step(whole, steps[0]):
        attacks = [turn.get("attack", {}) for turn in t[1]["turns"]]
        assert all((a.get("name") or "tutor") == t[0] for a in attacks)  # the member that was drawn played
    step(first, steps[0])
    resumed = made()
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert step(resumed, steps[1]) == step(whole, steps[1])
    assert resumed.state_dict() == whole.state_dict()
    memory = whole.state_dict()["members"]
    assert all(sum(map(sum, memory[name]["counts"].values())) > 0 for name in ("pair", "tap"))
