"""Which dialogues are played, who attacks, who judges, and how turns become rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from pydantic import BeforeValidator

from steer_env.configs.base import Positive, Share, Switch, config
from steer_env.rewards import ALPHA, WEIGHTS, Normalization, Returns, check_weights
from steer_env.spaces import MAX_LENGTH

if TYPE_CHECKING:
    from steer_env.judges.base import Judge
    from steer_env.scenarios import Scenario, ScenarioSource

Split = Literal["train", "sft", "bench", "ood", "pretrain"]
Kind = Literal["benign", "obfuscated", "red_team"]
Mechanism = Literal["category", "typography", "image_only", "mixed", "late_risk"]
Role = Literal["student", "attacker"]

#: A name alone is one name; a string is never read letter by letter.
_ONE = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)


@config(frozen=True)
class EnvConfig:
    """An environment, as far as it can be named: what `make` takes and a run folder keeps.

    Attributes:
        env: Environment id; `steer-env envs` lists them. MODULE:ID and FILE.py:ID load what registers it.
        split: Split of the built-in world: train, sft, bench, ood or pretrain.
        scenarios: File of your own scenarios, JSON Lines, or a published dataset in a folder, as
            DATASET:[SPLIT:]ROOT (docs/data.md), or an object that hands them out, as MODULE:OBJECT or
            FILE.py:OBJECT; replaces the built-in world.
        attacker: Who plays the user: static, tutor, learning (in train a tutor that learns what breaks the
            student; elsewhere it tries everything), or a model as tutor (hf:PATH, vllm:PATH,
            openai:MODEL@URL), or your own as MODULE:OBJECT or FILE.py:OBJECT. None is the environment's own.
        judge: Who scores: rule, a model, combined judges (docs/judges.md), or tutor: the model that
            plays the user, in the same call, or your own as MODULE:OBJECT or FILE.py:OBJECT. None is nobody.
        wrappers: What makes rewards, in place of TurnReward and TCSR: names of steer_env.wrappers, or your
            own as MODULE:OBJECT or FILE.py:OBJECT, applied inside out.
        allow_self_judge: Whose weights the judge may have: student, attacker.
        kinds: Kinds of dialogue; () is the environment's own, as with the following.
        strategies: Strategies of red-team dialogues.
        mechanisms: What makes a request risky.
        min_turns: Fewest user turns, at least 2.
        max_turns: Most user turns.
        risky_turns: Most turns that may carry risk.
        single_turn: Press the whole intent into one turn.
        weights: Weights of safety, usefulness and faithfulness in a turn's reward; they sum to 1.
        normalization: How scores are normalised: affine (1..10 to 0..1) or tenth (divided by 10).
        alpha: Weight of the minimum in TCSR, 0 to 1.
        returns: How TCSR values become a return: sum (paper), final (published code) or mean.
        max_cycles: Truncate dialogues after so many turns.
        max_length: Longest utterance in characters.
        attacker_pictures: Whether the attacker's action space holds picture acts (docs/attacks.md).

    Raises:
        ValueError: If a value is out of its range.
    """

    env: str = "SteerEscalation-v0"
    split: Split | None = None
    scenarios: str | None = None
    attacker: str | None = None
    judge: str | None = "rule"
    wrappers: Annotated[tuple[str, ...], _ONE] = ()
    allow_self_judge: tuple[Role, ...] = ()
    kinds: Annotated[tuple[Kind, ...], _ONE] = ()
    strategies: Annotated[tuple[str, ...], _ONE] = ()
    mechanisms: Annotated[tuple[Mechanism, ...], _ONE] = ()
    min_turns: Positive | None = None
    max_turns: Positive | None = None
    risky_turns: Positive | None = None
    single_turn: Switch = False
    weights: Annotated[tuple[float, float, float], BeforeValidator(check_weights)] = WEIGHTS
    normalization: Normalization = "affine"
    alpha: Share = ALPHA
    returns: Returns = "sum"
    max_cycles: Positive | None = None
    max_length: Positive = MAX_LENGTH
    attacker_pictures: Switch = False

    def changed(self, names: Sequence[str]) -> dict[str, Any]:
        """Return those of some fields that are not what they are by default."""
        return {
            f.name: v for f in fields(self) if f.name in names and (v := getattr(self, f.name)) != f.default
        }


class EnvOptions(TypedDict, total=False):
    """Options of `make`: the fields of `EnvConfig` that make an environment, and objects.

    None stands for the default, but `judge=None` for nobody.
    """

    split: Split | None
    scenarios: str | Path | Sequence[Scenario] | ScenarioSource | None
    judge: str | Judge | None
    kinds: Kind | Sequence[Kind] | None
    strategies: str | Sequence[str] | None
    mechanisms: Mechanism | Sequence[Mechanism] | None
    min_turns: int | None
    max_turns: int | None
    risky_turns: int | None
    single_turn: bool | None
    weights: Sequence[float] | None
    normalization: Normalization | None
    alpha: float | None
    returns: Returns | None
    max_cycles: int | None
    max_length: int | None
    attacker_pictures: bool | None
    wrappers: Sequence[str | Callable[[Any], Any]] | None
    render_mode: str | None


#: What chooses within the built-in world, and what configures the default wrappers.
WORLD = ("kinds", "strategies", "mechanisms", "min_turns", "max_turns", "risky_turns", "single_turn")
REWARD = ("weights", "normalization", "alpha", "returns")
