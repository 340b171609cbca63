"""A tiny text attacker from random weights that has learnt to speak: it imitates the scripted tutor.

Reinforcement needs an attacker that says something the environment understands. This is what makes one for
the built-in world, in a minute or two of one CPU core; `learners.ModelLearner` takes it from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import steer_env
from steer_env.agents.base import Agent
from steer_env.agents.hf.attacker import HFAttacker, briefing, opening
from steer_env.agents.hf.codec import Exchange
from steer_env.agents.scripted import Constructive, RandomStudent
from steer_env.agents.tutor import ScriptedTutor
from steer_env.algorithms import sft
from steer_env.algorithms.attack import AttackReward, attack_exchanges
from steer_env.algorithms.base import Progress
from steer_env.algorithms.bootstrap import Wavering, shuffled
from steer_env.configs.sft import SFTConfig
from steer_env.models.tiny import TinyConfig, build
from steer_env.rollout import rollout
from steer_env.scenarios import STRATEGIES, TECHNIQUES
from steer_env.trajectory import Trajectory
from steer_env.types import Terms
from steer_env.world import WorldSource
from steer_env.world.play import all_texts

#: Longest utterance in tokens.
UTTERANCE_TOKENS = 48


@dataclass(frozen=True, slots=True)
class SpeakConfig:
    """Settings of the imitation.

    Attributes:
        seed: Decides weights, dialogues and order.
        model: Shape of the model; it sees the pictures, small ones are enough.
        dialogues: Risky dialogues to imitate.
        max_turns: Longest of them.
        sft: The supervised run.
    """

    seed: int = 0
    model: TinyConfig = field(
        default_factory=lambda: TinyConfig(vocab_size=1024, init_std=0.1, image_side=28, vision_layers=1)
    )
    dialogues: int = 1500
    max_turns: int = 4
    sft: SFTConfig = field(
        default_factory=lambda: SFTConfig(steps=300, batch_size=16, optimizer="muon", final_lr=0.1)
    )


def speaking_attacker(config: SpeakConfig | None = None, progress: Progress | None = None) -> HFAttacker:
    """Return an attacker that has learnt to say what the scripted tutor says."""
    config = config or SpeakConfig()
    model, processor = build([*all_texts(), *briefing_texts()], config.model, config.seed)
    attacker = HFAttacker(model, processor, max_new_tokens=UTTERANCE_TOKENS)
    settings = replace(config.sft, seed=config.seed)
    sft.train(attacker, list(tutor_dialogues(config)), settings, progress=progress)
    return attacker


def tutor_dialogues(config: SpeakConfig) -> Iterator[list[Exchange]]:
    """Yield dialogues of the tutor with students that do all sorts of things, as training data.

    Utterances the environment cannot place carry no loss.
    """
    env = steer_env.make_vec(
        "SteerEscalation-v0", 64, split="sft", kinds=("obfuscated", "red_team"), wrappers=(),
        max_turns=config.max_turns,
    )  # fmt: skip
    tutor = ScriptedTutor(config.seed, memory=False)
    students: tuple[Agent, ...] = (
        Constructive(config.seed),
        Wavering(config.seed),
        RandomStudent(config.seed),
    )
    each = -(-config.dialogues // len(students))
    parts = []
    for number, student in enumerate(students):
        start = (config.seed * 8 + 6) * 1_000_000 + number * each
        parts.append([_exchanges(t) for t in rollout(env, tutor, student, range(start, start + each))])
    yield from shuffled(parts, config.seed)


def _exchanges(trajectory: Trajectory) -> list[Exchange]:
    placed = AttackReward().placed
    return [e._replace(learn=placed(trajectory.scenario, e.reply)) for e in attack_exchanges(trajectory)]


def briefing_texts() -> Iterable[str]:
    """Return texts that hold every word of a briefing beside what the two sides say."""
    source = WorldSource(kinds=("red_team",))
    for index in range(32):
        yield source.scenario(index).goal
    for strategy, technique in zip(STRATEGIES, TECHNIQUES * 2, strict=True):
        yield opening({"goal": "", "strategy": strategy, "technique": technique}, draft="Please")
    for score in range(1, 11):
        yield briefing("I", Terms(score, score, score), "Please")
