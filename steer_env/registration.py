"""The functions that make environments from ids, attackers and judges from names.

Ids are registered with PettingZoo (the two-seat game) and with Gymnasium (the student's view) when
`steer_env` is imported. Specs hold names and plain options only: Gymnasium deep-copies them, so a model in a
spec would be copied too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from steer_env import checks, naming
from steer_env.ids import ACTS, NAMESPACE, SPECS, Spec, spec
from steer_env.types import ATTACKER

if TYPE_CHECKING:
    from pettingzoo import AECEnv

    from steer_env.configs.env import EnvConfig, EnvOptions
    from steer_env.ids import Scenarios
    from steer_env.judges.base import Judge
    from steer_env.scenarios import ScenarioSource
    from steer_env.student_env import StudentEnv, StudentVectorEnv
    from steer_env.vector import VectorDialogueEnv


def register(
    id: str,
    *,
    summary: str = "",
    scenarios: Scenarios | None = None,
    judge: str | Judge = "rule",
    wrappers: Sequence[str | Callable[[Any], Any]] | None = None,
    attacker: str = "tutor",
    **world: Any,
) -> None:
    """Make an environment of your own known to `make`, `make_vec`, `gymnasium.make` and the command line.

    What is given as a name is opened when an environment is made, so registering is cheap.

    Args:
        id: Such as "MyEnv-v0"; Gymnasium knows it as "steer_env/MyEnv-v0".
        summary: One line for people.
        scenarios: See `make`; None is the built-in world.
        judge: Name or object; where "rule" is asked for, which is the default, this one scores.
        wrappers: See `make`; None are the usual ones.
        attacker: Name of the attacker that plays where none is named.
        **world: Options of the built-in world, without `scenarios`.

    Raises:
        ValueError: If the id is taken or no id, or `world` is given beside `scenarios`.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+-v\d+", id):
        raise ValueError(
            f"id={id!r}, expected a name of letters and digits with a version, such as 'MyEnv-v0'"
        )
    if world and scenarios is not None:
        raise ValueError(f"{', '.join(world)}: chosen within the built-in world, but scenarios= was given")
    made = Spec(id, summary or id, attacker, world, scenarios, judge, wrappers)
    if SPECS.get(id, made) != made:
        raise ValueError(f"id={id!r} is taken; choose another name or version")
    SPECS[id] = made
    register_all()


def make(id: str | EnvConfig = "SteerEscalation-v0", **options: Unpack[EnvOptions]) -> AECEnv[str, Any, Any]:
    """Return the two-seat PettingZoo AEC environment of an id, with rewards and TCSR on.

    Args:
        id: See `env_ids()`; or an `EnvConfig`, which holds all that can be named.
        **options: Fields of `EnvConfig`, with their meaning there; None is the default of each. Also:
            wrappers: Sequence of callables `env -> env` or their names (of `steer_env.wrappers`, or your own
                as `module:Object` or `file.py:Object`), applied inside out; `()` gives the bare environment.
                Default: `TurnReward`, then `TCSR`.
            judge: "rule" (default), another name (`steer_env.judges.names`), None for nobody, or an object
                with `judge(requests)`, such as the tutor that attacks.
            scenarios: A JSONL file, `DATASET:[SPLIT:]ROOT` (a dataset of `steer_env.data.DATASETS`), a list
                of `Scenario`, any `ScenarioSource`, or your own by name; default the built-in world.
            render_mode: "human", "ansi" or "rgb_array".

    Raises:
        ValueError: On an unknown id, option or value; the message lists the known ones.

    >>> env = make("SteerEscalation-v0")
    >>> env.reset(seed=0); env.agent_selection
    'attacker_0'
    """
    return _builder(id, options)()


def make_vec(
    id: str | EnvConfig = "SteerEscalation-v0", num_envs: int = 8, **options: Unpack[EnvOptions]
) -> VectorDialogueEnv:
    """Return `num_envs` dialogues in one process, batched by seat; options as for `make`.

    The slots share one scenario source and one judge.
    """
    from steer_env.vector import VectorDialogueEnv

    return VectorDialogueEnv([_builder(id, options)] * checks.integer("num_envs", num_envs, 1))


def make_student_env(
    id: str = "SteerEscalation-v0", attacker: Any = None, **options: Unpack[EnvOptions]
) -> StudentEnv:
    """Return the student's Gymnasium view; `attacker` is a name, an agent object, or None for the id's own.

    With `judge="tutor"` the attacker, a model, judges too (`make_seats`). `gymnasium.make("steer_env/" + id)`
    calls this. Pass a model-backed attacker here, or by name, rather than as an object through
    `gymnasium.make`, which deep-copies what is in a spec.
    """
    from steer_env.student_env import StudentEnv

    _check_names(spec(id), options)
    player, options["judge"] = make_seats(id, attacker, options.get("judge", "rule"))
    return StudentEnv(make(id, **options), player)


def make_student_vec(
    id: str = "SteerEscalation-v0",
    num_envs: int = 8,
    attacker: Any = None,
    **options: Unpack[EnvOptions],
) -> StudentVectorEnv:
    """Return Gymnasium's vector view of the student's seat; see `make_student_env`.

    Raises:
        ValueError: As `make_vec`, and on `render_mode="human"`.
    """
    from steer_env.student_env import StudentVectorEnv

    render_mode = options.get("render_mode")
    if render_mode == "human":
        raise ValueError(
            "render_mode='human' would print all dialogues over each other; pass 'ansi' or 'rgb_array' and "
            "call render()"
        )
    _check_names(spec(id), options)
    player, options["judge"] = make_seats(id, attacker, options.get("judge", "rule"))
    return StudentVectorEnv(make_vec(id, num_envs, **options), player, render_mode)


def make_attacker(id: str, attacker: Any = None) -> Any:
    """Return the attacker object for an id: None takes the spec's, a string is looked up by name."""
    from steer_env.agents import make_agent

    attacker = spec(id).attacker if attacker is None else attacker
    return make_agent(attacker, seat=ATTACKER) if isinstance(attacker, str) else attacker


def make_seats(id: str, attacker: Any = None, judge: Any = "rule") -> tuple[Any, Judge | None]:
    """Return attacker and judge of an id.

    `judge="tutor"` gives one object in both places: the attacker, which must be a model (an `LLMTutor`). One
    call per state then scores the reply and writes the next question.

    Args:
        id: See `env_ids()`.
        attacker: See `make_attacker`.
        judge: "tutor", or see `make_judge`.

    Raises:
        ValueError: If a name is unknown, or the attacker cannot judge.
        BackendError: If a model cannot be opened, or a server cannot answer.
    """
    from steer_env.judges.base import Judge
    from steer_env.judges.names import TUTOR

    player, judge = make_attacker(id, attacker), _judge_of(spec(id), judge)
    if not (isinstance(judge, str) and judge.strip() == TUTOR):
        return player, make_judge(judge)
    if not isinstance(player, Judge):
        raise ValueError(
            f"judge={judge!r} is the model in the attacker's seat, but attacker={attacker!r} is a script; "
            "name a model there, such as openai:MODEL@URL, or use judge='rule'"
        )
    return player, player


def _judge_of(chosen: Spec, judge: Any) -> Any:
    """Return who is to score: an id's own judge stands in the place of the rule judge."""
    return chosen.judge if isinstance(judge, str) and judge == "rule" else judge


def make_judge(judge: Any) -> Judge | None:
    """Return a judge: a name (`steer_env.judges.names`), None, or an object passed through."""
    if isinstance(judge, str):
        from steer_env.judges.names import open_judge

        return open_judge(judge)
    return judge


def make_source(config: EnvConfig, scenarios: Any = None) -> ScenarioSource:
    """Return the scenario source that a config asks for, or that of `scenarios`, an object in its place."""
    from steer_env.configs.env import WORLD

    chosen = spec(config.env)
    given = config.changed(("split", *WORLD))
    scenarios = own_scenarios(config) if scenarios is None else scenarios
    if scenarios is None:
        from steer_env.world import WorldSource

        return WorldSource(**{"split": "train", **chosen.world, **given})
    if given:
        raise ValueError(
            f"{', '.join(given)}: chosen within the built-in world, without effect on "
            f"scenarios={scenarios!r}; filter the scenarios yourself"
        )
    return _source_of(scenarios)


def own_scenarios(config: EnvConfig) -> Scenarios | None:
    """Return what a config plays in place of the built-in world, as it is named; None where it plays that."""
    return spec(config.env).scenarios if config.scenarios is None else config.scenarios


def _source_of(scenarios: Scenarios) -> ScenarioSource:
    from steer_env.data.loaders import dataset_of
    from steer_env.scenarios import FixedScenarios, ScenarioSource

    if naming.is_reference(scenarios) and dataset_of(scenarios) is None:
        scenarios = naming.make(str(scenarios))
    if isinstance(scenarios, str | Path):
        from steer_env.scenario_files import load_scenarios

        return FixedScenarios(load_scenarios(scenarios))
    if isinstance(scenarios, ScenarioSource):
        return scenarios
    if not isinstance(scenarios, Sequence):
        raise TypeError(
            f"scenarios={scenarios!r}, expected a JSONL file, DATASET:[SPLIT:]ROOT, a list of Scenario, an "
            f"object with sample(rng), or {naming.EXPECTED}"
        )
    return FixedScenarios(scenarios)  # type: ignore[arg-type]


#: Options that are objects, or may be.
_OBJECTS = ("wrappers", "judge", "scenarios", "render_mode")


def _builder(id: str | EnvConfig, options: EnvOptions) -> Callable[[], Any]:
    """Check all options once and return what makes an environment; source and judge are shared."""
    from steer_env.configs.env import EnvConfig

    if not isinstance(id, EnvConfig):
        id = EnvConfig(env=spec(id).id)
    chosen = spec(id.env)
    _check_names(chosen, options)
    named: dict[str, Any] = {k: v for k, v in options.items() if v is not None and k not in _OBJECTS}
    config = replace(id, **named)
    given = options.get("wrappers")
    if given is None:
        given = config.wrappers or chosen.wrappers
    wrappers = _wrappers(config, given)
    source = make_source(config, options.get("scenarios"))
    judge = make_judge(_judge_of(chosen, options.get("judge", config.judge)))
    return partial(_build, config, chosen.id, source, judge, wrappers, options.get("render_mode"))


def _build(
    config: EnvConfig,
    name: str,
    source: ScenarioSource,
    judge: Judge | None,
    wrappers: Sequence[Callable[[Any], Any]],
    render_mode: str | None,
) -> Any:
    from steer_env.env import DialogueEnv

    env: Any = DialogueEnv(
        source,
        judge,
        max_cycles=config.max_cycles,
        max_length=config.max_length,
        attacker_pictures=config.attacker_pictures,
        render_mode=render_mode,
        name=name,
    )
    for wrapper in wrappers:
        env = wrapper(env)
    return env


def _wrappers(config: EnvConfig, given: Any) -> Sequence[Callable[[Any], Any]]:
    """Return the wrappers that were given, else the default ones."""
    from steer_env.configs.env import REWARD
    from steer_env.wrappers import TCSR, TurnReward
    from steer_env.wrappers.names import open_wrappers

    if given is None:
        reward = partial(TurnReward, weights=config.weights, normalization=config.normalization)
        return (reward, partial(TCSR, alpha=config.alpha, returns=config.returns))
    made = open_wrappers(given)
    clash = config.changed(REWARD)
    if clash:
        raise ValueError(
            f"{', '.join(clash)} configure the default wrappers, but wrappers= was given; set them on "
            "your wrappers"
        )
    return made


def _check_names(chosen: Spec, options: Mapping[str, Any]) -> None:
    from steer_env.configs.env import EnvOptions

    known = tuple(EnvOptions.__annotations__)
    for name, value in options.items():
        if name not in known:
            near = checks.suggestion(name, known)
            raise ValueError(f"{name}={value!r} is no option of {chosen.id}{near}; known: {', '.join(known)}")


# Gymnasium and PettingZoo have an argument `id` of their own, so a spec must not hold one.


def _entry(env_id: str, **options: Any) -> AECEnv[str, Any, Any]:
    return make(env_id, **options)


def _student_entry(env_id: str, **options: Any) -> StudentEnv:
    return make_student_env(env_id, **options)


def _student_vec_entry(env_id: str, **options: Any) -> StudentVectorEnv:
    return make_student_vec(env_id, **options)


def register_all() -> None:
    """Register every id with PettingZoo and, under "steer_env/", with Gymnasium. Safe to call again."""
    import gymnasium
    import pettingzoo

    for id in SPECS:
        if id not in pettingzoo.aec_registry:
            pettingzoo.register("aec", id, f"{__name__}:_entry", kwargs={"env_id": id})
        name = f"{NAMESPACE}/{id}"
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point=f"{__name__}:_student_entry",
                vector_entry_point=f"{__name__}:_student_vec_entry",
                kwargs={"env_id": id},
                # Utterances longer than max_length are refused by the environment itself.
                disable_env_checker=True,
                order_enforce=False,
            )
    if ACTS not in gymnasium.registry:
        gymnasium.register(
            ACTS,
            entry_point="steer_env.acts.env:ActsEnv",
            vector_entry_point="steer_env.acts.vector:ActsVectorEnv",
            disable_env_checker=True,
            order_enforce=False,
        )
