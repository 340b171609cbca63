"""Evaluating from Python, the short way: an environment, a student, a table."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from steer_env.agents import Acts, as_agent, make_agent, name_of
from steer_env.configs.env import EnvConfig
from steer_env.evaluation.summary import Summary
from steer_env.evaluation.tables import table
from steer_env.ids import SPECS, spec
from steer_env.play import evaluate as whole
from steer_env.registration import make_seats, make_vec, own_scenarios
from steer_env.scenarios import FixedScenarios
from steer_env.types import ATTACKER, STUDENT
from steer_env.vector import VectorDialogueEnv


def evaluate(
    env: str | EnvConfig | Any = "SteerEscalation-v0",
    student: str | Acts = "constructive",
    *,
    attacker: str | Acts | None = None,
    judge: Any = "rule",
    episodes: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    num_envs: int = 32,
    show: bool = True,
    unscored_limit: float = 1.0,
    **options: Any,
) -> Summary:
    """Play dialogues against a student, print the table, and return the numbers.

    Args:
        env: An id or a config, whose dialogues are those of the split "bench" unless another is named; or an
            environment of `make` or `make_vec`, which is played as it is.
        student: Name (`make_agent`), or an object with `act(observations)`.
        attacker: The same; None is the environment's own.
        judge: See `make`; not beside an environment that is made already.
        episodes: Dialogues, of the built-in world rounded up to whole groups; None is each one of a list of
            scenarios once, else 100.
        seed: First seed.
        out: Run folder, which `report`, `compare` and `rescore` read; None keeps nothing.
        resume: Go on with the run in `out`.
        num_envs: Dialogues at a time.
        show: Print the table.
        unscored_limit: Stop when more than this share of the turns, beyond chance, has no verdict.
        **options: Of `make`, such as `scenarios` or `split`.

    Raises:
        ValueError: If a name is unknown, or options are given beside an environment that is made already.
        TypeError: If `env` is an environment of another kind.

    Example:
        >>> steer_env.evaluate("SteerBenign-v0", "refuse", episodes=8)  # doctest: +SKIP
    """
    if isinstance(env, str | EnvConfig):
        vec, player = _named(env, attacker, judge, num_envs, options)
    else:
        vec, player = _made(env, attacker, judge, options)
    speaker = make_agent(student, seat=STUDENT) if isinstance(student, str) else as_agent(student)
    source = whole.source_of(vec)
    listed = tuple(source) if isinstance(source, FixedScenarios) else None
    count = episodes or (100 if listed is None else len(listed))
    name = student if isinstance(student, str) else name_of(student)
    meta = {"student": name} | ({"attacker": attacker} if isinstance(attacker, str) else {})
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory()) if out is None else out
        summary = whole.evaluate(
            vec,
            player,
            speaker,
            range(seed, seed + count),
            folder,
            resume=resume,
            scenarios=listed,
            meta=meta,
            unscored_limit=unscored_limit,
        )
    if show:
        print(table({name: summary}))
    return summary


def _named(env: Any, attacker: Any, judge: Any, num_envs: int, options: Any) -> tuple[Any, Acts]:
    config = env if isinstance(env, EnvConfig) else EnvConfig(env=spec(env).id)
    if options.get("scenarios") is None and own_scenarios(config) is None:
        config = replace(config, split=options.pop("split", None) or config.split or "bench")
    attacker = config.attacker if attacker is None else attacker
    if isinstance(judge, str) and judge == "rule":
        judge = config.judge
    player, judge = make_seats(config.env, attacker, judge)
    return make_vec(config, num_envs, judge=judge, **options), player


def _same(env: Any) -> Any:
    return env


def _made(env: Any, attacker: Any, judge: Any, options: Any) -> tuple[Any, Acts]:
    given = [*options, *([] if isinstance(judge, str) and judge == "rule" else ["judge"])]
    if given:
        raise ValueError(
            f"{', '.join(given)} beside an environment that is made already; give them to `make`"
        )
    if not hasattr(env, "envs"):
        if ATTACKER not in getattr(env, "possible_agents", ()):
            raise TypeError(f"env={env!r:.100}, expected an id, or an environment of make or make_vec")
        env = VectorDialogueEnv([partial(_same, env)])
    if attacker is None:
        known = SPECS.get(str(whole.core_of(env).metadata.get("name")))
        attacker = known.attacker if known else "tutor"
    return env, make_agent(attacker, seat=ATTACKER) if isinstance(attacker, str) else as_agent(attacker)
