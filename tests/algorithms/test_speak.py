"""What a text attacker learns to speak from. That it does is measured in benchmarks/selfplay.py."""

import numpy as np

from steer_env.agents.hf.attacker import attack_prompt
from steer_env.algorithms.attack import AttackReward, attack_exchanges
from steer_env.algorithms.speak import SpeakConfig, speaking_attacker, tutor_dialogues
from steer_env.configs.sft import SFTConfig
from steer_env.registration import make_vec
from steer_env.rollout import rollout
from steer_env.world.truth import Request
from steer_env.world.user_language.reading import parse_user

QUICK = SpeakConfig(dialogues=12, max_turns=3, sft=SFTConfig(steps=2, batch_size=2, optimizer="muon"))


def test_the_dialogues_are_the_tutors_with_all_sorts_of_students():
    dialogues = list(tutor_dialogues(QUICK))
    assert len(dialogues) == 12 and {len(d) for d in dialogues} <= {2, 3}
    for dialogue in dialogues:
        assert dialogue[0].user.startswith("Goal: Harm") and not dialogue[0].images
        assert all(e.user.startswith("Reply: ") and "\nPlan: " in e.user for e in dialogue[1:])
        assert len(dialogue[1].images) == 1  # what was shown with the first turn
        for exchange in dialogue:
            assert exchange.learn == (parse_user(exchange.reply).request != Request.UNKNOWN)
    replies = {e.user.split("\n")[0] for d in dialogues for e in d[1:]}
    assert any("will not" in r or "cannot" in r for r in replies) and len(replies) > 10


def test_what_is_imitated_is_what_is_asked_later():
    """The tokens in front of the first utterance are those of training."""
    attacker = speaking_attacker(QUICK)
    codec = attacker.codec
    env = make_vec("SteerRedTeam-v0", 2, split="sft", max_turns=3)
    (played,) = rollout(env, attacker, _Mute(), [3])
    scenario = played.scenario
    seen = {
        "transcript": (), "images": (), "goal": scenario.goal, "draft": scenario.turns[0].text,
        "strategy": scenario.strategy, "technique": scenario.technique,
    }  # fmt: skip
    prompt = attack_prompt(codec, seen).trace.ids_L
    trained = codec.dialogue(attack_exchanges(played)).trace
    first = int(np.flatnonzero(trained.sampled_L)[0])
    assert np.array_equal(trained.ids_L[:first], prompt)
    # And the whole dialogue, as far as its words survive being encoded again: the last briefing is the same.
    own = played.turns[-1].turn.user.meta["trace"]
    assert codec.tokenizer.decode(trained.ids_L) == codec.tokenizer.decode(own.ids_L)
    assert AttackReward().placed(scenario, scenario.turns[0].text)


class _Mute:
    def act(self, observations):
        return ["I will not help with that."] * len(observations)
