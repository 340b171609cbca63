"""The demo's recipe: a tiny model from nothing to Stage III, offline, in minutes on two CPU cores.

Three stages, each a function of the settings and of the stage before:

- **base**: sees and answers everything, so it leaks. First captions only (a model that cannot see learns to
  guess from the text), then short dialogues, then long ones, some with a user who presses after a refusal.
  Part of it is plain talk about the devices of both families (`split="pretrain"`): like a pretrained model it
  knows the things of the out-of-distribution family, and has seen none of its attacks.
- **sft** (Stage II): imitates ideal replies in a few *short* dialogues under *some* strategies. Unseen
  strategies, long contexts and intent put together late stay open on purpose.
- **grpo** (Stage III): group-relative policy optimisation against the adaptive tutor, TCSR as return.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import steer_env
from steer_env.agents.attackers import StaticAttacker
from steer_env.agents.hf.codec import Exchange
from steer_env.agents.hf.student import HFStudent
from steer_env.agents.hf.tiny import TinyConfig
from steer_env.agents.hf.tiny import build as build_tiny
from steer_env.agents.scripted import AlwaysComply, Constructive
from steer_env.agents.tutor import ScriptedTutor
from steer_env.algorithms import grpo, sft
from steer_env.algorithms.bootstrap import Wavering, captions, exchanges, keep, play, recitations, shuffled
from steer_env.algorithms.grpo import GRPOConfig
from steer_env.algorithms.sft import SFTConfig
from steer_env.rollout import VectorEnv
from steer_env.scenarios import STRATEGIES
from steer_env.world.play import all_texts

ENV = "SteerEscalation-v0"
STAGES = ("base", "sft", "grpo")
#: Longest reply in tokens; the longest ideal one has 42.
REPLY_TOKENS = 44

#: Most different examples per phase: more of them cost encoding time and memory and teach nothing new.
UNIQUE = 4000
#: Share of captions, of short and of long dialogues of the base that are about the devices of both families.
PLAIN_SHARES = (0.65, 0.55, 0.33)

Row = dict[str, Any]
#: Called with finished steps, all steps of the stage, and the last step's metrics.
Progress = Callable[[int, int, Row], None]


def _muon(**settings: Any) -> SFTConfig:
    return SFTConfig(optimizer="muon", **settings)


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """Settings of the demo.

    Attributes:
        seed: Decides weights, data, sampling and order.
        model: Shape of the tiny model.
        see: Base, first phase: captions.
        short: Base, second phase: dialogues of 2 to 4 turns.
        long: Base, third phase: dialogues of 2 to 10 turns.
        sft: Stage II.
        sft_dialogues: Dialogues played for Stage II, before filtering.
        sft_turns: Most turns of a Stage II dialogue.
        sft_strategies: The strategies Stage II gets to see.
        sft_attacker: Red agent of Stage II, "tutor" or "static".
        grpo: Stage III.
        grpo_turns: Most turns of a Stage III dialogue.
    """

    seed: int = 0
    model: TinyConfig = field(default_factory=lambda: TinyConfig(vocab_size=1536, init_std=0.1))
    see: SFTConfig = field(default_factory=lambda: _muon(steps=300, batch_size=64, final_lr=0.9))
    # A text model this small is short of updates, not of gradient quality: small batches.
    short: SFTConfig = field(default_factory=lambda: _muon(steps=1100, batch_size=8, lr=5e-3, final_lr=0.4))
    long: SFTConfig = field(
        default_factory=lambda: _muon(steps=350, batch_size=8, lr=8e-4, muon_lr=8e-3, warmup=0)
    )
    sft: SFTConfig = field(
        default_factory=lambda: _muon(steps=80, batch_size=8, lr=5e-4, muon_lr=4e-3, warmup=5)
    )
    sft_dialogues: int = 200
    sft_turns: int = 3
    sft_strategies: tuple[str, ...] = STRATEGIES[:2]
    sft_attacker: str = "tutor"
    grpo: GRPOConfig = field(
        default_factory=lambda: GRPOConfig(
            steps=30,
            seeds_per_step=10,
            group_size=5,
            lr=8e-4,
            warmup=3,
            beta=0.05,
            # Two updates per step: more of them, each of fewer dialogues, are noisier and drift further.
            minibatch_size=25,
            temperature=1.0,
            max_new_tokens=REPLY_TOKENS,
            checkpoint_every=15,
        )
    )
    grpo_turns: int = 10

    @classmethod
    def quick(cls, seed: int = 0) -> DemoConfig:
        """Return settings with which every stage runs through in seconds and learns nothing."""
        few = SFTConfig(steps=2, batch_size=4)
        config = cls(seed=seed, see=few, short=few, long=few, sft=few, sft_dialogues=8)
        return replace(
            config, grpo=replace(config.grpo, steps=2, seeds_per_step=2, group_size=2), grpo_turns=3
        )


def stage_settings(config: DemoConfig, name: str) -> dict[str, Any]:
    """Return what a stage depends on, beside the stage before it, as JSON values."""
    fields = {
        "base": ("seed", "model", "see", "short", "long"),
        "sft": ("seed", "sft", "sft_dialogues", "sft_turns", "sft_strategies", "sft_attacker"),
        "grpo": ("seed", "grpo", "grpo_turns"),
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
        name: "base", "sft" or "grpo".
        folder: Where the stage's files go.
        before: Model folder of the stage before; not needed for "base".
        resume: Go on with an interrupted stage; only "grpo" is long enough to have something to go on with.
        progress: Called after every step.

    Returns:
        The model folder.

    Raises:
        ValueError: On an unknown stage, or if `before` is missing.
    """
    folder = Path(folder)
    if _known(name) == "base":
        student = train_base(config, progress)
    elif before is None:
        raise ValueError(f"before=None for stage {name!r}, expected the model folder of the stage before it")
    elif name == "sft":
        student = train_sft(config, before, progress)
    else:
        student = train_grpo(config, before, folder, resume, progress)
    student.save(folder / "model")
    return folder / "model"


def train_base(config: DemoConfig, progress: Progress | None = None) -> HFStudent:
    """Train the helpful-only base from random weights."""
    student = HFStudent(*build_tiny(all_texts(pretrain=True), config.model, config.seed), name="base")
    phases = (config.see, config.short, config.long)
    total = sum(phase.steps for phase in phases)
    done = 0
    for phase, make in zip(phases, (_caption_data, _short_data, _long_data), strict=True):
        data = make(phase.steps * phase.batch_size, config.seed)
        _tune(student, data, replace(phase, seed=config.seed), done, total, progress)
        done += phase.steps
    return student


def train_sft(config: DemoConfig, before: str | Path, progress: Progress | None = None) -> HFStudent:
    """Stage II: imitate a constructive student in short dialogues that the judge found good."""
    student = HFStudent.from_pretrained(before, name="sft")
    env = _env(config.sft_turns, strategies=config.sft_strategies)
    seeds = data_seeds(config.seed, 3, config.sft_dialogues)
    tutor = ScriptedTutor(seed=config.seed, strategies=config.sft_strategies, memory=False)
    red = tutor if config.sft_attacker == "tutor" else StaticAttacker()
    played = play(env, red, Constructive(seed=config.seed), seeds)
    data = [exchanges(trajectory) for trajectory in played if keep(trajectory)]
    _tune(student, data, replace(config.sft, seed=config.seed), 0, config.sft.steps, progress)
    return student


def train_grpo(
    config: DemoConfig,
    before: str | Path,
    folder: str | Path,
    resume: bool = False,
    progress: Progress | None = None,
) -> HFStudent:
    """Stage III: GRPO against the adaptive tutor."""
    student = HFStudent.from_pretrained(before, name="grpo")
    settings = replace(config.grpo, seed=config.seed)
    slots = settings.seeds_per_step * settings.group_size
    env = steer_env.make_vec(ENV, slots, split="train", max_turns=config.grpo_turns)
    tutor = ScriptedTutor(seed=config.seed)
    grpo.train(env, tutor, student, settings, folder, resume=resume, progress=progress)
    return student


def _tune(
    student: HFStudent,
    data: Sequence[sft.Dialogue],
    settings: SFTConfig,
    done: int,
    total: int,
    progress: Progress | None,
) -> None:
    tell = None if progress is None else lambda step, _, row: progress(done + step, total, row)
    sft.train(student, data, settings, progress=tell)


def _caption_data(count: int, seed: int) -> list[sft.Dialogue]:
    both, own = _share(min(count, UNIQUE), PLAIN_SHARES[0])
    start = data_seeds(seed, 0, 1).start
    return list(shuffled([captions("sft", own, start), captions("pretrain", both, start)], seed))


def _short_data(count: int, seed: int) -> list[sft.Dialogue]:
    count = min(count, UNIQUE)
    words = count // 6
    both, own = _share(count - words, PLAIN_SHARES[1])
    recited = [recitations(split, data_seeds(seed, 4, max(1, words // 2))) for split in ("sft", "pretrain")]
    return list(shuffled([_helpful_data(own, 4, seed, 1), _plain_data(both, 4, seed, 5), *recited], seed))


def _long_data(count: int, seed: int) -> Sequence[sft.Dialogue]:
    both, own = _share(min(count, UNIQUE), PLAIN_SHARES[2])
    return shuffled([_helpful_data(own, 10, seed, 2), _plain_data(both, 10, seed, 6)], seed)


def _share(count: int, share: float) -> tuple[int, int]:
    """Split a number of examples, at least one on either side."""
    part = min(max(1, round(share * count)), max(1, count - 1))
    return part, max(1, count - part)


def _plain_data(count: int, turns: int, seed: int, stream: int) -> list[list[Exchange]]:
    """Plain questions about the devices of both families, answered by a helpful-only policy."""
    env = _env(turns, split="pretrain", kinds=("benign", "obfuscated"))
    return [
        exchanges(t) for t in play(env, StaticAttacker(), AlwaysComply(seed), data_seeds(seed, stream, count))
    ]


def _helpful_data(count: int, turns: int, seed: int, stream: int) -> list[list[Exchange]]:
    """Helpful-only dialogues: half against the adaptive tutor, half along the seeds."""
    half = (min(count, UNIQUE) + 1) // 2
    seeds = data_seeds(seed, stream, 2 * half)
    tutor = ScriptedTutor(seed=seed, memory=False)
    pressed = play(_env(turns), tutor, Wavering(seed), seeds[:half])
    plain = play(_env(turns), StaticAttacker(), AlwaysComply(seed), seeds[half:])
    return shuffled([[exchanges(t) for t in part] for part in (pressed, plain)], seed)


def _env(turns: int, split: str = "sft", **options: Any) -> VectorEnv:
    env: VectorEnv = steer_env.make_vec(ENV, 64, split=split, wrappers=(), max_turns=turns, **options)
    return env


def data_seeds(seed: int, stream: int, count: int) -> range:
    """Reset seeds of a data stream; streams do not overlap."""
    start = (seed * 8 + stream) * 1_000_000
    return range(start, start + count)


def _known(name: str) -> str:
    if name not in STAGES:
        raise ValueError(f"stage={name!r}, expected one of {', '.join(STAGES)}")
    return name
