"""The demo's recipe: a tiny model from nothing to Stage III, offline, in minutes on two CPU cores.

Three stages, each a function of the settings and of the stage before:

- **base**: sees and answers everything, so it leaks. First captions only (a model that cannot see learns to
  guess from the text), then short dialogues, then what the user meant and asked for, first over a few turns
  and then over many, then long dialogues, some with a user who presses after a refusal, then purposes that
  are put right at once; after each it has to show that it sees and remembers (`pretraining`).
  Part of it is plain talk about the devices of both families (`split="pretrain"`): like a pretrained model it
  knows the things of the out-of-distribution family, and has seen none of its attacks.
  Last, it gets a tell: replies it should not give begin differently from those it may give. And it gives
  whole replies again, which it had forgotten.
- **sft** (Stage II): a cold start. It imitates ideal replies in dialogues of three turns under *some*
  strategies. Unseen strategies, long contexts and intent put together late stay open on purpose.
- **grpo** (Stage III): group-relative policy optimisation against the adaptive tutor, with some of Stage II's
  dialogues to imitate beside the reward.

The control of Stage III, **imitation**, is Stage II with as many dialogues as both stages imitate, and no
reward.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any, Literal

import steer_env
from steer_env.agents.attackers import StaticAttacker
from steer_env.agents.hf.codec import Exchange
from steer_env.agents.hf.student import HFStudent
from steer_env.agents.scripted import Constructive
from steer_env.agents.tutor import ScriptedTutor
from steer_env.algorithms import sft, trainer
from steer_env.algorithms.base import Progress
from steer_env.algorithms.bootstrap import KeepsTell, keep
from steer_env.algorithms.demonstrations import Demonstrations
from steer_env.algorithms.grpo import GRPOConfig
from steer_env.algorithms.pretraining import frozen_vision, pretrain
from steer_env.algorithms.recipe_data import (
    ENV,
    Shares,
    base_data,
    data_seeds,
    follow_up,
    told,
    world_env,
)
from steer_env.configs.base import Amount, Natural, Positive, Switch, config
from steer_env.configs.sft import Gate, Phase, SFTConfig
from steer_env.files import replacing_folder
from steer_env.models.tiny import TinyConfig
from steer_env.models.tiny import build as build_tiny
from steer_env.rollout import rollout
from steer_env.scenarios import STRATEGIES
from steer_env.trajectory import Trajectory
from steer_env.world import WorldSource
from steer_env.world.groups import CELLS
from steer_env.world.play import all_texts

__all__ = [
    "ENV",
    "IMITATION",
    "REPLY_TOKENS",
    "STAGES",
    "DemoConfig",
    "build",
    "data_seeds",
    "stage_settings",
]

STAGES = ("base", "sft", "grpo")
#: What `grpo` is compared with: a stage beside it, which starts from the base.
IMITATION = "imitation"
#: Longest reply in tokens; the longest ideal one has 42.
REPLY_TOKENS = 44


def _muon(**settings: Any) -> SFTConfig:
    return SFTConfig(optimizer="muon", **settings)


def _gate(
    ask: Literal["caption", "describe"],
    noun: float,
    place: float,
    purpose: float = 0,
    asked: float = 0,
    weighed: float = 0,
) -> Gate:
    return Gate(
        ask,
        noun=noun,
        colour=0.95,
        mark=0.97,
        place=place,
        purpose=purpose,
        asked=asked,
        weighed=weighed,
    )


def _phases() -> tuple[Phase, ...]:
    # A text model this small is short of updates, not of gradient quality: small batches after captions.
    return (
        Phase("see", _muon(steps=300, batch_size=64, final_lr=0.9), _gate("caption", 0.8, 0.95), sees=True),
        Phase("short", _muon(steps=1100, batch_size=8, lr=5e-3, final_lr=0.4), _gate("caption", 0.7, 0.9)),
        Phase(
            "hear",
            _muon(steps=400, batch_size=16, lr=5e-3, muon_lr=2e-2, final_lr=0.5),
            Gate(purpose=0.75),  # captions come back with the next phase
        ),
        Phase(
            "listen",
            _muon(steps=300, batch_size=16, lr=3e-3, muon_lr=1.5e-2, final_lr=0.3),
            _gate("caption", 0.7, 0.9, purpose=0.85, asked=0.8, weighed=0.8),
        ),
        Phase(
            "long",
            _muon(steps=800, batch_size=8, lr=2e-3, muon_lr=1.2e-2, warmup=0, per_dialogue=True),
            _gate("describe", 0.7, 0.5, purpose=0.9, asked=0.9, weighed=0.9),
        ),
        *(_further(number) for number in range(4)),
        Phase(
            "slips",
            _muon(
                steps=240,
                batch_size=32,
                lr=1.6e-3,
                muon_lr=1e-2,
                warmup=5,
                final_lr=0.7,
                per_dialogue=True,
            ),
            # It forgets captions here, and whole dialogues are not yet in; both come with the next phase.
            Gate(),
        ),
        Phase(
            "slips-long",
            _muon(steps=480, batch_size=20, lr=1.1e-3, muon_lr=7e-3, warmup=5, per_dialogue=True),
            _gate("caption", 0.7, 0.9, purpose=0.94, weighed=0.9),
        ),
        # Lessons about slips, and openings alone, make a base forget whole replies: 2 % of those it may give
        # were wrong before "slips", and 22 % after "tell-long". So whole replies end the recipe.
        _tell("tell", steps=700, batch_size=16, rate=8e-3),
        _tell("tell-long", steps=400, batch_size=8, rate=6e-3),
        _tell("tell-more", steps=700, batch_size=12, rate=6e-3),
        _tell("tell-second", steps=500, batch_size=16, rate=5e-3),
        _tell("whole", steps=900, batch_size=12, rate=6e-3),
        # The last gate has to be passed. It asks for a little less than the worst bases had from which Stages
        # II and III were seen to rise (devices 66.5, purposes 82.5, steps asked for 92 and `weigh:` 87.5 %),
        # and was set after those runs.
        replace(
            _tell("whole-more", steps=600, batch_size=12, rate=3.5e-3),
            gate=_gate("describe", 0.6, 0.9, purpose=0.8, asked=0.9, weighed=0.85),
            extensions=2,
        ),
    )


def _tell(name: str, steps: int, batch_size: int, rate: float) -> Phase:
    settings = _muon(
        steps=steps, batch_size=batch_size, lr=rate / 6, muon_lr=rate, warmup=5, per_dialogue=True
    )
    return Phase(name, settings, _gate("describe", 0.7, 0.9, purpose=0.85, asked=0.95), extensions=0)


def _further(number: int) -> Phase:
    """More long dialogues, at rates that go on falling."""
    left, after = 1 - number / 4, max(0.05, 1 - (number + 1) / 4)
    settings = _muon(
        steps=500,
        batch_size=8,
        lr=2e-3 * left,
        muon_lr=1.2e-2 * left,
        final_lr=after / left,
        warmup=5,
        per_dialogue=True,
    )
    # The purpose is told no better than before: the gate sees that nothing is lost.
    gate = _gate("describe", 0.7, 0.9, purpose=0.85, asked=0.95, weighed=0.88)
    return Phase(f"more-{number + 1}", settings, gate, extensions=0)


@config(frozen=True, slots=True)
class DemoConfig:
    """Settings of the demo.

    Attributes:
        seed: Decides weights, data, sampling and order.
        model: Shape of the tiny model.
        base: Phases of the base, see `recipe_data.base_data`.
        sft: Stage II.
        sft_dialogues: Dialogues played for Stage II, before filtering.
        sft_turns: Most turns of a Stage II dialogue.
        sft_pairs: Dialogues over lookalikes, of up to two turns more, that are searched for those in which a
            single step or a use is asked for after harm was stated; each found comes with its calm twin. 0
            for none.
        sft_taken_back: Whether Stage II's dialogues, also beside Stage III's reward, ask `recall` with three
            answers, see `bootstrap.recollection`.
        sft_keeps_tell: Whether none of their replies begins with the base's tell, see `bootstrap.KeepsTell`.
        sft_strategies: The strategies Stage II gets to see.
        sft_attacker: Attacker of Stage II, "tutor" or "static".
        grpo: Stage III.
        grpo_turns: Most turns of a Stage III dialogue.
        grpo_shares: How often each member of the contrast groups is played in Stage III, see `Shares`.
        grpo_imitation: Weight of Stage II's dialogues beside Stage III's reward, see `Demonstrations`; 0 for
            none.
        grpo_imitated: How many of them an update imitates.
        grpo_judge: Who judges in Stage III. A reply that the rules cannot place is the worst there is:
            masked, it has no gradient, and a student drifts into it.
    """

    seed: Natural = 0
    model: TinyConfig = field(
        default_factory=lambda: TinyConfig(vocab_size=1536, layers=3, mlp=224, init_std=0.1)
    )
    base: tuple[Phase, ...] = field(default_factory=_phases)
    sft: SFTConfig = field(default_factory=lambda: SFTConfig(steps=120, batch_size=8, lr=2e-3, warmup=5))
    sft_dialogues: Positive = 800
    sft_turns: Positive = 3
    sft_pairs: Natural = 0
    sft_taken_back: Switch = True
    sft_keeps_tell: Switch = True
    sft_strategies: tuple[str, ...] = STRATEGIES[:2]
    sft_attacker: Literal["tutor", "static"] = "tutor"
    grpo: GRPOConfig = field(
        default_factory=lambda: GRPOConfig(
            steps=24,
            seeds_per_step=10,
            group_size=5,
            lr=1.2e-3,
            warmup=3,
            lr_schedule="cosine",
            final_lr=0.1,
            average="tail",
            final_weights="average",
            credit="own_turn",
            # Complying wrongly costs twice what refusing wrongly does: unscaled it drowns the other lesson.
            scale=True,
            # To refuse is learnt soon and overdone. Where all siblings refuse what may be told, none is
            # better than another, and only the KL penalty and the imitation pull back.
            beta=0.05,
            # Two updates per step: more of them, each of fewer dialogues, are noisier and drift further.
            minibatch_size=25,
            temperature=1.0,
            max_new_tokens=REPLY_TOKENS,
            checkpoint_every=5,
            # A student of short dialogues garbles some replies to long ones; it unlearns that.
            unscored_limit=0.25,
        )
    )
    grpo_turns: Positive = 8
    # What may be told of a hazard hangs on the steps that were asked for before, and is learnt last.
    grpo_shares: tuple[float, ...] = (1.4, 1.6, 1.2, 0.6)
    grpo_imitation: Amount = 0.3
    grpo_imitated: Positive = 8
    grpo_judge: str = "rule?unread=worst"

    @classmethod
    def quick(cls, seed: int = 0) -> DemoConfig:
        """Return settings with which every stage runs through in seconds and learns nothing."""
        few = SFTConfig(steps=2, batch_size=4)
        base = tuple(replace(phase, settings=few, gate=Gate(count=4)) for phase in _phases())
        config = cls(seed=seed, base=base, sft=few, sft_dialogues=8, sft_pairs=8)
        return replace(
            config, grpo=replace(config.grpo, steps=2, seeds_per_step=2, group_size=2), grpo_turns=3
        )


def stage_settings(config: DemoConfig, name: str) -> dict[str, Any]:
    """Return what a stage (or `IMITATION`) depends on, beside the stage before it, as JSON values."""
    if name == IMITATION:
        return stage_settings(imitation_alone(config), "sft")
    # A part that is left out has no setting: rows of runs from before there was one keep their keys.
    parts = tuple(part for part in ("sft_pairs", "sft_taken_back", "sft_keeps_tell") if getattr(config, part))
    dialogues = ("sft_dialogues", "sft_turns", "sft_strategies", "sft_attacker", *parts)
    imitated = ("grpo_imitation", "grpo_imitated", *dialogues) if config.grpo_imitation else ()
    fields = {
        "base": ("seed", "model", "base"),
        "sft": ("seed", "sft", *dialogues),
        "grpo": ("seed", "grpo", "grpo_turns", "grpo_shares", "grpo_judge", *imitated),
    }
    whole = asdict(config)
    # Through JSON, which has no tuples, so that they compare equal to what a stage's folder holds.
    settings: dict[str, Any] = json.loads(json.dumps({key: whole[key] for key in fields[_known(name)]}))
    return settings


def build(
    config: DemoConfig,
    name: str,
    folder: str | Path,
    *,
    before: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Build one stage and save its model in `folder/model`.

    Args:
        config: Settings.
        name: "base", "sft", "grpo" or "imitation".
        folder: Where the stage's files go.
        before: Model folder of the stage before; not needed for "base".
        resume: Go on with an interrupted stage: "base" and "grpo" from their last checkpoint.
        progress: Called after every step.

    Returns:
        The model folder.

    Raises:
        ValueError: On an unknown stage, or if `before` is missing.
        GateFailed: If the base is blind, or fails its last gate.
    """
    folder = Path(folder)
    if _known(name) == "base":
        student = train_base(config, folder, progress)
    elif before is None:
        raise ValueError(f"before=None for stage {name!r}, expected the model folder of the stage before it")
    elif name in ("sft", IMITATION):
        student = train_sft(config if name == "sft" else imitation_alone(config), before, progress)
    else:
        student = train_grpo(config, before, folder, resume, progress)
    with replacing_folder(folder / "model") as part:
        student.save(part)
    return folder / "model"


def train_base(
    config: DemoConfig, folder: str | Path, progress: Progress | None = None, *, strict: bool = True
) -> HFStudent:
    """Train the helpful-only base from random weights, or go on with what `folder` holds of it.

    Without `strict` no gate stops it.
    """
    student = HFStudent(*build_tiny(all_texts(pretrain=True), config.model, config.seed), name="base")
    data = lambda name, count, extension: base_data(name, count, config.seed + 1000 * extension)  # noqa: E731
    pretrain(student, config.base, data, folder, config.seed, progress, strict=strict)
    return student


def cold_start(config: DemoConfig) -> list[list[Exchange]]:
    """Return Stage II's dialogues: those of a constructive student that the judge found good.

    Whole contrast groups: the same words with another picture or another history, and another right answer.
    What is right over a lookalike hangs on the history alone and is learnt last, and in short dialogues most
    requests are for all steps at once. So there are also pairs over lookalikes, a little longer, in which a
    single step or a use is asked for, after harm was stated and after none was.
    """
    count, members = config.sft_dialogues, len(CELLS)
    first = -(-count // members) * members  # where the next whole group begins
    seeds = data_seeds(config.seed, 3, first + members * config.sft_pairs)
    dialogues = _ideal(config, config.sft_turns, seeds[:count])
    if config.sft_pairs:
        turns, pairs = config.sft_turns + 2, seeds[first:]
        harmful = _ideal(config, turns, pairs[CELLS.index("lookalike/intent") :: members])
        harmful = {seed: dialogue for seed, dialogue in harmful.items() if follow_up(dialogue)}
        calm = CELLS.index("lookalike/calm") - CELLS.index("lookalike/intent")
        dialogues |= harmful | _ideal(config, turns, [seed + calm for seed in harmful])
    return [told(dialogue, taken_back=config.sft_taken_back) for dialogue in dialogues.values()]


def _ideal(config: DemoConfig, turns: int, seeds: Sequence[int]) -> dict[int, Trajectory]:
    """Return the good ones among a constructive student's dialogues of at most `turns` turns, by seed."""
    if not seeds:
        return {}
    strategies = config.sft_strategies
    source = WorldSource(split="sft", strategies=strategies, max_turns=turns)
    tutor = ScriptedTutor(seed=config.seed, strategies=strategies, memory=False)
    student = KeepsTell if config.sft_keeps_tell else Constructive
    played = rollout(
        world_env(turns, strategies=strategies),
        tutor if config.sft_attacker == "tutor" else StaticAttacker(),
        student(seed=config.seed),
        seeds,
        scenarios=source.scenario,
    )
    return {seed: dialogue for seed, dialogue in zip(seeds, played, strict=True) if keep(dialogue)}


def train_sft(config: DemoConfig, before: str | Path, progress: Progress | None = None) -> HFStudent:
    """Stage II: imitate, see `cold_start`."""
    student = HFStudent.from_pretrained(before, name="sft")
    data = cold_start(config)
    with frozen_vision(student):
        sft.train(student, data, replace(config.sft, seed=config.seed), progress=progress)
    return student


def imitation_alone(config: DemoConfig) -> DemoConfig:
    """Return the settings of the control: Stage II shows as many dialogues as both stages imitate.

    Where Stage III imitates nothing, they are those of Stage II.
    """
    sft, grpo = config.sft, config.grpo
    played = grpo.seeds_per_step * grpo.group_size
    updates = grpo.steps * grpo.epochs * -(-played // (grpo.minibatch_size or played))
    more = -(-updates * config.grpo_imitated // sft.batch_size) if config.grpo_imitation else 0
    return replace(config, sft=replace(sft, steps=sft.steps + more))


def train_grpo(
    config: DemoConfig,
    before: str | Path,
    folder: str | Path,
    resume: bool = False,
    progress: Progress | None = None,
) -> HFStudent:
    """Stage III: GRPO against the adaptive tutor, with `grpo_imitation` beside `cold_start`'s dialogues."""
    student = HFStudent.from_pretrained(before, name="grpo")
    settings = replace(config.grpo, seed=config.seed)
    slots = settings.seeds_per_step * settings.group_size
    source = Shares(WorldSource(split="train", max_turns=config.grpo_turns), config.grpo_shares)
    env = steer_env.make_vec(ENV, slots, scenarios=source, judge=config.grpo_judge)
    demonstrations = None
    if config.grpo_imitation:
        demonstrations = Demonstrations(cold_start(config), config.grpo_imitation, config.grpo_imitated)
    with frozen_vision(student):
        trainer.train(
            env,
            ScriptedTutor(seed=config.seed),
            student,
            settings.algorithm(),
            settings,
            folder,
            resume=resume,
            progress=progress,
            demonstrations=demonstrations,
        )
    return student


def _known(name: str) -> str:
    if name not in (*STAGES, IMITATION):
        raise ValueError(f"stage={name!r}, expected one of {', '.join((*STAGES, IMITATION))}")
    return name
