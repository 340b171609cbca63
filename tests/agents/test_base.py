"""An agent's life: what a bare `act` gets at the door, and what a wrapper passes on."""

import copy
from concurrent.futures import Future

import pytest

from steer_env.agents import Agent, AgentWrapper, as_agent
from steer_env.agents.base import AsyncAgent


class Bare:
    name = "bare"

    def act(self, observations):
        return ["." for _ in observations]


class Whole(Bare):
    """Has all of it, but is no `Agent`."""

    def __init__(self):
        self.calls = []

    def learn(self, trajectories):
        self.calls.append(("learn", trajectories))
        return {"learnt": len(trajectories)}

    def reseed(self, seed):
        self.calls.append(("reseed", seed))

    def state_dict(self):
        return {"calls": len(self.calls)}

    def load_state_dict(self, state):
        self.calls.append(("load", state))

    def submit(self, observation):
        future = Future()
        future.set_result(observation["said"])
        return future


def test_a_bare_act_gets_a_life_that_does_nothing():
    agent = as_agent(Bare())
    assert isinstance(agent, Agent) and as_agent(agent) is agent
    assert agent.act([{}, {}]) == [".", "."] and agent.name == "bare"
    assert agent.state_dict() == {} and not agent.varies and not isinstance(agent, AsyncAgent)
    for done in (agent.learn([]), agent.reseed(1), agent.weights_changed(), agent.load_state_dict({})):
        assert done is None
    agent.close()


def test_what_an_object_has_of_the_life_is_used():
    own = Whole()
    agent = as_agent(own)
    assert agent.learn([1, 2]) == {"learnt": 2} and agent.varies and isinstance(agent, AsyncAgent)
    agent.reseed(3)
    assert agent.state_dict() == {"calls": 2} and own.calls == [("learn", [1, 2]), ("reseed", 3)]
    twin = copy.deepcopy(agent)
    twin.reseed(4)
    assert len(own.calls) == 2 and twin.state_dict() == {"calls": 3}


def test_who_cannot_act_is_refused():
    with pytest.raises(
        TypeError, match=r"with act\(observations\); steer_env.make_agent\('tutor'\) makes it"
    ):
        as_agent("tutor")


class Louder(AgentWrapper):
    def seen(self, observation):
        return {"said": observation["said"].upper()}


def test_a_wrapper_changes_what_is_seen_and_passes_everything_else_on():
    own = Whole()
    loud = Louder(own)
    assert isinstance(loud, AsyncAgent) and loud.submit({"said": "no"}).result() == "NO"
    loud.reseed(5)
    loud.load_state_dict({"a": 1})
    assert own.calls == [("reseed", 5), ("load", {"a": 1})]
    assert loud.learn([]) == {"learnt": 0} and loud.state_dict() == {"calls": 3} and loud.varies
    assert loud.name == "bare" and not isinstance(Louder(Bare()), AsyncAgent)
    assert copy.deepcopy(loud).agent.own is not own
