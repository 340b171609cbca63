"""A model sees what an attacker draws: as many placeholders as pictures, and the right ones."""

import steer_env
from steer_env import testing
from steer_env.agents import make_agent
from steer_env.rollout import rollout


def test_placeholders_are_those_of_the_drawn_pictures(student):
    vec = steer_env.make_vec("SteerRedTeam-v0", 2, split="bench", max_turns=3)
    seeds = [3, 3, 4]
    played = rollout(vec, make_agent("figstep", seat="attacker_0"), student, seeds)
    testing.check_trajectories(played, image_token=student.codec.image_id)
    for t in played:
        shown = sum(r.turn.images for r in t.turns)
        assert t.trace.images == shown > len(t.turns) - 1
        assert len(t.scenario.images[: t.trace.images]) == shown
