"""Suites: whole groups, the same for everyone, with twins and attempts told apart."""

from __future__ import annotations

from collections import Counter

import pytest

import steer_env
from steer_env.play.suites import PARTS, SUITES, WholeGroups, is_twin, suite_parts
from steer_env.rollout import rollout
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.world.groups import CELLS
from steer_env.world.source import SPLITS


def test_every_group_is_whole_and_its_kinds_come_in_turn() -> None:
    played = WholeGroups("SteerEscalation-v0", "bench", 7, seed=3)
    assert len(played) == 28 and [s.cell for s in played[:4]] == list(CELLS)
    groups = Counter(s.group for s in played[:])
    assert len(groups) == 7 and set(groups.values()) == {4}
    assert all(name.startswith("bench-") for name in groups)
    assert len({s.id for s in played[:]}) == 28
    with pytest.raises(IndexError):
        played[28]


def test_the_same_seed_gives_the_same_and_more_groups_only_add() -> None:
    few, many = (WholeGroups("SteerEscalation-v0", "bench", n, seed=5) for n in (4, 9))
    assert [s.id for s in few[:]] == [s.id for s in many[:16]]
    other = WholeGroups("SteerEscalation-v0", "bench", 4, seed=6)
    assert not {s.group for s in other[:]} & {s.group for s in few[:]}
    single = WholeGroups("SteerSingleTurn-v0", "bench", 4, seed=5)
    assert all(len(s) == 1 for s in single[:])
    assert [s.group for s in single[:]] == [s.group for s in few[:]]  # the same devices, in one turn


def test_a_twin_shares_half_of_its_words_with_a_risky_dialogue_of_its_group() -> None:
    def scenario(kind: str, *texts: str) -> Scenario:
        return Scenario(tuple(DraftTurn(t) for t in texts), kind=kind, group="g")

    risky = scenario("obfuscated", "a", "b", "c", "d")
    assert is_twin(scenario("benign", "a", "b", "x", "y"), [risky])
    assert not is_twin(scenario("benign", "a", "x", "y", "z"), [risky])
    assert not is_twin(scenario("benign", "a", "b"), [scenario("benign", "a", "b")])


def test_benign_dialogues_of_the_world_are_told_from_twins() -> None:
    played = WholeGroups("SteerEscalation-v0", "bench", 40)
    twins = [played.labels(i).get("twin") for i in range(len(played))]
    benign = [s.kind == "benign" for s in played[:]]
    assert [t is not None for t in twins] == benign
    assert sum(t is True for t in twins) > sum(benign) / 2


def test_suites_are_single_and_multi_turn_in_and_out_of_distribution() -> None:
    assert SUITES["full"] == ("bench", "bench-single", "ood", "ood-single")
    told = {name: (p.single, p.distribution) for name, p in PARTS.items()}
    assert told == {
        "bench": (False, "in"),
        "bench-single": (True, "in"),
        "ood": (False, "ood"),
        "ood-single": (True, "ood"),
    }
    with pytest.raises(ValueError, match="suite='nope', expected one of bench"):
        suite_parts("nope")


@pytest.mark.skipif("ood" in SPLITS, reason="the world has the split")
def test_a_split_the_world_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="needs split ood"):
        suite_parts("full")


@pytest.mark.skipif("ood" not in SPLITS, reason="the world has no out-of-distribution split")
def test_out_of_distribution_groups_are_whole_too() -> None:
    played = WholeGroups("SteerEscalation-v0", "ood", 4)
    assert len(played) == 4 * len({s.cell for s in played[:]}) == 16
    assert set(Counter(s.group for s in played[:]).values()) == {len(played) // 4}


@pytest.mark.parametrize(
    ("attacker", "student", "expected"),
    [("tutor", "refuse", True), ("static", "refuse", False), ("static", "random", True)],
)
def test_attempts_need_something_that_varies(attacker: str, student: str, expected: bool) -> None:
    agents = (steer_env.make_agent(attacker), steer_env.make_agent(student))
    assert any(agent.varies for agent in agents) is expected


@pytest.mark.parametrize("attacker", ["tutor", "learning"])
def test_attempts_of_honest_users_differ_too(attacker: str) -> None:
    played = WholeGroups("SteerEscalation-v0", "bench", 6)
    benign = [scenario for scenario in played[:] if scenario.kind == "benign"]
    vec = steer_env.make_vec("SteerEscalation-v0", 8, scenarios=benign)
    attempts = []
    for seed in (0, 1, 2):
        agent = steer_env.make_agent(attacker)
        agent.reseed(seed)
        dialogues = rollout(vec, agent, steer_env.make_agent("refuse"), range(len(benign)))
        attempts.append([[str(r.turn.user) for r in t.turns] for t in dialogues])
    assert attempts[0] != attempts[1] != attempts[2] != attempts[0]
